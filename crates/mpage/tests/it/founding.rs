//! The description that this project implements, sentence by sentence.

use std::sync::Arc;

use mpage::{SyncMode, WritebackControl, mpage_writepages};
use mpage_block::BioOp;

use crate::answers::{Bench, WHOLE, fill};
use crate::stack::{spawn, still_waits, wait_until};

const MODES: [SyncMode; 2] = [SyncMode::Cleaning, SyncMode::DataIntegrity];

/// "Pages can be moved from clean_pages or locked_pages onto dirty_pages at any time. So pages
/// which have already been added to a BIO may magically reappear on the dirty_pages list. And
/// mpage_writepages will again try to lock those pages. But I/O has not yet been started against
/// the page. Thus deadlock."
///
/// While the walk holds pages 0 and 1 in its bio and asks where page 2 goes, another thread dirties
/// page 0 again and splices. Statement 15.
///
/// Seen to fail: with `Walk::pass` starting again at the front instead of behind the page it took,
/// and a wait that does not submit (`MayWait::no_bio_held` in `Walk::visit`), the integrity walk
/// hangs.
#[test]
fn a_page_dirtied_again_in_the_walks_own_bio_does_not_deadlock_it() {
    for (mode, spliced_for) in MODES.into_iter().flat_map(|mode| MODES.map(|other| (mode, other))) {
        let bench = Bench::new(4096, 0);
        bench.fill(0..4, 1);
        let file = bench.file.clone();
        bench.map.once(2, move || {
            let other = spawn(move || {
                fill(&file, [0], 2);
                assert!(file.mapping().splice(&WHOLE, spliced_for) > 0);
            });
            other.join().unwrap();
        });
        let wbc = bench.splice_and_walk(mode);
        assert_eq!(wbc.pages_written, 4, "page 0 is for the next walk");
        bench.mapping().wait_for_writes(&WHOLE);
        assert_eq!((bench.dirty(), bench.sets()), (vec![0], [3, 0, 1, 0]));
        assert_eq!(bench.on_device(0), 1);
        let (next, result) = bench.walk(spliced_for, i64::MAX);
        result.unwrap();
        assert_eq!((next.pages_written, bench.on_device(0)), (1, 2));
    }
}

/// The same where the walk does meet the page again: an integrity walk first takes what an earlier
/// walk left in io, then the rest, from the front. It must give its bio to the device before it
/// waits for a page in it. Statements 15 and 28.
///
/// Seen to fail: with `MayWait::no_bio_held` in place of the empty hand where `Walk::visit` waits
/// for writeback, the walk waits for itself.
#[test]
fn a_walk_that_meets_a_page_of_its_own_bio_submits_before_it_waits() {
    let bench = Bench::new(4096, 0);
    bench.fill([0, 1, 2], 1);
    assert_eq!(bench.mapping().splice(&WHOLE, SyncMode::Cleaning), 3);
    let file = bench.file.clone();
    bench.map.once(2, move || {
        let other = spawn(move || {
            fill(&file, [0], 2);
            let _joined = file.mapping().splice(&WHOLE, SyncMode::DataIntegrity);
        });
        other.join().unwrap();
    });
    let wbc = bench.splice_and_walk(SyncMode::DataIntegrity);
    assert_eq!(wbc.pages_written, 4, "the snapshot, and what the other caller added");
    assert_eq!(bench.lines(), ["W 0+24 sync", "W 0+8 sync"]);
    assert_eq!((bench.on_device(0), bench.sets()), (2, [3, 0, 0, 0]));
}

/// "mpage_writepages will only write pages from io_pages. The caller must place them there."
/// Statement 13.
///
/// Seen to fail: with the walk taking dirty pages (`Marks::DIRTY`) in both modes.
#[test]
fn a_walk_writes_nothing_that_no_caller_put_into_io() {
    for mode in MODES {
        let bench = Bench::new(4096, 0);
        bench.fill(0..3, 1);
        let (wbc, result) = bench.walk(mode, i64::MAX);
        result.unwrap();
        assert_eq!((wbc.pages_written, wbc.pages_skipped), (0, 0));
        assert!(bench.lines().is_empty());
        assert_eq!(bench.sets(), [0, 3, 0, 0]);
    }
}

