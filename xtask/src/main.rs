//! All automation of mpage: `cargo xtask help` lists what it does.

#![forbid(unsafe_code)]

mod bench_mount;
mod bench_serve;
mod ci;
mod clients;
mod command;
mod contract;
mod crash;
mod failure;
mod function;
mod fuzz;
mod mounts;
mod mutants;
mod path;
mod rig;
mod sanitize;
mod schedules;
mod sim;
mod source;
mod tidy;
mod tools;
mod workspace;

use std::process::ExitCode;

use crate::failure::Failure;
use crate::sanitize::Scope;

/// One thing that xtask does.
struct Task {
    name: &'static str,
    help: &'static str,
    run: fn(&[String]) -> Result<(), Failure>,
}

const TASKS: &[Task] = &[
    Task {
        name: "ci",
        help: "run every check that a change has to pass",
        run: |arguments| none(arguments).and_then(|()| ci::run_all()),
    },
    Task {
        name: "tidy",
        help: "check the style rules that a program can check",
        run: |arguments| none(arguments).and_then(|()| tidy::run()),
    },
    Task {
        name: "contract",
        help: "check that the tests docs/contract.md names exist",
        run: |arguments| none(arguments).and_then(|()| contract::run()),
    },
    Task {
        name: "schedules",
        help: "[--short] [--count N] run the tests that try many orders of threads, N each",
        run: schedules::run_task,
    },
    Task {
        name: "sim",
        help: "[--on ext4] [--programs N] [--from SEED], or --seed SEED: random programs",
        run: sim::run_task,
    },
    Task {
        name: "crash",
        help: "[--states N] [--seed SEED] [--only WORKLOAD] crashes of images with a journal",
        run: crash::run_task,
    },
    Task {
        name: "fuzz",
        help: "[TARGET] [--seconds N] [--seed N], or TARGET --input FILE: damaged images",
        run: fuzz::run_task,
    },
    Task {
        name: "mutants",
        help: "[--check] [--programs N] [NAME..] plant bugs and see each caught",
        run: mutants::run,
    },
    Task {
        name: "sanitize",
        help: "[--all] run tests under the address and thread sanitizers; --all adds the library",
        run: |arguments| {
            sanitize::run(if flag(arguments, "--all")? { Scope::All } else { Scope::Unsafe })
        },
    },
    Task {
        name: "clients",
        help: "[--short] [--server NAME] [STEP..] drive mpage serve with other programs",
        run: clients::run,
    },
    Task {
        name: "mounts",
        help: "[--short] [--by NAME] [STEP..] drive mpage mount with other programs",
        run: mounts::run,
    },
    Task { name: "bench", help: "[arguments] run the benchmarks", run: bench },
    Task {
        name: "bench-serve",
        help: "[ROUNDS] measure mpage serve against other servers of NBD",
        run: bench_serve::run,
    },
    Task {
        name: "bench-mount",
        help: "[ROUNDS] measure mpage mount against fuse2fs and the kernel",
        run: bench_mount::run,
    },
    Task {
        name: "tools",
        help: "install the Debian packages that checks with other programs need",
        run: |arguments| none(arguments).and_then(|()| tools::install()),
    },
    Task { name: "help", help: "list what xtask does", run: help },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.split_first() {
        Some((name, rest)) => match TASKS.iter().find(|task| task.name == name) {
            Some(task) => (task.run)(rest),
            None => Err(Failure::new(format!("no task is called {name}: see cargo xtask help"))),
        },
        None => help(&[]),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn bench(arguments: &[String]) -> Result<(), Failure> {
    let before = ["bench", "--package", "mpage-bench", "--"].map(str::to_owned);
    command::run(&mut command::cargo(before.iter().chain(arguments)))
}

fn help(arguments: &[String]) -> Result<(), Failure> {
    none(arguments)?;
    for task in TASKS {
        println!("cargo xtask {:<11}  {}", task.name, task.help);
    }
    Ok(())
}

/// Refuses arguments.
fn none(arguments: &[String]) -> Result<(), Failure> {
    match arguments {
        [] => Ok(()),
        [first, ..] => Err(Failure::new(format!("unexpected argument {first}"))),
    }
}

/// Whether the one argument that may be given is.
fn flag(arguments: &[String], name: &str) -> Result<bool, Failure> {
    match arguments {
        [first, rest @ ..] if first == name => none(rest).map(|()| true),
        _ => none(arguments).map(|()| false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_is_given_once_or_not_at_all() {
        let given = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
            flag(&arguments, "--all")
        };
        assert!(given(&["--all"]).is_ok_and(|given| given));
        assert!(given(&[]).is_ok_and(|given| !given));
        assert!(given(&["--some"]).is_err());
        assert!(given(&["--all", "--all"]).is_err());
    }
}
