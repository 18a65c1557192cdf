//! Who has an image mounted: mpage, and those it is measured against.

use std::fs;
use std::path::{Path, PathBuf};

use crate::clients::server::binary;
use crate::command::{self, cargo, output, program};
use crate::failure::Failure;
use crate::rig::daemon::Daemon;
use crate::rig::folder::{Folder, word};
use crate::rig::mount::{LoopDevice, Mount};
use crate::workspace::target;

/// Who keeps the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    /// `mpage mount`.
    Mpage,
    /// e2fsprogs' own server of FUSE.
    Fuse2fs,
    /// Linux, on a loop device.
    Kernel,
    /// A server of FUSE that keeps no content.
    Ceiling,
}

/// mpage's memory: the files of a row fit, as they fit into the kernel's page cache.
pub(super) const MEMORY: &str = "1G";

impl Contender {
    /// All of them.
    pub(super) const ALL: [Contender; 4] =
        [Contender::Mpage, Contender::Fuse2fs, Contender::Kernel, Contender::Ceiling];

    /// Its name in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Contender::Mpage => "mpage",
            Contender::Fuse2fs => "fuse2fs",
            Contender::Kernel => "kernel",
            Contender::Ceiling => "ceiling",
        }
    }
}

/// Builds what is ours.
pub(super) fn build() -> Result<(), Failure> {
    command::run(&mut cargo(["build", "--release", "--package", "mpage-cli"]))?;
    let example = ["build", "--release", "--package", "mpage-bench", "--example", "discard"];
    command::run(&mut cargo(example))
}

/// A mounted image. Dropped, it is unmounted, and whoever served it is ended.
pub(super) struct Mounted {
    place: PathBuf,
    daemon: Option<Daemon>,
    kernel: Option<(Mount, Option<LoopDevice>)>,
    contender: Contender,
}

impl Mounted {
    /// Has `contender` mount the image at `image`, which may be a block device.
    pub(super) fn new(
        contender: Contender,
        folder: &Folder,
        image: &Path,
    ) -> Result<Mounted, Failure> {
        if contender == Contender::Kernel {
            return Mounted::by_kernel(folder, image);
        }
        let place = folder.path("mounted");
        fs::create_dir_all(&place).map_err(|error| Failure::at(&word(&place), &error))?;
        let (image, point) = (word(image), word(&place));
        let command = match contender {
            Contender::Fuse2fs => program("fuse2fs", ["-f", &image, &point]),
            Contender::Ceiling => {
                let discard = target().join("release/examples/discard");
                program(&word(&discard), [point])
            }
            _ => program(&word(&binary()), ["mount", "--memory", MEMORY, &image, &point]),
        };
        let mut daemon = Daemon::start(command, &folder.path("server.log"))?;
        daemon.until_ready(|| is_mounted(&place))?;
        Ok(Mounted { place, daemon: Some(daemon), kernel: None, contender })
    }

    /// By Linux; of a file, on a loop device that opens it for direct I/O.
    pub(super) fn by_kernel(folder: &Folder, image: &Path) -> Result<Mounted, Failure> {
        let place = folder.path("mounted");
        let found = fs::metadata(image).map_err(|error| Failure::at(&word(image), &error))?;
        let device = match found.is_file() {
            true => Some(LoopDevice::new(image, &["--direct-io=on"])?),
            false => None,
        };
        let disk = device.as_ref().map_or(image, LoopDevice::path);
        let mount = Mount::new(disk, place.clone(), "defaults")?;
        let kernel = Some((mount, device));
        Ok(Mounted { place, daemon: None, kernel, contender: Contender::Kernel })
    }

    /// Where its files are.
    pub(super) fn path(&self) -> &Path {
        &self.place
    }

    /// The process that serves it, if it is not the kernel.
    pub(super) fn server(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::id)
    }

    /// Unmounts it, and waits until all of it is in the image.
    pub(super) fn unmount(mut self) -> Result<(), Failure> {
        if let Some((mount, device)) = self.kernel.take() {
            mount.unmount()?;
            return device.map_or(Ok(()), LoopDevice::detach);
        }
        let Some(daemon) = self.daemon.take() else { return Ok(()) };
        let asked = match self.contender {
            Contender::Mpage => {
                output(&mut program(&word(&binary()), ["umount", &word(&self.place)]))
            }
            _ => output(&mut program("umount", [&word(&self.place)])),
        };
        if let Err(failure) = asked {
            self.daemon = Some(daemon);
            return Err(failure);
        }
        daemon.succeed()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        // It may be dead, or in the middle of something that takes minutes.
        let gone = output(&mut program("umount", ["--lazy", &word(&self.place)]));
        if let Err(failure) = gone {
            eprintln!("bench-mount: {failure}");
        }
        drop(daemon);
    }
}

fn is_mounted(place: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let place = word(place);
    mounts.lines().any(|line| line.split(' ').nth(1) == Some(&place))
}
