//! One owner an image: locks, and those who take none.
//!
//! Another mpage is kept out by a lock, a block device's other users by `O_EXCL`. The kernel's loop
//! driver and its mounts take neither for a file: they are looked up.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use mpage_locks::clock;
use rustix::event::{Timespec, poll};
use rustix::fs::{FileType, Stat, stat};

use super::OpenError;
use super::mounts::{Mount, mounts};
use crate::Errno;

/// For how long an image that somebody has is asked for again, in nanoseconds.
const PATIENCE_NS: u64 = 500_000_000;
/// Between two attempts.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };

/// Takes the open-file-description lock of a whole regular file: to share when `read_only`.
///
/// It stays until the file is closed, in every process that has it from here.
/// Linux: `F_OFD_SETLK`, fcntl(2).
pub(super) fn lock(path: &Path, fd: &OwnedFd, read_only: bool) -> Result<(), OpenError> {
    let kind = if read_only { libc::F_RDLCK } else { libc::F_WRLCK };
    let whole = libc::flock {
        l_type: libc::c_short::try_from(kind).expect("a kind of lock is a short"),
        l_whence: libc::c_short::try_from(libc::SEEK_SET).expect("an origin is a short"),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let locked = patiently(|| {
        // SAFETY: the call reads one flock, which lives until it returns.
        let locked = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole) };
        if locked == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        Err(Errno::from_io_error(&error).expect("the system's last error has a number"))
    });
    locked.map_err(|error| match error {
        Errno::AGAIN | Errno::ACCESS => OpenError::Held {
            path: path.into(),
            holder: "another process, which locks it".into(),
            remedy: "end that process, which `lslocks` may name".into(),
        },
        source => OpenError::NoLocks { path: path.into(), source },
    })
}

/// Tries again for a moment while somebody has the image: the kernel closes the files of a process
/// that used io_uring, and with them gives up what it owned, only after its end.
pub(super) fn patiently<T>(attempt: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    let until_ns = clock::now_ns() + PATIENCE_NS;
    loop {
        let result = attempt();
        let held = matches!(result, Err(Errno::AGAIN | Errno::BUSY));
        if !held || clock::now_ns() >= until_ns {
            return result;
        }
        match poll(&mut [], Some(&LOOK)) {
            // Either way some time has passed.
            Ok(_) | Err(_) => {}
        }
    }
}

/// Refuses an image that a loop device or a mount has.
pub(super) fn refuse_held(path: &Path, image: &Stat) -> Result<(), OpenError> {
    let held =
        |holder: String, remedy: String| OpenError::Held { path: path.into(), holder, remedy };
    let mounts = mounts();
    if let Some(mount) = mounts.iter().find(|mount| mount.is_of(image)) {
        let point = mount.point.display();
        return Err(held(format!("a mount at {point}"), format!("umount {point}")));
    }
    let Some(device) = loop_devices(image).into_iter().next() else { return Ok(()) };
    let found = stat(&device);
    let mounted = mounts.iter().find(|mount| found.as_ref().is_ok_and(|found| mount.is_of(found)));
    let name = device.display();
    Err(match mounted {
        Some(mount) => {
            let point = mount.point.display();
            held(format!("loop device {name}, mounted at {point}"), format!("umount {point}"))
        }
        None => held(format!("loop device {name}"), format!("losetup --detach {name}")),
    })
}

/// The loop devices whose backing file is `image`, by the kernel's list.
fn loop_devices(image: &Stat) -> Vec<PathBuf> {
    // Without sysfs, or the loop driver, there is nothing to look through.
    let Ok(entries) = fs::read_dir("/sys/block") else { return Vec::new() };
    let mut devices = Vec::new();
    for entry in entries.flatten() {
        let Ok(text) = fs::read(entry.path().join("loop/backing_file")) else { continue };
        if backing_paths(&text).any(|path| stat(&path).is_ok_and(|found| same(&found, image))) {
            devices.push(Path::new("/dev").join(entry.file_name()));
        }
    }
    devices.sort();
    devices
}

/// The paths a line of `backing_file` may stand for: with and without the mark of a deleted file,
/// which may be the end of a name, too.
fn backing_paths(text: &[u8]) -> impl Iterator<Item = PathBuf> {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let deleted = line.strip_suffix(b" (deleted)");
    let to_path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    [Some(line), deleted].into_iter().flatten().map(to_path).collect::<Vec<_>>().into_iter()
}

/// Whether both are one regular file, or one block device by whatever name.
fn same(one: &Stat, other: &Stat) -> bool {
    let is_block = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice;
    if is_block(one) && is_block(other) {
        return one.st_rdev == other.st_rdev;
    }
    one.st_dev == other.st_dev && one.st_ino == other.st_ino
}

impl Mount {
    /// Whether `image` is what is mounted.
    fn is_of(&self, image: &Stat) -> bool {
        let is_block = FileType::from_raw_mode(image.st_mode) == FileType::BlockDevice;
        let (major, minor) = (rustix::fs::major(image.st_rdev), rustix::fs::minor(image.st_rdev));
        if is_block && self.device == format!("{major}:{minor}") {
            return true;
        }
        let is_place = |found: &Stat| {
            let kind = FileType::from_raw_mode(found.st_mode);
            matches!(kind, FileType::BlockDevice | FileType::RegularFile)
        };
        self.source.is_absolute()
            && stat(&self.source).is_ok_and(|found| is_place(&found) && same(&found, image))
    }
}

#[cfg(test)]
mod tests;
