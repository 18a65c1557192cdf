//! The kernel's file systems on the export: ext4, XFS and btrfs.
//!
//! The export becomes a file (qemu-storage-daemon, FUSE), the file a loop device, and that a mount.

use std::path::Path;

use super::Run;
use super::server::Server;
use super::storage_daemon::FuseFile;
use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};
use crate::rig::mount::{LoopDevice, Mount};
use crate::workspace::root;

/// How a file system is made and checked; the device comes last.
struct FileSystem {
    name: &'static str,
    make: &'static [&'static str],
    check: &'static [&'static str],
}

const FILE_SYSTEMS: &[FileSystem] = &[
    FileSystem { name: "ext4", make: &["mkfs.ext4", "-q", "-F"], check: &["e2fsck", "-f", "-n"] },
    FileSystem { name: "xfs", make: &["mkfs.xfs", "-q", "-f"], check: &["xfs_repair", "-n"] },
    FileSystem {
        name: "btrfs",
        make: &["mkfs.btrfs", "-q", "-f"],
        check: &["btrfs", "check", "--check-data-csum"],
    },
];

/// Makes each file system, fills it, unmounts it, checks it, and finds its files in the image.
pub(super) fn file_systems(run: &Run) -> Result<String, Failure> {
    let mut saw = Vec::new();
    for file_system in FILE_SYSTEMS {
        let files = one(run, file_system)
            .map_err(|failure| Failure::new(format!("{}: {failure}", file_system.name)))?;
        saw.push(format!("{} {files}", file_system.name));
    }
    Ok(format!("files copied, clean, and the same in the image: {}", saw.join(", ")))
}

/// Returns how many files were copied.
fn one(run: &Run, file_system: &FileSystem) -> Result<usize, Failure> {
    let folder = Folder::new(file_system.name)?;
    let image = folder.file("disk.img", 512 << 20)?;
    let memory: &[&str] = if run.short { &["--memory", "16M"] } else { &[] };
    let server = Server::start(run.program, &folder, &image, memory)?;
    let file = FuseFile::of_export(&folder, server.socket())?;
    let device = LoopDevice::new(file.path(), &[])?;
    on(file_system.make, device.path())?;
    let mount = Mount::new(device.path(), folder.path("mount"), "noatime")?;
    let tree = mount.path().join("tree");
    let copies = if run.short { 4 } else { 40 };
    for copy in 0..copies {
        let to = word(&tree.join(copy.to_string()));
        let _printed = output(&mut program("mkdir", ["-p", &to]))?;
        for part in ["crates", "xtask", "docs"] {
            let from = word(&root().join(part));
            let _printed = output(&mut program("cp", ["--archive", &from, &to]))?;
        }
    }
    let _printed = output(&mut program("rm", ["-r", &word(&tree.join("0"))]))?;
    let sums = checksums(&tree)?;
    if sums.lines().count() < 100 {
        return Err(Failure::new(format!("few files were copied:\n{sums}")));
    }
    mount.unmount()?;
    on(file_system.check, device.path())?;
    device.detach()?;
    file.stop()?;
    server.stop()?;

    let device = LoopDevice::new(&image, &[])?;
    on(file_system.check, device.path())?;
    let mount = Mount::new(device.path(), folder.path("mount"), "ro")?;
    if checksums(&mount.path().join("tree"))? != sums {
        return Err(Failure::new("the stopped server's image has other files"));
    }
    mount.unmount()?;
    device.detach()?;
    Ok(sums.lines().count())
}

/// Runs a file system's program on `device`.
fn on(words: &[&str], device: &Path) -> Result<(), Failure> {
    let (name, arguments) = words.split_first().expect("a program has a name");
    output(program(name, arguments).arg(device)).map(drop)
}

/// The checksum and the name of each file under `folder`, by name.
fn checksums(folder: &Path) -> Result<String, Failure> {
    let words = [".", "-type", "f", "-exec", "sha256sum", "{}", "+"];
    let printed = output(program("find", words).current_dir(folder))?;
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_unstable_by_key(|line| line.split_once(' ').map(|(_, name)| name));
    Ok(lines.join("\n"))
}
