//! Cleaning memory: statements 68 to 73.

use mpage::units::PageIndex;
use mpage::{SyncMode, WritebackControl};
use mpage_block::BioOp;
use mpage_locks::thread;

use crate::rig::pattern;
use crate::stack::{is_clean, spawn, still_waits, wait_until};
use crate::table::{Gate, TableRig};

fn dirty_rig(pages: usize) -> TableRig {
    let rig = TableRig::new(4096);
    rig.file.write_all_at(&pattern(1, 0, pages * 4096), 0).unwrap();
    rig
}

fn all() -> std::ops::Range<u64> {
    0..u64::MAX / 2
}

/// Statement 68: cleaning passes over a page under I/O, dirty or not, and does not wait for it.
///
/// Seen to fail: with the wait of an integrity walk for both modes in `Walk::visit`.
#[test]
fn cleaning_passes_over_pages_in_flight() {
    let rig = dirty_rig(4);
    rig.stack.hold(BioOp::Write);
    rig.file.start_writing(0..4096).unwrap();
    rig.stack.delay.wait_for_held(1);
    rig.stack.delay.hold_only(|_| false);
    rig.file.write_all_at(b"again", 0).unwrap();
    rig.file.start_writing(all()).unwrap();
    assert_eq!(rig.mapping().dirty_pages(&all()), [PageIndex(0)]);
    assert_eq!(rig.mapping().set_counts().io, 0, "it is dirty again, in nobody's snapshot");
    assert_eq!(rig.cache.stats().pages_skipped, 1);
    rig.stack.let_go();
    rig.file.start_writing(all()).unwrap();
    wait_until(|| is_clean(rig.mapping()));
    rig.forget();
    let mut expected = pattern(1, 0, 4 * 4096);
    expected[..5].copy_from_slice(b"again");
    assert!(rig.content() == expected);
}

/// Statement 69: cleaning passes over a page into which somebody stores, and over one that another
/// walk is mapping; both stay dirty.
///
/// Seen to fail: with an integrity walk's wait for the page lock for both modes in `Walk::visit`.
#[test]
fn cleaning_passes_over_busy_pages() {
    let rig = dirty_rig(3);
    let page = rig.file.pin_page(PageIndex(1)).unwrap();
    let mut guard = page.write_guard().unwrap().unwrap();
    rig.file.start_writing(all()).unwrap();
    rig.mapping().wait_for_writes(&all());
    assert_eq!(rig.mapping().dirty_pages(&all()), [PageIndex(1)]);
    guard.write(0, b"stored").unwrap();
    drop(guard);
    rig.file.fsync().unwrap();
    assert!(is_clean(rig.mapping()));

    rig.file.write_all_at(b"new blocks", 9 * 4096).unwrap();
    let gate = hold_first_mapping(&rig);
    let file = rig.file.clone();
    let sync = spawn(move || file.fsync());
    gate.wait_for_arrival();
    let skipped = rig.cache.stats().pages_skipped;
    // The walk has the page locked. A second one joins its snapshot and leaves the page to it.
    let mut wbc = WritebackControl::cleaning(100);
    let _joined = rig.mapping().splice(&all(), SyncMode::Cleaning);
    mpage::mpage_writepages(rig.mapping(), &mut wbc, Some(&*rig.table)).unwrap();
    assert_eq!((wbc.pages_written, wbc.pages_skipped), (0, 1));
    assert_eq!(rig.cache.stats().pages_skipped, skipped + 1);
    gate.open();
    sync.join().unwrap().unwrap();
    assert!(is_clean(rig.mapping()));
}

/// The first question for a place to write to waits at the gate, with its page locked.
fn hold_first_mapping(rig: &TableRig) -> Gate {
    let gate = Gate::new();
    let stop = gate.stop();
    rig.table.on_map(move |_| stop());
    gate
}

/// Statement 70: while a file is being cleaned, a second request returns at once; a sync waits and
/// writes everything.
///
/// Seen to fail: with `try_begin_cleaning` always giving the walk.
#[test]
fn a_second_cleaning_request_returns_at_once_and_a_sync_waits() {
    let rig = dirty_rig(3);
    let gate = hold_first_mapping(&rig);
    let file = rig.file.clone();
    let first = spawn(move || file.start_writing(all()));
    gate.wait_for_arrival();
    rig.file.write_all_at(b"later", 3 * 4096).unwrap();
    rig.file.start_writing(all()).unwrap();
    assert!(rig.mapping().dirty_pages(&all()).contains(&PageIndex(3)), "the second did nothing");
    let file = rig.file.clone();
    let sync = spawn(move || file.fsync());
    still_waits(&sync);
    gate.open();
    first.join().unwrap().unwrap();
    sync.join().unwrap().unwrap();
    assert!(is_clean(rig.mapping()));
    rig.forget();
    let mut expected = pattern(1, 0, 3 * 4096);
    expected.extend_from_slice(b"later");
    assert!(rig.content() == expected);
}

/// Statement 72: when every page that is left is in use, the flusher looks once and then waits for
/// a write to end.
///
/// Seen to fail: with `wait_for_a_bio` returning at once; and, now and then, with every press of a
/// writer waking the flusher.
#[test]
fn the_flusher_does_not_spin_when_all_pages_are_in_use() {
    let rig = dirty_rig(1);
    rig.stack.hold(BioOp::Write);
    rig.file.start_writing(all()).unwrap();
    rig.stack.delay.wait_for_held(1);
    // A writer over its file's limit has the flusher pressed.
    rig.mapping().set_dirty_limit(4096);
    let file = rig.file.clone();
    let writer = spawn(move || file.write_all_at(b"again", 0));
    wait_until(|| rig.cache.stats().pages_skipped > 0);
    still_waits(&writer);
    let rounds = rig.cache.stats().pages_skipped;
    for _ in 0..20_000 {
        thread::yield_now();
    }
    let rounds = rig.cache.stats().pages_skipped - rounds;
    assert!(rounds <= 2, "{rounds} rounds in which nothing could change");
    rig.stack.let_go();
    writer.join().unwrap().unwrap();
    rig.file.fsync().unwrap();
}

/// Statement 73: advice to clean a range returns while its writes are in flight, and touches
/// nothing outside.
#[test]
fn advice_to_clean_a_range_does_not_wait() {
    let rig = dirty_rig(8);
    rig.stack.hold(BioOp::Write);
    rig.file.start_writing(2 * 4096..4 * 4096).unwrap();
    assert_eq!(rig.mapping().writeback_pages(&all()), [PageIndex(2), PageIndex(3)]);
    assert_eq!(rig.mapping().dirty_pages(&all()).len(), 6);
    rig.stack.let_go();
    rig.mapping().wait_for_writes(&all());
    assert_eq!(rig.mapping().dirty_pages(&all()).len(), 6);
}

/// What exists of statement 71: nobody asks, and the flusher writes until no more is dirty than the
/// background limit allows.
#[test]
fn background_cleaning_begins_and_ends_at_its_limit() {
    let rig = TableRig::new(4096);
    let pages = rig.cache.capacity_pages() as u64;
    let low = pages * 3 / 10;
    let page = pattern(1, 0, 4096);
    (0..low).for_each(|n| rig.file.write_all_at(&page, n * 4096).unwrap());
    assert_eq!(rig.cache.stats().pages_written, 0, "below the limit nothing is written");
    (low..pages * 6 / 10).for_each(|n| rig.file.write_all_at(&page, n * 4096).unwrap());
    wait_until(|| rig.cache.stats().pages_written > 0);
}
