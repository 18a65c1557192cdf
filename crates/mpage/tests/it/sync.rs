//! What fsync and its relatives wait for, and what they make durable.

use mpage_locks::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;

use mpage::{CachedFile, RangeSteps, SyncKind};
use mpage_block::wrap::{DeviceOp, Times};
use mpage_block::{BioOp, Errno, MemoryDevice, MemoryOptions};
use mpage_locks::thread::JoinHandle;

use crate::rig::pattern;
use crate::stack::{
    Files, Forgetful, Stack, bytes_of, count, errno, is_clean, pages, spawn, still_waits,
    wait_until,
};

const ALL: RangeSteps = RangeSteps { wait_before: true, write: true, wait_after: true };
const WRITE: RangeSteps = RangeSteps { wait_before: false, write: true, wait_after: false };

/// Fsyncs on a thread; when it returns success, `expected` has to be on the device from `at` on.
fn fsync_and_look(
    file: &CachedFile,
    memory: &Arc<MemoryDevice>,
    at: u64,
    expected: Vec<u8>,
) -> JoinHandle<()> {
    let (file, memory) = (file.clone(), Arc::clone(memory));
    spawn(move || {
        file.fsync().unwrap();
        let on_device = bytes_of(&memory, at..at + expected.len() as u64);
        assert!(on_device == expected, "fsync returned before its data was on the device");
    })
}

fn write_page(file: &CachedFile, index: u64, byte: u8) {
    file.write_all_at(&[byte; 4096], index * 4096).unwrap();
}

/// Makes page 0 dirty with twos while a write of ones is held at the device.
fn dirty_under_older_io(files: &Files, file: &CachedFile) {
    files.stack.hold(BioOp::Write);
    write_page(file, 0, 1);
    file.start_writing(pages(0, 1)).unwrap();
    files.stack.delay.wait_for_held(1);
    write_page(file, 0, 2);
}

/// Statement 53. Fails without the wait after the walk.
#[test]
fn fsync_returns_after_new_io_for_every_dirty_byte_completed() {
    let files = Files::new();
    let (file, _) = files.file(0, 1 << 20);
    let data = pattern(1, 0, 20_000);
    file.write_all_at(&data[..9000], 0).unwrap();
    file.write_all_at(&data[16_384..], 16_384).unwrap();
    let mut expected = data.clone();
    expected[9000..16_384].fill(0);
    files.stack.hold(BioOp::Write);
    assert!(files.stack.trace.take().iter().all(|event| event.op == DeviceOp::Bio(BioOp::Read)));
    let sync = fsync_and_look(&file, &files.stack.memory, 0, expected);
    files.stack.delay.wait_for_held(2);
    for _ in 0..2 {
        still_waits(&sync);
        assert!(files.stack.delay.release_next());
    }
    sync.join().unwrap();
    assert!(is_clean(file.mapping()));
}

/// Statement 54. Fails when an integrity walk passes over a page in flight.
#[test]
fn page_dirty_under_older_io_gets_a_second_io() {
    let files = Files::new();
    let (file, _) = files.file(0, 1 << 20);
    dirty_under_older_io(&files, &file);
    let sync = fsync_and_look(&file, &files.stack.memory, 0, vec![2; 4096]);
    wait_until(|| file.mapping().set_counts().io == 1);
    still_waits(&sync);
    assert_eq!(files.stack.delay.held().len(), 1, "two writes of one page are never in flight");
    assert!(files.stack.delay.release_next());
    files.stack.delay.wait_for_held(1);
    still_waits(&sync);
    assert_eq!(files.stack.bytes(0..4096), vec![1; 4096]);
    assert!(files.stack.delay.release_next());
    sync.join().unwrap();
    let writes = files.stack.take_writes();
    assert_eq!((count(&writes, BioOp::Write), count(&writes, BioOp::Flush)), (2, 1));
    assert!(writes[0].completed.unwrap() < writes[1].submitted);
}

/// Statement 55. Fails without the wait after the walk.
#[test]
fn fsync_waits_for_writes_that_others_started() {
    let files = Files::new();
    let (file, _) = files.file(0, 1 << 20);
    files.stack.hold(BioOp::Write);
    write_page(&file, 3, 7);
    file.start_writing(pages(0, 8)).unwrap();
    assert_eq!(file.mapping().dirty_count(), 0);
    let sync = fsync_and_look(&file, &files.stack.memory, 3 * 4096, vec![7; 4096]);
    still_waits(&sync);
    files.stack.let_go();
    sync.join().unwrap();
}

