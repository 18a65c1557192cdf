//! Removals beside syncs, failed flushes and devices that cannot do them.

use std::ops::Range;
use std::sync::Arc;

use mpage::units::{BlockSize, FileBlock, PageIndex};
use mpage::{CachedFile, Extent, GetBlock, Identity, MapRequest, Operations, PageCache, SyncKind};
use mpage_block::wrap::Times;
use mpage_block::{BioOp, BlockDevice, Errno, MemoryDevice, MemoryOptions};
use mpage_locks::Mutex;
use mpage_locks::atomic::{AtomicBool, Ordering};
use mpage_locks::thread::JoinHandle;

use crate::rig::{Rig, memory_device, options, pattern};
use crate::stack::{
    Forgetful, Stack, count, errno, is_clean, pages, spawn, still_waits, wait_until,
};
use crate::table::{Gate, TableRig};

/// What a punch takes out of the snapshot of a sync is durable when its zeros are: else a crash
/// brings back what was there before both.
///
/// Seen to fail: without waiting for removals in `sync_range`.
#[test]
fn fsync_waits_for_a_removal_that_took_dirty_pages() {
    let stack = Stack::new(1 << 20);
    let rig = Rig::over(stack.top(), 4096, 1 << 20);
    rig.file.write_all_at(&pattern(1, 0, 4096), 8192).unwrap();
    stack.hold(BioOp::WriteZeroes);
    let file = rig.file.clone();
    let punch = spawn(move || file.punch_hole(8192..12288));
    stack.delay.wait_for_held(1);
    assert!(is_clean(rig.mapping()), "the page has gone");
    let file = rig.file.clone();
    let sync = spawn(move || file.fsync());
    still_waits(&sync);
    drop(stack.take_writes());
    stack.let_go();
    punch.join().unwrap().unwrap();
    sync.join().unwrap().unwrap();
    assert_eq!(count(&stack.take_writes(), BioOp::Flush), 1);
}

/// A failed flush may lose zeros that no page holds. Until they are written again they are read as
/// zeros, and so is what lies around a smaller write.
///
/// Seen to fail: with reads that ask the device about such a range.
#[test]
fn a_hole_reads_as_zeros_also_when_a_failed_flush_lost_them() {
    let memory = memory_device(1 << 20);
    memory.write_at(0, &pattern(1, 0, 1 << 20));
    let stack = Stack::around(memory.clone());
    let device = Arc::new(Forgetful::new(stack.top(), memory));
    let rig = Rig::over(device, 4096, 1 << 20);
    rig.file.punch_hole(0..8192).unwrap();
    stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(rig.file.fsync()), Errno::IO);
    assert!(stack.bytes(0..8192) == pattern(1, 0, 8192), "the device has lost the zeros");
    let mut bytes = vec![1; 8192];
    rig.file.write_all_at(&[9; 10], 100).unwrap();
    assert_eq!(rig.file.read_at(&mut bytes, 0).unwrap(), 8192);
    let mut expected = vec![0; 8192];
    expected[100..110].fill(9);
    assert!(bytes == expected);
    rig.file.fsync().unwrap();
    assert!(stack.bytes(0..8192) == expected);
}

/// Zeros that were on their way while a flush failed may be lost with what it had to make durable:
/// its leader finds no number of them. They are written again.
///
/// Seen to fail: with `lost` always false in `note_direct_write`.
#[test]
fn zeros_that_were_on_their_way_while_a_flush_failed_are_written_again() {
    let stack = Stack::new(1 << 20);
    let rig = Rig::over(stack.top(), 4096, 1 << 20);
    rig.file.write_all_at(&pattern(1, 0, 4096), 0).unwrap();
    stack.hold(BioOp::WriteZeroes);
    let file = rig.file.clone();
    let punch = spawn(move || file.punch_hole(8192..12288));
    stack.delay.wait_for_held(1);
    stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(rig.file.sync_range(0..4096, SyncKind::All)), Errno::IO);
    stack.let_go();
    punch.join().unwrap().unwrap();
    drop(stack.take_writes());
    assert_eq!(errno(rig.file.fsync()), Errno::IO, "of the second loss nobody was told");
    rig.file.fsync().unwrap();
    assert_eq!(count(&stack.take_writes(), BioOp::WriteZeroes), 1);
}

