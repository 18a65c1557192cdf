//! Images of ext2, ext3 and ext4, made by mke2fs and judged by e2fsck.

use std::path::{Path, PathBuf};

use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};

/// What an image is made as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    /// What mke2fs calls the file system.
    pub(super) name: &'static str,
    /// The size of its blocks.
    pub(super) block_bytes: u32,
}

/// ext4 with the blocks that most have.
pub(super) const EXT4: Format = Format { name: "ext4", block_bytes: 4096 };

/// ext4 with small blocks, four of them in a page.
pub(super) const EXT4_SMALL: Format = Format { name: "ext4", block_bytes: 1024 };

impl Format {
    /// The name and the size of blocks, as reports have it.
    pub(super) fn told(self) -> String {
        format!("{} of {} KiB", self.name, self.block_bytes >> 10)
    }

    /// Makes a sparse image `name` of `size` bytes in `folder`.
    pub(super) fn image(self, folder: &Folder, name: &str, size: u64) -> Result<PathBuf, Failure> {
        let image = folder.file(name, size)?;
        self.make(&image)?;
        Ok(image)
    }

    /// Makes a file system on all of the file or device at `path`.
    pub(super) fn make(self, path: &Path) -> Result<(), Failure> {
        let block = self.block_bytes.to_string();
        let words = ["-q", "-F", "-t", self.name, "-b", &block, "-m", "0"];
        output(program("mke2fs", words).arg(path)).map(drop)
    }
}

/// Has e2fsck look at the image at `path`: it finds nothing to mend.
pub(super) fn check(path: &Path) -> Result<(), Failure> {
    output(program("e2fsck", ["-f", "-n"]).arg(path)).map(drop)
}

/// Has e2fsck mend the image at `path`, and find nothing more after.
pub(super) fn mend(path: &Path) -> Result<(), Failure> {
    let mut command = program("e2fsck", ["-f", "-y"]);
    let ended = command.arg(path).output();
    let ended = ended.map_err(|error| Failure::at("e2fsck", &error))?;
    match ended.status.code() {
        Some(0 | 1) => check(path),
        _ => {
            let printed = String::from_utf8_lossy(&ended.stdout);
            Err(Failure::new(format!("e2fsck -f -y {}: {}\n{printed}", word(path), ended.status)))
        }
    }
}