/// Statement 56, race R1. Fails when a sync waits only for the pages it submitted itself.
#[test]
fn parallel_fsyncs_all_wait_for_the_io_they_depend_on() {
    let files = Files::new();
    let (file, map) = files.file(0, 1 << 20);
    files.stack.hold(BioOp::Write);
    write_page(&file, 2, 9);
    let look = || fsync_and_look(&file, &files.stack.memory, 2 * 4096, vec![9; 4096]);
    let first = look();
    files.stack.delay.wait_for_held(1);
    let others = [look(), look(), look()];
    others.iter().for_each(still_waits);
    assert_eq!(map.syncs(), [], "metadata before data");
    assert_eq!(files.stack.delay.held().len(), 1, "one write serves all");
    assert!(files.stack.delay.release_next());
    first.join().unwrap();
    others.into_iter().for_each(|sync| sync.join().unwrap());
}

/// Statement 57, races R3 and R4: the walk meets, in the snapshot of a sync, a page in flight and
/// leaves it there. Fails when passing over a page takes the integrity mark off it.
#[test]
fn cleaning_walk_hides_no_page_of_a_sync() {
    let files = Files::new();
    let (file, _) = files.file(0, 1 << 20);
    files.stack.hold(BioOp::Write);
    for round in 1..=2 {
        for index in [0, 5, 9] {
            write_page(&file, index, round);
            if round == 1 {
                file.start_writing(pages(index, 1)).unwrap();
            }
        }
    }
    files.stack.delay.wait_for_held(3);
    let sync = fsync_and_look(&file, &files.stack.memory, 5 * 4096, vec![2; 4096]);
    wait_until(|| file.mapping().set_counts().io == 3);
    file.start_writing(pages(5, 1)).unwrap();
    file.start_writing(0..u64::MAX / 2).unwrap();
    assert_eq!(file.mapping().set_counts().io, 3, "the snapshot of the sync is not touched");
    still_waits(&sync);
    files.stack.let_go();
    sync.join().unwrap();
    assert_eq!(files.stack.bytes(pages(9, 1)), vec![2; 4096]);
    assert!(is_clean(file.mapping()));
}

