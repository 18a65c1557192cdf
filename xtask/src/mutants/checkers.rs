//! The checkers that have to catch a planted bug, in the order that catches most soonest.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use mpage_locks::Mutex;

use crate::command::{line, output, program, within};
use crate::crash;
use crate::failure::Failure;
use crate::schedules::{Search, world};
use crate::sim::{self, On};
use crate::workspace::Site;

/// Programs of the simulator's first round, and of the longest: each has twice those before.
const ROUND: (u64, u64) = (250, 4_000);

/// One program on an image takes as long as so many on the engine.
const EXT4_SHARE: u64 = 10;

/// States that crashes may leave, of which one has to be found wrong.
const STATES: u64 = 8_000;

/// How long a round of the simulator, or a run of tests, may take, in minutes.
const MINUTES: u32 = 6;

/// Builds a tree with a bug in it, and looks for the bug.
pub(super) struct Checkers<'a> {
    site: &'a Site,
    programs: u64,
    /// The simulator on the engine without a bug.
    sound: Option<PathBuf>,
    /// What failed there.
    unsound: Mutex<Vec<String>>,
}

/// Who caught a bug.
pub(super) struct Caught {
    pub(super) by: &'static str,
    /// In which test, or after how many programs.
    pub(super) how: String,
}

impl<'a> Checkers<'a> {
    /// Those of the tree at `site`; the simulator runs at most `programs`.
    pub(super) fn new(site: &'a Site, programs: u64) -> Checkers<'a> {
        Checkers { site, programs, sound: None, unsound: Mutex::default() }
    }

    /// Keeps the simulator of the tree as it is now, without a bug: what fails there too was not
    /// caught.
    ///
    /// # Errors
    ///
    /// Those of the build, and of the file system.
    pub(super) fn keep_sound(&mut self) -> Result<(), Failure> {
        let kept = self.site.target.join("mpage-sim-sound");
        let copied = fs::copy(sim::build(self.site)?, &kept);
        let _bytes = copied.map_err(|error| Failure::at(&kept.to_string_lossy(), &error))?;
        self.sound = Some(kept);
        Ok(())
    }

    /// Sees that the engine, or what of it is `on`, compiles.
    ///
    /// # Errors
    ///
    /// Those of the compiler.
    pub(super) fn compile(&self, on: On) -> Result<(), Failure> {
        let package = match on {
            On::Engine => "mpage",
            On::Ext4 => "mpage-ext4",
        };
        output(&mut self.site.cargo(&["check", "--quiet", "--package", package], "")).map(drop)
    }

    /// The first checker that sees that something is wrong; `None` when all find it right.
    ///
    /// # Errors
    ///
    /// Of a tree that does not compile, or a checker that cannot be run.
    pub(super) fn catch(&self, on: On, of_journal: bool) -> Result<Option<Caught>, Failure> {
        if of_journal && let Some(how) = self.crash()? {
            return Ok(Some(Caught { by: "crash", how }));
        }
        match on {
            On::Engine => self.catch_in_engine(),
            On::Ext4 => self.catch_in_ext4(),
        }
    }

    /// What the explorer of crashes finds among [`STATES`], by the workload that finds it.
    fn crash(&self) -> Result<Option<String>, Failure> {
        let binary = crash::build(self.site)?;
        match crash::explore(&binary, STATES, sim::fresh_seed()?, None) {
            Ok(()) => Ok(None),
            Err(failure) => {
                let told = failure.to_string();
                let line = told.lines().find(|line| line.contains("failed: ")).unwrap_or(&told);
                Ok(Some(line.chars().take(160).collect()))
            }
        }
    }

    fn catch_in_ext4(&self) -> Result<Option<Caught>, Failure> {
        let words = ["test", "--package", "mpage-ext4", "--test", "it", "storms"];
        if let Some(how) = failed_test(self.site.cargo(&words, ""))? {
            return Ok(Some(Caught { by: "test", how }));
        }
        if let Some(how) = self.simulate(On::Ext4, self.programs / EXT4_SHARE)? {
            return Ok(Some(Caught { by: "sim", how }));
        }
        let test =
            self.site.cargo(&["test", "--package", "mpage-ext4", "--lib", "--test", "it"], "");
        Ok(failed_test(test)?.map(|how| Caught { by: "test", how }))
    }

    fn catch_in_engine(&self) -> Result<Option<Caught>, Failure> {
        if let Some(how) = self.simulate(On::Engine, self.programs)? {
            return Ok(Some(Caught { by: "sim", how }));
        }
        let test = self.site.cargo(&["test", "--package", "mpage", "--test", "it"], "");
        if let Some(how) = failed_test(test)? {
            return Ok(Some(Caught { by: "test", how }));
        }
        for checker in ["shuttle", "loom"] {
            let count = Search::Short.random_orders();
            let mut test = world(checker, "mpage", count, self.site);
            let _test = test.env("LOOM_MAX_PREEMPTIONS", "2");
            if let Some(how) = failed_test(test)? {
                return Ok(Some(Caught { by: checker, how }));
            }
        }
        // Block maps over the device's own cache are the image's.
        self.catch_in_ext4()
    }

    fn simulate(&self, on: On, all: u64) -> Result<Option<String>, Failure> {
        let binary = sim::build(self.site)?;
        let (mut round, longest) = ROUND;
        let mut done = 0;
        while done < all {
            let programs = round.min(all - done);
            let from = sim::fresh_seed()?;
            if let Err(failure) = sim::many(&binary, on, programs, from, Some(MINUTES)) {
                let failure = failure.to_string();
                match self.fails_without_the_bug(on, &failure) {
                    Some(told) => self.unsound.lock().push(told),
                    None => return Ok(Some(how_it_failed(done, &failure))),
                }
            }
            done += programs;
            round = (round * 2).min(longest);
        }
        Ok(None)
    }

    /// What a program that failed says on the engine without the bug, if it fails there too: then
    /// it says nothing of the bug.
    fn fails_without_the_bug(&self, on: On, failure: &str) -> Option<String> {
        let (seed, _) = failure.strip_prefix("failed: seed ")?.split_once(',')?;
        let words = [on.words(), &["--from", seed, "--count", "1"]].concat();
        let told = output(&mut program(&self.sound.as_ref()?.to_string_lossy(), words)).err()?;
        println!("the engine fails without the bug too: {told}");
        Some(format!("seed {seed} fails on the engine without a bug"))
    }

    /// The seeds of programs that failed on the engine without a bug.
    pub(super) fn unsound(&self) -> Vec<String> {
        self.unsound.lock().clone()
    }
}

/// In a line: after how many programs, and what was wrong. `done` had passed before the round.
fn how_it_failed(done: u64, failure: &str) -> String {
    let line = failure.lines().next().unwrap_or_default();
    let told = line.strip_prefix("failed: ").and_then(|told| told.split_once(" programs: "));
    let Some((place, wrong)) = told else { return format!("after {done} programs: {line}") };
    let (seed, count) = place.split_once(", after ").unwrap_or((place, ""));
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let all = done + count.parse().unwrap_or(0) * workers + 1;
    let short: String = wrong.chars().take(60).collect();
    format!("{all} programs, {seed}: {short}")
}

/// The first test that fails, or does not end; `None` when all pass.
///
/// # Errors
///
/// Of tests that do not compile.
fn failed_test(test: Command) -> Result<Option<String>, Failure> {
    let mut test = within(MINUTES, &test);
    let output = test.output().map_err(|error| Failure::at(&line(&test), &error))?;
    if output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    if !text.lines().any(|text| text.starts_with("running ")) {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("{}: {}\n{errors}", line(&test), output.status)));
    }
    let first = |ending: &str| {
        let named =
            |text: &str| text.strip_prefix("test ")?.strip_suffix(ending).map(str::to_owned);
        text.lines().find_map(named)
    };
    let first = first(" ... FAILED").or_else(|| first(" has been running for over 60 seconds"));
    Ok(Some(first.unwrap_or_else(|| format!("{}", output.status))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_of_all_rounds_are_counted() {
        let workers = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        let told = how_it_failed(250, "failed: seed 7, after 3 programs: lost\nmore");
        assert_eq!(told, format!("{} programs, seed 7: lost", 251 + 3 * workers));
        assert_eq!(how_it_failed(0, "exit status: 124"), "after 0 programs: exit status: 124");
    }

    #[test]
    fn tests_that_do_not_compile_catch_nothing() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            let _command = command.args(["-c", script]);
            command
        };
        assert!(failed_test(shell("echo error >&2; exit 101")).is_err());
        let fails =
            "echo running 2 tests; echo test one ... ok; echo test two ... FAILED; exit 101";
        let first = failed_test(shell(fails)).expect("tests ran");
        assert_eq!(first.as_deref(), Some("two"));
        let slow = "echo running 2 tests; echo test one has been running for over 60 seconds";
        let then = |script: &str| failed_test(shell(script)).expect("tests ran");
        let failed = then(&format!("{slow}; echo test two ... FAILED; exit 101"));
        assert_eq!(failed.as_deref(), Some("two"), "one is only slow");
        assert_eq!(then(&format!("{slow}; exit 124")).as_deref(), Some("one"));
        assert!(failed_test(shell("echo running 1 test")).is_ok_and(|first| first.is_none()));
    }
}
