//! `mpage-crash`: crashes of images with a journal, by seed. See `docs/testing.md`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

#[cfg(not(any(mpage_loom, mpage_shuttle)))]
fn main() -> ExitCode {
    command::main()
}

#[cfg(any(mpage_loom, mpage_shuttle))]
fn main() -> ExitCode {
    ExitCode::FAILURE
}

#[cfg(not(any(mpage_loom, mpage_shuttle)))]
mod command {
    use std::process::ExitCode;

    use mpage_crash::format::FORMATS;
    use mpage_crash::run::{Ran, run};
    use mpage_crash::workload::WORKLOADS;

    const USAGE: &str = "\
usage: mpage-crash [--states N] [--seed N] [--only WORKLOAD] [--part K/N]
--states: about so many states in all; --part: the K-th of N parts of the runs";

    struct Task {
        states: u64,
        seed: u64,
        only: Option<String>,
        part: (usize, usize),
    }

    pub(super) fn main() -> ExitCode {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let Some(task) = task(&arguments) else {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        };
        let runs: Vec<_> = WORKLOADS
            .iter()
            .filter(|workload| task.only.as_deref().is_none_or(|only| only == workload.name))
            .flat_map(|workload| FORMATS.iter().map(move |format| (workload, format)))
            .enumerate()
            .filter(|(number, _)| number % task.part.1 == task.part.0)
            .collect();
        let each = (task.states / runs.len().max(1) as u64).max(1);
        let mut all = Ran::default();
        for (number, (workload, format)) in runs {
            let seed = task.seed.wrapping_add(number as u64);
            match run(workload, format, each, seed) {
                Ok(Ran { states, mounted, events }) => {
                    println!("{} on {}: {states} of {events} events", workload.name, format.name);
                    all.states += states;
                    all.mounted += mounted;
                }
                Err(wrong) => {
                    let seed = task.seed;
                    println!("failed: {} on {}, seed {seed}: {wrong}", workload.name, format.name);
                    return ExitCode::FAILURE;
                }
            }
        }
        println!("passed: {} states, {} of them by Linux too", all.states, all.mounted);
        ExitCode::SUCCESS
    }

    fn task(arguments: &[String]) -> Option<Task> {
        let mut task = Task { states: 4000, seed: 1, only: None, part: (0, 1) };
        for pair in arguments.chunks(2) {
            let [name, value] = pair else { return None };
            match (&name[..], value.parse()) {
                ("--states", Ok(states)) => task.states = states,
                ("--seed", Ok(seed)) => task.seed = seed,
                ("--only", _) => task.only = Some(value.clone()),
                ("--part", _) => {
                    let (number, count) = value.split_once('/')?;
                    let (Ok(number), Ok(count)) = (number.parse(), count.parse()) else {
                        return None;
                    };
                    task.part = (number, count);
                }
                _ => return None,
            }
        }
        (task.part.0 < task.part.1).then_some(task)
    }
}