/// Statements 9 and 57, races R2 to R4 in whatever order threads take. Fails when writeback clears
/// dirty before it enters the table of writes in flight.
#[test]
fn racing_cleaners_never_lose_a_page_of_fsync() {
    let files = Files::new();
    let (file, _) = files.file(0, 1 << 20);
    let stop = Arc::new(AtomicBool::new(false));
    let cleaner = {
        let (file, stop) = (file.clone(), Arc::clone(&stop));
        spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                file.start_writing(pages(0, 16)).unwrap();
            }
        })
    };
    let writers: Vec<_> = (0..2_u64)
        .map(|n| {
            let (file, memory) = (file.clone(), Arc::clone(&files.stack.memory));
            spawn(move || {
                for round in 1..200_u8 {
                    let at = (n * 8 + u64::from(round % 4)) * 4096;
                    file.write_all_at(&[round; 4096], at).unwrap();
                    file.fsync().unwrap();
                    assert!(bytes_of(&memory, at..at + 4096) == [round; 4096]);
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    stop.store(true, Ordering::SeqCst);
    cleaner.join().unwrap();
}

/// Statements 58 and 120. Fails when the walk or the wait leaves the range out of account.
#[test]
fn range_sync_touches_its_range_alone() {
    let files = Files::new();
    let (file, _) = files.file(0, 1 << 20);
    for index in [0, 4, 5, 8] {
        write_page(&file, index, 3);
    }
    files.stack.hold_page(8);
    file.start_writing(pages(8, 1)).unwrap();
    // Would not return if it waited for page 8.
    file.sync_range(4 * 4096 + 10..5 * 4096 + 1, SyncKind::Data).unwrap();
    let lines = files.stack.trace.take_lines();
    assert_eq!(lines, ["W 64+8 background in flight", "W 32+16 sync", "F"]);
    let dirty = file.mapping().dirty_pages(&pages(0, 100));
    assert_eq!(dirty.iter().map(|index| index.0).collect::<Vec<_>>(), [0]);
    files.stack.let_go();
}

/// Statement 120: stores through a pinned page, then a sync of their range. Fails when a store
/// through a pin does not mark the page.
#[test]
fn synchronous_msync_covers_stores_through_a_pinned_page() {
    let files = Files::new();
    let (file, _) = files.file(0, 1 << 20);
    let page = file.pin_page(mpage::units::PageIndex(6)).unwrap();
    assert!(page.write(100, &[1; 50]).unwrap());
    files.stack.hold(BioOp::Write);
    file.start_writing(pages(6, 1)).unwrap();
    assert!(page.write(120, &[2; 10]).unwrap());
    let sync = {
        let (file, memory) = (file.clone(), Arc::clone(&files.stack.memory));
        spawn(move || {
            file.sync_range(pages(6, 1), SyncKind::Data).unwrap();
            let at = 6 * 4096;
            assert_eq!(bytes_of(&memory, at + 100..at + 120), [1; 20]);
            assert_eq!(bytes_of(&memory, at + 120..at + 130), [2; 10]);
        })
    };
    wait_until(|| file.mapping().set_counts().io == 1);
    still_waits(&sync);
    files.stack.let_go();
    sync.join().unwrap();
}

/// Statement 58: passes over pages in flight, waits for nothing, flushes nothing. Fails when
/// the write step is an integrity walk.
#[test]
fn sync_file_range_with_write_alone_promises_nothing() {
    let files = Files::new();
    let (file, map) = files.file(0, 1 << 20);
    dirty_under_older_io(&files, &file);
    write_page(&file, 1, 5);
    // Would not return if it waited.
    file.sync_file_range(pages(0, 2), WRITE).unwrap();
    assert_eq!(files.stack.delay.held().len(), 2);
    let dirty = file.mapping().dirty_pages(&pages(0, 2));
    assert_eq!(dirty.iter().map(|index| index.0).collect::<Vec<_>>(), [0]);
    files.stack.let_go();
    assert_eq!(files.stack.bytes(0..4096), vec![1; 4096]);
    assert_eq!(count(&files.stack.take_writes(), BioOp::Flush), 0);
    assert_eq!(map.syncs(), []);
}

/// Statement 58: all three steps are integrity for the range's data, without metadata and without
/// a flush. Fails without the last wait.
#[test]
fn sync_file_range_with_all_steps_is_integrity_for_its_range() {
    let files = Files::new();
    let (file, map) = files.file(0, 1 << 20);
    dirty_under_older_io(&files, &file);
    write_page(&file, 9, 5);
    let sync = {
        let (file, memory) = (file.clone(), Arc::clone(&files.stack.memory));
        spawn(move || {
            file.sync_file_range(pages(0, 1), ALL).unwrap();
            assert_eq!(bytes_of(&memory, pages(0, 1)), vec![2; 4096]);
        })
    };
    still_waits(&sync);
    assert!(files.stack.delay.release_next());
    files.stack.delay.wait_for_held(1);
    still_waits(&sync);
    files.stack.let_go();
    sync.join().unwrap();
    assert_eq!(file.mapping().dirty_count(), 1, "page 9 is outside");
    assert_eq!(count(&files.stack.take_writes(), BioOp::Flush), 0);
    assert_eq!(map.syncs(), []);
}

/// Statement 58: with all three steps the walk is an integrity one, which goes on after an error.
/// Fails when it is a cleaning walk between two waits.
#[test]
fn sync_file_range_with_all_steps_tries_every_page() {
    let files = Files::new();
    let (file, map) = files.file(0, 1 << 20);
    write_page(&file, 0, 1);
    write_page(&file, 1, 2);
    map.refuse(Some((0..1, Errno::NOSPC)));
    assert_eq!(errno(file.sync_file_range(pages(0, 2), ALL)), Errno::NOSPC);
    assert_eq!(files.stack.bytes(pages(1, 1)), vec![2; 4096]);
    map.refuse(None);
    file.sync_file_range(pages(0, 2), ALL).unwrap();
    assert_eq!(files.stack.bytes(pages(0, 1)), vec![1; 4096]);
}

/// Statement 58: each waiting step alone waits for what is in flight and starts nothing. Fails when
/// the step is left out.
#[test]
fn waiting_steps_of_sync_file_range_wait_and_write_nothing() {
    let before = RangeSteps { wait_before: true, ..RangeSteps::default() };
    let after = RangeSteps { wait_after: true, ..RangeSteps::default() };
    for steps in [before, after] {
        let files = Files::new();
        let (file, _) = files.file(0, 1 << 20);
        dirty_under_older_io(&files, &file);
        let sync = {
            let file = file.clone();
            spawn(move || {
                file.sync_file_range(pages(0, 1), steps).unwrap();
                assert_eq!(file.mapping().writeback_pages(&pages(0, 1)), []);
            })
        };
        still_waits(&sync);
        assert!(files.stack.delay.release_next());
        sync.join().unwrap();
        assert_eq!(files.stack.delay.held(), []);
        assert_eq!(file.mapping().dirty_count(), 1);
        files.stack.let_go();
    }
}

/// Statement 59: the block map is told which metadata is wanted, and the size of the file. Fails
/// when the kind is not passed on.
#[test]
fn fdatasync_asks_for_size_and_allocation_alone() {
    let files = Files::new();
    let (file, map) = files.file(0, 0);
    write_page(&file, 0, 1);
    file.fdatasync().unwrap();
    assert_eq!(map.syncs(), [(SyncKind::Data, 4096)]);
    file.write_all_at(&[1; 100], 4096).unwrap();
    file.sync_range(0..10, SyncKind::Data).unwrap();
    file.fsync().unwrap();
    let expected = [(SyncKind::Data, 4096), (SyncKind::Data, 4196), (SyncKind::All, 4196)];
    assert_eq!(map.syncs(), expected);
}

/// Statements 52 and 60. Fails when the flush is left out, or begins before the data completed.
#[test]
fn fsync_flushes_after_its_data_and_metadata_completed() {
    let files = Files::new();
    let (file, map) = files.file(0, 1 << 20);
    let mapping = Arc::clone(file.mapping());
    let trace = Arc::clone(&files.stack.trace);
    map.on_sync(move |_| {
        assert_eq!(mapping.writeback_pages(&pages(0, 100)), [], "metadata before data");
        let events = trace.events();
        assert_eq!((count(&events, BioOp::Write), count(&events, BioOp::Flush)), (2, 0));
        Ok(())
    });
    write_page(&file, 0, 1);
    write_page(&file, 7, 1);
    files.stack.hold(BioOp::Write);
    let sync = fsync_and_look(&file, &files.stack.memory, 0, vec![1; 4096]);
    files.stack.delay.wait_for_held(2);
    files.stack.hold(BioOp::Flush);
    assert!(files.stack.delay.release_nth(1));
    still_waits(&sync);
    assert!(files.stack.delay.release_next());
    files.stack.delay.wait_for_held(1);
    still_waits(&sync);
    assert_eq!(map.syncs(), [(SyncKind::All, 1 << 20)]);
    files.stack.let_go();
    sync.join().unwrap();
    let events = files.stack.take_writes();
    assert_eq!(events[2].op, DeviceOp::Bio(BioOp::Flush));
    assert!(events[..2].iter().all(|write| write.completed.unwrap() < events[2].submitted));
    map.on_sync(|_| Ok(()));
}

/// Statement 60: nothing before the end of the flush counts. Fails without the flush, and when its
/// failure makes nothing dirty.
#[test]
fn fsync_fails_when_its_flush_fails() {
    let files = Files::new();
    let (file, _) = files.file(0, 1 << 20);
    write_page(&file, 0, 1);
    files.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(file.fsync()), Errno::IO);
    file.fsync().unwrap();
    assert_eq!(count(&files.stack.take_writes(), BioOp::Write), 2, "the data is written again");
}

/// Statement 60: a flush that would cover nothing is left out, whoever wrote; a device without a
/// volatile cache is never flushed. Fails without the comparison of write numbers.
#[test]
fn flush_is_left_out_when_nothing_was_written_since() {
    let files = Files::new();
    let (one, _) = files.file(0, 1 << 20);
    let (two, _) = files.file(1, 1 << 20);
    write_page(&one, 0, 1);
    write_page(&two, 0, 1);
    two.sync_file_range(pages(0, 1), ALL).unwrap();
    one.fsync().unwrap();
    one.fsync().unwrap();
    two.fsync().unwrap();
    files.cache.sync().unwrap();
    assert_eq!(count(&files.stack.take_writes(), BioOp::Flush), 1);

    let plain = MemoryOptions { volatile_cache: false, ..MemoryOptions::default() };
    let files = Files::around(Stack::around(Arc::new(MemoryDevice::new(8 << 20, plain))));
    let (file, _) = files.file(0, 1 << 20);
    write_page(&file, 0, 1);
    file.fsync().unwrap();
    assert_eq!(count(&files.stack.take_writes(), BioOp::Flush), 0);
}

/// Statements 60 and 64: syncs that come while a flush is under way wait for it, and one flush
/// serves them all. Fails when each flushes for itself, or takes the flush that began before its
/// data completed for its own.
#[test]
fn syncs_that_wait_together_share_a_flush() {
    let files = Files::new();
    let (first, _) = files.file(0, 1 << 20);
    write_page(&first, 0, 1);
    files.stack.hold(BioOp::Flush);
    let leader = fsync_and_look(&first, &files.stack.memory, 0, vec![1; 4096]);
    files.stack.delay.wait_for_held(1);
    let flushing = Arc::new(AtomicUsize::new(0));
    let syncs: Vec<_> = (1..5)
        .map(|n| {
            let (file, map) = files.file(n, 1 << 20);
            let reached = Arc::clone(&flushing);
            map.on_sync(move |_| {
                let _before = reached.fetch_add(1, Ordering::SeqCst);
                Ok(())
            });
            write_page(&file, 0, 1);
            fsync_and_look(&file, &files.stack.memory, n << 22, vec![1; 4096])
        })
        .collect();
    wait_until(|| flushing.load(Ordering::SeqCst) == 4);
    assert!(files.stack.delay.release_next());
    leader.join().unwrap();
    files.stack.delay.wait_for_held(1);
    syncs.iter().for_each(still_waits);
    assert_eq!(files.stack.delay.held().len(), 1);
    files.stack.let_go();
    syncs.into_iter().for_each(|sync| sync.join().unwrap());
    assert_eq!(count(&files.stack.take_writes(), BioOp::Flush), 2);
}

/// Statement 61: nothing is waited for before all is started, on every device; each is flushed
/// once. Fails when the sync goes file by file.
#[test]
fn sync_of_everything_starts_all_before_it_waits() {
    let files = Files::new();
    let other = Stack::new(8 << 20);
    let dev = files.cache.add_device(other.top()).unwrap();
    let (a, _) = files.file(0, 1 << 20);
    let (b, _) = files.file(1, 1 << 20);
    let block = mpage::units::BlockSize::new(4096).unwrap();
    let map = crate::stack::Blocks::new(other.top(), 4096, 0);
    let ops = mpage::Operations { get_block: Some(map), ..mpage::Operations::default() };
    let mapping = files.cache.add_mapping(&dev, block, 1 << 20, ops).unwrap();
    let c = CachedFile::new(mapping, true);
    [&a, &b, &c].iter().for_each(|file| write_page(file, 0, 4));
    files.stack.hold(BioOp::Write);
    other.hold(BioOp::Write);
    let Files { stack, cache, .. } = files;
    let sync = spawn(move || {
        cache.sync().unwrap();
        cache
    });
    stack.delay.wait_for_held(2);
    other.delay.wait_for_held(1);
    still_waits(&sync);
    stack.let_go();
    still_waits(&sync);
    other.let_go();
    let _cache = sync.join().unwrap();
    for stack in [&stack, &other] {
        assert_eq!(stack.bytes(0..4096), vec![4; 4096]);
        assert_eq!(count(&stack.take_writes(), BioOp::Flush), 1);
    }
    assert_eq!(stack.bytes(pages(1024, 1)), vec![4; 4096]);
}

/// Statement 61. Fails when a walk goes on with what is dirtied after its snapshot.
#[test]
fn sync_of_everything_ends_under_a_constant_dirtier() {
    let files = Files::new();
    let (file, _) = files.file(0, 1 << 20);
    let stop = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicUsize::new(0));
    let dirtier = {
        let (file, stop, rounds) = (file.clone(), Arc::clone(&stop), Arc::clone(&rounds));
        spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let round = rounds.fetch_add(1, Ordering::SeqCst);
                write_page(&file, round as u64 % 12, 1);
            }
        })
    };
    wait_until(|| rounds.load(Ordering::SeqCst) > 0);
    for _ in 0..20 {
        files.cache.sync().unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    dirtier.join().unwrap();
}

