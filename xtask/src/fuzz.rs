//! The fuzzer: damaged images of ext2, ext3 and ext4, on every processor.
//!
//! libFuzzer is compiled into the targets, which lie in a workspace of their own. The flags are
//! those of cargo-fuzz, without a sanitizer, since what is fuzzed has no unsafe code, and without a
//! look at what is compared, since that is not what the input has.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use mpage_locks::clock;

use crate::command::{cargo, line, output, program, run};
use crate::failure::Failure;
use crate::sim::fresh_seed;
use crate::workspace::{Site, root, target};

/// What is done with images; each has a program of its own.
const TARGETS: &[&str] = &["read", "write", "check", "journal"];
/// Seconds of a whole run of a target.
const LONG: u64 = 600;
/// Seconds of the run of a target that each change has to pass.
const SHORT: u64 = 5;
/// Seconds that one input may take.
const INPUT_SECONDS: u32 = 10;
/// MiB of memory that a process may take.
const MEMORY_MIB: u32 = 1024;
/// Bytes of an input at most.
const INPUT_BYTES: u32 = 512;

const PLATFORM: &str = "x86_64-unknown-linux-gnu";
const COVERAGE: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table";

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    targets: Vec<String>,
    seconds: u64,
    seed: Option<u64>,
    /// An input to run instead of looking for one that fails.
    input: Option<PathBuf>,
}

/// Fuzzes the target that `arguments` name, or all.
///
/// # Errors
///
/// An input that fails is a failure, which names it.
pub(crate) fn run_task(arguments: &[String]) -> Result<(), Failure> {
    let asked = asked(arguments)?;
    let place = Place::made()?;
    if let Some(input) = &asked.input {
        return place.repeat(&asked.targets[0], input);
    }
    place.fuzz(&asked.targets, asked.seconds, asked.seed)
}

/// Fuzzes all targets as long as each change can wait for.
///
/// # Errors
///
/// As [`run_task`].
pub(crate) fn run_short() -> Result<(), Failure> {
    let targets: Vec<String> = TARGETS.iter().map(ToString::to_string).collect();
    Place::made()?.fuzz(&targets, SHORT, None)
}

fn asked(arguments: &[String]) -> Result<Asked, Failure> {
    let usage = || {
        let targets = TARGETS.join("|");
        Failure::new(format!(
            "cargo xtask fuzz [{targets}] [--seconds N] [--seed N] [--input FILE]"
        ))
    };
    let named = arguments.first().filter(|name| TARGETS.contains(&name.as_str()));
    let targets = match named {
        Some(name) => vec![name.clone()],
        None => TARGETS.iter().map(ToString::to_string).collect(),
    };
    let mut asked = Asked { targets, seconds: LONG, seed: None, input: None };
    for pair in arguments[usize::from(named.is_some())..].chunks(2) {
        let [name, value] = pair else { return Err(usage()) };
        let number = value.parse().map_err(|_| usage());
        match name.as_str() {
            "--seconds" => asked.seconds = number?,
            "--seed" => asked.seed = Some(number?),
            "--input" if named.is_some() => asked.input = Some(value.into()),
            _ => return Err(usage()),
        }
    }
    Ok(asked)
}

/// The programs, and where things lie.
struct Place {
    /// Makes bases, and runs single inputs.
    tool: PathBuf,
    /// The folder of the targets' programs.
    programs: PathBuf,
    /// What it works on: bases, inputs, and those that failed.
    work: PathBuf,
}

