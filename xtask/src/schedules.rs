//! The tests that try many orders of threads: all of small parts, random ones of the engine.

use std::process::Command;

use crate::command::{PATIENCE, run_tests, run_tests_and, within};
use crate::failure::Failure;
use crate::workspace::Site;

/// Tells the tests how many random orders to try, each.
const VARIABLE: &str = "MPAGE_SCHEDULES";

/// What a test says in front of how many it tried.
const TRIED: &str = "schedules: ";

/// How long to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Runs the tests as `--short` and `--count N` say.
///
/// # Errors
///
/// A test that fails is a failure.
pub(crate) fn run_task(arguments: &[String]) -> Result<(), Failure> {
    let (search, count) = asked(arguments)?;
    run(search, count)
}

/// What `arguments` ask for.
fn asked(arguments: &[String]) -> Result<(Search, Option<u64>), Failure> {
    let usage = || Failure::new("cargo xtask schedules [--short] [--count N]");
    let (mut search, mut count) = (None, None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let again = match word.as_str() {
            "--short" => search.replace(Search::Short).is_some(),
            "--count" => {
                let number = words.next().map(|number| number.parse());
                let Some(Ok(number @ 1..)) = number else { return Err(usage()) };
                count.replace(number).is_some()
            }
            _ => true,
        };
        if again {
            return Err(usage());
        }
    }
    Ok((search.unwrap_or(Search::Long), count))
}

/// Runs the schedule-checked tests, those with random orders `count` times each. Each crate must
/// have some.
///
/// # Errors
///
/// A test that fails is a failure.
pub(crate) fn run(search: Search, count: Option<u64>) -> Result<(), Failure> {
    let count = match (count, std::env::var(VARIABLE)) {
        (Some(count), _) => count,
        (None, Ok(count)) => {
            count.parse().map_err(|_| Failure::new(format!("{VARIABLE} is a number")))?
        }
        (None, Err(_)) => search.random_orders(),
    };
    let mut every_order = 0;
    for package in ["mpage-mem", "mpage"] {
        let mut test = world("loom", package, count, &Site::own());
        if search == Search::Short {
            let _test = test.env("LOOM_MAX_PREEMPTIONS", "2");
        }
        let passed = run_tests(&mut search.limited(test))?;
        println!("{TRIED}{passed} tests of {package} passed under loom");
        every_order += passed;
    }
    let mut tried = 0;
    let mut test = search.limited(world("shuttle", "mpage", count, &Site::own()));
    let passed = run_tests_and(&mut test, |line| tried += orders(line))?;
    println!("{TRIED}{passed} tests of mpage passed under shuttle");
    if tried < passed * count {
        return Err(Failure::new(format!("{passed} tests say that they tried {tried} orders")));
    }
    println!(
        "{TRIED}{every_order} tests under loom, {passed} under shuttle; {tried} random orders"
    );
    Ok(())
}

/// How many random orders a test says in `line` that it tried; 0 in any other line.
fn orders(line: &str) -> u64 {
    line.strip_prefix(TRIED).map_or(0, |count| count.parse().unwrap_or(0))
}

/// The tests of `package` of the tree at `site` whose names hold the checker's, built with its
/// locks in a folder of its own, and trying `count` random orders each.
pub(crate) fn world(checker: &str, package: &str, count: u64, site: &Site) -> Command {
    let words = ["test", "--package", package, "--lib", "--release"];
    let mut command = site.cargo(&words, checker);
    if checker == "shuttle" {
        let _command = command.arg("--tests");
    }
    let _command = command
        .args([checker, "--", "--show-output"])
        .env("RUSTFLAGS", format!("--cfg mpage_{checker}"))
        .env(VARIABLE, count.to_string());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_by(line: &str) -> Option<(Search, Option<u64>)> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        asked(&words).ok()
    }

    #[test]
    fn a_search_is_short_when_told_and_has_the_count_that_it_is_given() {
        assert_eq!(asked_by(""), Some((Search::Long, None)));
        assert_eq!(asked_by("--short"), Some((Search::Short, None)));
        assert_eq!(asked_by("--count 7 --short"), Some((Search::Short, Some(7))));
        for wrong in ["--count", "--count 0", "--count x", "--short --short", "--long"] {
            assert_eq!(asked_by(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn orders_are_counted_where_a_test_says_them() {
        assert_eq!(orders("schedules: 2000"), 2000);
        assert_eq!(orders("schedules: 3 tests of mpage passed under loom"), 0);
        assert_eq!(orders("test shuttle ... ok"), 0);
    }
}
