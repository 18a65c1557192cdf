//! The tests that try many orders of threads: all of small parts, random ones of the engine.

use std::process::Command;

use crate::command::{PATIENCE, cargo, run_tests, within};
use crate::failure::Failure;
use crate::workspace::target;

/// Tells the tests how many random orders to try, each.
const VARIABLE: &str = "MPAGE_SCHEDULES";

/// How long to look.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Search {
    /// As long as each change can wait for.
    Short,
    /// As long as a night.
    Long,
}

impl Search {
    fn random_orders(self) -> &'static str {
        match self {
            Search::Short => "2000",
            Search::Long => "1000000",
        }
    }

    fn limited(self, command: Command) -> Command {
        match self {
            Search::Short => within(PATIENCE, &command),
            Search::Long => command,
        }
    }
}

/// Runs the schedule-checked tests. Each crate must have some.
pub(crate) fn run(search: Search) -> Result<(), Failure> {
    for package in ["mpage-mem", "mpage"] {
        let mut test = world("loom", package, search);
        if search == Search::Short {
            let _test = test.env("LOOM_MAX_PREEMPTIONS", "2");
        }
        let passed = run_tests(&mut search.limited(test))?;
        println!("schedules: {passed} tests of {package} passed under loom");
    }
    let passed = run_tests(&mut search.limited(world("shuttle", "mpage", search)))?;
    println!("schedules: {passed} tests of mpage passed under shuttle");
    Ok(())
}

/// The tests of `package` whose names hold the checker's, built with its locks in a folder of its
/// own.
fn world(checker: &str, package: &str, search: Search) -> Command {
    let folder = target().join(checker);
    let mut command = cargo(["test", "--package", package, "--lib", "--release"]);
    if checker == "shuttle" {
        let _command = command.arg("--tests");
    }
    let _command = command
        .arg("--target-dir")
        .arg(folder)
        .arg(checker)
        .env("RUSTFLAGS", format!("--cfg mpage_{checker}"))
        .env(VARIABLE, std::env::var(VARIABLE).unwrap_or(search.random_orders().to_owned()));
    command
}
