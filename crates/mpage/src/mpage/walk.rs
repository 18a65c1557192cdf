//! The walk over io: which pages, in which order, and what is done with each.

use std::ops::Range;

use mpage_block::Errno;
use mpage_locks::atomic::{Ordering, spin_loop};
use mpage_mem::{FrameId, Purpose as FramePurpose};

use super::hand::{Hand, Split};
use super::map::{Mapper, PageMap};
use crate::address_space::{
    AddressSpace, Ended, FailurePolicy, PageLock, PagePin, Started, SyncMode,
};
use crate::error::{Error, ErrorKind, Result};
use crate::get_block::{GetBlock, Purpose};
use crate::may_wait::MayWait;
use crate::page::{FAILED, FROZEN, Start, WRITEBACK};
use crate::page_tree::{Mark, Marks};
use crate::turn::Rank;
use crate::units::{PAGE_SIZE, PageIndex, SectorMask, pages_touched, part_in_page};
use crate::writeback::WritebackControl;
use crate::writepage::{PageWritten, WritePage};

/// Tries to find a page without a store in progress before an integrity walk samples it. A checker
/// of schedules shall see samples.
const SPINS: usize = if cfg!(any(mpage_loom, mpage_shuttle)) { 1 } else { 200 };

/// Neighbours asked for when the block map is asked about a page.
const RUN_PAGES_MAX: u64 = 256;

/// Which pages a walk takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Those in io: the snapshot its caller, and others, took.
    Io,
    /// Those dirty in its range when it comes by: for a write-through of its own range.
    Dirty,
}

/// One walk that maps pages and builds bios.
pub(super) struct Walk<'a, 'w> {
    space: &'a AddressSpace,
    wbc: &'w mut WritebackControl,
    mapper: Mapper<'a>,
    hand: Hand<'a>,
    source: Source,
    first_error: Option<Error>,
}

impl<'a, 'w> Walk<'a, 'w> {
    pub(super) fn new(
        space: &'a AddressSpace,
        wbc: &'w mut WritebackControl,
        get_block: &'a dyn GetBlock,
    ) -> Walk<'a, 'w> {
        let rank = Rank { cleaning: wbc.is_cleaning(), pages_left: wbc.pages_expected };
        Walk {
            space,
            wbc,
            mapper: Mapper::new(space, get_block, Purpose::Write),
            hand: Hand::new(space, rank),
            source: Source::Io,
            first_error: None,
        }
    }

    /// A walk over what is dirty in the range, whose writes go past the device's cache if `fua`.
    pub(super) fn over_dirty(mut self, fua: bool) -> Walk<'a, 'w> {
        self.hand = Hand::new(self.space, self.hand.rank).urgent(fua);
        self.source = Source::Dirty;
        self
    }

    /// Walks, submits, and returns the first error.
    pub(super) fn run(mut self) -> Result<()> {
        let pages = pages_of(self.space, self.wbc);
        // Leftovers of a walk that was cut short are the oldest: they go first.
        let passes: &[Marks] = match (self.source, self.wbc.sync_mode) {
            (Source::Dirty, _) => &[Marks::DIRTY],
            (Source::Io, SyncMode::DataIntegrity) => &[Marks::LEFTOVERS, Marks::IO],
            (Source::Io, SyncMode::Cleaning) => &[Marks::IO],
        };
        for marks in passes {
            self.pass(pages.clone(), *marks);
            if self.is_over() {
                break;
            }
        }
        self.hand.submit();
        self.first_error.take().map_or(Ok(()), Err)
    }

    /// A cleaning walk is over at its quota and at the first error; an integrity walk at neither.
    fn is_over(&self) -> bool {
        self.wbc.is_cleaning() && (self.wbc.nr_to_write <= 0 || self.first_error.is_some())
    }

    fn pass(&mut self, mut pages: Range<u64>, marks: Marks) {
        while !self.is_over() {
            let Some(pin) = self.space.next_marked(pages.clone(), marks) else {
                end_cycle(self.space, self.wbc, 0);
                return;
            };
            pages.start = pin.index().0 + 1;
            if let Err(error) = self.visit(pin, marks) {
                let _first = self.first_error.get_or_insert(error);
            }
            end_cycle(self.space, self.wbc, pages.start);
        }
    }

