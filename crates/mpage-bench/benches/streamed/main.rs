//! A file of 1 GiB from end to end: through the library, through the kernel's page cache, and raw.
//!
//! ```text
//! cargo bench -p mpage-bench --bench streamed                  a few minutes
//! cargo bench -p mpage-bench --bench streamed -- --rounds 3    fewer rounds
//! ```
//!
//! Each round has each contender in turn. Raw is direct I/O in requests of 1 MiB, one at a time as
//! dd does it, and by four threads at once. Ratios are to the faster of the two in the same round.

#![forbid(unsafe_code)]

mod readers;
mod writers;

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use mpage::{Options, PageCache};
use mpage_locks::clock;

/// Asks the C library for huge pages under large allocations: what the cache's memory lies in.
const HUGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

const MIB: usize = 1 << 20;
const FILE_BYTES: usize = 1 << 30;
/// The cache's memory: a quarter of the file.
const CACHE_BYTES: usize = 256 << 20;
/// A huge page: a raw request whose buffer lies in one is one segment to the device, as the
/// library's requests are.
const HUGE: usize = 2 << 20;
/// Linux: `O_DIRECT`, on the processors this was measured on.
const DIRECT: i32 = if cfg!(target_arch = "aarch64") { 0o20_0000 } else { 0o4_0000 };

type Failed = Box<dyn Error + Send + Sync>;

/// Where they compete. The cache holds nothing of the file when a contender begins.
struct Ground {
    path: PathBuf,
    cache: PageCache,
}

/// Somebody who goes through the whole file.
type Contender = (&'static str, fn(&Ground) -> Result<(), Failed>);

const WRITERS: [Contender; 6] = [
    ("raw, 1 MiB, depth 1", |ground| writers::raw(ground, 1)),
    ("raw, 1 MiB, depth 4", |ground| writers::raw(ground, 4)),
    ("kernel, 128 KiB", |ground| writers::kernel(ground, 128 << 10)),
    ("library, 4 KiB", |ground| writers::library(ground, 4 << 10)),
    ("library, 128 KiB", |ground| writers::library(ground, 128 << 10)),
    ("library, 1 MiB", |ground| writers::library(ground, MIB)),
];

const READERS: [Contender; 5] = [
    ("raw, 1 MiB, depth 1", |ground| readers::raw(ground, 1)),
    ("raw, 1 MiB, depth 4", |ground| readers::raw(ground, 4)),
    ("library, 4 KiB", |ground| readers::library(ground, 4 << 10)),
    ("library, 128 KiB", |ground| readers::library(ground, 128 << 10)),
    ("library, 1 MiB", |ground| readers::library(ground, MIB)),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("streamed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failed> {
    let rounds = rounds()?;
    if std::env::var_os(HUGE_PAGES.0).is_none() {
        // The C library reads it before main, so it takes another process.
        let mut again = Command::new(std::env::current_exe()?);
        let status = again.args(std::env::args_os().skip(1)).env(HUGE_PAGES.0, HUGE_PAGES.1);
        return if status.status()?.success() { Ok(()) } else { Err("it failed".into()) };
    }
    let folder = tempfile::tempdir()?;
    let options = Options { memory: CACHE_BYTES, prefault: true, ..Options::default() };
    let ground = Ground { path: folder.path().join("data"), cache: PageCache::new(&options)? };
    make(&ground.path)?;
    println!("{rounds} rounds; the cache has 256 MiB, all touched before\n");
    println!("write 1 GiB over an existing file, then fdatasync:\n");
    compare(&WRITERS, &ground, rounds)?;
    println!("read 1 GiB, none of it cached:\n");
    compare(&READERS, &ground, rounds)
}

fn rounds() -> Result<usize, Failed> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => Ok(7),
        (Some("--rounds"), Some(rounds)) => Ok(rounds.parse()?),
        _ => Err("unexpected arguments; give --rounds N".into()),
    }
}

/// Measures each contender in each round and prints a table. The first two are raw.
fn compare(contenders: &[Contender], ground: &Ground, rounds: usize) -> Result<(), Failed> {
    let mut speeds = vec![Vec::new(); contenders.len()];
    let mut ratios = vec![Vec::new(); contenders.len()];
    for round in 0..rounds {
        let mut of_round = vec![0.0; contenders.len()];
        // Each comes first, and last, as often as the others.
        for n in (0..contenders.len()).map(|n| (n + round) % contenders.len()) {
            let began = clock::now_ns();
            contenders[n].1(ground)?;
            let seconds = (clock::now_ns() - began) as f64 / 1e9;
            of_round[n] = (FILE_BYTES / MIB) as f64 / seconds;
        }
        let raw = of_round[0].max(of_round[1]);
        for (n, speed) in of_round.into_iter().enumerate() {
            speeds[n].push(speed);
            ratios[n].push(speed / raw);
        }
    }
    println!("| | MiB/s: median (least..most) | of raw: median (least..most) |");
    println!("|---|--:|--:|");
    for (n, (name, _)) in contenders.iter().enumerate() {
        println!("| {name} | {} | {} |", spread(&mut speeds[n], 0), spread(&mut ratios[n], 2));
    }
    println!();
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

/// The median, the least and the most.
fn spread(values: &mut [f64], digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let (least, most) = (values[0], values[values.len() - 1]);
    let median = values[values.len() / 2];
    format!("{median:.digits$} ({least:.digits$}..{most:.digits$})")
}
