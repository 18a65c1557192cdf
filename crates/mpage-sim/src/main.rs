//! `mpage-sim`: random programs on the simulated engine, by seed. See `docs/testing.md`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use mpage_sim::{Program, Ran, run_program, shrink};

const USAGE: &str = "\
usage: mpage-sim [--on ext4] --seed N
                                     run the program of a seed; shrink it if it fails
       mpage-sim [--on ext4] --from N --count N [--step N]
                                     run the programs of many seeds, up to the first that fails
--on ext4: on files of an ext2, ext3 or ext4 image, instead of the engine alone";

/// The program of a seed.
type Draw = fn(u64) -> Program;

/// What was asked for.
enum Task {
    One(u64),
    Many { from: u64, count: u64, step: u64 },
}

fn main() -> ExitCode {
    // Panics are results here, and told below.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match task(&arguments) {
        Some((draw, Task::One(seed))) => one(draw, seed),
        Some((draw, Task::Many { from, count, step })) => many(draw, from, count, step),
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn task(arguments: &[String]) -> Option<(Draw, Task)> {
    let mut draw: Draw = Program::random;
    let (mut seed, mut from, mut count, mut step) = (None, None, None, 1);
    for pair in arguments.chunks(2) {
        let [name, value] = pair else { return None };
        if name == "--on" && value == "ext4" {
            draw = Program::random_ext4;
            continue;
        }
        let Ok(value) = value.parse() else { return None };
        match name.as_str() {
            "--seed" => seed = Some(value),
            "--from" => from = Some(value),
            "--count" => count = Some(value),
            "--step" => step = value,
            _ => return None,
        }
    }
    let task = match (seed, from, count) {
        (Some(seed), None, None) => Task::One(seed),
        (None, Some(from), Some(count)) => Task::Many { from, count, step },
        _ => return None,
    };
    Some((draw, task))
}

fn one(draw: Draw, seed: u64) -> ExitCode {
    let program = draw(seed);
    match run_program(&program, seed) {
        Ok(ran) => {
            println!("seed {seed}: {}", told(1, &ran));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("seed {seed} failed: {failure}\n{program}");
            let (program, schedule, failure) =
                shrink(&program, seed, failure, |program, seed| run_program(program, seed).err());
            println!("the smallest found, under schedule {schedule}: {failure}\n{program}");
            ExitCode::FAILURE
        }
    }
}

fn many(draw: Draw, from: u64, count: u64, step: u64) -> ExitCode {
    let mut all = Ran::default();
    for number in 0..count {
        let seed = from.wrapping_add(number.wrapping_mul(step));
        match run_program(&draw(seed), seed) {
            Ok(ran) => {
                all.ops += ran.ops;
                all.crash_states += ran.crash_states;
                all.digest = all.digest.rotate_left(1) ^ ran.digest;
            }
            Err(failure) => {
                println!("failed: seed {seed}, after {number} programs: {failure}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!("passed: {}", told(count, &all));
    ExitCode::SUCCESS
}

fn told(programs: u64, ran: &Ran) -> String {
    let Ran { ops, crash_states, digest } = ran;
    format!("{programs} programs, {ops} calls, {crash_states} crash states, digest {digest:016x}")
}