/// Statement 61: metadata that a file's own sync leaves dirty in the device's mapping is synced
/// too, after the file. Fails when the device's mapping is not taken last.
#[test]
fn sync_of_everything_takes_the_mapping_of_the_device_last() {
    for _ in 0..8 {
        let files = Files::new();
        let (device, _) = files.file(0, 1 << 20);
        let block = mpage::units::BlockSize::new(4096).unwrap();
        let map = crate::stack::Blocks::new(files.stack.top(), 4096, 1024);
        let table = device.clone();
        map.on_sync(move |_| {
            write_page(&table, 3, 8);
            Ok(())
        });
        let alias = Some(Arc::clone(device.mapping()));
        let ops = mpage::Operations { get_block: Some(map), alias, ..mpage::Operations::default() };
        let mapping = files.cache.add_mapping(&files.dev, block, 1 << 20, ops).unwrap();
        write_page(&CachedFile::new(mapping, true), 0, 4);
        files.cache.sync().unwrap();
        assert_eq!(files.stack.bytes(pages(3, 1)), vec![8; 4096]);
        assert!(is_clean(device.mapping()));
    }
}

/// Statement 62. Fails when a removed page's marks stay in the tree.
#[test]
fn page_truncated_during_fsync_is_no_error_and_its_successor_is_not_owed() {
    let files = Files::new();
    let (file, _) = files.file(0, 1 << 20);
    dirty_under_older_io(&files, &file);
    write_page(&file, 5, 6);
    let sync = fsync_and_look(&file, &files.stack.memory, 0, vec![2; 4096]);
    wait_until(|| file.mapping().set_counts().io == 2);
    file.set_len(4096).unwrap();
    write_page(&file, 5, 7);
    files.stack.let_go();
    sync.join().unwrap();
    let dirty = file.mapping().dirty_pages(&pages(0, 100));
    assert_eq!(dirty.iter().map(|index| index.0).collect::<Vec<_>>(), [5]);
    assert_eq!(files.stack.bytes(pages(5, 1)), vec![0; 4096]);
    file.fsync().unwrap();
    assert_eq!(files.stack.bytes(pages(5, 1)), vec![7; 4096]);
}

