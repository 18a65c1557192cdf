//! I/O past the cache and the cache side by side: statement 91.

use std::ops::Range;
use std::sync::Arc;

use mpage::units::{BlockSize, DeviceBlock, FileBlock, PageIndex};
use mpage::{
    CachedFile, Error, ErrorKind, Extent, GetBlock, Identity, MapRequest, Operations, Options,
    PageCache, Place, Purpose, SyncKind,
};
use mpage_block::wrap::Times;
use mpage_block::{BioOp, BlockDevice, Errno};
use mpage_locks::atomic::{AtomicU64, Ordering};
use mpage_locks::thread::JoinHandle;

use crate::rig::{Rig, memory_device, options, pattern};
use crate::stack::{Forgetful, Stack, count as count_of, errno, pages};
use crate::stack::{spawn, still_waits, wait_until};
use crate::table::{Gate, TableRig};

/// Statement 91: what is cached of the range is written before a direct write, and dropped by it;
/// what is dirty beside it in the same page is not lost.
///
/// Seen to fail: without the first `invalidate_strict` in `write_direct_at`.
#[test]
fn a_direct_write_flushes_the_cache_before_and_drops_it_after() {
    for block in [512, 1024, 4096] {
        let rig = TableRig::new(block);
        rig.file.write_all_at(&pattern(1, 0, 4 * 4096), 0).unwrap();
        rig.file.fsync().unwrap();
        rig.file.write_all_at(&pattern(2, 0, 2 * 4096), 4096).unwrap();
        let mut expected = pattern(1, 0, 4 * 4096);
        expected[4096..3 * 4096].copy_from_slice(&pattern(2, 0, 2 * 4096));
        drop(rig.stack.take_writes());
        let range = 2 * 4096 - 4096 % block..2 * 4096 + block;
        let new = pattern(3, 0, range.len());
        rig.file.write_direct_at(&new, range.start as u64).unwrap();
        expected[range.clone()].copy_from_slice(&new);
        let counts = rig.mapping().set_counts();
        assert_eq!(counts.clean + counts.dirty, 4 - range.len().div_ceil(4096));
        let reads = rig.cache.stats().read_bios;
        assert!(rig.content() == expected, "block {block}");
        assert!(rig.cache.stats().read_bios > reads, "the page came from the device");
        let flushes = count_of(&rig.stack.take_writes(), BioOp::Flush);
        assert_eq!(flushes, 1, "what is dropped is durable");
        rig.file.fsync().unwrap();
        let flushes = count_of(&rig.stack.take_writes(), BioOp::Flush);
        assert_eq!(flushes, 1, "a direct write is durable after the next sync");
        rig.forget();
        assert!(rig.content() == expected, "block {block}");
        rig.table.check();
    }
}

/// Statement 91: when a cached page cannot be dropped, the direct write says so and did nothing.
///
/// Seen to fail: with `detach` for `detach_if_clean` in `invalidate_strict`.
#[test]
fn a_direct_write_over_a_pinned_page_is_refused() {
    let rig = TableRig::new(4096);
    rig.file.write_all_at(&pattern(1, 0, 3 * 4096), 0).unwrap();
    rig.file.fsync().unwrap();
    let page = rig.file.pin_page(PageIndex(1)).unwrap();
    let error = rig.file.write_direct_at(&pattern(2, 0, 3 * 4096), 0).unwrap_err();
    assert_eq!((error.kind, error.at), (ErrorKind::Busy, vec![pages(1, 1)]));
    assert!(rig.content() == pattern(1, 0, 3 * 4096));
    drop(page);
    rig.forget();
    assert!(rig.content() == pattern(1, 0, 3 * 4096));
    rig.file.write_direct_at(&pattern(2, 0, 3 * 4096), 0).unwrap();
    assert!(rig.content() == pattern(2, 0, 3 * 4096));
}

