//! `mpage umount`: ends a mount, and waits until all of it is on the image.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::args::UmountArgs;
use crate::failure::Failure;
use crate::mount::control::{News, Waiting, mount_at};
use crate::report::Progress;

/// Unmounts the directory; says by the exit status whether all is on the image.
///
/// # Errors
///
/// What keeps it from being unmounted, in one line with the remedy.
pub fn run(args: &UmountArgs) -> Result<ExitCode, Failure> {
    let name = args.directory.display();
    let directory = resolved(&args.directory);
    let nothing =
        || Failure(format!("{name}: nothing is mounted there: `mount -t fuse.mpage` lists mounts"));
    let mount = mount_at(&directory).ok_or_else(nothing)?;
    if !mount.kind.starts_with("fuse") {
        let detail = format!("{name}: is a mount of {}, not of mpage: use umount(8)", mount.kind);
        return Err(Failure(detail));
    }
    let waiting = Waiting::connect(&mount);
    detach(&directory)?;
    let Some(waiting) = waiting else {
        return Err(Failure(format!(
            "{name}: unmounted, but its server was gone already: what was not synced is lost; \
             mount it again, which replays its journal, or check it with `e2fsck -f {}`",
            mount.source.display()
        )));
    };
    wait(waiting).ok_or_else(|| {
        Failure(format!(
            "{name}: the server ended before all was written: mount it again, which replays its \
             journal, or check it with `e2fsck -f {}`",
            mount.source.display()
        ))
    })
}

/// The path without links in it. What cannot be looked at, since its server is gone, is taken as it
/// is.
fn resolved(directory: &Path) -> PathBuf {
    let absolute = || std::path::absolute(directory).unwrap_or_else(|_| directory.into());
    directory.canonicalize().unwrap_or_else(|_| absolute())
}

/// Waits for the end, which it shows; `None` when the server does not come to it.
fn wait(mut waiting: Waiting) -> Option<ExitCode> {
    let mut progress = None;
    loop {
        match waiting.next()? {
            News::Left(bytes) => progress.get_or_insert_with(|| Progress::new(bytes)).left(bytes),
            News::End(status, words) => {
                drop(progress);
                if status != 0 {
                    eprintln!("mpage: {words}");
                }
                return Some(ExitCode::from(status));
            }
        }
    }
}

/// Takes the mount off `directory`: with the help of fusermount3 where it needs privileges.
///
/// # Errors
///
/// What is in the way, with the remedy.
pub fn detach(directory: &Path) -> Result<(), Failure> {
    let name = directory.display();
    match unmount(directory, UnmountFlags::NOFOLLOW) {
        Ok(()) => return Ok(()),
        Err(Errno::PERM) => {}
        Err(Errno::BUSY) => return Err(busy(directory)),
        Err(error) => return Err(Failure(format!("{name}: cannot be unmounted: {error}"))),
    }
    let mut command = Command::new("fusermount3");
    let output = command.arg("-u").arg("--").arg(directory).output().map_err(|error| {
        Failure(format!(
            "fusermount3, which unmounts for ordinary users (Debian's package fuse3): {error}"
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match words.to_lowercase().contains("busy") {
        true => Err(busy(directory)),
        false => Err(Failure(words)),
    }
}

fn busy(directory: &Path) -> Failure {
    let name = directory.display();
    Failure(format!(
        "{name}: in use: a program has a file open there, or is in a folder of it; \
         `fuser -vm {name}` lists them"
    ))
}
