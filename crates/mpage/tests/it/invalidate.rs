//! Dropping cached pages on request: statement 90.

use mpage::units::PageIndex;
use mpage::{Advice, ErrorKind, SetCounts};
use mpage_block::wrap::Times;
use mpage_block::{BioOp, Errno};

use crate::rig::pattern;
use crate::stack::{Files, pages, spawn, still_waits};
use crate::table::TableRig;

/// A file of eight pages, durable, with page 1 dirty, page 2 in flight, page 3 pinned.
fn mixed() -> (TableRig, mpage::PinnedPage) {
    let rig = TableRig::new(4096);
    rig.file.write_all_at(&pattern(1, 0, 8 * 4096), 0).unwrap();
    rig.file.fsync().unwrap();
    rig.stack.hold(BioOp::Write);
    rig.file.write_all_at(b"in flight", 2 * 4096).unwrap();
    rig.file.start_writing(0..8 * 4096).unwrap();
    rig.stack.delay.wait_for_held(1);
    rig.file.write_all_at(b"dirty", 4096).unwrap();
    let page = rig.file.pin_page(PageIndex(3)).unwrap();
    (rig, page)
}

/// Statement 90: invalidation on a best-effort basis drops clean, idle pages wholly inside the
/// range and no others, and waits for nothing.
///
/// Seen to fail: with WRITEBACK, then PINS, then the dirty bits left out of `can_be_evicted`.
#[test]
fn invalidation_drops_no_dirty_in_flight_or_pinned_page() {
    let (rig, page) = mixed();
    rig.file.invalidate(0..7 * 4096 + 4095);
    let counts = SetCounts { clean: 2, dirty: 1, io: 0, locked: 1 };
    assert_eq!(rig.mapping().set_counts(), counts, "dirty, in flight, pinned, partly inside");
    assert!(page.read(0, &mut [0; 10]));
    rig.stack.let_go();
    drop(page);
    rig.file.fsync().unwrap();
    rig.file.invalidate(0..u64::MAX / 2);
    assert_eq!(rig.mapping().set_counts(), SetCounts::default());
    let mut expected = pattern(1, 0, 8 * 4096);
    expected[2 * 4096..2 * 4096 + 9].copy_from_slice(b"in flight");
    expected[4096..4101].copy_from_slice(b"dirty");
    assert!(rig.content() == expected);
}

/// Statement 90: what is written and not flushed is not dropped: a failed flush has to find it.
///
/// Seen to fail: without the comparison with `flushed` in `AddressSpace::evict`.
#[test]
fn invalidation_drops_no_page_that_is_not_durable() {
    let rig = TableRig::new(4096);
    rig.file.write_all_at(&pattern(1, 0, 4 * 4096), 0).unwrap();
    rig.file.start_writing(0..4 * 4096).unwrap();
    rig.mapping().wait_for_writes(&(0..4 * 4096));
    rig.file.invalidate(0..4 * 4096);
    assert_eq!(rig.mapping().set_counts().clean, 4);
    rig.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert!(rig.file.fsync().is_err());
    assert_eq!(rig.mapping().dirty_count(), 4);
    rig.file.fsync().unwrap();
    rig.file.invalidate(0..4 * 4096);
    assert_eq!(rig.mapping().set_counts(), SetCounts::default());
}

/// Statement 90: strict invalidation waits for what is in flight, writes what is dirty, and says
/// busy, with the place, about a page that is held.
///
/// Seen to fail: without `write_and_wait` in `invalidate_strict`, and with `detach` for
/// `detach_if_clean`.
#[test]
fn strict_invalidation_writes_dirty_pages_or_says_busy() {
    let (rig, page) = mixed();
    let file = rig.file.clone();
    let strict = spawn(move || file.invalidate_strict(0..8 * 4096));
    still_waits(&strict);
    rig.stack.let_go();
    let error = strict.join().unwrap().unwrap_err();
    assert_eq!((error.kind, error.at), (ErrorKind::Busy, vec![pages(3, 1)]));
    assert_eq!(rig.mapping().set_counts(), SetCounts { clean: 1, ..SetCounts::default() });
    drop(page);
    rig.forget();
    let mut expected = pattern(1, 0, 8 * 4096);
    expected[2 * 4096..2 * 4096 + 9].copy_from_slice(b"in flight");
    expected[4096..4101].copy_from_slice(b"dirty");
    assert!(rig.content() == expected);
    rig.table.check();
}

/// Statement 90: a page whose write fails is not dropped, and strict invalidation tells.
#[test]
fn strict_invalidation_keeps_what_cannot_be_written() {
    let rig = TableRig::new(4096);
    rig.file.write_all_at(&pattern(1, 0, 2 * 4096), 0).unwrap();
    rig.stack.fail(BioOp::Write, Times::All, Errno::IO);
    assert!(rig.file.invalidate_strict(0..2 * 4096).is_err());
    assert_eq!(rig.mapping().dirty_count(), 2);
    assert!(rig.content() == pattern(1, 0, 2 * 4096));
}

/// A page that is written and not durable is the only copy that a failed flush leaves.
///
/// Seen to fail: without the flush in `invalidate_strict`.
#[test]
fn strict_invalidation_makes_pages_durable_before_it_drops_them() {
    let rig = TableRig::new(4096);
    rig.file.write_all_at(&pattern(1, 0, 2 * 4096), 0).unwrap();
    rig.stack.fail(BioOp::Flush, Times::First(1), Errno::IO);
    assert!(rig.file.invalidate_strict(0..2 * 4096).is_err());
    assert_eq!(rig.mapping().dirty_count(), 2, "what the failed flush may have lost is dirty");
    rig.file.invalidate_strict(0..2 * 4096).unwrap();
    assert_eq!(rig.mapping().set_counts(), SetCounts::default());
    assert!(rig.content() == pattern(1, 0, 2 * 4096));
}

/// Dropping pages waits for reads of them that are in flight, which may be readahead that nobody
/// asked for, and does not call them busy.
///
/// Seen to fail: without waiting for the read, with EBUSY.
#[test]
fn a_page_that_is_being_read_is_waited_for_and_not_called_busy() {
    let files = Files::new();
    let (file, _) = files.file(0, 1 << 20);
    for direct in [false, true] {
        files.stack.hold(BioOp::Read);
        file.advise(0..16384, Advice::WillNeed).unwrap();
        let other = file.clone();
        let dropping = spawn(move || match direct {
            true => other.write_direct_at(&[7; 16384], 0),
            false => other.invalidate_strict(0..16384),
        });
        still_waits(&dropping);
        files.stack.let_go();
        dropping.join().unwrap().unwrap();
    }
    let mut bytes = [0; 16384];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 16384);
    assert!(bytes == [7; 16384]);
}
