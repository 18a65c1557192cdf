//! The walk over io: how far it goes, what stops it, and what it never holds on to.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use mpage::units::BlockSize;
use mpage::{
    AddressSpace, CachedFile, Error, ErrorKind, Operations, PageCache, PageWritten, Result,
    SyncMode, WritePage, WritebackControl, mpage_writepages,
};
use mpage_block::{BioOp, Errno};
use mpage_locks::Mutex;

use crate::answers::{Answers, Bench, WHOLE, fill, only};
use crate::rig::options;
use crate::stack::{Stack, errno, spawn, still_waits, wait_until};

/// Statement 20: what was put into io and written by somebody else since is not written again.
///
/// Seen to fail: with the io marks left when a page's last dirty byte goes (`note_clean`).
#[test]
fn a_page_found_clean_is_not_written() {
    let bench = Bench::new(4096, 0);
    bench.fill(0..3, 1);
    let _joined = bench.mapping().splice(&WHOLE, SyncMode::Cleaning);
    bench.file.write_through_at(&[2; 4096], 4096, false).unwrap();
    assert_eq!((bench.lines().len(), bench.sets()), (1, [1, 0, 2, 0]));
    let (wbc, result) = bench.walk(SyncMode::Cleaning, i64::MAX);
    result.unwrap();
    assert_eq!((wbc.pages_written, bench.sets()), (2, [3, 0, 0, 0]));
    assert_eq!(bench.lines(), ["W 0+8 background", "W 16+8 background"]);
}

/// Statements 20 and 89: a page that leaves the mapping while an integrity walk waits for its older
/// write is left alone.
///
/// The walk looks for it in three places, of which any one is enough here.
#[test]
fn a_page_that_left_the_mapping_is_passed_by() {
    let bench = Bench::new(4096, 0);
    bench.stack.hold(BioOp::Write);
    bench.fill([0], 1);
    let _older = bench.splice_and_walk(SyncMode::Cleaning);
    bench.fill([0], 2);
    let (walker, truncater) = {
        let _joined = bench.mapping().splice(&WHOLE, SyncMode::DataIntegrity);
        let walker = integrity_walk(&bench);
        still_waits(&walker);
        let file = bench.file.clone();
        (walker, spawn(move || file.set_len(0).unwrap()))
    };
    wait_until(|| bench.sets() == [0; 4]);
    assert_eq!(bench.map.take_asked().len(), 1);
    bench.stack.let_go();
    assert_eq!(walker.join().unwrap().0.pages_written, 0);
    truncater.join().unwrap();
    assert!(bench.map.take_asked().is_empty());
    assert_eq!(bench.lines(), ["W 0+8 background"]);
}

fn integrity_walk(
    bench: &Bench,
) -> mpage_locks::thread::JoinHandle<(WritebackControl, Result<()>)> {
    let (file, map) = (bench.file.clone(), Arc::clone(&bench.map));
    spawn(move || {
        let mut wbc = WritebackControl::integrity(WHOLE);
        let result = mpage_writepages(file.mapping(), &mut wbc, Some(&*map));
        (wbc, result)
    })
}

/// Statement 21. Pages passed over do not count. Seen to fail: with a walk that goes on at zero.
#[test]
fn nr_to_write_stops_a_cleaning_walk_exactly() {
    let bench = Bench::new(4096, 0);
    bench.fill([0, 1, 2, 4, 5, 6], 1);
    let _joined = bench.mapping().splice(&WHOLE, SyncMode::Cleaning);
    let (wbc, result) = bench.walk(SyncMode::Cleaning, 4);
    result.unwrap();
    assert_eq!((wbc.pages_written, wbc.nr_to_write), (4, 0));
    assert_eq!(bench.sets(), [4, 0, 2, 0], "the rest stays in io");
    assert_eq!(bench.walk(SyncMode::Cleaning, 0).0.pages_written, 0);
    let (wbc, _) = bench.walk(SyncMode::Cleaning, 4);
    assert_eq!((wbc.pages_written, wbc.nr_to_write, bench.sets()), (2, 2, [6, 0, 0, 0]));
    bench.stack.hold(BioOp::Write);
    bench.fill([0], 2);
    let _held = bench.splice_and_walk(SyncMode::Cleaning);
    bench.fill([0, 1], 3);
    let _joined = bench.mapping().splice(&WHOLE, SyncMode::Cleaning);
    let (wbc, _) = bench.walk(SyncMode::Cleaning, 3);
    assert_eq!((wbc.pages_written, wbc.pages_skipped, wbc.nr_to_write), (1, 1, 2));
}

