//! The checks that every change passes, in the order that finds a mistake soonest.

use std::process::Command;

use mpage_locks::clock;

use crate::command::{PATIENCE, cargo, run, run_tests, within};
use crate::failure::Failure;
use crate::sanitize::{self, Scope};
use crate::schedules::{self, Search};
use crate::{clients, contract, crash, fuzz, mounts, mutants, sim, tidy, tools};

/// A check with a name.
struct Step {
    name: &'static str,
    run: fn() -> Result<(), Failure>,
}

const STEPS: &[Step] = &[
    Step { name: "fmt", run: format },
    Step { name: "clippy", run: || run(&mut clippy()) },
    Step { name: "doc", run: || run(&mut doc()) },
    Step { name: "tools", run: tools::install },
    Step { name: "test", run: || test(&cargo(["test", "--workspace"])) },
    Step { name: "test in least memory", run: || test(&test_in_least_memory()) },
    Step { name: "tidy", run: tidy::run },
    Step { name: "contract", run: contract::run },
    Step { name: "schedules", run: || schedules::run(Search::Short, None) },
    Step { name: "mutants", run: mutants::check_some },
    Step { name: "sim", run: sim::run_short },
    Step { name: "sanitize", run: || sanitize::run(Scope::Unsafe) },
    Step { name: "crash", run: crash::run_short },
    Step { name: "fuzz", run: fuzz::run_short },
    Step { name: "clients", run: clients::run_short },
    Step { name: "mounts", run: mounts::run_short },
];

/// Runs every step, and stops at the first that fails.
///
/// The last lines tell the time of each step that ran, and how many passed and failed.
pub(crate) fn run_all() -> Result<(), Failure> {
    run_steps(STEPS)
}

fn run_steps(steps: &[Step]) -> Result<(), Failure> {
    let mut times = Vec::new();
    let mut failure = None;
    for step in steps {
        println!("== {}", step.name);
        let start_ns = clock::now_ns();
        let result = (step.run)();
        let time_ms = (clock::now_ns() - start_ns) / 1_000_000;
        let verdict = if result.is_ok() { "passed" } else { "FAILED" };
        let time =
            format!("{verdict} {:>6}.{} s  {}", time_ms / 1000, time_ms / 100 % 10, step.name);
        println!("{time}");
        times.push(time);
        if let Err(error) = result {
            failure = Some(Failure::new(format!("{}: {error}", step.name)));
            break;
        }
    }
    println!("== all steps");
    for time in &times {
        println!("{time}");
    }
    let failed = usize::from(failure.is_some());
    println!("{} passed, {failed} failed", times.len() - failed);
    failure.map_or(Ok(()), Err)
}

/// The targets of the fuzzer are a workspace of their own.
fn format() -> Result<(), Failure> {
    run(&mut cargo(["fmt", "--all", "--check"]))?;
    run(&mut cargo(["fmt", "--all", "--check", "--manifest-path", "fuzz/Cargo.toml"]))
}

fn test(command: &Command) -> Result<(), Failure> {
    run_tests(&mut within(PATIENCE, command)).map(drop)
}

fn clippy() -> Command {
    cargo(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"])
}

fn doc() -> Command {
    let mut command = cargo(["doc", "--workspace", "--no-deps"]);
    let _command = command.env("RUSTDOCFLAGS", "--deny=warnings");
    command
}

/// The library's tests with the smallest arena they can be given.
fn test_in_least_memory() -> Command {
    let mut command = cargo(["test", "--package", "mpage"]);
    let _command = command.env("MPAGE_TEST_MEMORY", "min");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Step = Step { name: "good", run: || Ok(()) };
    const BAD: Step = Step { name: "bad", run: || Err(Failure::new("it broke")) };
    const NEVER: Step = Step { name: "never", run: || panic!("a step ran after a failure") };

    #[test]
    fn all_steps_run_when_all_pass() {
        assert!(run_steps(&[GOOD, GOOD]).is_ok());
    }

    #[test]
    fn the_first_failure_ends_the_run_and_is_named() {
        let failure = run_steps(&[GOOD, BAD, NEVER]).expect_err("a step fails");
        assert_eq!(failure.to_string(), "bad: it broke");
    }
}
