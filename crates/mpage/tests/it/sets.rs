//! The four sets of a mapping's pages: clean, dirty, io, locked.

use mpage_locks::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use mpage::units::PageIndex;
use mpage::{Options, SyncMode};
use mpage_block::BioOp;
use mpage_locks::{clock, thread};

use crate::answers::{Bench, WHOLE, fill};
use crate::stack::{Stack, spawn, wait_until};

/// Statement 1, along the life of pages. Seen to fail: with `set_counts` counting a page under
/// writeback as locked also when it is dirty.
#[test]
fn a_cached_page_is_in_exactly_one_set() {
    let bench = Bench::new(4096, 6 * 4096);
    let mut buffer = vec![0; 6 * 4096];
    assert_eq!(bench.file.read_at(&mut buffer, 0).unwrap(), buffer.len());
    assert_eq!(bench.sets(), [6, 0, 0, 0]);
    bench.fill([1, 2, 4], 1);
    assert_eq!(bench.sets(), [3, 3, 0, 0]);
    let _joined = bench.mapping().splice(&(0..3 * 4096), SyncMode::Cleaning);
    assert_eq!(bench.sets(), [3, 1, 2, 0]);
    let _joined = bench.mapping().splice(&(0..2 * 4096), SyncMode::DataIntegrity);
    assert_eq!(bench.sets(), [3, 1, 2, 0], "a page in two callers' snapshots is in io once");
    bench.stack.hold(BioOp::Write);
    let _walk = bench.walk(SyncMode::Cleaning, 1);
    assert_eq!(bench.sets(), [3, 1, 1, 1]);
    bench.fill([1], 2);
    assert_eq!(bench.sets(), [3, 2, 1, 0], "dirty and under I/O");
    let _joined = bench.mapping().splice(&WHOLE, SyncMode::DataIntegrity);
    assert_eq!(bench.sets(), [3, 0, 3, 0]);
    bench.stack.let_go();
    bench.file.fsync().unwrap();
    assert_eq!(bench.sets(), [6, 0, 0, 0]);
}

/// Statement 1 while pages change hands: whoever looks counts each page once.
///
/// Seen to fail: as the one above, at some look.
#[test]
fn whoever_looks_finds_each_page_once() {
    let bench = Bench::new(4096, 0);
    bench.fill(0..8, 1);
    bench.stack.hold(BioOp::Write);
    let delay = Arc::clone(&bench.stack.delay);
    let done = Arc::new(AtomicBool::new(false));
    let (file, ended) = (bench.file.clone(), Arc::clone(&done));
    let worker = spawn(move || {
        for round in 0..200 {
            fill(&file, [round % 8, (round * 5 + 1) % 8], 2);
            file.start_writing(WHOLE).unwrap();
            fill(&file, [round % 8], 3);
            if round % 3 == 0 {
                let _released = delay.release_all();
            }
        }
        ended.store(true, Ordering::SeqCst);
    });
    while !done.load(Ordering::SeqCst) {
        assert_eq!(bench.sets().iter().sum::<usize>(), 8);
    }
    worker.join().unwrap();
}

/// Statement 2: while a walker sits in the block map with page 1 locked and page 0 in its bio,
/// others dirty a page in its hand, the locked page itself, one in io and a clean one.
///
/// Seen to fail: with `AddressSpace::enter` and `Store::enter` waiting until the page is not
/// locked, the dirtier waits for the walker, which waits for it.
#[test]
fn dirtying_waits_for_no_walker() {
    for mode in [SyncMode::Cleaning, SyncMode::DataIntegrity] {
        let bench = Bench::new(4096, 0);
        bench.fill(0..4, 1);
        bench.file.fsync().unwrap();
        bench.fill(0..3, 2);
        let file = bench.file.clone();
        bench.map.once(1, move || {
            let dirtier = spawn(move || fill(&file, 0..4, 3));
            dirtier.join().unwrap();
        });
        let wbc = bench.splice_and_walk(mode);
        assert_eq!((wbc.pages_written, bench.dirty()), (3, vec![0, 3]));
        bench.mapping().wait_for_writes(&WHOLE);
        assert_eq!((0..4).map(|n| bench.on_device(n)).collect::<Vec<_>>(), [2, 3, 3, 1]);
    }
}

/// Statement 3. Seen to fail: with every store going through a `note_dirty` that
/// stamps and counts each time.
#[test]
fn dirtying_a_dirty_page_changes_nothing() {
    let bench = Bench::new(4096, 0);
    bench.fill([3], 1);
    let first = bench.mapping().page_dirtied_when_ns(PageIndex(3)).unwrap();
    wait_until(|| clock::now_ns() > first);
    let _joined = bench.mapping().splice(&WHOLE, SyncMode::Cleaning);
    bench.fill([3], 2);
    bench.file.write_all_at(b"part", 3 * 4096 + 7).unwrap();
    assert_eq!(bench.mapping().page_dirtied_when_ns(PageIndex(3)), Some(first));
    assert_eq!((bench.mapping().dirty_count(), bench.sets()), (1, [0, 0, 1, 0]));
}