/// Statement 22. Seen to fail: with `Walk::is_over` not asking for the mode.
#[test]
fn nr_to_write_does_not_stop_an_integrity_walk() {
    let bench = Bench::new(4096, 0);
    bench.fill(0..6, 1);
    let _joined = bench.mapping().splice(&WHOLE, SyncMode::DataIntegrity);
    let (wbc, result) = bench.walk(SyncMode::DataIntegrity, 2);
    result.unwrap();
    assert_eq!((wbc.pages_written, wbc.nr_to_write, bench.sets()), (6, -4, [6, 0, 0, 0]));
}

/// Statement 23: a cleaning walk stops at the first error, and the next cyclic one begins behind
/// the bad page.
///
/// Seen to fail: with the cycle's place noted before the page instead of behind it.
#[test]
fn an_error_stops_cleaning_and_the_next_walk_begins_behind_it() {
    let bench = Bench::new(4096, 0);
    bench.fill(0..5, 1);
    bench.map.refuse(&[(2, Errno::NOSPC)]);
    let cyclic = || {
        let _joined = bench.mapping().splice(&WHOLE, SyncMode::Cleaning);
        let mut wbc = WritebackControl { range_cyclic: true, ..WritebackControl::cleaning(100) };
        let result = mpage_writepages(bench.mapping(), &mut wbc, Some(&*bench.map));
        (wbc.pages_written, result)
    };
    let (written, result) = cyclic();
    assert_eq!((written, errno(result)), (2, Errno::NOSPC));
    assert_eq!(bench.sets(), [2, 1, 2, 0], "the bad page is dirty, the rest in io");
    assert_eq!(cyclic(), (2, Ok(())));
    assert_eq!(bench.lines(), ["W 0+16 background", "W 24+16 background"]);
    assert_eq!((bench.dirty(), errno(bench.file.fsync())), (vec![2], Errno::NOSPC));
}

/// Statements 23 and 63: an integrity walk tries every page and returns the first error.
///
/// Seen to fail: with `Walk::is_over` true after an error in both modes; with the last error kept
/// instead of the first.
#[test]
fn an_integrity_walk_tries_every_page_and_returns_the_first_error() {
    let bench = Bench::new(4096, 0);
    bench.fill(0..6, 1);
    bench.map.refuse(&[(1, Errno::NOSPC), (4, Errno::IO)]);
    let _joined = bench.mapping().splice(&WHOLE, SyncMode::DataIntegrity);
    let (wbc, result) = bench.walk(SyncMode::DataIntegrity, i64::MAX);
    assert_eq!((wbc.pages_written, errno(result)), (4, Errno::NOSPC));
    assert_eq!(bench.dirty(), [1, 4]);
    assert_eq!(bench.lines(), ["W 0+8 sync", "W 16+16 sync", "W 40+8 sync"]);
    bench.map.refuse(&[]);
    assert_eq!(errno(bench.file.fsync()), Errno::IO, "the newest error is told, once");
    assert!(bench.dirty().is_empty());
    bench.file.fsync().unwrap();
}

type Calls = Vec<(u64, usize, Vec<Range<usize>>)>;

/// A writer of single pages that notes its calls and does what it is told with some.
#[derive(Default)]
struct Pages {
    calls: Mutex<Calls>,
    declines: Mutex<Option<u64>>,
    fails: Mutex<Option<(u64, Errno)>>,
    panics: Mutex<Option<u64>>,
}

impl WritePage for Pages {
    fn writepage(
        &self,
        index: mpage::units::PageIndex,
        bytes: &[u8],
        dirty: &[Range<usize>],
    ) -> Result<PageWritten> {
        assert!(*self.panics.lock() != Some(index.0), "told to");
        self.calls.lock().push((index.0, bytes.len(), dirty.to_vec()));
        if let Some((bad, errno)) = *self.fails.lock()
            && bad == index.0
        {
            return Err(Error::new(ErrorKind::Device(errno), "writepage"));
        }
        match *self.declines.lock() == Some(index.0) {
            true => Ok(PageWritten::Declined),
            false => Ok(PageWritten::Done),
        }
    }
}

