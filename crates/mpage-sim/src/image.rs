//! Images of ext2, ext3 and ext4 for programs to run on: made by mke2fs, judged by e2fsck.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use mpage::{Options, PageCache};
use mpage_block::{MemoryDevice, MemoryOptions};
use mpage_ext4::{FileSystem, InodeNumber};

use crate::program::Setup;

/// Words for mke2fs that make a format.
pub(crate) const FORMATS: [&[&str]; 4] = [
    &["-t", "ext2"],
    &["-t", "ext4", "-O", "^has_journal"],
    &["-t", "ext4", "-O", "^has_journal,^metadata_csum,uninit_bg"],
    &["-t", "ext4", "-O", "^has_journal,metadata_csum_seed,^flex_bg", "-I", "128"],
];

thread_local! {
    /// Images that were made already.
    static MADE: RefCell<HashMap<String, Vec<u8>>> = RefCell::default();
}

/// What a file is called.
pub(crate) fn name(file: usize) -> String {
    format!("file-{file}")
}

/// An image for `setup`, each file with `content`: the same each time.
pub(crate) fn make(setup: &Setup, content: &[u8]) -> Vec<u8> {
    let Setup { files, pages, block, format, .. } = setup;
    let key = format!("{files} {pages} {block} {format}");
    if let Some(made) = MADE.with_borrow(|made| made.get(&key).cloned()) {
        return made;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let inside = folder.path().join("files");
    fs::create_dir(&inside).expect("a folder");
    for file in 0..*files {
        fs::write(inside.join(name(file)), content).expect("a file");
    }
    let path = folder.path().join("image");
    let size = format!("{}k", setup.device_bytes() / 1024);
    let made = Command::new("mke2fs")
        .args(["-q", "-F", "-b", &block.to_string(), "-m", "0", "-N", "32"])
        .args(["-U", "00000000-1111-2222-3333-444444444444"])
        .args(["-E", "hash_seed=00000000-1111-2222-3333-444444444444"])
        .args(FORMATS[*format])
        .arg("-d")
        .args([&inside, &path])
        .arg(size)
        .env("E2FSPROGS_FAKE_TIME", "1000000000")
        .output();
    let _words = well("mke2fs", made).expect("an image");
    let image = fs::read(path).expect("an image");
    let _new = MADE.with_borrow_mut(|made| made.insert(key, image.clone()));
    image
}

/// What a program of e2fsprogs says, if it ends well.
fn well(program: &str, output: std::io::Result<Output>) -> Result<String, String> {
    let output = output.unwrap_or_else(|error| panic!("{program} of e2fsprogs: {error}"));
    let words = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(words),
        false => Err(format!("{program}: {words}{}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Lets e2fsck mend `image`, which was not closed, and reads its files.
///
/// # Errors
///
/// What is wrong with it still.
pub(crate) fn mend(image: &[u8], files: usize) -> Result<Vec<Vec<u8>>, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    fs::write(&path, image).expect("an image");
    let mended = Command::new("e2fsck").arg("-fy").arg(&path).output();
    let mended = mended.unwrap_or_else(|error| panic!("e2fsck of e2fsprogs: {error}"));
    let words = String::from_utf8_lossy(&mended.stdout);
    if !matches!(mended.status.code(), Some(0 | 1)) {
        return Err(format!("e2fsck: {words}{}", String::from_utf8_lossy(&mended.stderr)));
    }
    read(&path, files).map_err(|error| format!("the mended image: {error}\n{words}"))
}

/// Lets e2fsck judge `image`, and reads its files.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn check(image: &[u8], files: usize) -> Result<Vec<Vec<u8>>, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("image");
    fs::write(&path, image).expect("an image");
    let words = well("e2fsck", Command::new("e2fsck").arg("-fn").arg(&path).output())?;
    if ["Fix?", "wrong", "differences"].iter().any(|word| words.contains(word)) {
        return Err(words);
    }
    read(&path, files).map_err(|error| format!("the image, opened again: {error}"))
}

/// The content of each file of the image at `path`.
fn read(path: &Path, files: usize) -> mpage_ext4::Result<Vec<Vec<u8>>> {
    let image = fs::read(path).expect("an image");
    let cache = Arc::new(PageCache::new(&Options { memory: 1 << 20, ..Options::default() })?);
    let device = MemoryDevice::from_contents(&image, MemoryOptions::default());
    let dev = cache.add_device(Arc::new(device))?;
    let how = mpage_ext4::Options { writable: false, ..mpage_ext4::Options::default() };
    let opened = FileSystem::open(&cache, &dev, image.len() as u64, &how)?;
    let read = |number| {
        let file = opened.open_file(opened.lookup(InodeNumber::ROOT, name(number).as_bytes())?)?;
        let mut bytes = vec![0; usize::try_from(file.size()).expect("a small file")];
        let count = file.read_at(&mut bytes, 0)?;
        assert_eq!(count, bytes.len(), "as long as it is");
        Ok(bytes)
    };
    (0..files).map(read).collect()
}