/// "This has the added benefit of preventing a livelock which would otherwise occur if pages are
/// being dirtied faster than we can write them out."
///
/// The device completes nothing; for each page the walk takes, another thread dirties that page's
/// predecessors again and one page ahead. The walk ends all the same, with what was in io at its
/// beginning. Statements 14 and 16.
///
/// Seen to fail: with the walk taking dirty pages (`Marks::DIRTY`) it goes on to the pages ahead.
#[test]
fn a_dirtier_faster_than_the_device_cannot_prolong_a_walk() {
    const SNAPSHOT: u64 = 5;
    for mode in MODES {
        let bench = Bench::new(4096, 0);
        bench.stack.hold(BioOp::Write);
        bench.fill(0..SNAPSHOT, 1);
        for index in 0..SNAPSHOT {
            let file = bench.file.clone();
            bench.map.once(index, move || {
                let dirtier = spawn(move || {
                    fill(&file, 0..index, 2);
                    fill(&file, [SNAPSHOT + index], 2);
                });
                dirtier.join().unwrap();
            });
        }
        let wbc = bench.splice_and_walk(mode);
        assert_eq!(wbc.pages_written, SNAPSHOT);
        let held = bench.stack.delay.held();
        assert_eq!(held.len(), 1, "each page of the snapshot is written once");
        assert_eq!(held[0].bytes, SNAPSHOT * 4096);
        assert_eq!(bench.in_flight(), (0..SNAPSHOT).collect::<Vec<_>>());
        let again = (0..SNAPSHOT - 1).chain(SNAPSHOT..2 * SNAPSHOT).collect::<Vec<_>>();
        assert_eq!(bench.dirty(), again, "what was dirtied meanwhile is in dirty");
        let left = usize::try_from(2 * SNAPSHOT - 1).unwrap();
        assert_eq!(bench.sets(), [0, left, 0, 1]);
    }
}

/// "If a page is already under I/O, generic_writepages skips it, even if it's dirty. This is
/// desirable behaviour for memory-cleaning writeback." It ends in dirty if it is dirty, else in
/// locked. Statements 18 and 68.
///
/// Seen to fail: with the test for cleaning left out where `Walk::visit` meets writeback, the walk
/// waits for the device for ever.
#[test]
fn a_cleaning_walk_passes_over_pages_under_io() {
    let bench = Bench::new(4096, 0);
    bench.stack.hold(BioOp::Write);
    bench.fill([0, 1], 1);
    let _first = bench.splice_and_walk(SyncMode::Cleaning);
    assert_eq!(bench.sets(), [0, 0, 0, 2], "handed to I/O, to be waited for");
    bench.fill([0, 2], 2);
    let wbc = bench.splice_and_walk(SyncMode::Cleaning);
    assert_eq!((wbc.pages_written, wbc.pages_skipped), (1, 1));
    assert_eq!(bench.stack.delay.held().len(), 2, "nothing has completed");
    assert_eq!((bench.dirty(), bench.in_flight()), (vec![0], vec![0, 1, 2]));
    assert_eq!(bench.sets(), [0, 1, 0, 2]);
    bench.stack.let_go();
    bench.mapping().wait_for_writes(&WHOLE);
    assert_eq!((bench.dirty(), bench.sets()), (vec![0], [2, 1, 0, 0]));
    assert_eq!((bench.on_device(0), bench.on_device(2)), (1, 2));
}

/// "But it is INCORRECT for data-integrity system calls such as fsync. fsync and msync need to
/// guarantee that all the data which was dirty at the time the call was made get new I/O started
/// against them. So if called_for_sync is true, we must wait for existing IO to complete."
/// Statements 19, 53 and 54.
///
/// Seen to fail: with the walk passing over pages under I/O in both modes, it returns at once and
/// the second content is never written.
#[test]
fn an_integrity_walk_waits_for_older_io_and_then_starts_new_io() {
    let bench = Bench::new(4096, 0);
    bench.stack.hold(BioOp::Write);
    bench.fill([0], 1);
    let _older = bench.splice_and_walk(SyncMode::Cleaning);
    bench.fill([0], 2);
    assert_eq!(bench.mapping().splice(&WHOLE, SyncMode::DataIntegrity), 1);
    let (file, map) = (bench.file.clone(), Arc::clone(&bench.map));
    let walker = spawn(move || {
        let mut wbc = WritebackControl::integrity(WHOLE);
        mpage_writepages(file.mapping(), &mut wbc, Some(&*map)).unwrap();
        wbc.pages_written
    });
    still_waits(&walker);
    assert_eq!(bench.stack.delay.held().len(), 1, "no second I/O while the first is under way");
    assert!(bench.stack.delay.release_next());
    assert_eq!(walker.join().unwrap(), 1);
    assert_eq!((bench.on_device(0), bench.sets()), (1, [0, 0, 0, 1]));
    assert_eq!(bench.stack.delay.held().len(), 1, "new I/O");
    assert!(bench.stack.delay.release_next());
    assert_eq!((bench.on_device(0), bench.sets()), (2, [1, 0, 0, 0]));
    assert_eq!(bench.lines(), ["W 0+8 background", "W 0+8 sync"]);
}