/// A file that is written page by page.
fn page_by_page() -> (PageCache, CachedFile, Arc<Pages>) {
    let cache = PageCache::new(&options()).unwrap();
    let dev = cache.add_device(Stack::new(1 << 20).top()).unwrap();
    let pages = Arc::new(Pages::default());
    let ops = Operations { writepage: Some(pages.clone()), ..Operations::default() };
    let mapping = cache.add_mapping(&dev, BlockSize::new(512).unwrap(), 0, ops).unwrap();
    (cache, CachedFile::new(mapping, true), pages)
}

fn walk_pages(space: &AddressSpace, mode: SyncMode) -> (WritebackControl, Result<()>) {
    let _joined = space.splice(&WHOLE, mode);
    let mut wbc = WritebackControl { sync_mode: mode, ..WritebackControl::cleaning(100) };
    let result = mpage_writepages(space, &mut wbc, None);
    (wbc, result)
}

/// Without a block map nothing can be read: a write that covers a block in part fails, and leaves
/// nothing behind that the next one would wait for.
///
/// Seen to fail: with the block map looked for after the fill began, the second write hangs.
#[test]
fn without_a_block_map_a_write_of_part_of_a_block_fails() {
    let (_cache, file, _pages) = page_by_page();
    for _ in 0..2 {
        let error = file.write_all_at(&[1; 100], 0).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput);
    }
    file.write_all_at(&[1; 512], 0).unwrap();
    file.write_all_at(&[2; 100], 0).unwrap();
    file.fsync().unwrap();
}

/// Statement 24: each page goes to the mapping's own writer, with what is dirty in it, up to the
/// end of the file.
///
/// Seen to fail: with the bytes not cut at the end of the file.
#[test]
fn without_a_block_map_each_page_goes_to_writepage() {
    let (_cache, file, pages) = page_by_page();
    file.write_all_at(&[1; 4096 + 1024], 0).unwrap();
    file.write_all_at(&[1; 512], 3 * 4096 + 512).unwrap();
    file.fsync().unwrap();
    let calls = std::mem::take(&mut *pages.calls.lock());
    let whole = |index, end: usize| (index, end, only(0..end));
    assert_eq!(calls[0], whole(0, 4096));
    assert_eq!((calls[1].0, calls[1].1, calls[1].2.clone()), (1, 4096, only(0..1024)));
    assert_eq!(calls[2], (3, 1024, only(512..1024)));
    assert_eq!(calls.len(), 3);
    file.set_len(3 * 4096 + 900).unwrap();
    file.write_all_at(&[2; 10], 3 * 4096 + 600).unwrap();
    file.fsync().unwrap();
    assert_eq!(pages.calls.lock().pop().unwrap(), (3, 900, only(512..900)));
    pages.calls.lock().clear();
    file.fsync().unwrap();
    assert!(pages.calls.lock().is_empty(), "clean pages are not written");
}

/// Statement 26: a declined page is dirty, counted as skipped and accounted once; the others are
/// written. An error is kept and leaves its page dirty too.
///
/// Seen to fail: with `Declined` leaving the page clean.
#[test]
fn a_declined_page_is_dirty_again_and_counted_as_skipped() {
    for mode in [SyncMode::Cleaning, SyncMode::DataIntegrity] {
        let (_cache, file, pages) = page_by_page();
        fill(&file, 0..4, 1);
        *pages.declines.lock() = Some(1);
        let (wbc, result) = walk_pages(file.mapping(), mode);
        result.unwrap();
        assert_eq!((wbc.pages_written, wbc.pages_skipped), (3, 1));
        assert_eq!(file.mapping().dirty_count(), 1);
        let counts = file.mapping().set_counts();
        assert_eq!((counts.clean, counts.dirty, counts.io, counts.locked), (3, 1, 0, 0));
        *pages.declines.lock() = None;
        *pages.fails.lock() = Some((1, Errno::DQUOT));
        assert_eq!(errno(walk_pages(file.mapping(), mode).1), Errno::DQUOT);
        assert_eq!(file.mapping().dirty_count(), 1);
        *pages.fails.lock() = None;
        assert_eq!(errno(file.fsync()), Errno::DQUOT);
        assert_eq!(file.mapping().dirty_count(), 0);
        file.fsync().unwrap();
    }
}

