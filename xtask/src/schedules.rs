//! The tests that try many orders of threads: all of small parts, random ones of the engine.

use std::process::Command;

use crate::command::{PATIENCE, run_tests, within};
use crate::failure::Failure;
use crate::workspace::Site;

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
    /// Random orders of each test.
    pub(crate) fn random_orders(self) -> u64 {
        match self {
            Search::Short => 2000,
            Search::Long => 60_000,
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
    let count = match std::env::var(VARIABLE) {
        Ok(count) => count.parse().map_err(|_| Failure::new(format!("{VARIABLE} is a number")))?,
        Err(_) => search.random_orders(),
    };
    for package in ["mpage-mem", "mpage"] {
        let mut test = world("loom", package, count, &Site::own());
        if search == Search::Short {
            let _test = test.env("LOOM_MAX_PREEMPTIONS", "2");
        }
        let passed = run_tests(&mut search.limited(test))?;
        println!("schedules: {passed} tests of {package} passed under loom");
    }
    let passed = run_tests(&mut search.limited(world("shuttle", "mpage", count, &Site::own())))?;
    let orders = passed * count;
    println!("schedules: {passed} tests of mpage passed under shuttle, {orders} orders at least");
    Ok(())
}

/// The tests of `package` at `site` whose names hold the checker's, built with its locks in a
/// folder of its own, to try `count` random orders each.
pub(crate) fn world(checker: &str, package: &str, count: u64, site: &Site) -> Command {
    let words = ["test", "--package", package, "--lib", "--release"];
    let mut command = site.cargo(&words, checker);
    if checker == "shuttle" {
        let _command = command.arg("--tests");
    }
    let _command = command
        .arg(checker)
        .env("RUSTFLAGS", format!("--cfg mpage_{checker}"))
        .env(VARIABLE, count.to_string());
    command
}