/// Seen to fail: with the operation given to the device all the same.
#[test]
fn a_hole_in_a_device_that_writes_no_zeros_by_itself_is_written() {
    let options = MemoryOptions { write_zeroes: false, ..MemoryOptions::default() };
    for zero in [CachedFile::punch_hole, CachedFile::zero_range] {
        let memory = MemoryDevice::from_contents(&pattern(1, 0, 4 << 20), options);
        let stack = Stack::around(Arc::new(memory));
        let rig = Rig::over(stack.top(), 4096, 4 << 20);
        rig.file.write_all_at(&pattern(2, 0, 8192), 0).unwrap();
        zero(&rig.file, 100..3 << 20).unwrap();
        let largest = stack.take_writes().iter().map(|write| write.bytes).max();
        assert_eq!(largest, Some(128 * 4096), "as many segments as the device takes");
        rig.file.fsync().unwrap();
        assert!(stack.bytes(0..100) == pattern(2, 0, 100));
        assert!(stack.bytes(100..3 << 20).iter().all(|byte| *byte == 0));
        assert!(stack.bytes(3 << 20..4 << 20) == pattern(1, 3 << 20, 1 << 20));
    }
}

/// What cannot be read cannot be zeroed, and would be back when the file grows again.
///
/// Seen to fail: with the size lowered before the last block was read.
#[test]
fn a_truncate_whose_last_block_cannot_be_read_changes_nothing() {
    let memory = memory_device(1 << 20);
    memory.write_at(0, &pattern(1, 0, 1 << 20));
    let stack = Stack::around(memory);
    let rig = Rig::over(stack.top(), 4096, 16384);
    rig.file.write_all_at(&pattern(2, 0, 4096), 8192).unwrap();
    stack.fail(BioOp::Read, Times::First(1), Errno::IO);
    assert_eq!(errno(rig.file.set_len(5000)), Errno::IO);
    assert_eq!(rig.file.size(), 16384);
    let mut bytes = vec![0; 4096];
    assert_eq!(rig.file.read_at(&mut bytes, 8192).unwrap(), 4096);
    assert!(bytes == pattern(2, 0, 4096), "what was dirty is there");
    rig.file.set_len(5000).unwrap();
    assert_eq!(rig.file.size(), 5000);
}

/// What a hole would take stays when its edge cannot be read: dropped pages would be read as the
/// device has them, which may have lost them or never had them.
///
/// Seen to fail: with the pages inside dropped before the edges were zeroed.
#[test]
fn a_hole_whose_edge_cannot_be_read_drops_nothing() {
    let memory = memory_device(1 << 20);
    memory.write_at(0, &pattern(1, 0, 1 << 20));
    let stack = Stack::around(memory);
    for zero in [CachedFile::punch_hole, CachedFile::zero_range] {
        for hole in [4096 + 100..3 * 4096, 2 * 4096..3 * 4096 + 100] {
            let rig = Rig::over(stack.top(), 4096, 1 << 20);
            rig.file.write_all_at(&pattern(2, 0, 4096), 8192).unwrap();
            stack.fail(BioOp::Read, Times::First(1), Errno::IO);
            assert_eq!(errno(zero(&rig.file, hole)), Errno::IO);
            let mut bytes = vec![0; 4096];
            assert_eq!(rig.file.read_at(&mut bytes, 8192).unwrap(), 4096);
            assert!(bytes == pattern(2, 0, 4096), "what was dirty is there");
        }
    }
}

/// Syncs that write lost zeros again keep others away from what they saw lost, so that is all they
/// zero: not what another removal has zeroed since, where a write may be on its way.
///
/// Seen to fail: when all that was remembered was zeroed again.
#[test]
fn lost_zeros_are_written_again_where_nobody_else_writes_and_nowhere_else() {
    let memory = memory_device(1 << 20);
    let stack = Stack::around(memory.clone());
    let device = Arc::new(Forgetful::new(stack.top(), memory).with_late(&stack.late));
    let rig = Rig::over(device, 4096, 1 << 20);
    rig.file.punch_hole(pages(0, 3)).unwrap();
    stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(rig.file.fsync()), Errno::IO);
    // The next sync has to wait while it keeps others away from pages 0 to 2.
    rig.file.write_all_at(&pattern(1, 4096, 4096), 4096).unwrap();
    stack.hold_page(1);
    let file = rig.file.clone();
    let sync = spawn(move || file.fsync());
    stack.delay.wait_for_held(1);
    // Page 16 is zeroed, and written: the device has done it, and nobody has heard of it.
    rig.file.punch_hole(pages(16, 1)).unwrap();
    let bytes = pattern(2, 16 * 4096, 4096);
    rig.file.write_all_at(&bytes, 16 * 4096).unwrap();
    stack.late.hold_writes();
    let file = rig.file.clone();
    let write = spawn(move || file.start_writing(pages(16, 1)));
    stack.late.wait_for_held();
    stack.let_go();
    still_waits(&sync);
    stack.late.let_go();
    write.join().unwrap().unwrap();
    sync.join().unwrap().unwrap();
    assert!(stack.bytes(pages(16, 1)) == bytes, "a write that ended well is gone");
}

