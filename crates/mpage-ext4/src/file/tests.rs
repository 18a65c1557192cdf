//! Files that are closed, forgotten and opened again; sizes, and maps that are told of much.

use std::cell::Cell;
use std::process::Command;
use std::time::Duration;

use mpage::{GetBlock, MapRequest, PageCache, Place, Purpose, RangeSteps};
use mpage_block::wrap::Delay;
use mpage_block::{BioOp, MemoryDevice, MemoryOptions};
use mpage_locks::thread;

use super::*;
use crate::{New, Options, block_map};

const BLOCK: usize = 4096;

/// An image on a device that holds what it is told to; nothing is committed but by hand.
struct Rig {
    fs: Arc<FileSystem>,
    delay: Arc<Delay>,
    inode: InodeNumber,
}

impl Rig {
    /// With a file of `content`, which is durable and closed.
    fn new(content: &[u8]) -> Rig {
        let file = tempfile::NamedTempFile::new().unwrap();
        let words = ["-q", "-t", "ext4", file.path().to_str().unwrap(), "16M"];
        assert!(Command::new("mke2fs").args(words).status().unwrap().success());
        let image = std::fs::read(file.path()).unwrap();
        let device = Arc::new(MemoryDevice::from_contents(&image, MemoryOptions::default()));
        let delay = Arc::new(Delay::manual(device));
        delay.hold_only(|_| false);
        let cache = Arc::new(PageCache::new(&mpage::Options::default()).unwrap());
        let dev = cache.add_device(Arc::clone(&delay) as _).unwrap();
        let how = Options { commit_interval: Duration::ZERO, ..Options::default() };
        let fs = FileSystem::open(&cache, &dev, image.len() as u64, &how).unwrap();
        let new = New { kind: FileKind::Regular, permissions: 0o644, uid: 0, gid: 0, device: 0 };
        let inode = fs.create(InodeNumber::ROOT, b"file", &new).unwrap();
        let rig = Rig { fs, delay, inode };
        rig.open().write_all_at(content, 0).unwrap();
        rig.fs.sync().unwrap();
        rig
    }

    fn open(&self) -> File {
        self.fs.open_file(self.inode).unwrap()
    }

    /// The size as the metadata has it.
    fn size_in_inode(&self) -> u64 {
        self.fs.metadata.read(|view| view.inode(self.inode)).unwrap().size
    }

    /// Writes of data wait until they are released; `content` is one of them.
    fn hold_write(&self, content: &[u8], offset: u64) {
        self.delay.hold_only(|bio| bio.op() == BioOp::Write);
        let file = self.open();
        file.write_all_at(content, offset).unwrap();
        file.cached().start_writing(0..u64::MAX >> 1).unwrap();
        self.delay.wait_for_held(1);
    }

    fn release(&self) {
        self.delay.hold_only(|_| false);
        let _count = self.delay.release_all();
    }
}

impl Drop for Rig {
    /// So that a test that failed ends.
    fn drop(&mut self) {
        self.release();
    }
}

/// Seen to fail: with files forgotten of which no page is dirty.
#[test]
fn a_file_is_forgotten_only_when_all_of_it_is_durable() {
    let rig = Rig::new(&[1; BLOCK]);
    rig.hold_write(&[2; BLOCK], 0);
    rig.fs.bring_up_to_date().unwrap();
    assert!(!rig.fs.forget(rig.inode), "a write of it is under way");
    let mut bytes = [0; BLOCK];
    assert_eq!((rig.open().read_at(&mut bytes, 0).unwrap(), bytes[0]), (BLOCK, 2));
    rig.release();
    let written = RangeSteps { wait_before: true, write: false, wait_after: false };
    rig.open().cached().sync_file_range(0..u64::MAX >> 1, written).unwrap();
    assert!(!rig.fs.forget(rig.inode), "no flush has covered it");
    rig.fs.sync().unwrap();
    assert!(rig.fs.forget(rig.inode));
    assert!(rig.fs.metadata.open.lock().is_empty());
    assert_eq!((rig.open().read_at(&mut bytes, 0).unwrap(), bytes[0]), (BLOCK, 2));
}

/// Seen to fail: with the size of files of which no page is dirty.
#[test]
fn an_inode_has_no_size_whose_last_bytes_are_on_their_way() {
    let rig = Rig::new(&[1; 100]);
    rig.hold_write(&[2; 100], 100);
    rig.fs.bring_up_to_date().unwrap();
    assert_eq!(rig.size_in_inode(), 100);
    rig.release();
    rig.open().fsync().unwrap();
    assert_eq!(rig.size_in_inode(), 200);
}

/// Seen to fail: without the look whether the file is in use.
#[test]
fn who_syncs_a_file_that_was_forgotten_changes_nothing_of_it() {
    let rig = Rig::new(&[1; 100]);
    let open = rig.fs.metadata.open.lock().get(&rig.inode).cloned().unwrap();
    let map = FileMap::new(&rig.fs.metadata, &open);
    assert!(rig.fs.forget(rig.inode));
    let file = rig.open();
    file.set_len(10).unwrap();
    map.bring_up_to_date(&|| 100).unwrap();
    assert_eq!(rig.size_in_inode(), 10);
}

/// Each time when the size is asked for, more is settled of what comes first in the file.
///
/// Seen to fail: with what is settled looked for from the beginning each time.
#[test]
fn a_sync_does_not_wait_for_what_is_settled_beside_it() {
    const RUNS: u64 = 1280;
    let rig = Rig::new(&[1; 100]);
    let file = rig.open();
    file.set_len(RUNS * 4 * BLOCK as u64).unwrap();
    // No two are neighbours.
    let block = |run: u64| FileBlock(run * 2 + 1)..FileBlock(run * 2 + 2);
    for run in 0..2 * RUNS {
        let first = block(run).start;
        file.map.reserve(block(run)).unwrap();
        let request = MapRequest { first, count: 1, purpose: Purpose::Write, may_wait: true };
        assert!(file.map.get_block(&request).unwrap().fresh);
    }
    (RUNS..2 * RUNS).for_each(|run| file.map.written(block(run)));
    let calls = Cell::new(0);
    let size = || {
        let call = calls.replace(calls.get() + 1);
        (0..32).map(|run| call * 32 + run).for_each(|run| file.map.written(block(run)));
        0
    };
    file.map.bring_up_to_date(&size).unwrap();
    assert_eq!(calls.get(), RUNS / 32, "changes that it took");
    (RUNS..2 * RUNS).for_each(|run| {
        let find =
            |view: &View<'_>| block_map::find(view, &view.inode(rig.inode)?, block(run).start.0);
        let mapped = rig.fs.metadata.read(find).unwrap();
        assert!(matches!(mapped.place, Place::Mapped(_)), "run {run}");
    });
}

/// Seen to fail: with nothing done when the file is not in memory any more.
#[test]
fn a_file_that_is_forgotten_while_it_is_removed_is_freed() {
    let rig = Rig::new(&[1; 100]);
    let open = rig.fs.metadata.open.lock().get(&rig.inode).cloned().unwrap();
    let users = Arc::strong_count(&open);
    let alone = open.shaping.lock();
    let fs = Arc::clone(&rig.fs);
    let remove = move || fs.unlink(InodeNumber::ROOT, b"file");
    let remover = thread::spawn("remove", remove).unwrap();
    // It is about to wait for who shapes the file.
    while Arc::strong_count(&open) == users {
        thread::yield_now();
    }
    assert!(rig.fs.forget(rig.inode));
    drop(alone);
    remover.join().unwrap().unwrap();
    assert_eq!(*rig.fs.metadata.orphans.lock(), []);
}
