//! Flushes that a block map makes for itself, through the cache.

use std::sync::Arc;

use mpage::RangeSteps;
use mpage_block::wrap::Times;
use mpage_block::{BioOp, Errno};

use crate::rig::{memory_device, pattern};
use crate::stack::{FILE_PAGES, Files, Forgetful, Stack, count, errno, is_clean, pages};

const ALL_STEPS: RangeSteps = RangeSteps { wait_before: true, write: true, wait_after: true };

/// A cache over a device that a failed flush empties.
fn forgetful() -> Files {
    let memory = memory_device(64 << 20);
    let stack = Stack::around(memory.clone());
    let device = Arc::new(Forgetful::new(stack.top(), memory));
    Files::over(stack, device)
}

/// Statement 67, also for a flush in the middle of a file system's commit.
///
/// Seen to fail: with the flush given to the device without a word to the files.
#[test]
fn a_failed_flush_of_a_block_map_makes_what_others_wrote_dirty_again() {
    let files = forgetful();
    let flush = files.cache.device_flush(&files.dev);
    let both = [0, 1].map(|n| files.file(n, 1 << 20));
    for (n, (file, _)) in both.iter().enumerate() {
        file.write_all_at(&pattern(n as u64, 0, 8192), 4096).unwrap();
        file.sync_file_range(pages(0, 4), ALL_STEPS).unwrap();
        assert!(is_clean(file.mapping()));
    }
    files.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert_eq!(errno(flush.flush()), Errno::IO);
    flush.flush().unwrap();
    for (n, (file, map)) in both.iter().enumerate() {
        assert!(map.may_have_lost());
        assert_eq!(errno(file.fsync()), Errno::IO, "each file is told");
        file.fsync().unwrap();
        let start = n as u64 * FILE_PAGES * 4096 + 4096;
        assert!(files.stack.bytes(start..start + 8192) == pattern(n as u64, 0, 8192));
    }
    assert_eq!(errno(files.cache.device_sync(&files.dev).sync()), Errno::IO, "and the device's");
}

/// A flush in the middle of a sync is the sync's too.
///
/// Seen to fail: with the flush given to the device itself, which the cache then flushes again.
#[test]
fn a_flush_of_a_block_map_counts_for_the_sync_around_it() {
    let files = Files::new();
    let flush = files.cache.device_flush(&files.dev);
    let (file, map) = files.file(0, 1 << 20);
    let hook = flush.clone();
    map.on_sync(move |_| hook.flush());
    file.write_all_at(&[7; 4096], 0).unwrap();
    file.fsync().unwrap();
    assert_eq!(count(&files.stack.take_writes(), BioOp::Flush), 1);
    flush.flush().unwrap();
    assert_eq!(count(&files.stack.take_writes(), BioOp::Flush), 0, "all of it is durable");
}

/// What the cache has not written it knows nothing of: it is flushed whenever that is asked, and
/// not taken for durable when a flush that failed may have lost it.
///
/// Seen to fail: without a number for the writes; and without a look at the flushes that failed.
#[test]
fn own_writes_are_flushed_and_not_durable_once_a_flush_has_failed() {
    let files = Files::new();
    let flush = files.cache.device_flush(&files.dev);
    let journal = flush.begin_writes();
    for _ in 0..2 {
        flush.flush_writes(&journal).unwrap();
        assert_eq!(count(&files.stack.take_writes(), BioOp::Flush), 1);
    }
    let (file, _) = files.file(0, 1 << 20);
    file.write_all_at(&[7; 4096], 0).unwrap();
    files.stack.fail(BioOp::Flush, Times::First(1), Errno::NOSPC);
    assert_eq!(errno(file.fsync()), Errno::NOSPC);
    for _ in 0..2 {
        assert_eq!(errno(flush.flush_writes(&journal)), Errno::NOSPC, "it may be lost");
    }
    flush.flush_writes(&flush.begin_writes()).unwrap();
}