/// What is between two lost holes is no part of either: a page in use there keeps no sync from
/// writing their zeros again, and one in a hole keeps none but that hole.
///
/// Seen to fail: with everything from the first lost byte to the last done at once.
#[test]
fn a_page_in_use_between_lost_holes_keeps_no_sync_from_success() {
    let memory = memory_device(1 << 20);
    memory.write_at(0, &pattern(1, 0, 1 << 20));
    let stack = Stack::around(memory.clone());
    let device = Arc::new(Forgetful::new(stack.top(), memory));
    let rig = Rig::over(device, 4096, 1 << 20);
    let between = rig.file.pin_page(PageIndex(3)).unwrap();
    for page in [2, 4, 6] {
        rig.file.punch_hole(pages(page, 1)).unwrap();
    }
    let inside = rig.file.pin_page(PageIndex(6)).unwrap();
    stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(rig.file.fsync()), Errno::IO);
    rig.file.sync_range(pages(0, 6), SyncKind::All).unwrap();
    let is_zero = |page| stack.bytes(pages(page, 1)).iter().all(|byte| *byte == 0);
    assert!(is_zero(2) && is_zero(4));
    assert!(stack.bytes(pages(3, 1)) == pattern(1, 3 * 4096, 4096));
    assert_eq!(errno(rig.file.fsync()), Errno::BUSY, "not all of it can be durable");
    drop((between, inside));
    rig.file.fsync().unwrap();
    assert!(is_zero(6));
}

/// Punches a hole that a failed flush loses, of which the open is told, and closes the file.
fn closed_with_a_lost_hole(cache: &PageCache, device: &Arc<dyn BlockDevice>, stack: &Stack) {
    let dev = cache.add_device(Arc::clone(device)).unwrap();
    let block = BlockSize::new(4096).unwrap();
    let map = Arc::new(Identity::new(Arc::clone(device), block));
    let ops = Operations { get_block: Some(map), ..Operations::default() };
    let file = CachedFile::new(cache.add_mapping(&dev, block, 1 << 20, ops).unwrap(), true);
    file.punch_hole(pages(2, 1)).unwrap();
    stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(file.fsync()), Errno::IO);
}

/// Zeros that a failed flush lost are like dirty pages: the cache writes them though the file is
/// closed, by a sync of everything, by its flusher, or when it goes away, and says when it cannot.
///
/// Seen to fail: with mappings that live for dirty pages alone; and, for the flusher, with zeros
/// that only syncs write.
#[test]
fn lost_zeros_of_a_closed_file_are_written_all_the_same() {
    let goes: fn(&Stack, PageCache) = |_, cache| drop(cache);
    let synced: fn(&Stack, PageCache) = |stack, cache| {
        stack.fail(BioOp::WriteZeroes, Times::First(1), Errno::NOSPC);
        assert_eq!(errno(cache.sync()), Errno::NOSPC, "not all of it is durable");
        cache.sync().unwrap();
    };
    let flusher: fn(&Stack, PageCache) = |stack, cache| {
        cache.start_writing();
        wait_until(|| stack.bytes(pages(2, 1)).iter().all(|byte| *byte == 0));
        drop(cache);
    };
    for write in [goes, synced, flusher] {
        let memory = memory_device(1 << 20);
        memory.write_at(0, &pattern(1, 0, 1 << 20));
        let stack = Stack::around(memory.clone());
        let device: Arc<dyn BlockDevice> = Arc::new(Forgetful::new(stack.top(), memory));
        let cache = PageCache::new(&options()).unwrap();
        closed_with_a_lost_hole(&cache, &device, &stack);
        assert!(stack.bytes(pages(2, 1)) == pattern(1, 8192, 4096), "the device has lost them");
        write(&stack, cache);
        assert!(stack.bytes(pages(2, 1)).iter().all(|byte| *byte == 0));
    }
}

