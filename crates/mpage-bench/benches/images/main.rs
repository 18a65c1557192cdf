//! An ext4 image: names, small files and a large one, through the library, through Linux on a loop
//! device, and through fuse2fs if that is asked for.
//!
//! ```text
//! cargo bench -p mpage-bench --bench images                  some minutes; needs root, e2fsprogs
//! cargo bench -p mpage-bench --bench images -- --rounds 3    fewer rounds
//! cargo bench -p mpage-bench --bench images -- --fuse2fs     with fuse2fs: many minutes a round
//! ```
//!
//! Each round has each contender in turn, each on a new image, in a file of the same file system.
//! The library opens it for direct I/O, and so does the loop device. What is written is synced
//! within the time that is told.

#![forbid(unsafe_code)]

mod library;
mod mounted;

use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};

use mpage_locks::clock;

/// Names of the directory.
const NAMES: usize = 100_000;
/// Small files, and bytes of each.
const FILES: usize = 10_000;
const FILE_BYTES: usize = 4096;
/// Bytes of the large file, and of each piece it is written in.
const LARGE_BYTES: usize = 1 << 30;
const PIECE_BYTES: usize = 1 << 20;

type Failed = Box<dyn Error + Send + Sync>;

/// Somebody who keeps files in an image.
trait Contender {
    /// Makes [`NAMES`] empty files in one directory, and syncs.
    fn create(&mut self) -> Result<(), Failed>;
    /// Looks each of them up.
    fn look_up(&mut self) -> Result<(), Failed>;
    /// Writes [`FILES`] small files in another directory, and syncs.
    fn write_small(&mut self) -> Result<(), Failed>;
    /// Writes a large file, and syncs.
    fn write_large(&mut self) -> Result<(), Failed>;
}

/// What is measured.
type Work = (&'static str, fn(&mut dyn Contender) -> Result<(), Failed>);

const WORK: [Work; 4] = [
    ("100,000 names created, synced", |contender| contender.create()),
    ("100,000 names looked up", |contender| contender.look_up()),
    ("10,000 files of 4 KiB, synced", |contender| contender.write_small()),
    ("1 GiB written, synced", |contender| contender.write_large()),
];

const CONTENDERS: [&str; 3] = ["library", "kernel", "fuse2fs"];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("images: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Failed> {
    let (rounds, with_fuse2fs) = arguments()?;
    let count = if with_fuse2fs { 3 } else { 2 };
    let mut times = vec![vec![Vec::new(); WORK.len()]; count];
    for round in 0..rounds {
        for (contender, times) in CONTENDERS.iter().zip(&mut times) {
            eprintln!("round {} of {rounds}: {contender}", round + 1);
            one(contender, times)?;
        }
    }
    println!(
        "| work | library, ms | kernel, ms | fuse2fs, ms | library/kernel | library/fuse2fs |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    for (row, (work, _)) in WORK.iter().enumerate() {
        let ms = |contender: usize| times.get(contender).map(|all| median(&all[row]));
        let told = |ms: Option<f64>| ms.map_or("-".to_owned(), |ms| format!("{ms:.0}"));
        let ratio = |other: usize| {
            let other = times.get(other)?;
            let ratios = times[0][row].iter().zip(&other[row]).map(|(own, other)| own / other);
            Some(format!("{:.2}", median(&ratios.collect::<Vec<_>>())))
        };
        println!(
            "| {work} | {} | {} | {} | {} | {} |",
            told(ms(0)),
            told(ms(1)),
            told(ms(2)),
            ratio(1).unwrap_or("-".into()),
            ratio(2).unwrap_or("-".into()),
        );
    }
    Ok(())
}

fn one(contender: &str, times: &mut [Vec<f64>]) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image");
    make(&image)?;
    let mut contender: Box<dyn Contender> = match contender {
        "library" => Box::new(library::Library::open(&image)?),
        "kernel" => Box::new(mounted::Mounted::by_kernel(&image)?),
        _ => Box::new(mounted::Mounted::by_fuse2fs(&image)?),
    };
    for ((_, work), times) in WORK.iter().zip(times) {
        let start_ns = clock::now_ns();
        work(&mut *contender)?;
        times.push((clock::now_ns() - start_ns) as f64 / 1e6);
    }
    Ok(())
}

/// A new image of 2 GiB, all of it with a place on the disk.
fn make(path: &Path) -> Result<(), Failed> {
    run_program("fallocate", &["-l", "2G"], path)?;
    run_program("mke2fs", &["-q", "-t", "ext4", "-E", "lazy_itable_init=1,nodiscard"], path)
}

/// Runs a program on `path`.
fn run_program(program: &str, words: &[&str], path: &Path) -> Result<(), Failed> {
    let output = Command::new(program).args(words).arg(path).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)).into()),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Rounds, five if the command line does not say, and whether fuse2fs is among the contenders.
/// Cargo itself says `--bench`.
fn arguments() -> Result<(usize, bool), Failed> {
    let (mut rounds, mut with_fuse2fs) = (5, false);
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => rounds = words.next().ok_or("how many rounds?")?.parse()?,
            "--fuse2fs" => with_fuse2fs = true,
            _ => return Err("usage: images [--rounds N] [--fuse2fs]".into()),
        }
    }
    Ok((rounds, with_fuse2fs))
}