/// Statement 63: the device fails one write, and refuses places for a block, while another write
/// is held. Fails when the first error ends the sync.
#[test]
fn all_io_that_was_started_is_waited_for_after_an_error() {
    for refuse_a_place in [false, true] {
        let files = Files::new();
        let (file, map) = files.file(0, 1 << 20);
        for index in [0, 4, 9] {
            write_page(&file, index, 3);
        }
        files.stack.hold_page(9);
        match refuse_a_place {
            true => map.refuse(Some((0..1, Errno::NOSPC))),
            false => files.stack.fail(BioOp::Write, Times::First(1), Errno::NOSPC),
        }
        let sync = {
            let (file, memory) = (file.clone(), Arc::clone(&files.stack.memory));
            spawn(move || {
                let error = file.fsync().unwrap_err();
                assert_eq!(bytes_of(&memory, pages(9, 1)), vec![3; 4096]);
                error
            })
        };
        files.stack.delay.wait_for_held(1);
        still_waits(&sync);
        assert_eq!(files.stack.bytes(pages(4, 1)), vec![3; 4096], "the walk goes on");
        files.stack.let_go();
        let error = sync.join().unwrap();
        assert_eq!((error.kind.errno(), error.at), (Errno::NOSPC, vec![pages(0, 1)]));
        map.refuse(None);
        file.fsync().unwrap();
        assert_eq!(files.stack.bytes(pages(0, 1)), vec![3; 4096]);
    }
}