/// A file whose lost zeros were written again, or written over, lives for them no longer.
///
/// Seen to fail: with files that count as dirty for good.
#[test]
fn a_closed_file_goes_when_its_lost_zeros_are_written() {
    for over in [false, true] {
        let memory = memory_device(1 << 20);
        let stack = Stack::around(memory.clone());
        let rig = Rig::over(Arc::new(Forgetful::new(stack.top(), memory)), 4096, 1 << 20);
        rig.file.punch_hole(pages(2, 1)).unwrap();
        stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
        assert_eq!(errno(rig.file.fsync()), Errno::IO);
        let mapping = Arc::downgrade(rig.file.mapping());
        if over {
            rig.file.write_all_at(&[7; 4096], 8192).unwrap();
            rig.file.fsync().unwrap();
        }
        let Rig { file, cache, .. } = rig;
        drop(file);
        if !over {
            assert!(mapping.upgrade().is_some());
            cache.sync().unwrap();
        }
        wait_until(|| mapping.upgrade().is_none());
    }
}

/// Notes what it was asked to remove, and what to zero.
struct Asked {
    map: Identity,
    removed: Mutex<Vec<Range<u64>>>,
    zeroed: Mutex<Vec<Range<u64>>>,
}

impl GetBlock for Asked {
    fn get_block(&self, request: &MapRequest) -> mpage::Result<Extent> {
        self.map.get_block(request)
    }

    fn remove(&self, blocks: Range<FileBlock>) -> mpage::Result<()> {
        self.removed.lock().push(blocks.start.0..blocks.end.0);
        self.map.remove(blocks)
    }

    fn zero(&self, blocks: Range<FileBlock>) -> mpage::Result<()> {
        self.zeroed.lock().push(blocks.start.0..blocks.end.0);
        self.map.zero(blocks)
    }

    fn removes_by_writing(&self) -> bool {
        true
    }
}

/// Zeros that kept the room of their blocks keep it when they are written again: a block map that
/// was asked to remove them would give room up that is set aside, and a device its blocks.
///
/// Seen to fail: with all that was lost removed again.
#[test]
fn zeros_that_kept_their_room_keep_it_when_they_are_written_again() {
    let stack = Stack::new(1 << 20);
    let device = stack.top();
    let cache = PageCache::new(&options()).unwrap();
    let dev = cache.add_device(Arc::clone(&device)).unwrap();
    let block = BlockSize::new(4096).unwrap();
    let (removed, zeroed) = (Mutex::default(), Mutex::default());
    let map = Arc::new(Asked { map: Identity::new(device, block), removed, zeroed });
    let ops = Operations { get_block: Some(map.clone()), ..Operations::default() };
    let file = CachedFile::new(cache.add_mapping(&dev, block, 1 << 20, ops).unwrap(), true);
    file.punch_hole(pages(1, 4)).unwrap();
    file.zero_range(pages(2, 2)).unwrap();
    assert_eq!(*map.removed.lock(), vec![1..5]);
    assert_eq!(*map.zeroed.lock(), vec![2..4]);
    stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(file.fsync()), Errno::IO);
    file.fsync().unwrap();
    assert_eq!(map.removed.lock()[1..], [1..2, 4..5]);
    assert_eq!(map.zeroed.lock()[1..].to_vec(), vec![2..4]);
}

/// A flush may fail when zeros have been written and are not remembered yet.
///
/// Seen to fail: without a second look at how many flushes have failed in `note_removal`.
#[test]
fn zeros_that_a_flush_lost_while_they_were_noted_are_written_again() {
    let memory = memory_device(1 << 20);
    memory.write_at(0, &pattern(1, 0, 1 << 20));
    let stack = Stack::around(memory.clone());
    let device: Arc<dyn BlockDevice> = Arc::new(Forgetful::new(stack.top(), memory));
    let cache = PageCache::new(&options()).unwrap();
    let dev = cache.add_device(Arc::clone(&device)).unwrap();
    let block = BlockSize::new(4096).unwrap();
    let (gate, removed) = (Gate::new(), AtomicBool::new(false));
    let map = NotedLate { map: Identity::new(device, block), removed, stop: Box::new(gate.stop()) };
    let ops = Operations { get_block: Some(Arc::new(map)), ..Operations::default() };
    let file = CachedFile::new(cache.add_mapping(&dev, block, 1 << 20, ops).unwrap(), true);
    let puncher = file.clone();
    let punch = spawn(move || puncher.punch_hole(pages(2, 1)));
    gate.wait_for_arrival();
    stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(file.sync_range(pages(0, 1), SyncKind::Data)), Errno::IO);
    gate.open();
    punch.join().unwrap().unwrap();
    file.fsync().unwrap();
    assert!(stack.bytes(pages(2, 1)).iter().all(|byte| *byte == 0));
}

