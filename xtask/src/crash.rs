//! Crashes of images with a journal: a share of the runs on each processor.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use mpage_locks::clock;

use crate::command::{line, output, program};
use crate::failure::Failure;
use crate::sim::fresh_seed;
use crate::workspace::Site;

/// States that each change has to pass, about.
const SHORT: u64 = 2_000;
/// States of a long run, about.
const LONG: u64 = 100_000;

/// Where files are in memory alone, so that states are looked at faster.
const IN_MEMORY: &str = "/dev/shm";

/// Judges about `--states N` states of fresh seeds, or of `--seed SEED`; with `--only WORKLOAD` of
/// that alone.
///
/// # Errors
///
/// A state that is wrong is a failure, which names its workload and seed.
pub(crate) fn run_task(arguments: &[String]) -> Result<(), Failure> {
    let usage = || Failure::new("cargo xtask crash [--states N] [--seed SEED] [--only WORKLOAD]");
    let (mut states, mut seed, mut only) = (LONG, None, None);
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return Err(usage()) };
        match (&name[..], value.parse()) {
            ("--states", Ok(number)) => states = number,
            ("--seed", Ok(number)) => seed = Some(number),
            ("--only", _) => only = Some(value.clone()),
            _ => return Err(usage()),
        }
    }
    let binary = build(&Site::own())?;
    explore(&binary, states, seed.map_or_else(fresh_seed, Ok)?, only.as_deref())
}

/// Judges the states that each change has to pass, of a fresh seed.
///
/// # Errors
///
/// As [`run_task`].
pub(crate) fn run_short() -> Result<(), Failure> {
    explore(&build(&Site::own())?, SHORT, fresh_seed()?, None)
}

/// Builds the explorer of the workspace at `site`.
///
/// # Errors
///
/// Those of the build.
pub(crate) fn build(site: &Site) -> Result<PathBuf, Failure> {
    let words = ["build", "--quiet", "--release", "--package", "mpage-crash"];
    let _warnings = output(&mut site.cargo(&words, "crash"))?;
    Ok(site.target.join("crash/release/mpage-crash"))
}

/// Judges about `states` states of the runs of `seed`, a share on each processor.
///
/// # Errors
///
/// The first that is wrong in each share.
pub(crate) fn explore(
    binary: &Path,
    states: u64,
    seed: u64,
    only: Option<&str>,
) -> Result<(), Failure> {
    let parts = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    println!("crash: about {states} states from seed {seed} on, by {parts} processes");
    let start_ns = clock::now_ns();
    let share = (states / parts as u64).to_string();
    let mut children = Vec::new();
    for part in 0..parts {
        let (seed, part) = (seed.to_string(), format!("{part}/{parts}"));
        let words = ["--states", &share, "--seed", &seed, "--part", &part];
        let mut command = program(&binary.to_string_lossy(), words);
        if let Some(only) = only {
            let _command = command.args(["--only", only]);
        }
        if Path::new(IN_MEMORY).is_dir() {
            let _command = command.env("TMPDIR", IN_MEMORY);
        }
        let child = command.stdout(Stdio::piped()).spawn();
        children.push((child.map_err(|error| Failure::at(&line(&command), &error))?, command));
    }
    let mut failed = None;
    for (child, command) in children {
        let told =
            child.wait_with_output().map_err(|error| Failure::at(&line(&command), &error))?;
        let text = String::from_utf8_lossy(&told.stdout);
        match told.status.success() {
            true => println!("crash: {}", text.lines().next_back().unwrap_or_default()),
            false => failed = Some(Failure::new(format!("{}: {text}", told.status))),
        }
    }
    println!("crash: {} s", (clock::now_ns() - start_ns) / 1_000_000_000);
    failed.map_or(Ok(()), Err)
}