/// The same through fsync, for a page ahead and behind in the file too: all that was dirty at the
/// call has had new I/O when it returns. Statements 53 and 54.
///
/// Seen to fail: as the one above.
#[test]
fn fsync_starts_new_io_for_all_that_was_dirty_at_the_call() {
    let bench = Bench::new(4096, 0);
    bench.stack.hold(BioOp::Write);
    bench.fill([3], 1);
    let _older = bench.splice_and_walk(SyncMode::Cleaning);
    bench.fill([1, 3, 5], 2);
    let file = bench.file.clone();
    let syncer = spawn(move || file.fsync().unwrap());
    // Page 1 goes out before the wait for page 3.
    bench.stack.delay.wait_for_held(2);
    still_waits(&syncer);
    bench.stack.let_go();
    syncer.join().unwrap();
    assert_eq!([1, 3, 5].map(|index| bench.on_device(index)), [2; 3]);
    let lines = bench.lines();
    let writes = ["W 24+8 background", "W 8+8 sync", "W 24+8 sync", "W 40+8 sync", "F"];
    assert_eq!(lines, writes);
}

/// "It's fairly rare for PageWriteback pages to be on ->dirty_pages. It means that someone
/// redirtied the page while it was under I/O." Such a page is in dirty alone; the write on its way
/// keeps the bytes it has. Statements 1, 2, 18 and 122.
///
/// Seen to fail: with the frame not copied (`Store::make_writable` always content) the device gets
/// the second content in the first write.
#[test]
fn a_page_dirty_and_under_io_at_once_is_in_dirty() {
    let bench = Bench::new(4096, 0);
    bench.stack.hold(BioOp::Write);
    bench.fill([0], 1);
    let _walk = bench.splice_and_walk(SyncMode::Cleaning);
    assert_eq!((bench.sets(), bench.dirty().len()), ([0, 0, 0, 1], 0));
    let copies = bench.cache.stats().copies_on_write;
    let file = bench.file.clone();
    spawn(move || fill(&file, [0], 2)).join().unwrap();
    assert_eq!(bench.cache.stats().copies_on_write, copies + 1);
    assert_eq!((bench.dirty(), bench.in_flight()), (vec![0], vec![0]));
    assert_eq!(bench.sets(), [0, 1, 0, 0]);
    bench.stack.let_go();
    assert_eq!((bench.on_device(0), bench.sets()), (1, [0, 1, 0, 0]));
    let _walk = bench.splice_and_walk(SyncMode::Cleaning);
    assert_eq!((bench.on_device(0), bench.sets()), (2, [1, 0, 0, 0]));
}

/// "We walk io_pages, locking the pages and submitting them for I/O, moving them to locked_pages."
/// While a page is mapped another walk finds it locked; once it is under writeback the page lock is
/// free. Statement 17.
///
/// Seen to fail: with `PagePin::try_lock` always content the second walk maps the page too; with
/// the lock kept while the write is in flight the punch never comes to zero the page.
#[test]
fn a_page_is_locked_while_it_is_mapped_and_not_while_it_is_written() {
    let bench = Bench::new(512, 0);
    bench.stack.hold(BioOp::Write);
    bench.fill([0], 1);
    let (file, map) = (bench.file.clone(), Arc::clone(&bench.map));
    bench.map.once(0, move || {
        assert_eq!(file.mapping().set_counts().io, 1);
        let second = spawn(move || {
            let _joined = file.mapping().splice(&WHOLE, SyncMode::Cleaning);
            let mut wbc = WritebackControl::cleaning(i64::MAX);
            mpage_writepages(file.mapping(), &mut wbc, Some(&*map)).unwrap();
            wbc
        });
        let wbc = second.join().unwrap();
        assert_eq!((wbc.pages_written, wbc.pages_skipped), (0, 1));
    });
    assert_eq!(bench.splice_and_walk(SyncMode::DataIntegrity).pages_written, 1);
    assert_eq!(bench.sets(), [0, 0, 0, 1]);
    let file = bench.file.clone();
    let punch = spawn(move || file.punch_hole(0..100).unwrap());
    // Zeroing the page takes its lock; the write of its older content is still held.
    wait_until(|| bench.dirty() == [0]);
    assert_eq!(bench.in_flight(), [0]);
    bench.stack.let_go();
    punch.join().unwrap();
}