/// Stops where the cache asks whether zeros are to be remembered.
struct NotedLate {
    map: Identity,
    removed: AtomicBool,
    stop: Box<dyn Fn() + Send + Sync>,
}

impl GetBlock for NotedLate {
    fn get_block(&self, request: &MapRequest) -> mpage::Result<Extent> {
        self.map.get_block(request)
    }

    fn remove(&self, blocks: Range<FileBlock>) -> mpage::Result<()> {
        self.map.remove(blocks)?;
        self.removed.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn removes_by_writing(&self) -> bool {
        if self.removed.load(Ordering::SeqCst) {
            (self.stop)();
        }
        true
    }
}

/// Statement 51: a truncate gives up room that was set aside for a store which comes behind it; it
/// is set aside again, or the block would meet a full file system when it is written back.
///
/// Seen to fail: with room set aside once, whatever was removed before the store.
#[test]
fn a_store_that_a_truncate_overtook_has_room_set_aside_again() {
    for through_a_pin in [false, true] {
        let rig = TableRig::new(512);
        rig.file.write_all_at(&pattern(1, 0, 2048), 0).unwrap();
        rig.file.fsync().unwrap();
        rig.file.punch_hole(1024..1536).unwrap();
        let gate = Gate::new();
        let stop = gate.stop();
        rig.table.on_reserve(move |_| stop());
        let file = rig.file.clone();
        let store = spawn(move || match through_a_pin {
            true => file.pin_page(PageIndex(0))?.write(1024, &[7; 100]).map(drop),
            false => file.write_all_at(&[7; 100], 1024),
        });
        gate.wait_for_arrival();
        rig.file.punch_hole(1024..1536).unwrap();
        gate.open();
        store.join().unwrap().unwrap();
        rig.file.fsync().unwrap();
        rig.table.check();
        assert_eq!(rig.content()[1024..1124], [7; 100]);
    }
}

/// A direct write that a failed flush lost leaves what was there before it: zeros, behind a punch.
///
/// Seen to fail: with zeros that no flush had covered under the direct write.
#[test]
fn a_direct_write_that_is_lost_brings_nothing_back_that_was_punched_before() {
    let memory = memory_device(1 << 20);
    memory.write_at(0, &pattern(1, 0, 1 << 20));
    let stack = Stack::around(memory.clone());
    let device = Arc::new(Forgetful::new(stack.top(), memory));
    let rig = Rig::over(device, 4096, 1 << 20);
    rig.file.punch_hole(pages(2, 2)).unwrap();
    rig.file.write_direct_at(&pattern(2, 8192, 4096), 8192).unwrap();
    stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(rig.file.fsync()), Errno::IO);
    let mut bytes = vec![1; 8192];
    assert_eq!(rig.file.read_at(&mut bytes, 8192).unwrap(), 8192);
    assert!(bytes.iter().all(|byte| *byte == 0));
}

/// Statement 87: a block that is cut out of a page which stays is not dirty again, and so is not
/// written, when a flush fails that had it to make durable.
///
/// Seen to fail: when the page remembered of all its blocks that they were written.
#[test]
fn a_failed_flush_makes_no_block_dirty_again_that_was_cut_out_of_its_page() {
    let rig = TableRig::new(512);
    rig.file.write_all_at(&pattern(1, 0, 4096), 0).unwrap();
    rig.file.start_writing(pages(0, 1)).unwrap();
    rig.file.punch_hole(512..1024).unwrap();
    rig.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(rig.file.fsync()), Errno::IO);
    rig.file.fsync().unwrap();
    rig.table.check();
    assert_eq!(rig.content()[512..1024], [0; 512]);
}

/// Statement 87: nor is it when a write of it fails that was in flight.
///
/// Seen to fail: when the dirty blocks of the page were dropped beside the write.
#[test]
fn a_write_that_fails_makes_no_block_dirty_again_that_was_cut_out_meanwhile() {
    let rig = TableRig::new(512);
    rig.file.write_all_at(&pattern(1, 0, 4096), 0).unwrap();
    rig.stack.fail(BioOp::Write, Times::First(8), Errno::IO);
    rig.stack.hold(BioOp::Write);
    rig.file.start_writing(pages(0, 1)).unwrap();
    rig.stack.delay.wait_for_held(8);
    let file = rig.file.clone();
    let punch = spawn(move || file.punch_hole(512..1024));
    still_waits(&punch);
    rig.stack.let_go();
    punch.join().unwrap().unwrap();
    assert_eq!(errno(rig.file.fsync()), Errno::IO);
    rig.file.fsync().unwrap();
    rig.table.check();
    assert_eq!(rig.content()[512..1024], [0; 512]);
}