/// Statement 26, through fsync: as long as the writer declines a page, no sync of it succeeds.
///
/// Seen to fail: with `Declined` not noting the page as failed.
#[test]
fn fsync_does_not_succeed_over_a_declined_page() {
    let (_cache, file, pages) = page_by_page();
    fill(&file, 0..2, 1);
    *pages.declines.lock() = Some(0);
    let error = file.fsync().unwrap_err();
    assert_eq!((error.at, error.retained), (only(0..4096), true));
    *pages.declines.lock() = None;
    file.fsync().unwrap();
}

/// Statement 27: what the walk had in its hand goes to the device when an error ends it, and when
/// the block map panics; no page stays locked.
///
/// Seen to fail: without `Drop for Hand`, in the panic.
#[test]
fn the_pending_bio_is_submitted_however_the_walk_is_left() {
    let bench = Bench::new(4096, 0);
    bench.fill(0..4, 1);
    bench.map.refuse(&[(2, Errno::IO)]);
    let _joined = bench.mapping().splice(&WHOLE, SyncMode::Cleaning);
    assert_eq!(errno(bench.walk(SyncMode::Cleaning, 9).1), Errno::IO);
    assert_eq!(bench.lines(), ["W 0+16 background"]);

    let bench = Bench::new(4096, 0);
    bench.fill(0..4, 1);
    bench.map.once(2, || panic!("told to"));
    let _joined = bench.mapping().splice(&WHOLE, SyncMode::DataIntegrity);
    let walk = catch_unwind(AssertUnwindSafe(|| bench.walk(SyncMode::DataIntegrity, 9)));
    assert!(walk.is_err());
    assert_eq!(bench.lines(), ["W 0+16 sync"]);
    assert_eq!(bench.sets(), [2, 0, 2, 0]);
    bench.file.fsync().unwrap();
    assert_eq!(bench.lines(), ["W 16+16 sync", "F"]);
}

/// Statement 27, page by page: a panic in the writer leaves the page dirty and not in flight.
///
/// Seen to fail: without the guard that ends writeback in `PageByPage::write` the next sync waits
/// for ever.
#[test]
fn a_panic_in_writepage_leaves_the_page_dirty() {
    let (_cache, file, pages) = page_by_page();
    fill(&file, 0..2, 1);
    *pages.panics.lock() = Some(1);
    let walk =
        catch_unwind(AssertUnwindSafe(|| walk_pages(file.mapping(), SyncMode::DataIntegrity)));
    assert!(walk.is_err());
    let counts = file.mapping().set_counts();
    assert_eq!((counts.clean, counts.dirty + counts.io, counts.locked), (1, 1, 0));
    *pages.panics.lock() = None;
    let _told = file.fsync();
    file.fsync().unwrap();
    assert_eq!(file.mapping().dirty_count(), 0);
}

/// Statement 28, for the block map: it is asked without waiting while a bio is in hand, and may
/// wait only after that went to the device.
///
/// Seen to fail: without the submission before the second question.
#[test]
fn the_bio_is_submitted_before_the_block_map_may_wait() {
    let bench = Bench::new(4096, 0);
    bench.fill(0..4, 1);
    let trace = Arc::clone(&bench.stack.trace);
    bench.map.answer(move |request| {
        let first = request.first.0;
        if first == 2 && !request.may_wait {
            return Err(Error::new(ErrorKind::WouldBlock, "get_block"));
        }
        if first == 2 {
            assert_eq!(trace.events().len(), 1, "pages 0 and 1 are at the device");
        }
        let place = mpage::units::DeviceBlock(first);
        Ok(mpage::Extent::mapped(request.first, place, 1))
    });
    assert_eq!(bench.splice_and_walk(SyncMode::Cleaning).pages_written, 4);
    let asked = bench.map.take_asked();
    let how: Vec<_> = asked.iter().map(|request| (request.first.0, request.may_wait)).collect();
    assert_eq!(how, [(0, false), (1, false), (2, false), (2, true), (3, false)]);
    assert_eq!(bench.lines(), ["W 0+16 background", "W 16+16 background"]);
}

