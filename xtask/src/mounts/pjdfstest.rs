//! pjdfstest: what POSIX asks of a file system, one call after the other.

use std::collections::BTreeMap;
use std::path::Path;

use super::Run;
use super::image::{self, EXT4};
use super::mounted::Mounter;
use super::programs::Program;
use crate::command::program;
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};

const PJDFSTEST: Program = Program { name: "pjdfstest", version: "0.2.2" };

/// What ext4 of Linux has, two users that Debian has, and a moment above a clock's tick.
const CONFIGURATION: &str = "\
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = false
[dummy_auth]
entries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]
";

/// Tests that do not depend on the mount alone: the C library knows how many links a file may have
/// by the kernel's own file systems, and this one is skipped where it does not.
const NOT_COMPARED: &[&str] = &["link::link_count_max"];

/// How one test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

type Outcomes = BTreeMap<String, Outcome>;

/// Runs all of it on a mount of the kernel's, and on one of mpage's: what passes there passes here.
pub(super) fn pjdfstest(run: &Run) -> Result<String, Failure> {
    let program = PJDFSTEST.install()?;
    let kernel = outcomes(Mounter::Kernel, &program)?;
    let ours = outcomes(run.mounter, &program)?;
    let differences = differences(&kernel, &ours);
    let told = format!(
        "kernel: {}; {}: {}; {} differ",
        counts(&kernel),
        run.mounter.name(),
        counts(&ours),
        differences.len()
    );
    if differences.is_empty() {
        return Ok(told);
    }
    Err(Failure::new(format!("{told}:\n{}", differences.join("\n"))))
}

fn outcomes(mounter: Mounter, pjdfstest: &Path) -> Result<Outcomes, Failure> {
    let folder = Folder::new("pjdfstest")?;
    let configuration = folder.path("pjdfstest.toml");
    let written = std::fs::write(&configuration, CONFIGURATION);
    written.map_err(|error| Failure::at(&word(&configuration), &error))?;
    let image = EXT4.image(&folder, "disk.img", 512 << 20)?;
    let mounted = mounter.mount(&folder, &image, "mount", &["--allow-other", "-o", "suid,dev"])?;
    let mut command = program("timeout", ["--signal=KILL", "300"]);
    let command = command.arg(pjdfstest).arg("--configuration-file").arg(configuration);
    let command = command.arg("--path").arg(mounted.path());
    let ended = command.arg("--secondary-fs").arg(folder.path("")).output();
    let ended = ended.map_err(|error| Failure::at("pjdfstest", &error))?;
    mounted.unmount()?;
    image::check(&image)?;
    let printed = String::from_utf8_lossy(&ended.stdout);
    if !printed.lines().any(|line| line.starts_with("Summary: ")) {
        let errors = String::from_utf8_lossy(&ended.stderr);
        return Err(Failure::new(format!("{}: no summary\n{printed}{errors}", ended.status)));
    }
    Ok(parse(&printed))
}

/// Reads the lines of tests among what was printed.
fn parse(printed: &str) -> Outcomes {
    let outcome = |line: &str| {
        let (name, outcome) = line.split_once(char::is_whitespace)?;
        let outcome = match outcome.trim() {
            "ok" => Outcome::Passed,
            "FAILED" => Outcome::Failed,
            "skipped" => Outcome::Skipped,
            _ => return None,
        };
        (!name.is_empty()).then(|| (name.to_owned(), outcome))
    };
    printed.lines().filter_map(outcome).collect()
}

/// The tests that do not end here as they do there, with both ends.
fn differences(there: &Outcomes, here: &Outcomes) -> Vec<String> {
    let mut names: Vec<&String> = there.keys().chain(here.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !NOT_COMPARED.contains(&name.as_str()));
    let differs = |name: &&String| there.get(*name) != here.get(*name);
    let told = |name: &String| format!("{name}: {:?}, {:?}", there.get(name), here.get(name));
    names.into_iter().filter(differs).map(told).collect()
}

fn counts(outcomes: &Outcomes) -> String {
    let count = |wanted| outcomes.values().filter(|outcome| **outcome == wanted).count();
    format!(
        "{} passed, {} failed, {} skipped",
        count(Outcome::Passed),
        count(Outcome::Failed),
        count(Outcome::Skipped)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "\
open::exists                       ok
open::long                     FAILED
\tcapacity overflow
Backtrace:
   0: std::backtrace
open::read_only               skipped
\tRemounts are not allowed

Summary: 1 failed, 1 skipped, 1 passed, 0 expected failures, 3 total
";

    #[test]
    fn outcomes_are_read_from_the_lines_of_tests() {
        let outcomes = parse(PRINTED);
        assert_eq!(counts(&outcomes), "1 passed, 1 failed, 1 skipped");
        assert_eq!(outcomes.get("open::long"), Some(&Outcome::Failed));
    }

    #[test]
    fn a_test_that_ends_otherwise_is_a_difference_and_so_is_one_that_is_missing() {
        let there = parse(PRINTED);
        let mut here = parse(&PRINTED.replace("open::exists                       ok", ""));
        assert!(differences(&there, &there).is_empty());
        assert_eq!(differences(&there, &here), ["open::exists: Some(Passed), None"]);
        let _none = here.insert("open::exists".to_owned(), Outcome::Failed);
        assert_eq!(differences(&there, &here), ["open::exists: Some(Passed), Some(Failed)"]);
    }
}