impl Place {
    /// Builds the programs, and makes the bases anew.
    fn made() -> Result<Place, Failure> {
        let _warnings = output(&mut cargo(["build", "--quiet", "--package", "mpage-fuzz"]))?;
        let built = target().join("fuzz");
        let mut build = Site::own().cargo(&["build", "--quiet", "--locked", "--release"], "fuzz");
        let _build = build.current_dir(root().join("fuzz"));
        let _build = build.args(["--target", PLATFORM]).env("RUSTFLAGS", COVERAGE);
        // It has C++ in it: package g++ of Debian, which `cargo xtask tools` installs.
        let _warnings = output(&mut build)?;
        let place = Place {
            tool: target().join("debug/mpage-fuzz"),
            programs: built.join(PLATFORM).join("release"),
            work: built.join("work"),
        };
        run(&mut place.tool(&["bases", &word(&place.bases())]))?;
        Ok(place)
    }

    fn bases(&self) -> PathBuf {
        self.work.join("bases")
    }

    fn tool(&self, words: &[&str]) -> Command {
        program(&word(&self.tool), words)
    }

    /// Fuzzes each of `targets` for `seconds`.
    fn fuzz(&self, targets: &[String], seconds: u64, seed: Option<u64>) -> Result<(), Failure> {
        let seed = seed.map_or_else(fresh_seed, Ok)?;
        let mut failed = Vec::new();
        for target in targets {
            if let Err(failure) = self.fuzz_one(target, seconds, seed) {
                println!("fuzz: {failure}");
                failed.push(target.as_str());
            }
        }
        match failed.is_empty() {
            true => Ok(()),
            false => Err(Failure::new(format!("{} failed", failed.join(", ")))),
        }
    }

    fn fuzz_one(&self, target: &str, seconds: u64, seed: u64) -> Result<(), Failure> {
        let workers = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        println!("fuzz: {target} from seed {seed} on, by {workers} processes");
        let start_ns = clock::now_ns();
        let found = self.work.join("found").join(target);
        let corpus = self.work.join("corpus").join(target);
        for folder in [&found, &corpus] {
            fs::create_dir_all(folder).map_err(|error| Failure::at(&word(folder), &error))?;
        }
        let mut children = Vec::new();
        for worker in 0..workers {
            let log = self.work.join(format!("{target}-{worker}.log"));
            let mut command = self.fuzzer(target, seconds, seed + worker);
            let file = File::create(&log).map_err(|error| Failure::at(&word(&log), &error))?;
            let failed = |error| Failure::at(&line(&command), &error);
            let errors = file.try_clone().map_err(failed)?;
            let child = command.stdout(file).stderr(errors).spawn();
            children.push((child.map_err(|error| Failure::at(&line(&command), &error))?, log));
        }
        let ends: Vec<_> = children.into_iter().map(|(child, log)| ended(child, &log)).collect();
        let (mut runs, mut coverage, mut failed) = (0, 0, Vec::new());
        for end in ends {
            let end = end?;
            (runs, coverage) = (runs + end.runs, coverage.max(end.coverage));
            failed.extend(end.failed);
        }
        let seconds = (clock::now_ns() - start_ns) as f64 / 1e9;
        println!("fuzz: {target}: {runs} inputs in {seconds:.0} s, {coverage} edges covered");
        match failed.is_empty() {
            true => Ok(()),
            false => Err(self.told(target, &failed)),
        }
    }

    /// libFuzzer for `target`.
    fn fuzzer(&self, target: &str, seconds: u64, seed: u64) -> Command {
        let inputs =
            ["corpus", "bases/seeds"].map(|folder| word(&self.work.join(folder).join(target)));
        let found = format!("{}/", word(&self.work.join("found").join(target)));
        let mut command = program(&word(&self.programs.join(target)), inputs);
        let _command = command
            .arg(format!("-seed={}", seed % (1 << 31) + 1))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .arg(format!("-max_len={INPUT_BYTES}"))
            .arg(format!("-artifact_prefix={found}"))
            .args(["-len_control=0", "-print_final_stats=1"])
            .env("MPAGE_FUZZ_BASES", self.bases());
        command
    }

