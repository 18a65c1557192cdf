//! `mpage-fuzz`: what `cargo xtask fuzz` does besides fuzzing. See `docs/testing.md`.

#![forbid(unsafe_code)]

use std::alloc::System;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use cap::Cap;
use mpage_fuzz::{Case, MEMORY_MAX, Result, Target, reduce_file};

const USAGE: &str = "\
usage: mpage-fuzz bases FOLDER                make the images to damage, and inputs to begin with
       mpage-fuzz run FOLDER TARGET INPUT     run the input in a file
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
        ["run", folder, target, input] => {
            input_of(folder, target, input).map(|(case, _)| run(case))
        }
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

/// The case that an input is, and the base of its image.
fn input_of(folder: &str, target: &str, input: &str) -> Result<(Case, Vec<u8>)> {
    let target = Target::of_name(target)?;
    let bases = target.read_bases(Path::new(folder))?;
    let bytes = fs::read(input).map_err(|error| mpage_fuzz::Failure::at(input)(error))?;
    let case = Case::of_input(target, &bases, &bytes);
    let base = Case::base_of_input(&bases, &bytes);
    Ok((case, base.bytes.to_vec()))
}

fn case_of(file: &str) -> Result<Case> {
    let text = fs::read_to_string(file).map_err(|error| mpage_fuzz::Failure::at(file)(error))?;
    Case::of_text(&text)
}

/// Runs `case` with as much memory as the fuzzer gives it.
fn run(case: Case) {
    MEMORY.set_limit(MEMORY.allocated() + MEMORY_MAX).expect("it has less");
    case.run();
}

fn reduce(folder: &str, (target, input): (&str, &str), to: &Path) -> Result<()> {
    let (case, base) = input_of(folder, target, input)?;
    let failure = reduce_file(&case, &base, to)?;
    println!("{failure}");
    Ok(())
}
