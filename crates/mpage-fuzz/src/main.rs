//! `mpage-fuzz`: what `cargo xtask fuzz` does besides fuzzing. See `docs/testing.md`.

#![forbid(unsafe_code)]

use std::alloc::System;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use cap::Cap;
use mpage_fuzz::{Case, Failure, Result, Target, limit, reduce_file};

const USAGE: &str = "\
usage: mpage-fuzz bases FOLDER                make the images to damage, and inputs to begin with
       mpage-fuzz run FOLDER TARGET INPUT..   run the inputs in files
       mpage-fuzz reduce FOLDER TARGET INPUT CASE
                                              write a small case that fails as the input does
       mpage-fuzz replay CASE                 run the case in a file";

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["bases", folder] => bases(Path::new(folder)),
        ["run", folder, target, ref inputs @ ..] => run_all(folder, target, inputs),
        ["reduce", folder, target, input, to] => reduce(folder, (target, input), Path::new(to)),
        ["replay", file] => case_of(file).map(run),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("mpage-fuzz: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn bases(folder: &Path) -> Result<()> {
    for target in [Target::Read, Target::Journal] {
        target.make_bases(folder)?;
    }
    Target::ALL.into_iter().try_for_each(|target| target.make_seeds(folder))
}

fn run_all(folder: &str, target: &str, inputs: &[&str]) -> Result<()> {
    let target = Target::of_name(target)?;
    let bases = target.read_bases(Path::new(folder))?;
    for input in inputs {
        run(Case::of_input(target, &bases, &read(input)?));
    }
    Ok(())
}

/// Runs `case` with as much memory as the fuzzer gives it.
fn run(case: Case) {
    limit(&MEMORY);
    case.run();
}

fn reduce(folder: &str, (target, input): (&str, &str), to: &Path) -> Result<()> {
    let target = Target::of_name(target)?;
    let bases = target.read_bases(Path::new(folder))?;
    let bytes = read(input)?;
    let case = Case::of_input(target, &bases, &bytes);
    let failure = reduce_file(&case, &Case::base_of_input(&bases, &bytes).bytes, to)?;
    println!("{failure}");
    Ok(())
}

fn case_of(file: &str) -> Result<Case> {
    Case::of_text(&String::from_utf8_lossy(&read(file)?))
}

fn read(file: &str) -> Result<Vec<u8>> {
    fs::read(file).map_err(|error| Failure::at(file)(error))
}
