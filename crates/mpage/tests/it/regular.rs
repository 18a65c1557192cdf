//! A regular file over itself: its size on the device, which ends where the file ends.

use std::sync::Arc;

use mpage::units::BlockSize;
use mpage::{CachedFile, Extent, GetBlock, Identity, MapRequest, Operations, PageCache};
use mpage_block::wrap::{DeviceOp, Effect, Rule, Times};
use mpage_block::{BioOp, BlockDevice, Errno, MemoryDevice, MemoryOptions};

use crate::rig::{options, pattern};
use crate::stack::{Stack, count, errno, spawn, still_waits};
use crate::table::Gate;

struct Regular {
    stack: Stack,
    file: CachedFile,
    _cache: PageCache,
}

/// A device that has no operation for zeros: they make a file longer.
fn writes_zeros() -> MemoryOptions {
    MemoryOptions { write_zeroes: false, ..MemoryOptions::default() }
}

/// A file of `size` bytes, written in blocks of 4 KiB.
fn regular(size: u64) -> Regular {
    regular_in(4096, size, MemoryOptions::default())
}

/// The same, in blocks of `block` bytes, on a device of `memory`.
fn regular_in(block: usize, size: u64, memory: MemoryOptions) -> Regular {
    let memory = MemoryOptions { grows: true, ..memory };
    let content = pattern(1, 0, usize::try_from(size).unwrap());
    let stack = Stack::around(Arc::new(MemoryDevice::from_contents(&content, memory)));
    let cache = PageCache::new(&options()).unwrap();
    let dev = cache.add_device(stack.top()).unwrap();
    let block = BlockSize::new(block).unwrap();
    let map = Arc::new(Identity::resizable(stack.top(), block, size));
    let ops = Operations { get_block: Some(map), ..Operations::default() };
    let mapping = cache.add_mapping(&dev, block, size, ops).unwrap();
    Regular { stack, file: CachedFile::new(mapping, true), _cache: cache }
}

/// A size that no write has to bring is durable after fsync all the same.
///
/// Seen to fail: when nothing was noted of setting the size, so that the flush was left out.
#[test]
fn fsync_of_a_file_made_longer_sets_the_size_of_the_device_and_flushes() {
    let rig = regular(1000);
    rig.file.set_len(9000).unwrap();
    drop(rig.stack.take_writes());
    rig.file.fsync().unwrap();
    let events = rig.stack.take_writes();
    let ops: Vec<_> = events.iter().map(|event| event.op).collect();
    assert_eq!(ops, [DeviceOp::SetLen, DeviceOp::Bio(BioOp::Flush)]);
    assert_eq!(rig.stack.memory.len(), 9000);
    rig.file.fsync().unwrap();
    assert_eq!(count(&rig.stack.take_writes(), BioOp::Flush), 0, "nothing was changed since");
}

/// A size that a failed flush may have lost is set again, though no write brings it; the errors
/// are told once.
///
/// Seen to fail: with `Identity::flush_failed` left out.
#[test]
fn a_size_set_before_a_flush_that_failed_is_set_again_by_the_next_sync() {
    for size in [9000, 500] {
        let rig = regular(1000);
        rig.file.set_len(size).unwrap();
        rig.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
        assert_eq!(errno(rig.file.fsync()), Errno::IO);
        drop(rig.stack.take_writes());
        rig.file.fsync().unwrap();
        let events = rig.stack.take_writes();
        let ops: Vec<_> = events.iter().map(|event| event.op).collect();
        assert!(ops.contains(&DeviceOp::SetLen), "size {size}: {ops:?}");
        assert_eq!(ops.last(), Some(&DeviceOp::Bio(BioOp::Flush)), "size {size}: {ops:?}");
        assert_eq!(rig.stack.memory.len(), size);
        rig.file.fsync().unwrap();
        assert_eq!(count(&rig.stack.take_writes(), BioOp::Flush), 0, "nothing was changed since");
    }
}

/// A cut that a failed flush has lost is made again: what was cut off does not come back when the
/// file grows, though the device is longer again than was known.
///
/// Seen to fail: with `may_end` left as it was in `Identity::flush_failed`.
#[test]
fn what_was_cut_off_stays_away_when_a_failed_flush_loses_the_cut() {
    let rig = regular(5 * 4096);
    rig.file.set_len(4096).unwrap();
    rig.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(rig.file.fsync()), Errno::IO);
    // The device as it was before.
    rig.stack.memory.set_len(5 * 4096).unwrap();
    rig.stack.memory.write_at(4096, &pattern(1, 4096, 4 * 4096));
    rig.file.set_len(5 * 4096).unwrap();
    rig.file.fsync().unwrap();
    assert!(rig.stack.bytes(0..4096) == pattern(1, 0, 4096));
    assert!(rig.stack.bytes(4096..5 * 4096).iter().all(|byte| *byte == 0));
}

