//! Other programs: run one, and know whether it did its work.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};

use crate::failure::Failure;
use crate::workspace::root;

/// How long a run of tests may take in ci, in minutes; many times what it does.
pub(crate) const PATIENCE: u32 = 20;

/// A call of cargo with `arguments`, at the root of the workspace and without standard input.
pub(crate) fn cargo<I, S>(arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    let _command = command.args(arguments).current_dir(root()).stdin(Stdio::null());
    command
}

/// A call of the program `name` with `arguments`, without standard input.
pub(crate) fn program<I, S>(name: &str, arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(name);
    let _command = command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs `command` to its end, and returns what it printed.
///
/// # Errors
///
/// A program that fails is a failure, which tells what it printed there and as its errors.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let output = command.output().map_err(|error| Failure::at(&line(command), &error))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match judge(command, output.status) {
        Ok(()) => Ok(text),
        Err(failure) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(Failure::new(format!("{failure}\n{text}{errors}")))
        }
    }
}

/// Runs `command` to its end.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(|error| Failure::at(&line(command), &error))?;
    judge(command, status)
}

/// `command`, ended with all it started once it has run for `minutes`: a test that hangs is a test
/// that failed, and its name is among the last lines.
pub(crate) fn within(minutes: u32, command: &Command) -> Command {
    let mut limited = program("timeout", ["--kill-after=10", &format!("{minutes}m")]);
    let _limited = limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        let _limited = match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        let _limited = limited.current_dir(folder);
    }
    limited
}

/// Runs a `cargo test`, prints what it prints, and returns how many tests passed.
///
/// A call that ran no test at all is a failure: it would say that all is well of nothing.
pub(crate) fn run_tests(command: &mut Command) -> Result<u64, Failure> {
    run_tests_and(command, |_| {})
}

/// As [`run_tests`]; shows each line to `look` too.
pub(crate) fn run_tests_and(
    command: &mut Command,
    mut look: impl FnMut(&str),
) -> Result<u64, Failure> {
    let failed = |error| Failure::at("cargo test", &error);
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(failed)?;
    let output = child.stdout.take().expect("the output was asked for as a pipe");
    let mut passed = 0;
    for text in BufReader::new(output).split(b'\n') {
        let text = text.map_err(failed)?;
        let told = String::from_utf8_lossy(&text);
        passed += passed_tests(&told);
        look(&told);
        let printed = std::io::stdout().write_all(&[text.as_slice(), b"\n"].concat());
        printed.map_err(failed)?;
    }
    judge(command, child.wait().map_err(failed)?)?;
    match passed {
        0 => Err(Failure::new(format!("no test ran: {}", line(command)))),
        _ => Ok(passed),
    }
}

fn judge(command: &Command, status: ExitStatus) -> Result<(), Failure> {
    let success = status.success();
    success.then_some(()).ok_or_else(|| Failure::new(format!("{status}: {}", line(command))))
}

/// How many tests passed, from the line a test binary ends with; 0 from any other line.
fn passed_tests(line: &str) -> u64 {
    let Some(counts) = line.strip_prefix("test result: ok. ") else { return 0 };
    counts.split(' ').next().map_or(0, |count| count.parse().unwrap_or(0))
}

/// The command as it would be typed, with its environment.
pub(crate) fn line(command: &Command) -> String {
    let variables = command.get_envs().filter_map(|(name, value)| {
        Some(format!("{}='{}'", name.to_string_lossy(), value?.to_string_lossy()))
    });
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words = words.map(|word| word.to_string_lossy().into_owned());
    variables.chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        let _command = command.args(["-c", script]);
        command
    }

    #[test]
    fn a_program_that_fails_is_a_failure() {
        assert!(run(&mut shell("true")).is_ok());
        let failure = run(&mut shell("exit 3")).expect_err("the program fails");
        assert_eq!(failure.to_string(), "exit status: 3: sh -c exit 3");
        assert!(run(&mut Command::new("/nowhere/to/be/found")).is_err());
    }

    #[test]
    fn a_failure_tells_what_the_program_printed() {
        assert_eq!(output(&mut shell("echo words")).expect("the shell runs"), "words\n");
        let failure = output(&mut shell("echo out; echo err >&2; exit 1"));
        assert!(failure.expect_err("it fails").to_string().ends_with("\nout\nerr\n"));
    }

    #[test]
    fn a_limit_leaves_the_rest_of_the_command_as_it_was() {
        let mut command = shell("echo $WORD; pwd");
        let _command = command.env("WORD", "word").current_dir("/");
        assert_eq!(output(&mut within(1, &command)).expect("the shell runs"), "word\n/\n");
    }

    #[test]
    fn tests_are_counted_over_all_binaries() {
        let result = "echo test result: ok. 2 passed\\; 0 failed; echo test result: ok. 3 passed";
        assert_eq!(run_tests(&mut shell(result)).expect("tests ran"), 5);
    }

    #[test]
    fn a_run_of_no_tests_is_a_failure() {
        let failure = run_tests(&mut shell("echo 'test result: ok. 0 passed; 9 filtered out'"));
        assert!(failure.expect_err("no test ran").to_string().starts_with("no test ran"));
        assert!(run_tests(&mut shell("echo 'test result: ok. 1 passed'; exit 1")).is_err());
    }
}
