//! Who is told of a write error, how often, and what becomes of the data.

use std::sync::Arc;

use mpage::units::{BlockSize, PageIndex};
use mpage::{
    CachedFile, Error, FailurePolicy, Operations, PageWritten, RangeSteps, Result, SyncKind,
    WritePage,
};
use mpage_block::wrap::Times;
use mpage_block::{BioOp, Errno};
use mpage_locks::Mutex;

use crate::stack::{Files, errno, is_clean, pages, spawn, still_waits, wait_until};

/// A file whose page 0 is dirty, and another open of it.
fn two_opens(files: &Files) -> (CachedFile, CachedFile) {
    let (one, _) = files.file(0, 1 << 20);
    let two = CachedFile::new(Arc::clone(one.mapping()), true);
    one.write_all_at(&[1; 4096], 0).unwrap();
    (one, two)
}

fn fail_writes(files: &Files, times: Times) {
    files.stack.fail(BioOp::Write, times, Errno::IO);
}

/// Statement 74. Fails when checking a cursor does not advance it, or the error is one flag that
/// the first to look clears.
#[test]
fn every_open_is_told_of_an_error_once() {
    let files = Files::new();
    let (one, two) = two_opens(&files);
    let three = CachedFile::new(Arc::clone(one.mapping()), false);
    fail_writes(&files, Times::First(1));
    assert_eq!(errno(one.fsync()), Errno::IO);
    one.fsync().unwrap();
    assert_eq!(errno(two.fdatasync()), Errno::IO);
    assert_eq!(errno(three.sync_range(0..1, SyncKind::Data)), Errno::IO);
    [&one, &two, &three].iter().for_each(|file| file.fsync().unwrap());
}

/// Statements 74, 81 and 83. Fails when a failed page is clean.
#[test]
fn sync_never_succeeds_while_its_range_is_not_durable() {
    let files = Files::new();
    let (one, two) = two_opens(&files);
    fail_writes(&files, Times::All);
    for _ in 0..3 {
        assert_eq!(errno(one.fsync()), Errno::IO);
        assert_eq!(errno(two.fsync()), Errno::IO);
        assert_eq!(errno(files.cache.sync()), Errno::IO);
    }
    // Another range holds nothing that failed: no more than the news of the last error.
    assert_eq!(one.sync_range(pages(1, 1), SyncKind::Data).unwrap_err().at, vec![]);
    one.sync_range(pages(1, 1), SyncKind::Data).unwrap();
    files.stack.fault.clear();
    one.fsync().unwrap();
    assert_eq!(files.stack.bytes(pages(0, 1)), vec![1; 4096]);
    assert!(is_clean(one.mapping()));
}

/// Statement 75. Fails when an open samples an error nobody was told of as old news, or a told
/// one as new.
#[test]
fn later_open_is_told_of_an_error_nobody_was_told_of() {
    let files = Files::new();
    let (one, _) = two_opens(&files);
    fail_writes(&files, Times::First(1));
    one.start_writing(pages(0, 1)).unwrap();
    let later = CachedFile::new(Arc::clone(one.mapping()), true);
    assert_eq!(errno(later.fsync()), Errno::IO);
    later.fsync().unwrap();
    let last = CachedFile::new(Arc::clone(one.mapping()), true);
    last.fsync().unwrap();
    assert_eq!(errno(one.fsync()), Errno::IO);
}

/// Statement 76. Fails when a clone samples a cursor of its own.
#[test]
fn duplicates_share_what_they_were_told_and_opens_do_not() {
    let files = Files::new();
    let (one, two) = two_opens(&files);
    let duplicate = one.clone();
    fail_writes(&files, Times::First(1));
    one.start_writing(pages(0, 1)).unwrap();
    assert_eq!(errno(duplicate.fsync()), Errno::IO);
    one.fsync().unwrap();
    assert_eq!(errno(two.fsync()), Errno::IO);
}

/// Statement 77. Fails when a sync of everything checks the files' cursors.
#[test]
fn sync_of_everything_uses_up_no_error_of_an_open() {
    let files = Files::new();
    let (one, two) = two_opens(&files);
    fail_writes(&files, Times::First(1));
    assert_eq!(errno(files.cache.sync()), Errno::IO);
    files.cache.sync().unwrap();
    assert_eq!(errno(one.fsync()), Errno::IO);
    assert_eq!(errno(two.fsync()), Errno::IO);
    one.fsync().unwrap();
    two.fsync().unwrap();
}