    /// Writes one page, waiting for it or passing over it as the mode says.
    fn visit(&mut self, mut pin: PagePin<'a>, marks: Marks) -> Result<()> {
        loop {
            let word = pin.word();
            if word.has(FROZEN) {
                return Ok(());
            }
            let quarantined = || self.space.failure_policy() == FailurePolicy::Quarantine;
            if word.has(FAILED) && self.wbc.is_cleaning() && quarantined() {
                self.pass_over(pin.index());
                return Ok(());
            }
            if word.has(WRITEBACK) {
                if self.wbc.is_cleaning() || word.dirty().is_empty() {
                    self.pass_over(pin.index());
                    return Ok(());
                }
                pin.wait_until(&self.hand.empty(), |word| !word.has(WRITEBACK));
                continue;
            }
            let page = match pin.try_lock() {
                Ok(page) => page,
                Err(pin) if self.wbc.is_cleaning() => {
                    self.pass_over(pin.index());
                    return Ok(());
                }
                Err(pin) => pin.lock(&self.hand.empty()),
            };
            if self.write_locked(&page, marks)? {
                return Ok(());
            }
            pin = page.unlock();
        }
    }

    /// Only a cleaning caller's own mark goes: an integrity caller's snapshot is nobody else's to
    /// change.
    fn pass_over(&mut self, index: PageIndex) {
        if self.wbc.is_cleaning() {
            self.space.pass_over(index);
        }
        self.wbc.pages_skipped += 1;
        self.space.core().stats.pages_skipped.add(1);
    }