/// Stops where room is set aside for block 1, and where a removal has just begun.
struct Stops {
    map: Identity,
    at_block_1: Gate,
    in_removal: Gate,
}

impl GetBlock for Stops {
    fn get_block(&self, request: &MapRequest) -> mpage::Result<Extent> {
        self.map.get_block(request)
    }

    fn reserve(&self, blocks: Range<FileBlock>) -> mpage::Result<()> {
        if blocks.start == FileBlock(1) {
            self.at_block_1.stop()();
        }
        Ok(())
    }

    fn remove(&self, blocks: Range<FileBlock>) -> mpage::Result<()> {
        self.map.remove(blocks)
    }

    fn removes_by_writing(&self) -> bool {
        self.in_removal.stop()();
        true
    }
}

/// A durable write-through of pages 0 and 1, which stops between the two.
struct WriteThrough {
    stack: Stack,
    device: Arc<Forgetful>,
    file: CachedFile,
    _cache: PageCache,
    map: Arc<Stops>,
}

impl WriteThrough {
    fn new() -> WriteThrough {
        let memory = memory_device(1 << 20);
        memory.write_at(0, &pattern(1, 0, 1 << 20));
        let stack = Stack::around(memory.clone());
        let device = Arc::new(Forgetful::new(stack.top(), memory));
        let cache = PageCache::new(&options()).unwrap();
        let dev = cache.add_device(device.clone()).unwrap();
        let block = BlockSize::new(4096).unwrap();
        let map = Arc::new(Stops {
            map: Identity::new(device.clone(), block),
            at_block_1: Gate::new(),
            in_removal: Gate::new(),
        });
        let ops = Operations { get_block: Some(map.clone()), ..Operations::default() };
        let file = CachedFile::new(cache.add_mapping(&dev, block, 1 << 20, ops).unwrap(), true);
        WriteThrough { stack, device, file, _cache: cache, map }
    }

    fn start(&self) -> JoinHandle<mpage::Result<()>> {
        let file = self.file.clone();
        let write = spawn(move || file.write_through_at(&pattern(2, 0, 8192), 0, true));
        self.map.at_block_1.wait_for_arrival();
        write
    }

    /// It succeeds, and what is durable is page 1, and of page 0 what was punched.
    fn ends(&self, write: JoinHandle<mpage::Result<()>>) {
        self.map.at_block_1.open();
        write.join().unwrap().unwrap();
        let durable = self.device.durable();
        assert!(durable[..4096] == [0; 4096], "what was there before both is back");
        assert!(durable[4096..8192] == pattern(2, 4096, 4096));
    }
}

impl Drop for WriteThrough {
    /// A test that failed leaves nobody behind it.
    fn drop(&mut self) {
        self.map.at_block_1.open();
        self.map.in_removal.open();
    }
}

/// Statement 133: what a durable write-through stored may be punched before it is written, and the
/// zeros may be lost: then it is they that have to be durable.
///
/// Seen to fail: when only syncs wrote lost zeros again.
#[test]
fn a_durable_write_through_writes_zeros_again_that_were_lost_meanwhile() {
    let rig = WriteThrough::new();
    rig.map.in_removal.open();
    let write = rig.start();
    rig.file.punch_hole(pages(0, 1)).unwrap();
    rig.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(rig.file.sync_range(pages(9, 1), SyncKind::Data)), Errno::IO);
    rig.ends(write);
}

/// Statement 133: nor is a flush left out when the punch had begun before, and took what was stored
/// into a page that it had not come to.
///
/// Seen to fail: with removals counted that were under way.
#[test]
fn a_durable_write_through_flushes_the_zeros_of_a_removal_under_way() {
    let rig = WriteThrough::new();
    rig.file.write_all_at(&pattern(3, 0, 4096), 0).unwrap();
    let file = rig.file.clone();
    let punch = spawn(move || file.punch_hole(pages(0, 1)));
    rig.map.in_removal.wait_for_arrival();
    let write = rig.start();
    rig.map.in_removal.open();
    punch.join().unwrap().unwrap();
    rig.ends(write);
}