    /// What failed, and what is kept of it.
    fn told(&self, target: &str, inputs: &[PathBuf]) -> Failure {
        let mut told = format!("{target} fails");
        for input in inputs {
            let case = input.with_extension("case");
            let (folder, words) = (word(&self.bases()), [word(input), word(&case)]);
            let reduce = ["reduce", &folder, target, &words[0], &words[1]];
            let how = match output(&mut self.tool(&reduce)) {
                Ok(how) => format!("{how}{}, made small\n", words[1]),
                Err(failure) => failure.to_string(),
            };
            told += &format!("\n{how}cargo xtask fuzz {target} --input {}", words[0]);
        }
        Failure::new(told)
    }

    /// Runs one input of `target`, or the case that was kept of one.
    fn repeat(&self, target: &str, input: &Path) -> Result<(), Failure> {
        let (folder, input) = (word(&self.bases()), word(input));
        match input.ends_with(".case") {
            true => run(&mut self.tool(&["replay", &input])),
            false => run(&mut self.tool(&["run", &folder, target, &input])),
        }
    }
}

/// How a process of the fuzzer ended.
struct End {
    runs: u64,
    coverage: u64,
    /// The input that failed.
    failed: Option<PathBuf>,
}

/// Waits for a process that says what it does in file `log`.
fn ended(mut child: Child, log: &Path) -> Result<End, Failure> {
    let at = |error| Failure::at(&word(log), &error);
    let status = child.wait().map_err(at)?;
    let text = fs::read(log).map_err(at)?;
    let text = String::from_utf8_lossy(&text);
    let failed = artifact(&text);
    if !status.success() && failed.is_none() {
        let last: Vec<&str> = text.lines().rev().take(10).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        return Err(Failure::new(format!("{status}: {}\n{}", word(log), last.join("\n"))));
    }
    let (runs, coverage) = counts(&text);
    Ok(End { runs, coverage, failed })
}

/// The file that libFuzzer says in `log` that it wrote a failing input to.
fn artifact(log: &str) -> Option<PathBuf> {
    log.lines().find_map(|line| line.split_once("Test unit written to ")).map(|(_, at)| at.into())
}

/// How many inputs libFuzzer says in `log` that it ran, and how many edges they covered.
fn counts(log: &str) -> (u64, u64) {
    let number = |text: Option<&str>| text.map_or(0, |text| text.trim().parse().unwrap_or(0));
    let last = log.lines().rev().find(|line| line.starts_with('#') && line.contains(" cov: "));
    let Some(last) = last else { return (0, 0) };
    let runs = number(last[1..].split_whitespace().next());
    let coverage = last.split(" cov: ").nth(1).and_then(|rest| rest.split(' ').next());
    (runs, number(coverage))
}

fn word(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_by(line: &str) -> Option<Asked> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        asked(&words).ok()
    }

    #[test]
    fn all_targets_are_fuzzed_or_one_as_told() {
        let all = asked_by("").expect("nothing has to be said");
        assert_eq!(all.targets, TARGETS);
        assert_eq!((all.seconds, all.seed), (LONG, None));
        let one = asked_by("write --seconds 7 --seed 8").expect("it is right");
        assert_eq!(one.targets, ["write"]);
        assert_eq!((one.seconds, one.seed), (7, Some(8)));
        assert!(asked_by("journal --input file").is_some_and(|asked| asked.input.is_some()));
        for wrong in ["other", "read write", "--seconds", "--seconds x", "--input file"] {
            assert!(asked_by(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn figures_and_failures_are_those_of_the_log() {
        let log = "#7\tNEW    cov: 12 ft: 9 exec/s: 3\n\
                   #8588\tDONE   cov: 6404 ft: 21290 corp: 1071/66Kb\nDone 8588 runs\n";
        assert_eq!(counts(log), (8588, 6404));
        assert_eq!(counts("nothing"), (0, 0));
        assert_eq!(artifact(log), None);
        let failed = "artifact_prefix='a/'; Test unit written to a/crash-12\nBase64: AA==\n";
        assert_eq!(artifact(failed), Some("a/crash-12".into()));
    }
}
