//! Images that the library writes.

use std::fs;
use std::process::Command;
use std::sync::Arc;

use mpage::{BackingDev, Options, PageCache};
use mpage_block::{Errno, MemoryDevice, MemoryOptions};
use mpage_ext4::{Cookie, DirectoryEntry, ErrorKind, FileKind, FileSystem, InodeNumber, New};

use crate::image::make;

pub(crate) const ROOT: InodeNumber = InodeNumber::ROOT;

/// An image in memory that is open.
pub(crate) struct Written {
    pub(crate) fs: Arc<FileSystem>,
    _dev: Arc<BackingDev>,
    _cache: Arc<PageCache>,
    device: Arc<MemoryDevice>,
}

impl Written {
    /// A new image of `size`, made with `options` of mke2fs.
    pub(crate) fn new(size: &str, options: &[&str]) -> Written {
        let empty = tempfile::tempdir().unwrap();
        Written::open(&make(empty.path(), size, options))
    }

    pub(crate) fn open(image: &[u8]) -> Written {
        Written::try_open(image).unwrap()
    }

    pub(crate) fn try_open(image: &[u8]) -> mpage_ext4::Result<Written> {
        let options = Options { memory: 8 << 20, ..Options::default() };
        let cache = Arc::new(PageCache::new(&options).unwrap());
        let device = Arc::new(MemoryDevice::from_contents(image, MemoryOptions::default()));
        let dev = cache.add_device(Arc::clone(&device) as _).unwrap();
        // Nothing is committed but what is told to be.
        let commit_interval = std::time::Duration::ZERO;
        let how = mpage_ext4::Options { commit_interval, ..mpage_ext4::Options::default() };
        let fs = FileSystem::open(&cache, &dev, image.len() as u64, &how)?;
        Ok(Written { fs, _dev: dev, _cache: cache, device })
    }

    /// The image, closed and found to be right.
    pub(crate) fn close(self) -> Vec<u8> {
        self.fs.close().unwrap();
        let image = self.device.contents();
        check(&image);
        image
    }
}

impl Written {
    /// The image as it is when all is written, though files are open.
    pub(crate) fn abandon(self) -> Vec<u8> {
        self.fs.close().unwrap();
        self.device.contents()
    }
}

/// Sees to it that e2fsck finds nothing in `image`.
pub(crate) fn check(image: &[u8]) {
    check_but(image, &[]);
}

/// As [`check`], of an image that was replayed: the superblock's counts of what is free are written
/// when an image is closed.
pub(crate) fn check_replayed(image: &[u8]) {
    check_but(image, &["Free blocks count wrong (", "Free inodes count wrong ("]);
}

/// Sees to it that e2fsck finds nothing but lines that begin as those `expected`.
fn check_but(image: &[u8], expected: &[&str]) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), image).unwrap();
    let output = Command::new("e2fsck").arg("-fn").arg(file.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let is_expected = |line: &str| expected.iter().any(|begin| line.starts_with(begin));
    let found = text.lines().filter(|line| !is_expected(line)).collect::<Vec<_>>();
    let wrong = ["Fix?", "wrong", "differences", "Clear?", "IGNORED"];
    let is_wrong = |line: &&str| wrong.iter().any(|word| line.contains(word)) && *line != "Fix? no";
    let is_fixed = expected.is_empty() && text.contains("Fix?");
    let is_well = output.status.code() == Some(0) && !is_fixed;
    assert!(is_well && !found.iter().any(is_wrong), "{text}");
}

/// A regular file of nobody in particular.
pub(crate) const FILE: New =
    New { kind: FileKind::Regular, permissions: 0o644, uid: 0, gid: 0, device: 0 };

/// The owner of directories and links.
pub(crate) const OWNER: (u32, u32) = (0, 0);

/// All of `directory`.
pub(crate) fn list(fs: &FileSystem, directory: InodeNumber) -> Vec<DirectoryEntry> {
    let (mut entries, mut from) = (Vec::new(), Some(Cookie::START));
    while let Some(cookie) = from {
        let some = fs.read_directory(directory, cookie).unwrap();
        entries.extend(some.entries);
        from = some.next;
    }
    entries
}

/// The names of `directory` but `.`, `..` and `lost+found`, in order.
pub(crate) fn names(fs: &FileSystem, directory: InodeNumber) -> Vec<Vec<u8>> {
    let mut names: Vec<_> = list(fs, directory).into_iter().map(|entry| entry.name).collect();
    names.retain(|name| !matches!(&name[..], b"." | b".." | b"lost+found"));
    names.sort();
    names
}

/// The number of the error that `result` is.
pub(crate) fn errno<T: std::fmt::Debug>(result: mpage_ext4::Result<T>) -> Errno {
    match result.expect_err("it cannot be").kind {
        ErrorKind::Errno(errno) => errno,
        other => panic!("{other:?}"),
    }
}