/// A stack whose device loses what it has not flushed when a flush fails.
fn forgetful() -> (Files, Arc<Forgetful>) {
    let mut stack = Stack::new(16 << 20);
    let device =
        Forgetful::new(stack.trace.clone(), Arc::clone(&stack.memory)).with_late(&stack.late);
    let device = Arc::new(device);
    stack.trace = Arc::new(mpage_block::wrap::Trace::new(device.clone()));
    (Files::around(stack), device)
}

/// Statement 67. Fails when a failed flush makes nothing dirty, or only pages of the file that
/// flushed.
#[test]
fn failed_flush_makes_everything_written_since_the_last_good_one_dirty_again() {
    let (files, device) = forgetful();
    let (one, _) = files.file(0, 1 << 20);
    let (two, _) = files.file(1, 1 << 20);
    let (still, _) = files.file(2, 1 << 20);
    write_page(&one, 0, 1);
    write_page(&still, 0, 3);
    files.cache.sync().unwrap();
    write_page(&one, 3, 1);
    one.sync_file_range(0..1 << 20, ALL).unwrap();
    write_page(&two, 0, 2);
    files.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    let error = two.fsync().unwrap_err();
    assert_eq!((error.at, error.retained), (vec![pages(0, 1)], true));
    let dirty = one.mapping().dirty_pages(&pages(0, 100));
    assert_eq!(dirty.iter().map(|index| index.0).collect::<Vec<_>>(), [3]);
    assert!(is_clean(still.mapping()), "an earlier flush covered it");
    still.fsync().unwrap();
    assert_eq!(errno(one.fsync()), Errno::IO, "every file that lost a write is told");
    two.fsync().unwrap();
    one.fsync().unwrap();
    let durable = device.durable();
    let byte = |page: usize| durable[page * 4096..(page + 1) * 4096].to_vec();
    assert_eq!((byte(0), byte(3), byte(1024)), (vec![1; 4096], vec![1; 4096], vec![2; 4096]));
}

