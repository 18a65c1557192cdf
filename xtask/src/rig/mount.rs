//! Loop devices and mounts, given back when they are dropped.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::folder::word;
use super::wait::until;
use crate::command::{output, program};
use crate::failure::Failure;

/// How long the kernel may hold files of a process that has ended.
const FREE_LIMIT: Duration = Duration::from_secs(30);

/// A loop device over a file.
pub(crate) struct LoopDevice(Option<PathBuf>);

impl LoopDevice {
    /// Lays a device over the file at `path`, with losetup's further `arguments`.
    pub(crate) fn new(path: &Path, arguments: &[&str]) -> Result<LoopDevice, Failure> {
        let mut losetup = program("losetup", ["--find", "--show"]);
        let printed = output(losetup.args(arguments).arg(path))?;
        Ok(LoopDevice(Some(printed.trim().into())))
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        self.0.as_deref().expect("a device that is there has a path")
    }

    /// What the kernel says of the device in the file `name` under /sys/block.
    pub(crate) fn says(&self, name: &str) -> Result<String, Failure> {
        let device = self.path().file_name().unwrap_or_default().to_string_lossy();
        let path = format!("/sys/block/{device}/{name}");
        fs::read_to_string(&path).map_err(|error| Failure::at(&path, &error))
    }

    /// How many writes the device has done, and how many sectors they had.
    pub(crate) fn writes(&self) -> Result<(u64, u64), Failure> {
        let text = self.says("stat")?;
        let numbers: Result<Vec<u64>, _> = text.split_whitespace().map(str::parse).collect();
        match numbers.as_deref() {
            Ok([_, _, _, _, writes, _, sectors, ..]) => Ok((*writes, *sectors)),
            _ => Err(Failure::new(format!("no statistics: {text}"))),
        }
    }

    /// Takes the device away.
    pub(crate) fn detach(mut self) -> Result<(), Failure> {
        self.0.take().map_or(Ok(()), |path| detach(&path))
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Some(Err(failure)) = self.0.take().map(|path| detach(&path)) {
            eprintln!("xtask: {failure}");
        }
    }
}

fn detach(path: &Path) -> Result<(), Failure> {
    output(&mut program("losetup", ["--detach", &word(path)])).map(drop)
}

/// A mounted file system.
pub(crate) struct Mount(Option<PathBuf>);

impl Mount {
    /// Mounts `device` at the folder `place`, which is made.
    pub(crate) fn new(device: &Path, place: PathBuf, options: &str) -> Result<Mount, Failure> {
        fs::create_dir_all(&place).map_err(|error| Failure::at(&word(&place), &error))?;
        let arguments = ["--options", options, &word(device), &word(&place)];
        let _printed = output(&mut program("mount", arguments))?;
        Ok(Mount(Some(place)))
    }

    /// Mounts a file system in memory, of `bytes` at most, at the folder `place`, which is made.
    pub(crate) fn of_memory(place: PathBuf, bytes: u64) -> Result<Mount, Failure> {
        fs::create_dir_all(&place).map_err(|error| Failure::at(&word(&place), &error))?;
        let options = format!("size={bytes}");
        let words = ["-t", "tmpfs", "--options", &options, "tmpfs", &word(&place)];
        let _printed = output(&mut program("mount", words))?;
        Ok(Mount(Some(place)))
    }

    /// Lets a file system in memory have `bytes`.
    pub(crate) fn enlarge(&self, bytes: u64) -> Result<(), Failure> {
        let options = format!("remount,size={bytes}");
        output(&mut program("mount", ["--options", &options, &word(self.path())])).map(drop)
    }

    /// Where its files are.
    pub(crate) fn path(&self) -> &Path {
        self.0.as_deref().expect("a mount that is there has a path")
    }

    /// Unmounts it once nobody uses it: the kernel lets go of files behind a process's end.
    pub(crate) fn unmount_when_free(mut self) -> Result<(), Failure> {
        let what = format!("the end of all use of {}", word(self.path()));
        until(&what, FREE_LIMIT, || Ok(unmount(self.path()).is_ok().then_some(())))?;
        self.0 = None;
        Ok(())
    }

    /// Unmounts it, which writes everything down.
    pub(crate) fn unmount(mut self) -> Result<(), Failure> {
        self.0.take().map_or(Ok(()), |path| unmount(&path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(Err(failure)) = self.0.take().map(|path| unmount(&path)) {
            eprintln!("xtask: {failure}");
        }
    }
}

fn unmount(path: &Path) -> Result<(), Failure> {
    output(&mut program("umount", [&word(path)])).map(drop)
}