/// Statement 91: a direct read sees what is dirty in the cache, also where the file ends within a
/// block, and holes as zeros.
#[test]
fn a_direct_read_sees_what_is_dirty_in_the_cache() {
    for block in [512, 1024, 4096] {
        let rig = TableRig::new(block);
        rig.file.write_all_at(&pattern(1, 0, 5000), 0).unwrap();
        rig.file.write_all_at(&pattern(2, 0, 777), 40_000).unwrap();
        let mut bytes = vec![0xaa; 12 * 4096];
        assert_eq!(rig.file.read_direct_at(&mut bytes, 0).unwrap(), 40_777);
        assert!(bytes[..40_777] == rig.content());
        assert!(bytes[40_777..].iter().all(|byte| *byte == 0xaa), "nothing beyond the end");
        assert_eq!(rig.file.read_direct_at(&mut bytes, 49_152).unwrap(), 0);
    }
}

/// Statement 91: offsets and lengths that are not whole blocks are refused in words.
#[test]
fn direct_io_off_the_blocks_is_refused() {
    let rig = TableRig::new(1024);
    rig.file.write_all_at(&[1; 4096], 0).unwrap();
    for (offset, len) in [(512, 1024), (0, 512), (1, 1023), (u64::MAX, 1024)] {
        let mut bytes = vec![0; len];
        let read = rig.file.read_direct_at(&mut bytes, offset).unwrap_err();
        let write = rig.file.write_direct_at(&bytes, offset).unwrap_err();
        for error in [read, write] {
            assert_eq!(error.kind, ErrorKind::InvalidInput);
            assert!(error.to_string().contains("multiples of 1024 bytes"), "{error}");
        }
    }
    assert!(rig.file.write_direct_at(&[0; 1024], u64::MAX - 1023).is_err());
    assert_eq!(rig.content(), [1; 4096]);
}

/// Statement 86: truncate waits for a direct write of what it removes: no block is free while a
/// write of it is in flight, and what was written directly is gone.
///
/// Seen to fail: without the registration of the range in `write_direct_at`.
#[test]
fn truncate_waits_for_a_direct_write_in_flight() {
    let rig = TableRig::new(4096);
    rig.file.write_direct_at(&pattern(1, 0, 4 * 4096), 0).unwrap();
    rig.stack.hold(BioOp::Write);
    let file = rig.file.clone();
    let write = spawn(move || file.write_direct_at(&pattern(2, 0, 4 * 4096), 2 * 4096));
    rig.stack.delay.wait_for_held(1);
    let file = rig.file.clone();
    let truncate = spawn(move || file.set_len(4096));
    let file = rig.file.clone();
    let punch = spawn(move || file.punch_hole(3 * 4096..4 * 4096));
    let file = rig.file.clone();
    let read = spawn(move || file.read_at(&mut [0; 10], 2 * 4096));
    still_waits(&truncate);
    still_waits(&punch);
    still_waits(&read);
    rig.stack.let_go();
    write.join().unwrap().unwrap();
    truncate.join().unwrap().unwrap();
    punch.join().unwrap().unwrap();
    let _truncated_or_not: usize = read.join().unwrap().unwrap();
    assert!(rig.content() == pattern(1, 0, 4096));
    assert_eq!(rig.table.used(), (1, 0));
    rig.table.check();
}

