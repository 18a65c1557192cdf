//! Directories that are removed: how it is found out that they are empty.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mpage_block::wrap::{DeviceOp, Trace};
use mpage_block::{BioOp, BlockDevice, Errno, MemoryDevice, MemoryOptions};
use mpage_ext4::{At, Existing, FileSystem, InodeNumber, Options};
use mpage_locks::atomic::{AtomicBool, Ordering};

use crate::image::{Opened, open_over};
use crate::written::{FILE, OWNER, ROOT, Written, check};

/// Names of 250 bytes, of which a block of 1 KiB has three: a directory of them is longer than the
/// memory.
const NAMES: u64 = 1200;

/// Makes directory `name`, which is long and empty.
fn make_long(fs: &FileSystem, name: &[u8]) {
    let directory = fs.mkdir(ROOT, name, 0o755, OWNER).unwrap();
    let inode = fs.create(ROOT, b"file", &FILE).unwrap();
    let long = |number: u64| format!("{number:0>250}").into_bytes();
    for number in 0..NAMES {
        fs.link(inode, directory, &long(number)).unwrap();
    }
    for number in 0..NAMES {
        fs.unlink(directory, &long(number)).unwrap();
    }
    fs.unlink(ROOT, b"file").unwrap();
}

#[test]
fn a_directory_longer_than_the_memory_is_removed_in_few_reads() {
    for features in ["dir_index", "^dir_index"] {
        let written = Written::new("48M", &["-t", "ext4", "-b", "1024", "-O", features]);
        make_long(&written.fs, b"removed");
        make_long(&written.fs, b"replaced");
        let image = written.close();
        let device = Arc::new(MemoryDevice::from_contents(&image, MemoryOptions::default()));
        let trace = Arc::new(Trace::new(Arc::clone(&device) as _));
        let memory = mpage::Options::MEMORY_MIN;
        let options = mpage::Options { memory, ..mpage::Options::default() };
        let how = Options { commit_interval: Duration::ZERO, ..Options::default() };
        let traced = Arc::clone(&trace) as Arc<dyn BlockDevice>;
        let Opened { fs, _dev } = open_over(traced, device.len(), &options, &how).unwrap();
        let directory = fs.lookup(ROOT, b"removed").unwrap();
        let blocks = fs.attributes(directory).unwrap().size / 1024;
        assert!(blocks * 1024 > memory as u64, "{blocks} blocks");
        let _new = fs.mkdir(ROOT, b"new", 0o755, OWNER).unwrap();
        let _before = trace.take();
        fs.rmdir(ROOT, b"removed").unwrap();
        let names = [&b"new"[..], b"replaced"].map(|name| At { parent: ROOT, name });
        fs.rename(names[0], names[1], Existing::Replace).unwrap();
        let is_read = |op: DeviceOp| op == DeviceOp::Bio(BioOp::Read);
        let reads: u64 =
            trace.take().iter().filter(|event| is_read(event.op)).count().try_into().unwrap();
        // Each block of both, and those of their indexes and maps, some of them more than once.
        assert!(reads < 4 * blocks, "{features}: {reads} reads for twice {blocks} blocks");
        fs.close().unwrap();
        check(&device.contents());
    }
}

#[test]
fn a_directory_that_gets_a_name_is_not_removed() {
    let written = Written::new("24M", &["-t", "ext4", "-b", "1024"]);
    let fs = &written.fs;
    let inode = fs.create(ROOT, b"file", &FILE).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _names = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                let Ok(directory) = fs.lookup(ROOT, b"directory") else { continue };
                if fs.link(inode, directory, b"name").is_ok() {
                    assert_eq!(fs.lookup(ROOT, b"directory").unwrap(), directory);
                    fs.unlink(directory, b"name").unwrap();
                }
            }
        });
        for _ in 0..3000 {
            let _new = fs.mkdir(ROOT, b"directory", 0o755, OWNER).unwrap();
            while let Err(error) = fs.rmdir(ROOT, b"directory") {
                assert_eq!(error.kind.errno(), Errno::NOTEMPTY);
            }
        }
        is_over.store(true, Ordering::SeqCst);
    });
    let _image = written.close();
}

#[test]
fn a_ring_of_directories_is_damage() {
    let written = Written::new("24M", &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum"]);
    let mut parent = ROOT;
    let mut all: Vec<InodeNumber> = Vec::new();
    for _ in 0..100 {
        parent = written.fs.mkdir(parent, b"directory", 0o755, OWNER).unwrap();
        all.push(parent);
    }
    let _other = written.fs.mkdir(ROOT, b"other", 0o755, OWNER).unwrap();
    // A long path is none.
    let [from, to] = [(ROOT, &b"other"[..]), (parent, b"other")];
    let [from, to] = [from, to].map(|(parent, name)| At { parent, name });
    written.fs.rename(from, to, Existing::Keep).unwrap();
    written.fs.rename(to, from, Existing::Keep).unwrap();
    let mut image = written.close();
    // The eleventh is said to be in the last.
    let [place, last] = [all[10], all[99]];
    let entry = [&[12, 0, 1, 2, b'.', 0, 0, 0][..], &all[9].0.to_le_bytes()].concat();
    let first = place.0.to_le_bytes();
    let pattern = [&first[..], &entry].concat();
    let at = image.windows(pattern.len()).position(|bytes| bytes == pattern).unwrap();
    image[at + 12..at + 16].copy_from_slice(&last.0.to_le_bytes());
    let written = Written::open(&image);
    let error = written.fs.rename(from, to, Existing::Keep).unwrap_err();
    assert_eq!(error.kind, mpage_ext4::ErrorKind::Corrupt, "{error}");
    assert!(written.fs.read_only().is_some());
}