/// Zeros that a failed flush lost on both sides of the end: the file keeps its length meanwhile.
///
/// Seen to fail: with both zeroed by one removal, which cuts the file off, so that its size has to
/// be set again.
#[test]
fn the_file_is_never_shorter_while_lost_zeros_are_written_again() {
    let rig = regular(5 * 4096);
    rig.file.set_len(4 * 4096).unwrap();
    rig.file.punch_hole(4096..4 * 4096).unwrap();
    rig.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(rig.file.fsync()), Errno::IO);
    // Whatever sets the size a second time fails.
    let (op, effect) = (Some(DeviceOp::SetLen), Effect::Fail(Errno::IO));
    let _id = rig.stack.fault.add(Rule { op, sectors: None, times: Times::Nth(2), effect });
    rig.file.fsync().unwrap();
    assert_eq!(rig.stack.memory.len(), 4 * 4096);
}

/// A hole takes bytes, never the size, also on the device and before any sync.
///
/// Seen to fail: when a removal up to the end of the device set its size.
#[test]
fn a_hole_punched_at_the_end_leaves_the_size_of_the_device() {
    let rig = regular(3 * 4096);
    rig.file.punch_hole(4096..3 * 4096).unwrap();
    assert_eq!(rig.stack.memory.len(), 3 * 4096);
    assert!(rig.stack.bytes(4096..3 * 4096).iter().all(|byte| *byte == 0));
    rig.file.set_len(4096).unwrap();
    assert_eq!(rig.stack.memory.len(), 4096);
}

/// A write may fail and have made the device longer.
///
/// Seen to fail: when the device counted as long as the writes that succeeded made it.
#[test]
fn what_a_failed_write_left_behind_the_end_is_cut_by_the_next_sync() {
    let rig = regular(4096);
    rig.file.write_all_at(&[7; 4096], 4096).unwrap();
    let effect = Effect::DoneButFail(Errno::IO);
    let (op, times) = (Some(DeviceOp::Bio(BioOp::Write)), Times::First(1));
    let _id = rig.stack.fault.add(Rule { op, sectors: None, times, effect });
    assert!(rig.file.fsync().is_err());
    assert_eq!(rig.stack.memory.len(), 2 * 4096);
    rig.file.set_len(4096).unwrap();
    rig.file.fsync().unwrap();
    assert_eq!(rig.stack.memory.len(), 4096);
}

impl Regular {
    /// The next `op` is done, and fails all the same.
    fn is_done_but_fails(&self, op: DeviceOp) {
        let effect = Effect::DoneButFail(Errno::IO);
        let rule = Rule { op: Some(op), sectors: None, times: Times::First(1), effect };
        let _id = self.stack.fault.add(rule);
    }
}

/// A size may have been set though setting it failed, and zeros may have made the device longer:
/// the next sync that succeeds leaves it as long as the file.
///
/// Seen to fail: with the end known before still taken for the device's.
#[test]
fn a_size_that_was_set_and_failed_is_set_right_by_the_next_sync() {
    let rig = regular(4096);
    rig.file.set_len(8192).unwrap();
    rig.is_done_but_fails(DeviceOp::SetLen);
    assert_eq!(errno(rig.file.fsync()), Errno::IO);
    rig.file.set_len(4096).unwrap();
    rig.file.fsync().unwrap();
    assert_eq!(rig.stack.memory.len(), 4096);
    let rig = regular_in(4096, 5000, writes_zeros());
    rig.is_done_but_fails(DeviceOp::Bio(BioOp::Write));
    assert_eq!(errno(rig.file.punch_hole(4096..8192)), Errno::IO);
    assert_eq!(rig.stack.memory.len(), 8192);
    rig.file.fsync().unwrap();
    assert_eq!(rig.stack.memory.len(), 5000);
}

/// A truncate that fails has set the file's size, so what it did not cut off is cut off by the next
/// sync, and is not back when the file has grown again meanwhile.
///
/// Seen to fail: when what a failed removal should have zeroed counted as zeroed.
#[test]
fn what_a_failed_truncate_left_on_the_device_is_zeros_when_the_file_grows() {
    let rig = regular(3 * 4096);
    let times = Times::First(1);
    let effect = Effect::Fail(Errno::IO);
    let _id =
        rig.stack.fault.add(Rule { op: Some(DeviceOp::SetLen), sectors: None, times, effect });
    assert_eq!(errno(rig.file.set_len(4096)), Errno::IO);
    rig.file.set_len(3 * 4096).unwrap();
    rig.file.fsync().unwrap();
    rig.file.invalidate_strict(0..3 * 4096).unwrap();
    let mut bytes = vec![1; 2 * 4096];
    assert_eq!(rig.file.read_at(&mut bytes, 4096).unwrap(), 2 * 4096);
    assert!(bytes.iter().all(|byte| *byte == 0));
}

