//! A cold sequential read of 1 GiB: through the library, and raw.
//!
//! `cargo run --release -p mpage-bench --example cold_read [rounds [folder]]`
//!
//! Each round has each reader in turn. Raw is direct I/O in requests of 1 MiB, one at a time as dd
//! does it, and by four threads at once. Its buffers lie in huge pages, as the library's do, when
//! the C library is told so: `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`. The library reads through a
//! fresh cache of 256 MiB, so that most of it is reclaimed on the way; its ratios are to the faster
//! of the two raw ones in the same round.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use mpage::{OpenOptions, Options, PageCache};
use mpage_locks::{clock, thread};

const FILE_BYTES: usize = 1 << 30;
const MIB: usize = 1 << 20;
/// Linux: `O_DIRECT`, on the processors this was measured on.
const DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0o20_0000 } else { 0o4_0000 };
/// A huge page: a raw request whose buffer lies in one is one segment to the device, as the
/// library's requests are.
const HUGE: usize = 2 << 20;

type Failed = Box<dyn Error + Send + Sync>;

const READERS: [&str; 5] =
    ["raw, depth 1", "raw, depth 4", "library, 4 KiB", "library, 128 KiB", "library, 1 MiB"];

fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(5), |rounds| rounds.parse())?;
    let folder = match arguments.next() {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let path = folder.path().join("data");
    make(&path)?;
    let mut speeds = vec![Vec::new(); READERS.len()];
    let mut ratios = vec![Vec::new(); READERS.len()];
    for round in 0..rounds {
        let mut of_round = [0.0; READERS.len()];
        // Each comes first, and last, as often as the others.
        for n in (0..READERS.len()).map(|n| (n + round) % READERS.len()) {
            of_round[n] = match n {
                0 => speed(|| raw(&path, 1))?,
                1 => speed(|| raw(&path, 4))?,
                2 => library(&path, 4 << 10)?,
                3 => library(&path, 128 << 10)?,
                _ => library(&path, MIB)?,
            };
        }
        let best = of_round[0].max(of_round[1]);
        for (n, speed) in of_round.into_iter().enumerate() {
            speeds[n].push(speed);
            ratios[n].push(speed / best);
        }
    }
    println!("| reader | MiB/s: median (least..most) | of raw: median (least..most) |");
    println!("|---|--:|--:|");
    for (n, reader) in READERS.iter().enumerate() {
        println!("| {reader} | {} | {} |", spread(&mut speeds[n], 0), spread(&mut ratios[n], 2));
    }
    Ok(())
}

/// Makes the file, with all blocks written.
fn make(path: &Path) -> Result<(), Failed> {
    let file = File::create_new(path)?;
    let mut block = vec![0; MIB];
    for n in 0..FILE_BYTES / MIB {
        block.iter_mut().zip(n..).for_each(|(byte, at)| *byte = at.to_le_bytes()[0]);
        file.write_all_at(&block, (n * MIB) as u64)?;
    }
    Ok(file.sync_all()?)
}

/// MiB a second.
fn speed(read: impl FnOnce() -> Result<(), Failed>) -> Result<f64, Failed> {
    let began = clock::now_ns();
    read()?;
    let seconds = (clock::now_ns() - began) as f64 / 1e9;
    Ok((FILE_BYTES / MIB) as f64 / seconds)
}

/// Reads the file with `depth` requests at the device.
fn raw(path: &Path, depth: usize) -> Result<(), Failed> {
    let file = Arc::new(File::options().read(true).custom_flags(DIRECT).open(path)?);
    let mut threads = Vec::new();
    for first in 0..depth {
        let file = Arc::clone(&file);
        threads.push(thread::spawn("raw", move || -> Result<(), Failed> {
            let mut memory = vec![1; 2 * HUGE];
            let aligned = memory.as_ptr().align_offset(HUGE);
            let buffer = &mut memory[aligned..aligned + MIB];
            for n in (first..FILE_BYTES / MIB).step_by(depth) {
                file.read_exact_at(buffer, (n * MIB) as u64)?;
                let _used = black_box(&*buffer);
            }
            Ok(())
        })?);
    }
    for thread in threads {
        thread.join().map_err(|_| "a reader panicked")??;
    }
    Ok(())
}

/// Reads the file through a cache, `step` bytes at a time.
fn library(path: &Path, step: usize) -> Result<f64, Failed> {
    let options = Options { memory: 256 << 20, prefault: true, ..Options::default() };
    let cache = PageCache::new(&options)?;
    let file = cache.open(path, &OpenOptions { write: false, ..OpenOptions::default() })?;
    let mut buffer = vec![0; step];
    speed(|| {
        for offset in (0..FILE_BYTES).step_by(step) {
            assert_eq!(file.read_at(&mut buffer, offset as u64)?, step, "the file is long enough");
            let _used = black_box(&buffer);
        }
        Ok(())
    })
}

/// The median, the least and the most.
fn spread(values: &mut [f64], digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    let median = values[values.len() / 2];
    format!("{median:.digits$} ({least:.digits$}..{most:.digits$})")
}
