//! What a device costs through io_uring and through threads, both in turn on one file.
//!
//! `cargo run --release -p mpage-bench --example device_compare [FILE OR BLOCK DEVICE]`
//!
//! Writes over what it is given. Without an argument it makes a file in the temporary folder.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::{OpenOptions, read_to_string};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mpage_block::{
    Backend, Bio, BioFlags, BlockDevice, Errno, FileDevice, FileOptions, SECTOR_SIZE, Sector,
    submit_and_wait,
};
use mpage_locks::{Condvar, Mutex, clock};
use mpage_mem::{Arena, ArenaOptions, FrameId, PAGE_SIZE, Purpose, RUN};

/// Bytes of the device that are used.
const SIZE: u64 = 256 << 20;
const ROUNDS: usize = 61;

struct Work {
    name: &'static str,
    writes: bool,
    random: bool,
    bytes: usize,
    depth: usize,
    bios: u64,
}

const WORKS: [Work; 6] = [
    Work { name: "read 4 KiB", writes: false, random: true, bytes: 4096, depth: 1, bios: 300 },
    Work { name: "write 4 KiB", writes: true, random: true, bytes: 4096, depth: 1, bios: 300 },
    Work { name: "read 4 KiB", writes: false, random: true, bytes: 4096, depth: 32, bios: 1500 },
    Work { name: "write 4 KiB", writes: true, random: true, bytes: 4096, depth: 32, bios: 1500 },
    Work { name: "read 1 MiB", writes: false, random: false, bytes: 1 << 20, depth: 4, bios: 48 },
    Work { name: "write 1 MiB", writes: true, random: false, bytes: 1 << 20, depth: 4, bios: 48 },
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let path = match std::env::args().nth(1) {
        Some(path) => PathBuf::from(path),
        None => filled(folder.path())?,
    };
    let uring = open(&path, Backend::Uring)?;
    let threads = open(&path, Backend::Threads)?;
    println!("io_uring against 8 threads on {}, {ROUNDS} rounds each in turn", path.display());
    println!("us a bio: median (least..most); ratios: median of the rounds' own");
    println!();
    println!("| bios | depth | io_uring | threads | ratio | its processor time |");
    println!("|---|--:|--:|--:|--:|--:|");
    let bench = Bench::new()?;
    for work in &WORKS {
        let (mut times, mut ticks) = ([Vec::new(), Vec::new()], [0; 2]);
        for _ in 0..ROUNDS {
            for (side, device) in [&uring, &threads].into_iter().enumerate() {
                let busy = processor_ticks();
                times[side].push(bench.time_us(device, work)?);
                ticks[side] += processor_ticks() - busy;
            }
        }
        let ratios = times[0].iter().zip(&times[1]).map(|(uring, threads)| uring / threads);
        let ratio = median(ratios.collect());
        let processor = f64::from(ticks[0]) / f64::from(ticks[1].max(1));
        let [uring, threads] = times.map(spread);
        let Work { name, depth, .. } = work;
        println!("| {name} | {depth} | {uring} | {threads} | {ratio:.2} | {processor:.2} |");
    }
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (side, device) in [&uring, &threads].into_iter().enumerate() {
            times[side].push(bench.time_beside_us(device)?);
        }
    }
    let ratios = times[0].iter().zip(&times[1]).map(|(uring, threads)| uring / threads);
    let ratio = median(ratios.collect());
    let [uring, threads] = times.map(spread);
    let name = "read 4 KiB, behind 64 background writes of 1 MiB";
    println!("| {name} | 1 | {uring} | {threads} | {ratio:.2} | |");
    Ok(())
}

fn open(path: &Path, backend: Backend) -> Result<FileDevice, Box<dyn Error>> {
    let options = FileOptions { backend, lock: false, ..FileOptions::default() };
    Ok(FileDevice::open(path, &options)?)
}

/// A file that has all its blocks, each of them written.
fn filled(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let path = folder.join("disk.img");
    let mut file = OpenOptions::new().create_new(true).write(true).open(&path)?;
    for _ in 0..SIZE >> 20 {
        file.write_all(&[1; 1 << 20])?;
    }
    file.sync_all()?;
    Ok(path)
}

/// Memory to read into and write from, and where completions are counted.
struct Bench {
    arena: Arc<Arena>,
    frames: Vec<FrameId>,
    ended: Arc<(Mutex<Ended>, Condvar)>,
}