/// Statement 78, through all of the engine; also where the open was told before. Fails when the
/// error is taken for EIO.
#[test]
fn every_error_number_of_a_device_reaches_fsync() {
    let files = Files::new();
    let (one, _) = two_opens(&files);
    for code in [1, 5, 11, 16, 28, 30, 52, 61, 84, 122, 123, 133, 523, 4095] {
        let number = Errno::from_raw_os_error(code);
        files.stack.fault.clear();
        files.stack.fail(BioOp::Write, Times::All, number);
        assert_eq!(errno(one.fsync()), number);
        assert_eq!(errno(one.write_through_at(&[2; 4096], 0, false)), number);
        assert_eq!(errno(files.cache.sync()), number);
    }
    files.stack.fault.clear();
    assert_eq!(errno(one.fsync()).raw_os_error(), 4095);
    one.fsync().unwrap();
}

/// Statement 79, race R5. Fails when only errors of writes that the sync waits for count.
#[test]
fn error_of_a_write_that_ended_before_the_sync_is_reported() {
    let files = Files::new();
    let (one, two) = two_opens(&files);
    fail_writes(&files, Times::First(1));
    one.start_writing(pages(0, 1)).unwrap();
    assert_eq!(one.mapping().writeback_pages(&pages(0, 1)), []);
    assert_eq!(one.mapping().dirty_count(), 1);
    // Another write of the page succeeds, also before the sync.
    one.start_writing(pages(0, 1)).unwrap();
    assert!(is_clean(one.mapping()));
    assert_eq!(errno(one.fsync()), Errno::IO);
    let steps = RangeSteps { wait_after: true, ..RangeSteps::default() };
    assert_eq!(errno(two.sync_file_range(pages(0, 1), steps)), Errno::IO);
}

/// Statement 79. Fails when the flusher's walk drops the errors of its bios.
#[test]
fn error_of_the_flusher_is_reported() {
    let files = Files::new();
    let (file, _) = files.file(0, 16 << 20);
    fail_writes(&files, Times::First(1));
    let some = files.cache.capacity_pages() as u64 * 6 / 10;
    for index in 0..some {
        file.write_all_at(&[3; 4096], index * 4096).unwrap();
    }
    wait_until(|| files.stack.fault.failed() == 1 && files.cache.stats().write_errors > 0);
    assert_eq!(errno(file.fsync()), Errno::IO);
    file.fsync().unwrap();
    assert!(files.stack.bytes(pages(0, some)).iter().all(|byte| *byte == 3));
}

/// Statement 79: errors of write-through reach other opens, too. Fails when only the caller is
/// told.
#[test]
fn error_of_write_through_reaches_every_open() {
    let files = Files::new();
    let (one, two) = two_opens(&files);
    fail_writes(&files, Times::First(1));
    assert_eq!(errno(one.write_through_at(&[2; 4096], 0, false)), Errno::IO);
    one.write_through_at(&[2; 4096], 0, false).unwrap();
    assert_eq!(errno(two.fsync()), Errno::IO);
    two.fsync().unwrap();
}

/// Statement 79: stores through a pinned page. Fails as the error of any bio would.
#[test]
fn error_of_a_store_through_a_pinned_page_is_reported() {
    let files = Files::new();
    let (one, two) = two_opens(&files);
    one.fsync().unwrap();
    let page = one.pin_page(PageIndex(0)).unwrap();
    assert!(page.write(7, &[9; 3]).unwrap());
    fail_writes(&files, Times::First(1));
    let range = pages(0, 1);
    assert_eq!(errno(one.sync_range(range.clone(), SyncKind::Data)), Errno::IO);
    one.sync_range(range, SyncKind::Data).unwrap();
    assert_eq!(files.stack.bytes(7..10), vec![9; 3]);
    assert_eq!(errno(two.fsync()), Errno::IO);
}