/// Statement 67: whoever waited for the flush is told that it failed, and success is durable.
/// Fails when the failed flush makes nothing dirty.
#[test]
fn syncs_that_wait_for_a_flush_that_fails_fail_too() {
    let (files, device) = forgetful();
    let (one, _) = files.file(0, 1 << 20);
    let (two, map) = files.file(1, 1 << 20);
    write_page(&one, 0, 1);
    write_page(&two, 0, 2);
    two.sync_file_range(0..1 << 20, ALL).unwrap();
    files.stack.hold(BioOp::Flush);
    files.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    let file = one.clone();
    let leader = spawn(move || file.fsync());
    files.stack.delay.wait_for_held(1);
    let file = two.clone();
    let follower = spawn(move || file.fsync());
    wait_until(|| map.syncs().len() == 1);
    files.stack.let_go();
    assert_eq!(errno(leader.join().unwrap()), Errno::IO);
    assert_eq!(errno(follower.join().unwrap()), Errno::IO);
    files.cache.sync().unwrap();
    let durable = device.durable();
    assert!(durable[..4096] == [1; 4096]);
    assert!(durable[1024 * 4096..1025 * 4096] == [2; 4096]);
}

/// Statement 133. Fails when the walk takes the whole file.
#[test]
fn write_through_writes_its_own_pages_and_leaves_them_clean_and_cached() {
    let files = Files::new();
    let (file, _) = files.file(0, 1 << 20);
    write_page(&file, 0, 1);
    write_page(&file, 9, 1);
    let _reads = files.stack.trace.take();
    for (durable, flags) in [(false, "sync"), (true, "sync fua")] {
        file.write_through_at(&[2; 8192], 4096, durable).unwrap();
        assert_eq!(files.stack.bytes(pages(1, 2)), vec![2; 8192]);
        assert_eq!(files.stack.trace.take_lines(), [format!("W 8+16 {flags}")]);
        assert_eq!(file.mapping().dirty_count(), 2);
        let mut back = vec![0; 8192];
        assert_eq!(file.read_at(&mut back, 4096).unwrap(), 8192);
        assert_eq!(back, vec![2; 8192]);
        assert_eq!(files.stack.trace.take_lines(), [""; 0], "read from the cache");
    }
}

