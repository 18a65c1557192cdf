//! The simulator: random programs on the engine, on every processor, or the program of one seed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mpage_locks::clock;

use crate::command::{cargo, line, output, program, run};
use crate::failure::Failure;
use crate::workspace::{root, target};

/// Programs of the run that each change has to pass.
const SHORT: u64 = 6_000;
/// Of these, programs that are run twice.
const REPEATED: u64 = 200;
/// Programs of a long run.
const LONG: u64 = 200_000;

/// Runs the programs of `--programs N` fresh seeds, or of those from `--from SEED` on; or the one
/// of `--seed N`, shrunk if it fails.
///
/// # Errors
///
/// A program that fails is a failure, which names its seed.
pub(crate) fn run_task(arguments: &[String]) -> Result<(), Failure> {
    let (mut seed, mut programs, mut from) = (None, LONG, None);
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err(usage()) };
        let value: u64 = value.parse().map_err(|_| usage())?;
        match name.as_str() {
            "--seed" => seed = Some(value),
            "--programs" => programs = value,
            "--from" => from = Some(value),
            _ => return Err(usage()),
        }
    }
    let tree = root();
    let binary = build(&tree)?;
    match seed {
        Some(seed) => run(&mut program(&word(&binary), ["--seed", &seed.to_string()])),
        None => many(&binary, programs, from.map_or_else(fresh_seed, Ok)?),
    }
}

/// Runs the programs that each change has to pass, of fresh seeds.
///
/// # Errors
///
/// As [`run_task`].
pub(crate) fn run_short() -> Result<(), Failure> {
    let (binary, seed) = (build(&root())?, fresh_seed()?);
    repeat(&binary, seed)?;
    many(&binary, SHORT, seed)
}

/// Runs some programs twice: the same seeds must be the same runs.
fn repeat(binary: &Path, from: u64) -> Result<(), Failure> {
    let words = ["--from", &from.to_string(), "--count", &REPEATED.to_string()];
    let first = output(&mut program(&word(binary), words))?;
    let second = output(&mut program(&word(binary), words))?;
    if first == second {
        return Ok(());
    }
    Err(Failure::new(format!("the same seeds gave two runs:\n{first}{second}")))
}

fn usage() -> Failure {
    Failure::new("cargo xtask sim [--programs N] [--from SEED] or --seed SEED")
}

/// Builds the simulator of the workspace `tree` under the schedule checker's locks.
///
/// # Errors
///
/// Those of the build.
pub(crate) fn build(tree: &Path) -> Result<PathBuf, Failure> {
    let folder = target().join("shuttle");
    let mut command = cargo(["build", "--quiet", "--release", "--package", "mpage-sim"]);
    let _command = command.arg("--target-dir").arg(&folder).current_dir(tree);
    let _command = command.env("RUSTFLAGS", "--cfg mpage_shuttle");
    run(&mut command)?;
    Ok(folder.join("release/mpage-sim"))
}

/// A number that no run had before.
fn fresh_seed() -> Result<u64, Failure> {
    let mut bytes = [0; 4];
    let source = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    source.map_err(|error| Failure::at("/dev/urandom", &error))?;
    Ok(u64::from(u32::from_le_bytes(bytes)))
}

fn word(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Runs `programs` programs from seed `from` on, a share on each processor.
///
/// # Errors
///
/// The first that failed.
pub(crate) fn many(binary: &Path, programs: u64, from: u64) -> Result<(), Failure> {
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    println!("sim: {programs} programs from seed {from} on, by {workers} processes");
    let start_ns = clock::now_ns();
    let share = programs.div_ceil(workers);
    let mut children = Vec::new();
    for worker in 0..workers {
        let numbers = [(from + worker).to_string(), share.to_string(), workers.to_string()];
        let [from, count, step] = &numbers;
        let words = ["--from", from, "--count", count, "--step", step];
        let mut command = program(&word(binary), words);
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

/// Waits for a share, and returns its last line.
fn ended(mut child: Child, command: &Command) -> Result<String, Failure> {
    let failed = |error| Failure::at(&line(command), &error);
    let output = child.stdout.take().expect("the output was asked for as a pipe");
    let mut last = String::new();
    for text in BufReader::new(output).lines() {
        last = text.map_err(failed)?;
    }
    match child.wait().map_err(failed)?.success() {
        true => Ok(last),
        false => Err(Failure::new(format!("{last}\nrun cargo xtask sim --seed with its seed"))),
    }
}