/// Statement 4: what is stored into a page that truncate took away counts nowhere, and a file that
/// grows again does not show it.
///
/// Seen to fail: with the tests for FROZEN left out of `enter_pinned` and `mark_dirty`.
#[test]
fn dirtying_a_page_that_truncate_took_changes_nothing() {
    let bench = Bench::new(4096, 0);
    bench.fill(0..3, 1);
    let pinned = bench.file.pin_page(PageIndex(1)).unwrap();
    bench.file.set_len(0).unwrap();
    bench.file.set_len(3 * 4096).unwrap();
    assert!(!pinned.write(0, b"lost").unwrap());
    assert!(pinned.write_guard().unwrap().is_none());
    assert_eq!((bench.mapping().dirty_count(), bench.sets()), (0, [0; 4]));
    drop(pinned);
    assert_eq!(bench.cache.free_pages(), bench.cache.capacity_pages());
}

/// Statement 5. Seen to fail: with the mapping stamped at every first dirtying of a page.
#[test]
fn a_files_age_starts_with_its_first_dirtying() {
    let bench = Bench::new(4096, 0);
    assert_eq!(bench.mapping().dirtied_when_ns(), None);
    bench.fill([2], 1);
    let first = bench.mapping().dirtied_when_ns().unwrap();
    wait_until(|| clock::now_ns() > first);
    bench.fill([0, 2, 5], 2);
    assert_eq!(bench.mapping().dirtied_when_ns(), Some(first));
    bench.file.fsync().unwrap();
    assert_eq!(bench.mapping().dirtied_when_ns(), None);
    bench.fill([2], 3);
    assert!(bench.mapping().dirtied_when_ns().unwrap() > first);
}

/// Statement 6, at rest: everything dirty goes to io, what is dirtied later is in dirty alone.
///
/// Seen to fail: with dirtying joining io while io has pages.
#[test]
fn what_is_dirtied_after_a_splice_is_in_dirty_alone() {
    let bench = Bench::new(4096, 0);
    bench.fill([0, 5, 9], 1);
    assert_eq!(bench.mapping().splice(&WHOLE, SyncMode::Cleaning), 3);
    bench.fill([2, 5], 2);
    assert_eq!(bench.sets(), [0, 1, 3, 0]);
    let (wbc, result) = bench.walk(SyncMode::Cleaning, i64::MAX);
    result.unwrap();
    assert_eq!((wbc.pages_written, bench.dirty(), bench.on_device(5)), (3, vec![2], 2));
}

/// Statement 6, in a race: pages are dirtied one after the other, so a splice at one instant takes
/// the first few of them and none behind a page it left.
///
/// Seen to fail: with a splice that takes the mapping lock for one page at a time and yields.
#[test]
fn a_splice_takes_all_dirty_pages_at_one_instant() {
    const PAGES: u64 = 12;
    let bench = Bench::new(4096, 0);
    for round in 0..300 {
        let file = bench.file.clone();
        let dirtier = spawn(move || fill(&file, 0..PAGES, 1));
        wait_until(|| bench.mapping().dirty_count() as u64 >= round % PAGES);
        let taken = bench.mapping().splice(&WHOLE, SyncMode::Cleaning) as u64;
        dirtier.join().unwrap();
        bench.stack.hold(BioOp::Write);
        let (wbc, result) = bench.walk(SyncMode::Cleaning, i64::MAX);
        result.unwrap();
        assert_eq!((wbc.pages_written, bench.in_flight()), (taken, (0..taken).collect()));
        bench.stack.let_go();
        bench.file.fsync().unwrap();
    }
}

/// Statements 7 and 8: pages that a walk cut short left in io are written before what a sync adds,
/// and the sync adds all the same.
///
/// Seen to fail: with one pass over both marks; with no splice while io has leftovers.
#[test]
fn leftovers_are_written_before_newly_spliced_pages() {
    let bench = Bench::new(4096, 0);
    bench.fill(4..8, 1);
    let _joined = bench.mapping().splice(&WHOLE, SyncMode::Cleaning);
    let (wbc, result) = bench.walk(SyncMode::Cleaning, 2);
    result.unwrap();
    assert_eq!((wbc.pages_written, bench.sets()), (2, [2, 0, 2, 0]));
    bench.fill([0, 1], 1);
    bench.file.fsync().unwrap();
    assert_eq!(bench.lines(), ["W 32+16 background", "W 48+16 sync", "W 0+16 sync", "F"]);
    assert_eq!(bench.sets(), [6, 0, 0, 0]);
}