/// Statement 134: many direct transfers at once share a small cache's memory: each goes on with the
/// frames it has, and none waits for a frame while it holds others.
///
/// Seen to fail: with `get_frame` for each frame of a transfer in `CachedFile::direct`.
#[test]
fn direct_transfers_at_once_do_not_wait_for_each_others_frames() {
    let small = Options { memory: Options::MEMORY_MIN, ..options() };
    let rig = TableRig::with(&small, 4096);
    // Each thread waits until all have four frames; then too few are left for any to have all.
    let count = rig.cache.free_pages() as u64 / 4 - 2;
    let have_four = AtomicU64::new(0);
    rig.table.on_map(move |blocks| {
        if blocks.start.0 % 16 == 3 {
            let _before: u64 = have_four.fetch_add(1, Ordering::SeqCst);
            wait_until(|| have_four.load(Ordering::SeqCst) >= count);
        }
    });
    let threads: Vec<_> = (0..count)
        .map(|n| {
            let file = rig.file.clone();
            spawn(move || {
                let bytes = pattern(n, 0, 16 * 4096);
                for _ in 0..3 {
                    file.write_direct_at(&bytes, n * 16 * 4096).unwrap();
                    let mut back = vec![0; bytes.len()];
                    assert_eq!(file.read_direct_at(&mut back, n * 16 * 4096).unwrap(), back.len());
                    assert!(back == bytes);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for n in 0..count {
        let mut bytes = vec![0; 16 * 4096];
        assert_eq!(rig.file.read_at(&mut bytes, n * 16 * 4096).unwrap(), bytes.len());
        assert!(bytes == pattern(n, 0, 16 * 4096));
    }
    rig.table.check();
}

/// Statement 91: what a direct read finds on the device is not older than the cache, though it
/// could not be written there.
///
/// Seen to fail: when a direct read went on behind a write of the range that failed.
#[test]
fn a_direct_read_behind_a_write_that_failed_shows_nothing_older() {
    let rig = TableRig::new(4096);
    rig.file.write_all_at(&pattern(1, 0, 2 * 4096), 0).unwrap();
    rig.file.fsync().unwrap();
    rig.file.write_all_at(&pattern(2, 4096, 4096), 4096).unwrap();
    rig.stack.fail(BioOp::Write, Times::First(1), Errno::IO);
    let mut bytes = vec![0; 2 * 4096];
    let error = rig.file.read_direct_at(&mut bytes, 0).unwrap_err();
    assert_eq!((error.kind, error.at), (ErrorKind::Device(Errno::IO), vec![pages(1, 1)]));
    assert!(rig.file.fsync().is_err(), "the open was not told of the write before");
    assert_eq!(rig.file.read_direct_at(&mut bytes, 0).unwrap(), 2 * 4096);
    assert!(bytes[4096..] == pattern(2, 4096, 4096));
}

/// Statement 91: a flush that fails while a direct read is in flight may have lost what it reads,
/// and the cache has it still.
///
/// Seen to fail: without a second look behind the read.
#[test]
fn a_direct_read_looks_again_when_a_flush_failed_meanwhile() {
    let memory = memory_device(1 << 20);
    let stack = Stack::around(memory.clone());
    let rig = Rig::over(Arc::new(Forgetful::new(stack.top(), memory)), 4096, 1 << 20);
    rig.file.write_all_at(&pattern(1, 0, 4096), 0).unwrap();
    rig.file.start_writing(pages(0, 1)).unwrap();
    stack.hold(BioOp::Read);
    let read = direct_read(&rig.file);
    stack.delay.wait_for_held(1);
    stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(rig.file.sync_range(pages(9, 1), SyncKind::Data)), Errno::IO);
    stack.let_go();
    assert!(read.join().unwrap() == pattern(1, 0, 4096), "the device had lost it");
}

/// Reads page 0 past the cache, on a thread.
fn direct_read(file: &CachedFile) -> JoinHandle<Vec<u8>> {
    let file = file.clone();
    spawn(move || {
        let mut bytes = vec![0; 4096];
        assert_eq!(file.read_direct_at(&mut bytes, 0).unwrap(), 4096);
        bytes
    })
}

/// Stops where the cache tells it that a flush has failed.
struct ToldLate {
    map: Identity,
    stop: Box<dyn Fn() + Send + Sync>,
}

impl GetBlock for ToldLate {
    fn get_block(&self, request: &MapRequest) -> mpage::Result<Extent> {
        self.map.get_block(request)
    }

    fn flush_failed(&self) {
        (self.stop)();
    }
}

/// Statement 91: between the failure of a flush and the return of what it lost to the dirty pages,
/// the device has older bytes than the cache, and no error is going to be recorded any more.
///
/// Seen to fail: without waiting for the flush, and when it was not noted that pages are dirty
/// again.
#[test]
fn a_direct_read_waits_until_what_a_failed_flush_lost_is_dirty_again() {
    let memory = memory_device(1 << 20);
    let stack = Stack::around(memory.clone());
    let device: Arc<dyn BlockDevice> = Arc::new(Forgetful::new(stack.top(), memory));
    let cache = PageCache::new(&options()).unwrap();
    let dev = cache.add_device(Arc::clone(&device)).unwrap();
    let block = BlockSize::new(4096).unwrap();
    let gate = Gate::new();
    let map = ToldLate { map: Identity::new(device, block), stop: Box::new(gate.stop()) };
    let ops = Operations { get_block: Some(Arc::new(map)), ..Operations::default() };
    let file = CachedFile::new(cache.add_mapping(&dev, block, 1 << 20, ops).unwrap(), true);
    file.write_all_at(&pattern(1, 0, 4096), 0).unwrap();
    file.start_writing(pages(0, 1)).unwrap();
    stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    let syncer = file.clone();
    let sync = spawn(move || syncer.sync_range(pages(9, 1), SyncKind::Data));
    gate.wait_for_arrival();
    let read = direct_read(&file);
    still_waits(&read);
    gate.open();
    assert_eq!(errno(sync.join().unwrap()), Errno::IO);
    assert!(read.join().unwrap() == pattern(1, 0, 4096), "the device had lost it");
}

/// Two blocks with a place and without data; the second cannot be found when it is written.
struct HalfBroken(Arc<AtomicU64>);

impl GetBlock for HalfBroken {
    fn get_block(&self, request: &MapRequest) -> mpage::Result<Extent> {
        let first = request.first;
        if request.purpose == Purpose::Write && first.0 == 1 {
            return Err(Error::new(ErrorKind::Device(Errno::IO), "get_block"));
        }
        let to = DeviceBlock(first.0);
        Ok(Extent { place: Place::Unwritten(to), ..Extent::mapped(first, to, 1) })
    }

    fn written(&self, blocks: Range<FileBlock>) {
        let _before = self.0.fetch_max(blocks.end.0, Ordering::SeqCst);
    }
}

/// Statements 47 and 52: what the block map is told was written, was: else the old content of the
/// disk would be in the file.
///
/// Seen to fail: when it was told of all that was to be written together.
#[test]
fn a_direct_write_tells_of_no_block_that_had_no_place() {
    for block in [512, 4096] {
        let stack = Stack::new(1 << 20);
        let cache = PageCache::new(&options()).unwrap();
        let dev = cache.add_device(stack.top()).unwrap();
        let written = Arc::new(AtomicU64::new(0));
        let map = Arc::new(HalfBroken(Arc::clone(&written)));
        let ops = Operations { get_block: Some(map), ..Operations::default() };
        let size = BlockSize::new(block).unwrap();
        let file = CachedFile::new(cache.add_mapping(&dev, size, 8192, ops).unwrap(), true);
        let error = file.write_direct_at(&vec![7; 2 * block], 0).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Device(Errno::IO));
        assert!(written.load(Ordering::SeqCst) <= 1, "block 1 was never written");
    }
}

/// Statement 91: blocks that a direct write got behind the end, and did not fill, are not the
/// file's.
///
/// Seen to fail: without the removal behind a direct write that failed.
#[test]
fn a_direct_write_that_fails_gives_back_what_it_got_behind_the_end() {
    let rig = TableRig::new(4096);
    rig.file.write_all_at(&pattern(1, 0, 4096), 0).unwrap();
    rig.file.fsync().unwrap();
    rig.stack.fail(BioOp::Write, Times::All, Errno::IO);
    let error = rig.file.write_direct_at(&pattern(2, 0, 3 * 4096), 0).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Device(Errno::IO));
    assert_eq!(rig.file.size(), 4096);
    assert_eq!(rig.table.used(), (1, 0), "blocks with a place, and with room");
}
