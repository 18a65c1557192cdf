//! A program that runs until it is told to stop.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use super::wait::until;
use crate::command::{self, program};
use crate::failure::Failure;

/// How long a program has to be ready, and to write back what it holds when it stops.
const LIMIT: Duration = Duration::from_secs(120);

/// A running program. Dropped while it runs, it is killed.
pub(crate) struct Daemon {
    child: Child,
    line: String,
    log: PathBuf,
    running: bool,
}

impl Daemon {
    /// Starts `command`; what it prints goes to the file `log`.
    pub(crate) fn start(mut command: Command, log: &Path) -> Result<Daemon, Failure> {
        let at = |error| Failure::at(&log.to_string_lossy(), &error);
        let output = File::create(log).map_err(at)?;
        let errors = output.try_clone().map_err(at)?;
        let line = command::line(&command);
        let child = command.stdout(output).stderr(errors).spawn();
        let child = child.map_err(|error| Failure::at(&line, &error))?;
        Ok(Daemon { child, line, log: log.to_owned(), running: true })
    }

    /// Its process.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` says that it is.
    pub(crate) fn until_ready(&mut self, mut ready: impl FnMut() -> bool) -> Result<(), Failure> {
        let what = self.line.clone();
        until(&what, LIMIT, || {
            if let Some(status) = self.ended()? {
                return Err(self.failure(&format!("{status} before it was ready")));
            }
            Ok(ready().then_some(()))
        })
    }

    /// Ends it by SIGTERM, and takes any end but a success for a failure.
    pub(crate) fn stop(self) -> Result<(), Failure> {
        self.signal("TERM")?;
        self.succeed()
    }

    /// Sends it the signal of that name.
    pub(crate) fn signal(&self, name: &str) -> Result<(), Failure> {
        command::run(&mut program("kill", [format!("-{name}"), self.id().to_string()]))
    }

    /// Waits for its end, which has to be a success.
    pub(crate) fn succeed(mut self) -> Result<(), Failure> {
        let status = self.until_ended()?;
        status.success().then_some(()).ok_or_else(|| self.failure(&status.to_string()))
    }

    /// Waits for its end.
    pub(crate) fn until_ended(&mut self) -> Result<ExitStatus, Failure> {
        let what = format!("the end of {}", self.line);
        until(&what, LIMIT, || self.ended())
    }

    /// What it printed so far.
    pub(crate) fn printed(&self) -> Result<String, Failure> {
        fs::read_to_string(&self.log)
            .map_err(|error| Failure::at(&self.log.to_string_lossy(), &error))
    }

    /// The most memory it had so far, in KiB.
    pub(crate) fn memory_most_kib(&self) -> Result<u64, Failure> {
        let path = format!("/proc/{}/status", self.id());
        let text = fs::read_to_string(&path).map_err(|error| Failure::at(&path, &error))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next()).unwrap_or_default();
        number.parse().map_err(|_| Failure::new(format!("{path} tells no VmHWM")))
    }

    /// How it ended, once it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let status = self.child.try_wait().map_err(|error| Failure::at(&self.line, &error))?;
        self.running = status.is_none();
        Ok(status)
    }

    /// A failure with the words it printed.
    fn failure(&self, message: &str) -> Failure {
        let log = fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string());
        Failure::new(format!("{message}: {}\n{log}", self.line))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.running {
            return;
        }
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("xtask: process {} is left: {error}", self.id());
        }
        let log = fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string());
        if !log.is_empty() {
            eprintln!("xtask: {} printed:\n{log}", self.line);
        }
    }
}
