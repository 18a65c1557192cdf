//! The simulator: random programs on the engine, on every processor, or the program of one seed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mpage_locks::clock;

use crate::command::{line, output, program, run, within};
use crate::failure::Failure;
use crate::workspace::Site;

/// Programs of the run that each change has to pass.
const SHORT: u64 = 6_000;
/// Of these, programs that are run twice.
const REPEATED: u64 = 200;
/// Programs of a long run.
const LONG: u64 = 200_000;
/// As [`SHORT`], on files of an image, each of which e2fsck judges.
const SHORT_EXT4: u64 = 600;

/// What programs run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    /// The engine.
    Engine,
    /// The engine under files of an ext2, ext3 or ext4 image.
    Ext4,
}

impl On {
    /// The words that say so.
    pub(crate) fn words(self) -> &'static [&'static str] {
        match self {
            On::Engine => &[],
            On::Ext4 => &["--on", "ext4"],
        }
    }
}

/// Runs the programs of `--programs N` fresh seeds, or of those from `--from SEED` on; or the one
/// of `--seed N`, shrunk if it fails. With `--on ext4` they run on files of an image.
///
/// # Errors
///
/// A program that fails is a failure, which names its seed.
pub(crate) fn run_task(arguments: &[String]) -> Result<(), Failure> {
    let (mut seed, mut programs, mut from) = (None, LONG, None);
    let mut on = On::Engine;
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err(usage()) };
        if name == "--on" && value == "ext4" {
            on = On::Ext4;
            continue;
        }
        let value: u64 = value.parse().map_err(|_| usage())?;
        match name.as_str() {
            "--seed" => seed = Some(value),
            "--programs" => programs = value,
            "--from" => from = Some(value),
            _ => return Err(usage()),
        }
    }
    let binary = build(&Site::own())?;
    match seed {
        Some(seed) => {
            let seed = seed.to_string();
            let words = [on.words(), &["--seed", &seed]].concat();
            run(&mut program(&word(&binary), words))
        }
        None => many(&binary, on, programs, from.map_or_else(fresh_seed, Ok)?, None),
    }
}

/// Runs the programs that each change has to pass, of fresh seeds.
///
/// # Errors
///
/// As [`run_task`].
pub(crate) fn run_short() -> Result<(), Failure> {
    let (binary, seed) = (build(&Site::own())?, fresh_seed()?);
    repeat(&binary, On::Engine, seed)?;
    repeat(&binary, On::Ext4, seed)?;
    many(&binary, On::Engine, SHORT, seed, None)?;
    many(&binary, On::Ext4, SHORT_EXT4, seed, None)
}

/// Runs some programs twice: the same seeds must be the same runs.
fn repeat(binary: &Path, on: On, from: u64) -> Result<(), Failure> {
    let (from, count) = (from.to_string(), REPEATED.to_string());
    let words = [on.words(), &["--from", &from, "--count", &count]].concat();
    let first = output(&mut program(&word(binary), &words))?;
    let second = output(&mut program(&word(binary), &words))?;
    if first == second {
        return Ok(());
    }
    Err(Failure::new(format!("the same seeds gave two runs:\n{first}{second}")))
}

fn usage() -> Failure {
    Failure::new("cargo xtask sim [--on ext4] [--programs N] [--from SEED] or --seed SEED")
}

/// Builds the simulator of the workspace at `site` under the schedule checker's locks.
///
/// # Errors
///
/// Those of the build.
pub(crate) fn build(site: &Site) -> Result<PathBuf, Failure> {
    let words = ["build", "--quiet", "--release", "--package", "mpage-sim"];
    let mut command = site.cargo(&words, "shuttle");
    let _command = command.env("RUSTFLAGS", "--cfg mpage_shuttle");
    let _warnings = output(&mut command)?;
    Ok(site.target.join("shuttle/release/mpage-sim"))
}

/// A number that no run had before.
///
/// # Errors
///
/// Those of reading it.
pub(crate) fn fresh_seed() -> Result<u64, Failure> {
    let mut bytes = [0; 4];
    let source = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    source.map_err(|error| Failure::at("/dev/urandom", &error))?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

fn word(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Runs `programs` programs from seed `from` on, a share on each processor, for so many `minutes`.
///
/// # Errors
///
/// One that failed, or the time that ran out.
pub(crate) fn many(
    binary: &Path,
    on: On,
    programs: u64,
    from: u64,
    minutes: Option<u32>,
) -> Result<(), Failure> {
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    println!("sim: {programs} programs on {on:?} from seed {from} on, by {workers} processes");
    let start_ns = clock::now_ns();
    let share = programs.div_ceil(workers);
    let mut children = Vec::new();
    for worker in 0..workers {
        let numbers = [(from + worker).to_string(), share.to_string(), workers.to_string()];
        let [from, count, step] = &numbers;
        let numbers = ["--from", from, "--count", count, "--step", step];
        let words = [on.words(), &numbers].concat();
        let mut command = program(&word(binary), words);
        if let Some(minutes) = minutes {
            // What a schedule checker says of how to go on is not for a run that may fail.
            command = within(minutes, &command);
            let _command = command.stderr(Stdio::null());
        }
        let child = command.stdout(Stdio::piped()).spawn();
        children.push((child.map_err(|error| Failure::at(&line(&command), &error))?, command));
    }
    let told: Vec<_> =
        children.into_iter().map(|(child, command)| ended(child, &command)).collect();
    let seconds = (clock::now_ns() - start_ns) as f64 / 1e9;
    let mut failed = None;
    for told in told {
        match told {
            Ok(told) => println!("sim: {told}"),
            Err(failure) => failed = Some(failure),
        }
    }
    println!("sim: {:.0} programs a minute", programs as f64 / seconds * 60.0);
    failed.map_or(Ok(()), Err)
}

/// Waits for a share, and returns its last line, or the one that names the seed that failed.
fn ended(mut child: Child, command: &Command) -> Result<String, Failure> {
    let failed = |error| Failure::at(&line(command), &error);
    let output = child.stdout.take().expect("the output was asked for as a pipe");
    let mut told = String::new();
    for text in BufReader::new(output).lines() {
        let text = text.map_err(failed)?;
        if !told.starts_with("failed: ") {
            told = text;
        }
    }
    let status = child.wait().map_err(failed)?;
    match status.success() {
        true => Ok(told),
        false if told.is_empty() => Err(Failure::new(format!("{status}: {}", line(command)))),
        false => Err(Failure::new(format!(
            "{told}\nrun cargo xtask sim, on the same, --seed with its seed"
        ))),
    }
}
