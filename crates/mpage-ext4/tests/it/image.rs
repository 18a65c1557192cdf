//! Images of the kinds that e2fsprogs makes.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use mpage::{BackingDev, PageCache};
use mpage_block::{BlockDevice, MemoryDevice, MemoryOptions};
use mpage_ext4::{FileSystem, InodeNumber, Options};

/// What a program of e2fsprogs, which has to be there, says when it ends well.
pub(crate) fn run(program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).output();
    let output = output.unwrap_or_else(|error| panic!("{program} of e2fsprogs: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words:?}: {text}{errors}");
    text
}

/// The image that `mke2fs` makes of `folder` with `options`.
pub(crate) fn make(folder: &Path, size: &str, options: &[&str]) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("image");
    let (path, folder) = (path.to_str().unwrap(), folder.to_str().unwrap());
    let words = [&["-q", "-d", folder], options, &[path, size]].concat();
    let _quiet = run("mke2fs", &words);
    fs::read(path).unwrap()
}

/// Changes the image in a file as `commands` of debugfs say.
pub(crate) fn set(image: &Path, commands: &[&str]) {
    for command in commands {
        let _quiet = run("debugfs", &["-w", "-R", command, image.to_str().unwrap()]);
    }
}

/// `image`, its superblock changed by `settings` of debugfs, with its directories made anew by
/// e2fsck: with an index, where there is room for one.
pub(crate) fn with_indexes(image: &[u8], settings: &[&str]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), image).unwrap();
    set(file.path(), settings);
    let output = Command::new("e2fsck").arg("-fyD").arg(file.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{text}");
    fs::read(file.path()).unwrap()
}

/// An image that is open.
pub(crate) struct Opened {
    pub(crate) fs: Arc<FileSystem>,
    pub(crate) _dev: Arc<BackingDev>,
}

/// Opens an image in memory to read it.
pub(crate) fn open(image: &[u8]) -> mpage_ext4::Result<Opened> {
    let device = MemoryDevice::from_contents(image, MemoryOptions::default());
    open_on(Arc::new(device), &Options { writable: false, ..Options::default() })
}

fn open_on(device: Arc<MemoryDevice>, how: &Options) -> mpage_ext4::Result<Opened> {
    let bytes = device.len();
    let options = mpage::Options { memory: 8 << 20, ..mpage::Options::default() };
    open_over(device, bytes, &options, how)
}

/// Opens the image of `bytes` on `device` as `how` says, over a cache of its own.
pub(crate) fn open_over(
    device: Arc<dyn BlockDevice>,
    bytes: u64,
    options: &mpage::Options,
    how: &Options,
) -> mpage_ext4::Result<Opened> {
    let cache = Arc::new(PageCache::new(options).unwrap());
    let dev = cache.add_device(device).unwrap();
    let fs = FileSystem::open(&cache, &dev, bytes, how)?;
    Ok(Opened { fs, _dev: dev })
}

/// Kinds of images: names, and the words that make them.
pub(crate) const KINDS: [(&str, &[&str]); 12] = [
    ("ext2", &["-t", "ext2"]),
    ("ext3", &["-t", "ext3"]),
    ("ext4", &["-t", "ext4"]),
    ("ext2 in 1 KiB", &["-t", "ext2", "-b", "1024"]),
    ("ext3 in 2 KiB", &["-t", "ext3", "-b", "2048"]),
    ("ext4 in 1 KiB", &["-t", "ext4", "-b", "1024"]),
    ("ext4 in 4 KiB", &["-t", "ext4", "-b", "4096"]),
    ("short inodes", &["-t", "ext4", "-I", "128"]),
    ("32 bits", &["-t", "ext4", "-O", "^64bit,^metadata_csum,^flex_bg,uninit_bg"]),
    ("no checksums", &["-t", "ext4", "-O", "^metadata_csum,^dir_index,^huge_file"]),
    ("seed and orphan file", &["-t", "ext4", "-O", "metadata_csum_seed,orphan_file"]),
    ("sparse_super2, meta_bg", &["-t", "ext4", "-O", "sparse_super2,meta_bg,^resize_inode"]),
];

/// The inode of `path` in an image, as debugfs finds it.
pub(crate) fn inode_of(image: &[u8], path: &str) -> InodeNumber {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path().join("image");
    fs::write(&at, image).unwrap();
    let told = run("debugfs", &["-R", &format!("stat {path}"), at.to_str().unwrap()]);
    let number = told.split_whitespace().nth(1).and_then(|number| number.parse().ok());
    InodeNumber(number.unwrap_or_else(|| panic!("debugfs does not find {path}: {told}")))
}