/// Statement 133. Fails without the wait after the walk.
#[test]
fn write_through_returns_when_its_own_write_has_ended() {
    let files = Files::new();
    let (file, _) = files.file(0, 1 << 20);
    files.stack.hold(BioOp::Write);
    let write = {
        let (file, memory) = (file.clone(), Arc::clone(&files.stack.memory));
        spawn(move || {
            file.write_through_at(&[5; 4096], 0, false).unwrap();
            assert_eq!(bytes_of(&memory, 0..4096), vec![5; 4096]);
        })
    };
    files.stack.delay.wait_for_held(1);
    still_waits(&write);
    files.stack.let_go();
    write.join().unwrap();
}

/// Statement 133. Fails when a durable write-through on a device without FUA leaves the flush out.
#[test]
fn durable_write_through_flushes_once_where_the_device_has_no_fua() {
    let no_fua = MemoryOptions { fua: false, ..MemoryOptions::default() };
    let files = Files::around(Stack::around(Arc::new(MemoryDevice::new(8 << 20, no_fua))));
    let (file, _) = files.file(0, 1 << 20);
    write_page(&file, 0, 1);
    file.write_through_at(&[2; 4096], 4096, true).unwrap();
    assert_eq!(files.stack.trace.take_lines(), ["W 8+8 sync", "F"]);
    assert_eq!(file.mapping().dirty_count(), 1);
}

/// Statements 78 and 133. Fails when the caller gets success, or another error than the device's.
#[test]
fn write_through_reports_its_own_error_to_its_caller() {
    for durable in [false, true] {
        let files = Files::new();
        let (file, _) = files.file(0, 1 << 20);
        files.stack.fail(BioOp::Write, Times::First(1), Errno::NOSPC);
        let error = file.write_through_at(&[2; 5000], 4096, durable).unwrap_err();
        assert_eq!(error.kind.errno(), Errno::NOSPC);
        assert_eq!((error.at.len(), error.at[0].clone()), (1, 4096..9096));
        assert!(error.retained);
        let mut back = vec![0; 5000];
        assert_eq!(file.read_at(&mut back, 4096).unwrap(), 5000);
        assert_eq!(back, vec![2; 5000]);
        file.write_through_at(&[3; 5000], 4096, durable).unwrap();
        assert_eq!(files.stack.bytes(4096..9096), vec![3; 5000]);
        assert_eq!(errno(file.fsync()), Errno::NOSPC);
        file.fsync().unwrap();
    }
}

/// Statement 67: a write that the device did before the failed flush, and of which the cache hears
/// only after it, is lost as well, and the block map hears of it behind the write. Fails when a
/// write that ended well counts whatever was flushed meanwhile.
#[test]
fn write_that_ends_after_a_failed_flush_is_dirty_again() {
    let (files, device) = forgetful();
    let (one, map) = files.file(0, 1 << 20);
    let (two, _) = files.file(1, 1 << 20);
    write_page(&one, 0, 1);
    files.stack.late.hold_writes();
    let slow = {
        let one = one.clone();
        spawn(move || one.start_writing(pages(0, 1)).unwrap())
    };
    files.stack.late.wait_for_held();
    assert_eq!(files.stack.bytes(pages(0, 1)), vec![1; 4096]);
    write_page(&two, 0, 2);
    files.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(two.fsync()), Errno::IO);
    assert_eq!(files.stack.bytes(pages(0, 1)), vec![0; 4096]);
    files.stack.late.let_go();
    slow.join().unwrap();
    assert!(map.may_have_lost(), "the block map takes the block for written");
    assert_eq!(errno(one.fsync()), Errno::IO);
    one.fsync().unwrap();
    assert!(device.durable()[..4096] == [1; 4096]);
}

/// Statement 67: so is a direct write, whose bytes no page has.
///
/// Seen to fail: when the block map was not told of the flush behind a direct write.
#[test]
fn direct_write_that_a_failed_flush_lost_is_not_taken_for_written() {
    let (files, _device) = forgetful();
    let (one, map) = files.file(0, 1 << 20);
    let (two, _) = files.file(1, 1 << 20);
    files.stack.late.hold_writes();
    let slow = {
        let one = one.clone();
        spawn(move || one.write_direct_at(&[1; 4096], 0))
    };
    files.stack.late.wait_for_held();
    write_page(&two, 0, 2);
    files.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(two.fsync()), Errno::IO);
    files.stack.late.let_go();
    slow.join().unwrap().unwrap();
    assert!(map.may_have_lost(), "the block map takes the block for written");
    assert_eq!(errno(one.fsync()), Errno::IO);
}