#[derive(Default)]
struct Ended {
    bios: u64,
    error: Option<Errno>,
}

impl Bench {
    fn new() -> Result<Bench, Box<dyn Error>> {
        let count = (4 << 20) / PAGE_SIZE;
        let options = ArenaOptions { frames: count, reserve: 0, prefault: true };
        let arena = Arc::new(Arena::new(&options)?);
        let mut frames: Vec<FrameId> = Vec::new();
        for n in 0..count {
            let near = frames.last().copied();
            frames.push(arena.alloc(Purpose::Cache, n % RUN, near).ok_or("too few frames")?);
        }
        Ok(Bench { arena, frames, ended: Arc::default() })
    }

    /// The time of a round, in microseconds a bio.
    fn time_us(&self, device: &FileDevice, work: &Work) -> Result<f64, Box<dyn Error>> {
        *self.ended.0.lock() = Ended::default();
        let slots = SIZE / work.bytes as u64;
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let began_ns = clock::now_ns();
        for number in 0..work.bios {
            self.wait_for((number + 1).saturating_sub(work.depth as u64))?;
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let slot = if work.random { random } else { number } % slots;
            self.submit(device, self.bio(device, work, number, slot))?;
        }
        self.wait_for(work.bios)?;
        let time_ns = clock::now_ns() - began_ns;
        submit_and_wait(device, Bio::flush())?;
        Ok(time_ns as f64 / 1e3 / work.bios as f64)
    }

    /// The time of a read that is submitted when many background writes have been.
    fn time_beside_us(&self, device: &FileDevice) -> Result<f64, Box<dyn Error>> {
        const WRITES: u64 = 64;
        *self.ended.0.lock() = Ended::default();
        let [read, .., write] = &WORKS;
        for number in 0..WRITES {
            let mut bio = self.bio(device, write, number, number);
            bio.set_flags(BioFlags { background: true, ..BioFlags::default() });
            self.submit(device, bio)?;
        }
        let began_ns = clock::now_ns();
        submit_and_wait(device, self.bio(device, read, 0, SIZE / read.bytes as u64 - 1))?;
        let time_ns = clock::now_ns() - began_ns;
        self.wait_for(WRITES)?;
        Ok(time_ns as f64 / 1e3)
    }

    /// Gives `bio` to `device`, and counts it when it has ended.
    fn submit(&self, device: &FileDevice, mut bio: Bio) -> Result<(), Box<dyn Error>> {
        let ended = Arc::clone(&self.ended);
        bio.on_completion(move |result| {
            let mut count = ended.0.lock();
            count.bios += 1;
            count.error = count.error.or(result.err());
            drop(count);
            ended.1.notify_one();
        });
        Ok(device.submit(bio)?)
    }

    fn bio(&self, device: &FileDevice, work: &Work, number: u64, slot: u64) -> Bio {
        let sector = Sector(slot * (work.bytes / SECTOR_SIZE) as u64);
        let mut bio = match work.writes {
            true => Bio::write(&self.arena, sector, BioFlags::default()),
            false => Bio::read(&self.arena, sector),
        };
        let pages = work.bytes / PAGE_SIZE;
        let first = usize::try_from(number).expect("few") % work.depth * pages;
        for frame in &self.frames[first..first + pages] {
            assert!(bio.push(*frame, 0, PAGE_SIZE, &device.limits()), "a bio that is allowed");
        }
        bio
    }

    /// Waits until `bios` bios of the round have ended.
    fn wait_for(&self, bios: u64) -> Result<(), Errno> {
        let mut count = self.ended.0.lock();
        while count.bios < bios {
            count = self.ended.1.wait(count);
        }
        count.error.map_or(Ok(()), Err)
    }
}

/// What the process has used of the processors, in ticks of 10 ms: proc_pid_stat(5).
fn processor_ticks() -> u32 {
    let stat = read_to_string("/proc/self/stat").expect("a process has one");
    let behind_name = stat.rsplit(')').next().expect("a name in brackets");
    let ticks = behind_name.split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<u32>().expect("a count")).sum()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn spread(times: Vec<f64>) -> String {
    let least = times.iter().copied().fold(f64::INFINITY, f64::min);
    let most = times.iter().copied().fold(0.0, f64::max);
    format!("{:.1} ({least:.1}..{most:.1})", median(times))
}