/// Statement 28, for writeback and the page lock: an integrity walk with page 0 in hand gives it to
/// the device before it waits for page 1, which is under older I/O, or locked by another walk.
///
/// Seen to fail: with `MayWait::no_bio_held` in place of the empty hand in `Walk::visit`: at the
/// first wait page 0 never reaches the device, at the second neither.
#[test]
fn the_bio_is_submitted_before_the_walk_waits_for_a_page() {
    let bench = Bench::new(4096, 0);
    bench.stack.hold_page(1);
    bench.fill([1], 1);
    let _older = bench.splice_and_walk(SyncMode::Cleaning);
    bench.fill([0, 1], 2);
    let _joined = bench.mapping().splice(&WHOLE, SyncMode::DataIntegrity);
    let walker = integrity_walk(&bench);
    wait_until(|| bench.on_device(0) == 2);
    still_waits(&walker);
    bench.stack.let_go();
    assert_eq!(walker.join().unwrap().0.pages_written, 2);

    bench.fill([0, 1], 3);
    let other = Answers::new(4096);
    let gate = other.stop_at(1);
    let file = bench.file.clone();
    let _joined = bench.mapping().splice(&WHOLE, SyncMode::DataIntegrity);
    let first = spawn(move || {
        let range = 4096..2 * 4096;
        let mut wbc = WritebackControl::integrity(range);
        mpage_writepages(file.mapping(), &mut wbc, Some(&*other)).unwrap();
    });
    gate.wait_for_arrival();
    let walker = integrity_walk(&bench);
    wait_until(|| bench.on_device(0) == 3);
    still_waits(&walker);
    gate.open();
    first.join().unwrap();
    assert_eq!(walker.join().unwrap().0.pages_written, 1);
    assert_eq!((bench.on_device(1), bench.sets()), (3, [2, 0, 0, 0]));
}

/// Statement 30. Seen to fail: with a cyclic walk that begins at the front of the file every time;
/// with the saved index not set back to zero.
#[test]
fn cyclic_cleaning_goes_on_where_it_stopped_and_does_not_wrap() {
    let bench = Bench::new(4096, 0);
    bench.fill(0..6, 1);
    let cyclic = |nr_to_write| {
        let _joined = bench.mapping().splice(&WHOLE, SyncMode::Cleaning);
        let mut wbc =
            WritebackControl { range_cyclic: true, ..WritebackControl::cleaning(nr_to_write) };
        mpage_writepages(bench.mapping(), &mut wbc, Some(&*bench.map)).unwrap();
        bench.lines()
    };
    assert_eq!(cyclic(2), ["W 0+16 background"]);
    assert_eq!(cyclic(2), ["W 16+16 background"]);
    bench.fill([0], 2);
    assert_eq!(cyclic(5), ["W 32+16 background"], "to the end, and no further");
    assert_eq!(cyclic(5), ["W 0+8 background"]);
    bench.fill([0, 3], 3);
    assert_eq!(cyclic(1), ["W 0+8 background"]);
    assert_eq!(cyclic(1), ["W 24+8 background"]);
}

/// Statement 31: a walk's pages are on the device when its caller has waited, even those that
/// another walk took first and still holds.
///
/// Seen to fail: with an integrity walk passing over locked pages.
#[test]
fn an_integrity_walk_waits_for_pages_another_one_took() {
    let bench = Bench::new(4096, 0);
    bench.fill([0, 1], 1);
    let gate = bench.map.stop_at(0);
    let syncer = |file: &CachedFile| {
        let file = file.clone();
        spawn(move || file.fsync().unwrap())
    };
    let first = syncer(&bench.file);
    gate.wait_for_arrival();
    bench.fill([2], 2);
    let second = syncer(&bench.file);
    still_waits(&second);
    bench.stack.hold_page(0);
    gate.open();
    bench.stack.delay.wait_for_held(1);
    still_waits(&second);
    still_waits(&first);
    bench.stack.let_go();
    second.join().unwrap();
    assert_eq!((0..3).map(|n| bench.on_device(n)).collect::<Vec<_>>(), [1, 1, 2]);
    first.join().unwrap();
    assert_eq!(bench.sets(), [3, 0, 0, 0]);
}