    /// Maps a locked page and puts it under writeback. False: it changed, look again.
    fn write_locked(&mut self, page: &PageLock<'a>, marks: Marks) -> Result<bool> {
        if page.is_detached() {
            return Ok(true);
        }
        if page.word().has(WRITEBACK) {
            return Ok(false);
        }
        let dirty = self.space.cancel_dirty_beyond_end(page);
        if dirty.is_empty() {
            return Ok(true);
        }
        let (map, mapped) = self.map(page, dirty, marks);
        let mapped = mapped.and(match map.holes.is_empty() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Device(Errno::IO), "writeback")
                .because("the block map gave no place to a block that is written")),
        });
        let done = if map.runs().is_empty() { true } else { self.start(page, &map)? };
        if let Err(error) = mapped {
            self.space.note_failed(page, error.kind.errno());
            return Err(error);
        }
        Ok(done)
    }

    /// Asks the block map, first without waiting, then with an empty hand.
    fn map(
        &mut self,
        page: &PageLock<'a>,
        dirty: SectorMask,
        marks: Marks,
    ) -> (PageMap, Result<()>) {
        let index = page.index();
        let space = self.space;
        let run = || space.io_run(PageIndex(index.0 + 1), marks, RUN_PAGES_MAX);
        let (mut map, mut result) = self.mapper.map(index, dirty, run, false);
        if result.as_ref().is_err_and(|error| error.kind == ErrorKind::WouldBlock) {
            self.hand.submit();
            (map, result) = self.mapper.map(index, dirty, run, true);
        }
        for extent in std::mem::take(&mut self.mapper.fresh) {
            let may_wait = self.hand.empty();
            space.forget_alias(&extent, &may_wait);
        }
        (map, result)
    }

    /// Puts the mapped sectors of a locked page under writeback and into bios. False: look again.
    fn start(&mut self, page: &PageLock<'a>, map: &PageMap) -> Result<bool> {
        let sectors = (map.mapped(), map.wanted);
        let [run] = map.runs() else { return self.start_split(page, map) };
        self.hand.prepare(run.sector);
        let mut started = self.space.start_writeback(page, sectors, false, self.hand.number());
        for _ in 0..SPINS {
            if started.as_ref().err() != Some(&Start::Busy) || self.wbc.is_cleaning() {
                break;
            }
            spin_loop();
            started = self.space.start_writeback(page, sectors, false, self.hand.number());
        }
        match started {
            Ok(started) => {
                self.zero_beyond_end(page, &started, started.frame);
                self.hand.add((page.id(), page.index()), started.frame, run, None);
                self.space.core().pool.unpin_frame(started.frame);
                self.count(map);
                Ok(true)
            }
            Err(Start::Busy) if self.wbc.is_cleaning() => {
                self.pass_over(page.index());
                Ok(true)
            }
            Err(Start::Busy) => self.start_split(page, map),
            Err(_) => Ok(false),
        }
    }

    /// The slow path: a page of several runs, or one that has to be sampled while a store is in
    /// progress.
    fn start_split(&mut self, page: &PageLock<'a>, map: &PageMap) -> Result<bool> {
        let mut number = None;
        let sectors = (map.mapped(), map.wanted);
        let mut started = self.space.start_writeback(page, sectors, false, &mut number);
        let mut sample = None;
        if started.as_ref().err() == Some(&Start::Busy) {
            if self.wbc.is_cleaning() {
                self.pass_over(page.index());
                return Ok(true);
            }
            sample = Some(self.sample_frame(page.index()));
            started = self.space.start_writeback(page, sectors, true, &mut number);
        }
        let pool = &self.space.core().pool;
        let Ok(started) = started else {
            sample.into_iter().for_each(|frame| pool.unpin_frame(frame));
            return Ok(false);
        };
        let frame = match sample {
            Some(frame) if !started.own_frame => {
                self.space.core().stats.pages_sampled.add(1);
                self.space.sample(page, frame);
                frame
            }
            _ => started.frame,
        };
        self.zero_beyond_end(page, &started, frame);
        let number = number.expect("drawn when writeback started");
        let split =
            Split::new(map.runs().len(), map.mapped(), number, self.space.dev().failed_flushes());
        for run in map.runs() {
            self.hand.add((page.id(), page.index()), frame, run, Some(&split));
        }
        sample.into_iter().for_each(|frame| pool.unpin_frame(frame));
        pool.unpin_frame(started.frame);
        self.count(map);
        Ok(true)
    }

    /// A frame for a sample, from the reserve of writeback if need be.
    fn sample_frame(&mut self, index: PageIndex) -> FrameId {
        let pool = &self.space.core().pool;
        loop {
            let ticket = pool.memory.ticket();
            if let Some(frame) = pool.alloc_frame(FramePurpose::Writeback, index, None) {
                return frame;
            }
            let _may_wait: MayWait<'_> = self.hand.empty();
            pool.memory.wait(ticket);
        }
    }

    /// Zeroes what a page that straddles the end of the file has beyond it, in what the device will
    /// see: on every write, since whoever pins the page may have scribbled there.
    fn zero_beyond_end(&self, page: &PageLock<'_>, started: &Started, frame: FrameId) {
        let inside = part_in_page(&(0..started.size), page.index()).end;
        if inside < PAGE_SIZE {
            self.space.core().pool.arena().zero(frame, inside, PAGE_SIZE - inside);
        }
    }

    fn count(&mut self, map: &PageMap) {
        self.wbc.nr_to_write -= 1;
        self.wbc.pages_written += 1;
        self.hand.rank.pages_left = self.hand.rank.pages_left.saturating_sub(1);
        self.space.core().stats.pages_written.add(1);
        if map.boundary {
            self.hand.submit();
        }
    }
}

/// The pages the walk is about: from the saved index on when it is cyclic.
fn pages_of(space: &AddressSpace, wbc: &WritebackControl) -> Range<u64> {
    let pages = pages_touched(&wbc.range);
    if wbc.range_cyclic && wbc.is_cleaning() {
        let from = space.writeback_index.load(Ordering::Relaxed).max(pages.start);
        return from..pages.end;
    }
    pages
}

/// Notes where the next cyclic walk begins: it never wraps within one call.
fn end_cycle(space: &AddressSpace, wbc: &WritebackControl, next: u64) {
    if wbc.range_cyclic && wbc.is_cleaning() {
        space.writeback_index.store(next, Ordering::Relaxed);
    }
}

/// One walk that hands pages to the mapping's own `writepage`.
pub(super) struct PageByPage<'a, 'w> {
    space: &'a AddressSpace,
    wbc: &'w mut WritebackControl,
    writepage: &'a dyn WritePage,
}