/// Statement 8: the flusher finishes what an earlier walk left in io before it takes newer pages,
/// though those are at the front of the file.
///
/// Seen to fail: with `clean_slice` splicing every time, its first write is at the front.
#[test]
fn the_flusher_does_not_splice_while_io_has_leftovers() {
    let options =
        Options { memory: Options::MEMORY_MIN, dirty_background_percent: 50, ..few_dirty() };
    let bench = Bench::with(&options, Stack::new(64 << 20), 4096, 0);
    bench.fill(100..104, 1);
    let _joined = bench.mapping().splice(&WHOLE, SyncMode::Cleaning);
    assert_eq!(bench.walk(SyncMode::Cleaning, 1).0.pages_written, 1);
    assert_eq!(bench.lines(), ["W 800+8 background"]);
    bench.stack.hold(BioOp::Write);
    let mut index = 0;
    while bench.stack.delay.held().is_empty() {
        // Dirtying goes on until the flusher has begun, in few pages.
        fill(&bench.file, [index % 32], 1);
        index += 1;
        thread::yield_now();
    }
    let first = bench.stack.delay.held()[0];
    assert_eq!((first.sector.0, first.bytes), (808, 3 * 4096));
    bench.stack.let_go();
}

fn few_dirty() -> Options {
    Options { dirty_percent: 90, ..Options::default() }
}

/// Statement 9: from the store until its write has completed the page is found in dirty, io or
/// locked, by somebody who looks all the time.
///
/// Seen to fail: with `start_writeback` giving the mapping lock up between clearing DIRTY and
/// setting WRITEBACK.
#[test]
fn a_page_with_unwritten_bytes_never_looks_clean() {
    let bench = Bench::new(4096, 0);
    bench.stack.hold(BioOp::Write);
    for round in 0..200 {
        bench.fill([0], 1);
        let walked = Arc::new(AtomicBool::new(false));
        let (file, map) = (bench.file.clone(), Arc::clone(&bench.map));
        let ended = Arc::clone(&walked);
        let walker = spawn(move || {
            let _joined = file.mapping().splice(&WHOLE, SyncMode::DataIntegrity);
            let mut wbc = mpage::WritebackControl::integrity(WHOLE);
            mpage::mpage_writepages(file.mapping(), &mut wbc, Some(&*map)).unwrap();
            ended.store(true, Ordering::SeqCst);
        });
        while !walked.load(Ordering::SeqCst) {
            assert_eq!(bench.sets()[0], 0, "round {round}");
        }
        walker.join().unwrap();
        assert_eq!(bench.sets(), [0, 0, 0, 1]);
        assert_eq!(bench.stack.delay.release_all(), 1);
        assert_eq!(bench.sets(), [1, 0, 0, 0]);
    }
}

/// Statement 10. Seen to fail: with `marked` looking at all pages instead of those its range
/// touches.
#[test]
fn iterating_goes_up_and_stays_in_its_range() {
    let bench = Bench::new(4096, 0);
    bench.fill([70, 3, 9, 1, 64, 2], 1);
    let found = |range| bench.mapping().dirty_pages(&range).iter().map(|n| n.0).collect::<Vec<_>>();
    assert_eq!(found(WHOLE), [1, 2, 3, 9, 64, 70]);
    assert_eq!(found(2 * 4096..9 * 4096 + 1), [2, 3, 9]);
    assert_eq!(found(2 * 4096 + 4095..9 * 4096), [2, 3]);
    assert_eq!(found(10..10), [0; 0]);
    bench.stack.hold(BioOp::Write);
    let _joined = bench.mapping().splice(&(2 * 4096..65 * 4096), SyncMode::Cleaning);
    let _walk = bench.walk(SyncMode::Cleaning, i64::MAX);
    assert_eq!(bench.in_flight(), [2, 3, 9, 64]);
    let range = 3 * 4096..64 * 4096;
    let some = bench.mapping().writeback_pages(&range);
    assert_eq!(some, [PageIndex(3), PageIndex(9)]);
    assert_eq!(bench.dirty(), [1, 70]);
}

/// Statement 11: after any program the counts equal a scan, and the frames in use.
///
/// Seen to fail: with `note_clean` not counting down.
#[test]
fn counts_equal_a_scan_at_rest() {
    let bench = Bench::new(512, 0);
    let mut dice = 12345_u64;
    let mut roll = |sides: u64| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (dice >> 33) % sides
    };
    for _ in 0..2000 {
        let at = roll(20 * 4096);
        match roll(8) {
            0..4 => {
                let len = usize::try_from(roll(9000)).unwrap();
                bench.file.write_all_at(&vec![1; len], at).unwrap();
            }
            4 => bench.file.set_len(at).unwrap(),
            5 => bench.file.punch_hole(at..at + roll(9000)).unwrap(),
            6 => bench.file.start_writing(at..at + roll(30_000)).unwrap(),
            _ => bench.file.sync_range(at..at + 5000, mpage::SyncKind::Data).unwrap(),
        }
        let [clean, dirty, io, locked] = bench.sets();
        let used = bench.cache.capacity_pages() - bench.cache.free_pages();
        assert_eq!((clean + dirty + io, locked), (used, 0));
        assert_eq!((bench.mapping().dirty_count(), bench.dirty().len()), (dirty + io, dirty + io));
        assert!(bench.in_flight().is_empty());
    }
}
