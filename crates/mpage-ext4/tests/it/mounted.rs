//! An image that Linux has mounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::image::{run, set};

/// An image in a file, mounted by Linux until this goes. Needs root.
pub(crate) struct Mounted {
    folder: TempDir,
    point: PathBuf,
}

impl Mounted {
    /// Mounts a new image of `size`, made with `options` of mke2fs, then `settings` of debugfs.
    pub(crate) fn new(size: &str, options: &[&str], settings: &[&str]) -> Mounted {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let image = image.to_str().unwrap();
        let _quiet = run("mke2fs", &[&["-q"], options, &[image, size]].concat());
        set(Path::new(image), settings);
        Mounted::in_folder(folder)
    }

    /// Mounts `image`.
    pub(crate) fn of(image: &[u8]) -> Mounted {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("image"), image).unwrap();
        Mounted::in_folder(folder)
    }

    fn in_folder(folder: TempDir) -> Mounted {
        let (image, point) = (folder.path().join("image"), folder.path().join("mount"));
        fs::create_dir(&point).unwrap();
        let words = ["-o", "loop,noatime", image.to_str().unwrap(), point.to_str().unwrap()];
        let _quiet = run("mount", &words);
        Mounted { folder, point }
    }

    /// Where its files are.
    pub(crate) fn path(&self) -> PathBuf {
        self.point.clone()
    }

    /// What the image holds now.
    pub(crate) fn image(&self) -> Vec<u8> {
        // Freezing leaves nothing in memory, and nothing in the journal.
        let point = self.point.to_str().unwrap();
        let _quiet = run("fsfreeze", &["--freeze", point]);
        let image = fs::read(self.folder.path().join("image")).unwrap();
        let _quiet = run("fsfreeze", &["--unfreeze", point]);
        image
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.point).status();
        if !status.as_ref().is_ok_and(|status| status.success()) {
            eprintln!("umount {}: {status:?}", self.point.display());
        }
    }
}