impl<'a, 'w> PageByPage<'a, 'w> {
    pub(super) fn new(
        space: &'a AddressSpace,
        wbc: &'w mut WritebackControl,
        writepage: &'a dyn WritePage,
    ) -> PageByPage<'a, 'w> {
        PageByPage { space, wbc, writepage }
    }

    /// Walks, and returns the first error.
    pub(super) fn run(mut self) -> Result<()> {
        let mut pages = pages_of(self.space, self.wbc);
        let mut first_error = None;
        while !(self.wbc.is_cleaning() && (self.wbc.nr_to_write <= 0 || first_error.is_some())) {
            let Some(pin) = self.space.next_marked(pages.clone(), Marks::IO) else {
                end_cycle(self.space, self.wbc, 0);
                break;
            };
            pages.start = pin.index().0 + 1;
            if let Err(error) = self.visit(pin) {
                let _first = first_error.get_or_insert(error);
            }
            end_cycle(self.space, self.wbc, pages.start);
        }
        first_error.map_or(Ok(()), Err)
    }

    fn visit(&mut self, mut pin: PagePin<'a>) -> Result<()> {
        let may_wait = MayWait::no_bio_held();
        loop {
            if pin.word().has(WRITEBACK) {
                if self.wbc.is_cleaning() || pin.word().dirty().is_empty() {
                    if self.wbc.is_cleaning() {
                        self.space.pass_over(pin.index());
                    }
                    self.wbc.pages_skipped += 1;
                    return Ok(());
                }
                pin.wait_until(&may_wait, |word| !word.has(WRITEBACK));
            }
            let page = pin.lock(&may_wait);
            if page.is_detached() {
                return Ok(());
            }
            if !page.word().has(WRITEBACK) {
                let dirty = self.space.cancel_dirty_beyond_end(&page);
                return if dirty.is_empty() { Ok(()) } else { self.write(page, dirty) };
            }
            pin = page.unlock();
        }
    }

    /// Samples the page, which frees it for stores at once, and hands the sample over.
    fn write(&mut self, page: PageLock<'a>, mut dirty: SectorMask) -> Result<()> {
        let mut number = None;
        let started = loop {
            match self.space.start_writeback(&page, (dirty, dirty), true, &mut number) {
                Ok(started) => break started,
                Err(_) => dirty = self.space.cancel_dirty_beyond_end(&page),
            }
            if dirty.is_empty() {
                return Ok(());
            }
        };
        let began = self.space.dev().failed_flushes();
        let mut bytes = vec![0; PAGE_SIZE];
        let inside = part_in_page(&(0..started.size), page.index()).end;
        self.space.sample_bytes(&page, &mut bytes);
        self.space.core().pool.unpin_frame(started.frame);
        let (id, index) = (page.id(), page.index());
        let ended = Ended { page: id, index, sectors: dirty, failed: dirty, began };
        let mut given = Given { space: self.space, _pin: page.unlock(), ended, number };
        let ranges: Vec<_> = dirty.runs().map(|run| run.start..run.end.min(inside)).collect();
        let result = self.writepage.writepage(index, &bytes[..inside], &ranges);
        match &result {
            Ok(PageWritten::Done) => given.ended.failed = SectorMask::NONE,
            Ok(PageWritten::Declined) => {}
            Err(error) => self.space.record_error(error.kind.errno()),
        }
        drop(given);
        self.wbc.nr_to_write -= 1;
        match result {
            Ok(PageWritten::Done) => self.wbc.pages_written += 1,
            _ => self.wbc.pages_skipped += 1,
        }
        result.map(|_| ())
    }
}

/// A page given to `writepage`. Its write ends when this is dropped, also by a panic: what has
/// `failed` then is dirty again.
struct Given<'a> {
    space: &'a AddressSpace,
    _pin: PagePin<'a>,
    ended: Ended,
    number: Option<u64>,
}

impl Drop for Given<'_> {
    fn drop(&mut self) {
        let at = self.space.dev().number_write(false);
        self.space.end_writeback(&[self.ended], self.number, at);
    }
}

impl Marks {
    /// Pages a cleaning caller put into io.
    pub(super) const LEFTOVERS: Marks = Marks::only(Mark::ToWrite);
    /// Dirty pages.
    pub(super) const DIRTY: Marks = Marks::only(Mark::Dirty);
}