/// A hole at the end of a file makes it longer on some devices, and on others not.
///
/// Seen to fail: when the device counted as longer, so that a file that became as long was not.
#[test]
fn a_file_made_longer_behind_a_hole_at_its_end_is_as_long_on_the_device() {
    for memory in [MemoryOptions::default(), writes_zeros()] {
        let rig = regular_in(4096, 5000, memory);
        rig.file.punch_hole(4096..8192).unwrap();
        rig.file.set_len(8192).unwrap();
        rig.file.fsync().unwrap();
        assert_eq!(rig.stack.memory.len(), 8192);
    }
}

/// Zeros are not written behind the end, also where the device may have been longer before a flush
/// that failed: a crash would show a file longer than it was.
///
/// Seen to fail: with holes that went up to the end of the last page.
#[test]
fn a_hole_behind_the_end_is_not_written_to_the_device() {
    let rig = regular_in(512, 8192, writes_zeros());
    rig.file.set_len(5000).unwrap();
    rig.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(rig.file.fsync()), Errno::IO);
    rig.file.punch_hole(4096..8192).unwrap();
    assert_eq!(rig.stack.memory.len(), 5120, "a block may be written whole");
}

/// The end of the device is moved while no write can move it too: what another writer appends
/// meanwhile is not cut off.
///
/// Seen to fail: with the size set by the sync without a removal and without waiting for writes.
#[test]
fn the_size_of_the_device_is_set_while_no_write_of_its_end_is_in_flight() {
    let rig = regular(4096);
    rig.file.write_all_at(&[7; 100], 4096).unwrap();
    rig.file.fsync().unwrap();
    assert_eq!(rig.stack.memory.len(), 4196);
    rig.file.write_all_at(&[8; 100], 4100).unwrap();
    rig.stack.hold(BioOp::Write);
    rig.file.start_writing(0..u64::MAX / 2).unwrap();
    rig.stack.delay.wait_for_held(1);
    let other = rig.file.clone();
    // Nothing of this range is dirty, but the size differs.
    let sync = spawn(move || other.sync_range(0..4096, mpage::SyncKind::All));
    still_waits(&sync);
    assert_eq!(rig.stack.memory.len(), 4196);
    rig.stack.let_go();
    sync.join().unwrap().unwrap();
    assert_eq!(rig.stack.memory.len(), 4200);
    rig.file.fsync().unwrap();
    assert_eq!(rig.stack.bytes(4100..4200), [8; 100]);
}

/// Stops where it is asked for the size of the device, and when it has set it.
struct SetLate {
    map: Identity,
    at_look: Gate,
    behind_set: Gate,
}

impl GetBlock for SetLate {
    fn get_block(&self, request: &MapRequest) -> mpage::Result<Extent> {
        self.map.get_block(request)
    }

    fn size_differs(&self, size_bytes: u64) -> bool {
        self.at_look.stop()();
        self.map.size_differs(size_bytes)
    }

    fn set_size(&self, size_bytes: u64) -> mpage::Result<()> {
        self.map.set_size(size_bytes)?;
        self.behind_set.stop()();
        Ok(())
    }
}

/// A size that another sync has set is durable only when the device was flushed behind it.
///
/// Seen to fail: when a sync that found the size set did not wait for whoever had set it.
#[test]
fn a_sync_waits_for_a_size_that_another_has_set_and_not_noted() {
    let memory = MemoryOptions { grows: true, ..MemoryOptions::default() };
    let stack = Stack::around(Arc::new(MemoryDevice::new(4096, memory)));
    let cache = PageCache::new(&options()).unwrap();
    let dev = cache.add_device(stack.top()).unwrap();
    let block = BlockSize::new(4096).unwrap();
    let (at_look, behind_set) = (Gate::new(), Gate::new());
    let map = Identity::resizable(stack.top(), block, 4096);
    let map = SetLate { map, at_look: at_look.clone(), behind_set: behind_set.clone() };
    let ops = Operations { get_block: Some(Arc::new(map)), ..Operations::default() };
    let file = CachedFile::new(cache.add_mapping(&dev, block, 4096, ops).unwrap(), true);
    file.set_len(9000).unwrap();
    let (one, two) = (file.clone(), file.clone());
    let second = spawn(move || two.fsync());
    at_look.wait_for_arrival();
    let first = spawn(move || one.fsync());
    behind_set.wait_for_arrival();
    at_look.open();
    still_waits(&second);
    assert_eq!(count(&stack.take_writes(), BioOp::Flush), 0);
    behind_set.open();
    first.join().unwrap().unwrap();
    second.join().unwrap().unwrap();
    assert!(count(&stack.take_writes(), BioOp::Flush) > 0);
}
