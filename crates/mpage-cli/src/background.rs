//! Commands that go on in the background.
//!
//! The process that was started starts itself once more, and waits for the line that says that it
//! is ready: a process that has threads cannot be split in two.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::failure::{Failure, system};

/// Starts this command again, with `replaced` of its words in place of `word`, prints the line by
/// which it says that it is ready, and leaves it alone.
///
/// # Errors
///
/// The system's. What keeps the command from being ready it says itself: the exit status tells.
pub fn start(word: &str, replaced: &str) -> Result<ExitCode, Failure> {
    let program = std::env::current_exe().map_err(system("cannot find this program"))?;
    let words = std::env::args_os().skip(1);
    let words = words.map(|it| if it == word { OsString::from(replaced) } else { it });
    let mut command = Command::new(program);
    let command = command.args(words).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(system("cannot start this program again"))?;
    let mut line = String::new();
    let told = child.stdout.take().expect("it is a pipe");
    let read = BufReader::new(told).read_line(&mut line).map_err(system("cannot read"))?;
    if read == 0 {
        let status = child.wait().map_err(system("cannot wait"))?;
        let code = u8::try_from(status.code().unwrap_or(1)).unwrap_or(u8::MAX);
        return Ok(ExitCode::from(code.max(1)));
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()).map_err(system("no output"))?;
    Ok(ExitCode::SUCCESS)
}

/// Leaves the terminal this process was started from.
///
/// # Errors
///
/// The system's.
pub fn leave_terminal() -> Result<(), Failure> {
    let _session = rustix::process::setsid().map_err(|error| Failure(error.to_string()))?;
    Ok(())
}

/// Lets go of the inherited files, and of the folder, so that nothing waits for this process to
/// end.
///
/// # Errors
///
/// The system's.
pub fn let_go() -> Result<(), Failure> {
    let failed = |error: rustix::io::Errno| Failure(format!("/dev/null: {error}"));
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed)?;
    dup2_stdin(&null).map_err(failed)?;
    dup2_stdout(&null).map_err(failed)?;
    dup2_stderr(&null).map_err(failed)?;
    std::env::set_current_dir("/").map_err(system("/"))
}