/// Statements 47, 78 and 79. Fails when an error of the block map is only returned by the walk.
#[test]
fn error_of_the_block_map_is_reported_to_every_open() {
    let files = Files::new();
    let (one, map) = files.file(0, 1 << 20);
    let two = CachedFile::new(Arc::clone(one.mapping()), true);
    one.write_all_at(&[1; 8192], 0).unwrap();
    map.refuse(Some((0..1, Errno::DQUOT)));
    assert_eq!(errno(one.start_writing(pages(0, 2))), Errno::DQUOT);
    let error = one.fsync().unwrap_err();
    assert_eq!((error.kind.errno(), error.at), (Errno::DQUOT, vec![pages(0, 1)]));
    assert_eq!(files.stack.bytes(pages(1, 1)), vec![1; 4096], "the others are written");
    map.refuse(None);
    one.fsync().unwrap();
    assert_eq!(files.stack.bytes(pages(0, 1)), vec![1; 4096]);
    assert_eq!(errno(two.fsync()), Errno::DQUOT);
    two.fsync().unwrap();
}

/// Statement 79. Fails when an error of the metadata is returned and not recorded.
#[test]
fn error_of_the_metadata_is_reported_to_every_open() {
    let files = Files::new();
    let (one, map) = files.file(0, 1 << 20);
    let two = CachedFile::new(Arc::clone(one.mapping()), true);
    map.on_sync(|_| Err(Error::new(Errno::NOSPC, "journal")));
    assert_eq!(errno(one.fsync()), Errno::NOSPC);
    map.on_sync(|_| Ok(()));
    assert_eq!(errno(two.fsync()), Errno::NOSPC);
    one.fsync().unwrap();
    two.fsync().unwrap();
}

/// Writes pages one by one to nowhere, or fails.
#[derive(Default)]
struct OneByOne {
    error: Mutex<Option<Errno>>,
    written: Mutex<Vec<u64>>,
}

impl WritePage for OneByOne {
    fn writepage(
        &self,
        index: PageIndex,
        _bytes: &[u8],
        _dirty: &[std::ops::Range<usize>],
    ) -> Result<PageWritten> {
        match *self.error.lock() {
            Some(errno) => Err(Error::new(errno, "writepage")),
            None => {
                self.written.lock().push(index.0);
                Ok(PageWritten::Done)
            }
        }
    }
}

/// Statements 24 and 79. Fails when the walk without a block map drops the error, or leaves the
/// page clean.
#[test]
fn error_of_writepage_is_reported_to_every_open() {
    let files = Files::new();
    let writer = Arc::new(OneByOne::default());
    let ops = Operations { writepage: Some(writer.clone()), ..Operations::default() };
    let block = BlockSize::new(4096).unwrap();
    let mapping = files.cache.add_mapping(&files.dev, block, 0, ops).unwrap();
    let one = CachedFile::new(Arc::clone(&mapping), true);
    let two = CachedFile::new(mapping, true);
    one.write_all_at(&[1; 8192], 0).unwrap();
    *writer.error.lock() = Some(Errno::CONNRESET);
    let error = one.fsync().unwrap_err();
    assert_eq!((error.kind.errno(), error.at), (Errno::CONNRESET, vec![pages(0, 2)]));
    assert_eq!(errno(one.fsync()), Errno::CONNRESET);
    *writer.error.lock() = None;
    one.fsync().unwrap();
    assert_eq!(*writer.written.lock(), [0, 1]);
    assert_eq!(errno(two.fsync()), Errno::CONNRESET);
    two.fsync().unwrap();
}

/// Statement 80. Fails when a failed write leaves the page under writeback or in the table.
#[test]
fn failed_page_ends_writeback_and_wakes_who_waits_for_it() {
    let files = Files::new();
    let (one, two) = two_opens(&files);
    fail_writes(&files, Times::First(1));
    files.stack.hold(BioOp::Write);
    one.start_writing(pages(0, 1)).unwrap();
    let waiter = spawn(move || {
        let wait = RangeSteps { wait_before: true, ..RangeSteps::default() };
        two.sync_file_range(pages(0, 1), wait)
    });
    still_waits(&waiter);
    files.stack.let_go();
    assert_eq!(errno(waiter.join().unwrap()), Errno::IO);
    assert_eq!(one.mapping().writeback_pages(&pages(0, 1)), []);
    // A store needs no copy any more.
    one.write_all_at(&[2; 10], 0).unwrap();
    assert_eq!(files.cache.stats().copies_on_write, 0);
}

