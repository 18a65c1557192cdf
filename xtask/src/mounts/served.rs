//! An image that a process of mpage's serves at a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use super::mounted::Mounter;
use crate::command::{self, cargo, output, program};
use crate::failure::Failure;
use crate::rig::daemon::Daemon;
use crate::rig::folder::{Folder, word};
use crate::rig::watchdog::Watchdog;
use crate::workspace::target;

/// How long one mount may be there: programs that wait for its answers get none after that.
const LIMIT: Duration = Duration::from_secs(1800);

/// The most seconds that unmounting may take.
const SECONDS_MAX: &str = "120";

/// How timeout ends when the time has passed.
const EXPIRED: i32 = 124;

/// Builds what `mounter` needs.
pub(super) fn build(mounter: Mounter) -> Result<(), Failure> {
    match mounter {
        Mounter::Kernel => Ok(()),
        Mounter::Mpage => {
            command::run(&mut cargo(["build", "--release", "--package", "mpage-cli"]))
        }
    }
}

/// The built command mpage with `arguments`.
pub(super) fn mpage<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Command {
    program(&word(&target().join("release/mpage")), arguments)
}

/// A running `mpage mount`. Dropped, it is killed and its mount cleared away.
pub(super) struct Served {
    /// Before the process: it has to end while the process is ours.
    watchdog: Option<Watchdog>,
    daemon: Option<Daemon>,
    place: PathBuf,
}

impl Served {
    /// Serves `image` at the folder `place`, which is made, and waits until it is there.
    pub(super) fn start(
        folder: &Folder,
        image: &Path,
        place: PathBuf,
        arguments: &[&str],
    ) -> Result<Served, Failure> {
        let mut command = mpage(&["mount"]);
        let _command = command.args(arguments).arg(image).arg(&place);
        Served::start_as(folder, command, image, place)
    }

    /// As [`Served::start`], by a `command` that becomes such a call of mpage.
    pub(super) fn start_as(
        folder: &Folder,
        command: Command,
        image: &Path,
        place: PathBuf,
    ) -> Result<Served, Failure> {
        fs::create_dir_all(&place).map_err(|error| Failure::at(&word(&place), &error))?;
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let log = folder.path(&format!("{name}.log"));
        let line = command::line(&command);
        let daemon = Daemon::start(command, &log)?;
        let mut served = Served { watchdog: None, daemon: Some(daemon), place };
        let id = served.daemon().id();
        served.watchdog = Some(Watchdog::new(id, LIMIT, line)?);
        let ready = format!(
            "mounted {} on {place}; stop with: mpage umount {place}",
            word(image),
            place = word(&served.place)
        );
        let daemon = served.daemon.as_mut().expect("it was just started");
        daemon.until_ready(|| {
            fs::read_to_string(&log).is_ok_and(|text| text.lines().any(|line| line == ready))
        })?;
        Ok(served)
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a process that was not ended is there")
    }

    /// Where its files are.
    pub(super) fn path(&self) -> &Path {
        &self.place
    }

    /// What it printed so far.
    pub(super) fn printed(&self) -> Result<String, Failure> {
        self.daemon().printed()
    }

    /// The most memory it had so far, in KiB.
    pub(super) fn memory_most_kib(&self) -> Result<u64, Failure> {
        self.daemon().memory_most_kib()
    }

    /// Has it unmounted by `mpage umount`; that and the process have to succeed.
    pub(super) fn unmount(self) -> Result<(), Failure> {
        let _printed = output(&mut unmount(&self.place))?;
        self.ended()
    }

    /// Has it unmounted by `mpage umount`; that and the process have to fail, and not by a signal.
    ///
    /// Returns the exit status of both.
    pub(super) fn unmount_badly(mut self) -> Result<[i32; 2], Failure> {
        let ended = unmount(&self.place).output();
        let ended = ended.map_err(|error| Failure::at("mpage umount", &error))?;
        let codes = [ended.status.code(), self.until_ended()?.code()];
        match codes {
            [Some(one), Some(other)] if one != 0 && other != 0 && one != EXPIRED => {
                Ok([one, other])
            }
            _ => {
                let printed = self.printed()?;
                Err(Failure::new(format!("mpage umount and mount end with {codes:?}\n{printed}")))
            }
        }
    }

    /// Sends it the signal of that name.
    pub(super) fn signal(&self, name: &str) -> Result<(), Failure> {
        self.daemon().signal(name)
    }

    /// Waits for its end, which has to be a success, and leave no mount.
    pub(super) fn ended(mut self) -> Result<(), Failure> {
        let daemon = self.daemon.take().expect("a process that was not ended is there");
        let ended = daemon.succeed();
        drop(self.watchdog.take());
        ended?;
        if is_mounted(&self.place)? {
            return Err(Failure::new(format!("{} is mounted still", word(&self.place))));
        }
        Ok(())
    }

    /// Waits for its end, and returns how it ended. The mount may be there still.
    pub(super) fn until_ended(&mut self) -> Result<ExitStatus, Failure> {
        let status = self.daemon.as_mut().expect("it was not ended").until_ended()?;
        drop(self.watchdog.take());
        Ok(status)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.watchdog.take());
        drop(self.daemon.take());
        let cleared = is_mounted(&self.place).and_then(|mounted| {
            let mut unmount = program("umount", ["--lazy", &word(&self.place)]);
            if mounted { output(&mut unmount).map(drop) } else { Ok(()) }
        });
        if let Err(failure) = cleared {
            eprintln!("xtask: {failure}");
        }
    }
}

/// `mpage umount` of what is at `place`, within a limit.
pub(super) fn unmount(place: &Path) -> Command {
    let mut command = program("timeout", [SECONDS_MAX]);
    let _command = command.arg(mpage(&[""; 0]).get_program()).arg("umount").arg(place);
    command
}

/// Whether something is mounted at `place`.
pub(super) fn is_mounted(place: &Path) -> Result<bool, Failure> {
    let path = "/proc/self/mounts";
    let mounts = fs::read_to_string(path).map_err(|error| Failure::at(path, &error))?;
    let place = word(place);
    Ok(mounts.lines().any(|line| line.split(' ').nth(1) == Some(place.as_str())))
}