/// Statement 80. Fails when truncate waits for a failed page to become clean, or invalidation
/// drops it.
#[test]
fn failed_page_wedges_neither_truncate_nor_invalidation() {
    let files = Files::new();
    let (one, two) = two_opens(&files);
    one.write_all_at(&[4; 4096], 8192).unwrap();
    fail_writes(&files, Times::All);
    assert_eq!(errno(one.fsync()), Errno::IO);
    one.invalidate(pages(0, 4));
    let mut back = [0; 4096];
    assert_eq!(one.read_at(&mut back, 0).unwrap(), 4096);
    assert_eq!(back, [1; 4096], "advice drops nothing dirty");
    assert_eq!(errno(one.invalidate_strict(pages(0, 1))), Errno::BUSY);
    one.set_len(4096).unwrap();
    assert_eq!(one.mapping().failed_ranges(&pages(0, 9)), vec![pages(0, 1)]);
    one.punch_hole(0..4096).unwrap();
    assert_eq!(one.mapping().failed_ranges(&pages(0, 9)), vec![]);
    assert_eq!(errno(two.fsync()), Errno::IO);
    two.fsync().unwrap();
    assert!(is_clean(one.mapping()));
}

/// Statements 81 and 82, the part of the default. Fails when the error has no ranges, or they are
/// not given up when the page is clean.
#[test]
fn failed_sync_says_what_failed_where_and_that_the_data_is_kept() {
    let files = Files::new();
    let (file, _) = files.file(0, 0);
    for at in [0, 4096, 5 * 4096] {
        file.write_all_at(&[1; 1000], at).unwrap();
    }
    files.stack.fail(BioOp::Write, Times::All, Errno::NOSPC);
    let error = file.fsync().unwrap_err();
    assert_eq!(error.kind.errno(), Errno::NOSPC);
    assert!(error.retained);
    assert_eq!(error.at, vec![0..8192, 5 * 4096..5 * 4096 + 1000], "cut at the file's end");
    let text = error.to_string();
    assert!(text.contains("0..8192") && text.contains("still in the cache"), "{text}");
    let some = file.sync_range(100..4097, SyncKind::Data).unwrap_err();
    assert_eq!(some.at, vec![100..4097], "only what was asked about");
    let mut back = [0; 1000];
    assert_eq!(file.read_at(&mut back, 4096).unwrap(), 1000);
    assert_eq!(back, [1; 1000]);
    files.stack.fault.clear();
    file.fsync().unwrap();
    assert_eq!(file.mapping().failed_ranges(&pages(0, 100)), vec![]);
}

/// Statements 74 and 83: none of many duplicates, which share one cursor, may have success.
/// Fails when a failed page is clean.
#[test]
fn concurrent_syncs_of_duplicates_all_fail_while_the_range_is_not_durable() {
    let files = Files::new();
    let (one, _) = two_opens(&files);
    fail_writes(&files, Times::All);
    let syncs: Vec<_> = (0..4)
        .map(|_| {
            let file = one.clone();
            spawn(move || (0..50).for_each(|_| assert_eq!(errno(file.fsync()), Errno::IO)))
        })
        .collect();
    syncs.into_iter().for_each(|sync| sync.join().unwrap());
}

/// Statements 74 and 83: the error was told to a duplicate, and the page is on its way again, so
/// neither cursor nor failed ranges show anything. Fails without the round that looks again.
#[test]
fn sync_of_a_duplicate_waits_for_the_retry_of_what_failed_meanwhile() {
    let files = Files::new();
    let (one, map) = files.file(0, 1 << 20);
    one.write_all_at(&[1; 4096], 0).unwrap();
    let duplicate = one.clone();
    let gate = Arc::new((Mutex::new(0), mpage_locks::Condvar::new()));
    let wait_at = Arc::clone(&gate);
    // The first sync stops before its end.
    map.on_sync(move |_| {
        let mut calls = wait_at.0.lock();
        *calls += 1;
        while *calls == 1 {
            calls = wait_at.1.wait(calls);
        }
        Ok(())
    });
    fail_writes(&files, Times::First(2));
    let slow = spawn(move || one.fsync());
    wait_until(|| *gate.0.lock() == 1);
    *gate.0.lock() += 1;
    // It has met the error and not looked at the cursor; the duplicate is told of it. No waiter
    // was woken yet.
    assert_eq!(errno(duplicate.fsync()), Errno::IO);
    files.stack.hold(BioOp::Write);
    duplicate.start_writing(pages(0, 1)).unwrap();
    files.stack.delay.wait_for_held(1);
    assert_eq!(duplicate.mapping().failed_ranges(&pages(0, 1)), vec![]);
    gate.1.notify_all();
    still_waits(&slow);
    files.stack.let_go();
    slow.join().unwrap().unwrap();
    assert_eq!(files.stack.bytes(pages(0, 1)), vec![1; 4096]);
}

/// Statement 84. Fails when the mapping is not kept while nobody was told.
#[test]
fn untold_error_survives_the_last_close() {
    let files = Files::new();
    let (one, two) = two_opens(&files);
    fail_writes(&files, Times::First(1));
    one.start_writing(pages(0, 1)).unwrap();
    one.start_writing(pages(0, 1)).unwrap();
    assert!(is_clean(one.mapping()));
    let mapping = Arc::downgrade(one.mapping());
    drop((one, two));
    let later = CachedFile::new(mapping.upgrade().unwrap(), true);
    assert_eq!(errno(later.fsync()), Errno::IO);
    drop(later);
    assert!(mapping.upgrade().is_none(), "once told, nothing keeps it");
}

/// Statement 77, the cursor of a file system. Fails when it is not advanced, or shared with the
/// files' opens.
#[test]
fn sync_of_a_device_has_a_cursor_of_its_own() {
    let files = Files::new();
    let (one, _) = two_opens(&files);
    let device = files.cache.device_sync(&files.dev);
    fail_writes(&files, Times::First(1));
    assert_eq!(errno(one.fsync()), Errno::IO);
    one.fsync().unwrap();
    assert_eq!(errno(device.sync()), Errno::IO);
    device.sync().unwrap();
    one.write_all_at(&[2; 10], 0).unwrap();
    fail_writes(&files, Times::First(1));
    assert_eq!(errno(device.sync()), Errno::IO);
    assert_eq!(errno(one.fsync()), Errno::IO);
}

/// Statement 81. Fails when a cleaning walk takes failed pages whatever the policy.
#[test]
fn a_quarantined_page_is_tried_again_by_syncs_alone() {
    let files = Files::new();
    let (one, two) = two_opens(&files);
    one.mapping().set_failure_policy(FailurePolicy::Quarantine);
    fail_writes(&files, Times::First(1));
    assert_eq!(errno(one.fsync()), Errno::IO);
    one.write_all_at(&[2; 4096], 4096).unwrap();
    one.start_writing(pages(0, 2)).unwrap();
    one.mapping().wait_for_writes(&pages(0, 2));
    assert_eq!(one.mapping().dirty_pages(&pages(0, 2)), [PageIndex(0)]);
    assert_eq!(files.stack.bytes(pages(0, 1)), vec![0; 4096]);
    assert_eq!(errno(two.fsync()), Errno::IO);
    one.fsync().unwrap();
    assert_eq!(files.stack.bytes(pages(0, 1)), vec![1; 4096]);
}

/// Statement 81. Fails when dropped bytes stay up to date in the cache, or nobody is told.
#[test]
fn dropped_bytes_are_told_of_and_read_as_the_device_has_them() {
    let files = Files::new();
    let (one, two) = two_opens(&files);
    one.mapping().set_failure_policy(FailurePolicy::Drop);
    fail_writes(&files, Times::First(1));
    assert_eq!(errno(one.fsync()), Errno::IO);
    assert_eq!(errno(two.fsync()), Errno::IO);
    assert!(is_clean(one.mapping()));
    let mut read = [9; 4096];
    assert_eq!(one.read_at(&mut read, 0).unwrap(), 4096);
    assert_eq!(read, [0; 4096]);
    one.fsync().unwrap();
}
