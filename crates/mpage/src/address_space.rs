//! The cached pages of one file.
//!
//! A cached page is in exactly one of four sets. They are read off its marks in the tree:
//!
//! | set | marks | meaning |
//! |---|---|---|
//! | io | ToWrite or ToSync | a caller's snapshot holds it: it will be written |
//! | dirty | Dirty, not io | has bytes the device does not have |
//! | locked | Writeback, not dirty, not io | handed to the device, not complete |
//! | clean | none of them | |
//!
//! A splice moves every dirty page to io at one instant; what is dirtied later is in dirty until somebody
//! splices again. That, and ascending walks, is why a walk ends (see `mpage.rs`).
//!
//! Invariants, under the mapping lock:
//! 1. A page whose dirty bits are not all clear has the mark Dirty.
//! 2. A page with the mark ToWrite or ToSync has the mark Dirty.
//! 3. A page whose word has WRITEBACK is in the range of a table entry of a write in flight, from the exchange
//!    that set it until its result has been recorded.
//! 4. `dirty`, `writeback` and `failed` count the marks Dirty and Writeback and the flag FAILED.
//! 5. The size is lowered, and its removal registered, before a page of the removed range goes.
//!
//! Linux: `struct address_space`, include/linux/fs.h; the four lists are those of 2.5.

use std::ops::Range;
use std::sync::{Arc, Weak};

use mpage_block::Errno;
use mpage_locks::atomic::{AtomicU64, Ordering};
use mpage_locks::{Mutex, MutexGuard, clock};
use mpage_mem::FrameId;

use crate::backing_dev::BackingDev;
use crate::core::Core;
use crate::errseq::{Cursor, ErrSeq};
use crate::event::Event;
use crate::get_block::{Extent, GetBlock};
use crate::may_wait::MayWait;
use crate::page::{COPYING, FAILED, FROZEN, Page, PageId, REFERENCED, SHARED, Start};
use crate::page_tree::{Mark, Marks, NoNodes, PageTree, TreeReader};
use crate::turn::Turn;
use crate::units::{BlockSize, PageIndex, SECTOR_SIZE, SectorMask, pages_touched, part_in_page};
use crate::writepage::WritePage;

mod guards;
pub(crate) use guards::{PageLock, PagePin, Store};

/// The cached pages of one file, shared by all its opens. Linux: `struct address_space`.
pub struct AddressSpace {
    this: Weak<AddressSpace>,
    id: u64,
    core: Arc<Core>,
    dev: Arc<BackingDev>,
    block_size: BlockSize,
    ops: Operations,
    pages: TreeReader,
    size: AtomicU64,
    state: Mutex<State>,
    /// Notified when a write left the table, and when a removal ended.
    changed: Event,
    /// Write errors of this file.
    pub(crate) errors: ErrSeq,
    pub(crate) turn: Turn,
    /// Where the next cyclic cleaning walk begins. Linux: `writeback_index`.
    pub(crate) writeback_index: AtomicU64,
    /// The number, on the device, of the last write of this file.
    last_write: AtomicU64,
}

/// How a mapping finds its blocks, or writes its pages. Linux: `struct address_space_operations`.
#[derive(Clone, Default)]
pub struct Operations {
    /// The block map. Without it the mapping cannot read, and writes through `writepage`.
    pub get_block: Option<Arc<dyn GetBlock>>,
    /// The device's own mapping, if its blocks are cached too: what it has of blocks that were just
    /// allocated to this file is forgotten before they are written.
    pub alias: Option<Arc<AddressSpace>>,
    /// Writes one page, where there is no block map.
    pub writepage: Option<Arc<dyn WritePage>>,
}

struct State {
    tree: PageTree,
    in_flight: Vec<InFlight>,
    next_number: u64,
    removals: Vec<Range<u64>>,
    dirty: usize,
    writeback: usize,
    failed: usize,
    dirtied_when_ns: u64,
}

#[derive(Debug)]
struct InFlight {
    number: u64,
    pages: Range<u64>,
}

/// Which splice: whose snapshot the pages join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    /// Memory cleaning: pages in use are passed over. Linux: `WB_SYNC_NONE`.
    Cleaning,
    /// Data integrity: everything dirty at the call gets new I/O. Linux: `WB_SYNC_ALL`.
    DataIntegrity,
}

impl SyncMode {
    fn mark(self) -> Mark {
        match self {
            SyncMode::Cleaning => Mark::ToWrite,
            SyncMode::DataIntegrity => Mark::ToSync,
        }
    }
}

/// How many pages are in each of the four sets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetCounts {
    /// Pages that are neither dirty nor on their way to the device.
    pub clean: usize,
    /// Pages with bytes the device does not have, in nobody's snapshot.
    pub dirty: usize,
    /// Pages in a caller's snapshot.
    pub io: usize,
    /// Pages handed to the device whose write has not ended.
    pub locked: usize,
}

/// A page of a bio whose write ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended {
    pub(crate) page: PageId,
    pub(crate) index: PageIndex,
    pub(crate) sectors: SectorMask,
    pub(crate) failed: SectorMask,
}

/// A page under writeback.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    /// The I/O may read the page's own frame; else a store is in progress, and the caller samples it.
    pub(crate) own_frame: bool,
    /// The page's frame at that instant, pinned for the caller.
    pub(crate) frame: FrameId,
    /// The file's size at that instant.
    pub(crate) size: u64,
}

/// Why a page could not be put into the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotInserted {
    /// Another page is there.
    Exists,
    /// The index is being removed: wait with [`AddressSpace::wait_for_removal`].
    Removing,
    /// No tree node is free.
    NoNodes,
}

/// What came of a first dirtying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dirtied {
    /// The sectors are dirty and the size covers them.
    Done,
    /// The page left the mapping: the store is in nobody's page.
    Detached,
    /// The page's range is being removed and the size was not moved: wait and store again.
    Removing,
}

/// What came of an attempt to evict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evicted {
    /// The page and its frame are free.
    Yes,
    /// It is in use.
    No,
    /// Its last write is not covered by a device flush yet.
    NeedsFlush,
}

impl AddressSpace {
    /// An empty mapping of a file of `size` bytes on `dev`.
    pub(crate) fn new(
        core: &Arc<Core>,
        dev: &Arc<BackingDev>,
        block_size: BlockSize,
        size: u64,
        ops: Operations,
    ) -> Arc<AddressSpace> {
        let tree = PageTree::new(Arc::clone(&core.nodes));
        let id = core.next_id();
        Arc::new_cyclic(|this| {
            core.mappings.add(id, this);
            AddressSpace {
                this: Weak::clone(this),
                id,
                core: Arc::clone(core),
                dev: Arc::clone(dev),
                block_size,
                ops,
                pages: tree.reader(),
                size: AtomicU64::new(size),
                state: Mutex::new(State {
                    tree,
                    in_flight: Vec::new(),
                    next_number: 1,
                    removals: Vec::new(),
                    dirty: 0,
                    writeback: 0,
                    failed: 0,
                    dirtied_when_ns: 0,
                }),
                changed: Event::default(),
                errors: ErrSeq::new(),
                turn: Turn::default(),
                writeback_index: AtomicU64::new(0),
                last_write: AtomicU64::new(0),
            }
        })
    }

    /// The mapping's number in its cache.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn core(&self) -> &Core {
        &self.core
    }

    /// The device the file is on.
    pub fn dev(&self) -> &Arc<BackingDev> {
        &self.dev
    }

    /// The size of a block of the file.
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }

    pub(crate) fn ops(&self) -> &Operations {
        &self.ops
    }

    /// A shared reference to the mapping, for a completion to keep.
    pub(crate) fn arc(&self) -> Arc<AddressSpace> {
        self.this.upgrade().expect("a method runs on a mapping that lives")
    }

    /// The file's size in bytes.
    #[inline]
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::SeqCst)
    }

    /// The page with number `id`.
    #[inline]
    pub(crate) fn page(&self, id: PageId) -> &Page {
        self.core.pool.page(id)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Copies bytes of page `index` from `offset` on, if they are cached; takes nothing. False when a
    /// part is not there.
    #[inline]
    pub(crate) fn read_cached(&self, index: PageIndex, offset: usize, to: &mut [u8]) -> bool {
        let wanted = sectors_of(offset, to.len());
        let Some(page) = self.pages.lookup(index).and_then(|id| self.core.pool.get(id)) else {
            return false;
        };
        loop {
            let Some(seen) = page.begin_read(self.id, index) else { return false };
            if !seen.word.uptodate().contains(wanted) {
                return false;
            }
            self.core.pool.arena().read(seen.frame, offset, to);
            if page.end_read(seen) {
                if !seen.word.has(REFERENCED) {
                    let _now = page.set(REFERENCED);
                }
                return true;
            }
        }
    }

    /// The page at `index`, pinned. May miss a page that is being recycled: inserting finds out.
    pub(crate) fn pin(&self, index: PageIndex) -> Option<PagePin<'_>> {
        let id = self.pages.lookup(index)?;
        let word = self.core.pool.get(id)?.add_pin();
        let pin = PagePin::new(self, id, index);
        (!word.has(FROZEN) && self.page(id).is(self.id, index)).then_some(pin)
    }

    /// The page at `index`, entered for a store (protocol 1).
    #[inline]
    pub(crate) fn enter(&self, index: PageIndex) -> Option<Store<'_>> {
        let id = self.pages.lookup(index)?;
        let word = self.core.pool.get(id)?.add_store();
        let store = Store::new(self, id, index, word);
        (!word.has(FROZEN) && self.page(id).is(self.id, index)).then_some(store)
    }

    /// A page of the same run of frames as `index`, to place a new frame beside.
    pub(crate) fn neighbour(&self, index: PageIndex) -> Option<PageId> {
        let before = index.0.checked_sub(1).and_then(|n| self.pages.lookup(PageIndex(n)));
        before.or_else(|| self.pages.lookup(PageIndex(index.0 ^ 1)))
    }

    /// Puts a page, which the caller took from the pool with its pin, at `index`. `by_remover`: the caller
    /// is the one who removes the range.
    pub(crate) fn insert(
        &self,
        index: PageIndex,
        id: PageId,
        by_remover: bool,
    ) -> Result<PagePin<'_>, NotInserted> {
        let mut state = self.lock();
        if !by_remover && state.removing(index) {
            return Err(NotInserted::Removing);
        }
        if state.tree.get(index).is_some() {
            return Err(NotInserted::Exists);
        }
        state.tree.insert(index, id).map_err(|NoNodes| NotInserted::NoNodes)?;
        Ok(PagePin::new(self, id, index))
    }

    /// Marks `sectors` of an entered page dirty and lets the size reach `end` (protocol 3, invariant 1).
    /// Linux: `folio_mark_dirty()`, mm/page-writeback.c, and `i_size_write()`.
    pub(crate) fn mark_dirty(&self, store: &Store<'_>, sectors: SectorMask, end: u64) -> Dirtied {
        let now_ns = clock::now_ns();
        let mut state = self.lock();
        let page = self.page(store.id());
        if page.word().has(FROZEN) {
            return Dirtied::Detached;
        }
        self.note_dirty(&mut state, store.id(), store.index(), sectors, now_ns);
        if end > self.size() {
            if state.removing(store.index()) {
                return Dirtied::Removing;
            }
            self.size.store(end, Ordering::SeqCst);
        }
        Dirtied::Done
    }

    fn note_dirty(
        &self,
        state: &mut State,
        id: PageId,
        index: PageIndex,
        sectors: SectorMask,
        now_ns: u64,
    ) {
        if state.tree.set_mark(index, Mark::Dirty) {
            self.page(id).stamp_dirty(now_ns);
            let _before = self.core.dirty_pages.fetch_add(1, Ordering::SeqCst);
            state.dirty += 1;
            if state.dirty == 1 {
                state.dirtied_when_ns = now_ns;
                self.core.mappings.add_dirty(now_ns, self.arc());
            }
        }
        let _before = self.page(id).set_dirty(sectors, REFERENCED);
    }

    /// Takes the marks of a page that is no longer dirty. The caller drops what it gets without the lock.
    fn note_clean(&self, state: &mut State, index: PageIndex) -> Option<Arc<AddressSpace>> {
        let _io = state.tree.clear_mark(index, Mark::ToWrite);
        let _io = state.tree.clear_mark(index, Mark::ToSync);
        if !state.tree.clear_mark(index, Mark::Dirty) {
            return None;
        }
        let _before = self.core.dirty_pages.fetch_sub(1, Ordering::SeqCst);
        state.dirty -= 1;
        if state.dirty > 0 {
            return None;
        }
        self.core.mappings.remove_dirty(state.dirtied_when_ns, self.id)
    }

    /// Moves every dirty page of byte `range` to the io set of `mode`, at one instant; returns how many
    /// were not in it yet. Linux 2.6.0: `list_splice_init(&mapping->dirty_pages, &mapping->io_pages)`.
    pub fn splice(&self, range: &Range<u64>, mode: SyncMode) -> usize {
        self.lock().tree.copy_mark(pages_touched(range), Mark::Dirty, mode.mark())
    }

    /// True when an earlier cleaning walk left pages in io.
    pub fn has_leftovers(&self) -> bool {
        self.lock().tree.next(0..u64::MAX, Mark::ToWrite).is_some()
    }

    /// The first page of `range` with one of `marks`, pinned.
    pub(crate) fn next_marked(
        &self,
        range: Range<u64>,
        marks: impl Into<Marks>,
    ) -> Option<PagePin<'_>> {
        let state = self.lock();
        let (index, id) = state.tree.next(range, marks)?;
        let _word = self.page(id).add_pin();
        Some(PagePin::new(self, id, index))
    }

    /// How many neighbours from `index` on are in the io sets: at most `most`.
    pub(crate) fn io_run(&self, index: PageIndex, marks: Marks, most: u64) -> u64 {
        let state = self.lock();
        let in_run = |n: &u64| {
            state.tree.next(*n..*n + 1, marks).is_some()
        };
        (index.0..index.0.saturating_add(most)).take_while(in_run).count() as u64
    }

    /// Takes a page that a cleaning walk passes over out of the cleaning callers' io set.
    pub(crate) fn pass_over(&self, index: PageIndex) {
        let _was = self.lock().tree.clear_mark(index, Mark::ToWrite);
    }

    /// Puts a locked page under writeback: takes `sectors` from dirty, the page from io, and enters it in
    /// the table of writes in flight under `number`, all at one instant. A fresh number is drawn when
    /// there is none. Linux: `folio_clear_dirty_for_io()` and `__folio_start_writeback()`.
    pub(crate) fn start_writeback(
        &self,
        page: &PageLock<'_>,
        sectors: SectorMask,
        sample: bool,
        number: &mut Option<u64>,
    ) -> Result<Started, Start> {
        let mut state = self.lock();
        let start = self.page(page.id()).start_writeback(sectors, sample);
        let Start::Started { before, still_dirty, own_frame } = start else { return Err(start) };
        let mut freed = None;
        let index = page.index();
        if still_dirty {
            let _io = state.tree.clear_mark(index, Mark::ToWrite);
            let _io = state.tree.clear_mark(index, Mark::ToSync);
        } else {
            freed = self.note_clean(&mut state, index);
            state.failed -= usize::from(before.has(FAILED));
        }
        let new = state.tree.set_mark(index, Mark::Writeback);
        assert!(new, "one write of a page at a time");
        state.writeback += 1;
        let _before = self.core.writeback_pages.fetch_add(1, Ordering::SeqCst);
        state.enter_table(number, index);
        let frame = self.page(page.id()).frame();
        self.core.pool.arena().pin(frame);
        let started = Started { own_frame, frame, size: self.size() };
        drop(state);
        drop(freed);
        Ok(started)
    }

    /// Gives an entered, SHARED page `fresh` with the same bytes. The caller holds COPYING, which ends with
    /// SHARED. The frame moves under the mapping lock, so that starting I/O can tell which one it got.
    pub(crate) fn replace_shared_frame(&self, id: PageId, fresh: FrameId) {
        let (page, pool) = (self.page(id), &self.core.pool);
        pool.arena().copy(page.frame(), fresh);
        let state = self.lock();
        let old = page.replace_frame(fresh);
        let left = page.clear(COPYING | SHARED);
        drop(state);
        pool.settle(id, left);
        pool.unpin_frame(old);
    }

    /// Clears the dirty bits of a locked page that lie in blocks wholly beyond the file's end, which no write
    /// will ever take; returns what is dirty still. A page that is clean then leaves dirty and io.
    /// Linux: `block_write_full_folio()` and `folio_cancel_dirty()`.
    pub(crate) fn cancel_dirty_beyond_end(&self, page: &PageLock<'_>) -> SectorMask {
        let state = self.lock();
        let end = self.block_size.start_of(self.block_size.block_after(self.size()));
        let inside = part_in_page(&(0..end), page.index());
        let beyond = SectorMask::ALL.without(SectorMask::of_bytes(inside));
        self.cancel_locked(state, page, beyond)
    }

    /// Clears dirty bits of a locked page; returns what is dirty still.
    pub(crate) fn cancel_dirty(&self, page: &PageLock<'_>, sectors: SectorMask) -> SectorMask {
        self.cancel_locked(self.lock(), page, sectors)
    }

    fn cancel_locked(
        &self,
        mut state: MutexGuard<'_, State>,
        page: &PageLock<'_>,
        sectors: SectorMask,
    ) -> SectorMask {
        let before = self.page(page.id()).clear_dirty(sectors);
        let rest = before.dirty().without(sectors);
        let mut freed = None;
        if rest.is_empty() && !before.has(FROZEN) {
            freed = self.note_clean(&mut state, page.index());
            if before.has(FAILED) {
                self.page(page.id()).reset(FAILED);
                state.failed -= 1;
            }
        }
        drop(state);
        drop(freed);
        rest
    }

    /// Records that dirty blocks of a locked page could not be written now: the error, and FAILED.
    pub(crate) fn note_failed(&self, page: &PageLock<'_>, errno: Errno) {
        self.record_error(errno);
        let mut state = self.lock();
        let word = self.page(page.id()).word();
        if !word.dirty().is_empty() && !word.has(FAILED | FROZEN) {
            let _now = self.page(page.id()).set(FAILED);
            state.failed += 1;
        }
        let _io = state.tree.clear_mark(page.index(), Mark::ToWrite);
        let _io = state.tree.clear_mark(page.index(), Mark::ToSync);
    }

    /// A write error goes here before it goes anywhere else.
    pub(crate) fn record_error(&self, errno: Errno) {
        self.errors.set(errno);
        self.dev.errors.set(errno);
        self.core.stats.write_errors.add(1);
        self.core.mappings.keep_for_error(self.arc());
    }

    /// Tells `cursor` of an error it was not told of. Once nobody is left to be told, the mapping no longer
    /// has to live for it.
    pub(crate) fn check_error(&self, cursor: &Cursor) -> Option<Errno> {
        let told = self.errors.check_and_advance(cursor);
        if told.is_some() && !self.errors.has_unseen() {
            drop(self.core.mappings.release_for_error(self.id));
        }
        told
    }

    /// Ends the writes of `ended` pages, whose device write has number `at`, and takes entry `number` out of
    /// the table of writes in flight. Errors were recorded before. Linux: `folio_end_writeback()`.
    pub(crate) fn end_writeback(&self, ended: &[Ended], number: Option<u64>, at: u64) {
        let flushed = self.dev.flushed();
        let _before = self.last_write.fetch_max(at, Ordering::SeqCst);
        let now_ns = clock::now_ns();
        let mut left = Vec::with_capacity(ended.len());
        let mut state = self.lock();
        for one in ended {
            left.push((one.page, self.end_page(&mut state, one, at, flushed, now_ns)));
        }
        if let Some(number) = number {
            state.in_flight.retain(|entry| entry.number != number);
        }
        drop(state);
        left.into_iter().for_each(|(id, left)| self.core.pool.settle(id, left));
        self.changed.notify();
        self.core.pool.memory.notify();
    }

    fn end_page(
        &self,
        state: &mut State,
        one: &Ended,
        at: u64,
        flushed: u64,
        now_ns: u64,
    ) -> crate::page::Left {
        let page = self.page(one.page);
        page.note_written(one.sectors.without(one.failed), at, flushed);
        if !page.word().has(FROZEN) {
            let had = state.tree.clear_mark(one.index, Mark::Writeback);
            assert!(had, "a page under writeback has the mark");
            state.writeback -= 1;
            let _before = self.core.writeback_pages.fetch_sub(1, Ordering::SeqCst);
            if !one.failed.is_empty() {
                self.note_dirty(state, one.page, one.index, one.failed, now_ns);
                state.failed += usize::from(!page.word().has(FAILED));
            }
        }
        page.end_writeback(one.failed).1
    }

    /// Waits until no write of a page of byte `range` that was in flight at the call is left. Writes begun
    /// later are not waited for.
    pub(crate) fn wait_for_writes(&self, range: &Range<u64>) {
        let pages = pages_touched(range);
        let upto = self.lock().next_number;
        loop {
            let ticket = self.changed.ticket();
            let state = self.lock();
            let busy = state.in_flight.iter().any(|entry| {
                entry.number < upto && overlap(&entry.pages, &pages)
            });
            drop(state);
            if !busy {
                return;
            }
            self.changed.wait(ticket);
        }
    }

    /// Begins the removal of `pages`: nobody inserts a page there, or lets the size grow there, before
    /// [`end_removal`](Self::end_removal). Waits for an overlapping removal. Sets the size if given.
    pub(crate) fn begin_removal(&self, pages: &Range<u64>, size: Option<u64>) {
        loop {
            let ticket = self.changed.ticket();
            let mut state = self.lock();
            if !state.removals.iter().any(|other| overlap(other, pages)) {
                state.removals.push(pages.clone());
                if let Some(size) = size {
                    self.size.store(size, Ordering::SeqCst);
                }
                return;
            }
            drop(state);
            self.changed.wait(ticket);
        }
    }

    /// Ends a removal.
    pub(crate) fn end_removal(&self, pages: &Range<u64>) {
        let mut state = self.lock();
        let at = state.removals.iter().position(|other| other == pages).expect("it had begun");
        let _ended = state.removals.swap_remove(at);
        drop(state);
        self.changed.notify();
    }

    /// True while page `index` is in a range that is being removed.
    pub(crate) fn is_removing(&self, index: PageIndex) -> bool {
        self.lock().removing(index)
    }

    /// Waits until page `index` is in no range that is being removed.
    pub(crate) fn wait_for_removal(&self, index: PageIndex) {
        loop {
            let ticket = self.changed.ticket();
            if !self.lock().removing(index) {
                return;
            }
            self.changed.wait(ticket);
        }
    }

    /// Lets the size grow to `size`, if it is smaller and nothing is being removed there.
    pub(crate) fn try_grow(&self, size: u64) -> bool {
        let state = self.lock();
        let fits = size <= self.size() || !state.removing(PageIndex::of(size - 1));
        if fits && size > self.size() {
            self.size.store(size, Ordering::SeqCst);
        }
        fits
    }

    /// Takes a locked page out of the mapping. What was dirty in it is nobody's any more; who is in it
    /// notices. Linux: `filemap_remove_folio()` after `folio_cancel_dirty()`.
    pub(crate) fn detach(&self, page: &PageLock<'_>) {
        let index = page.index();
        let mut state = self.lock();
        if self.page(page.id()).word().has(FROZEN) {
            return;
        }
        let in_flight = state.tree.has_mark(index, Mark::Writeback);
        let freed = self.note_clean(&mut state, index);
        let (before, left) = self.page(page.id()).detach();
        state.failed -= usize::from(before.has(FAILED));
        state.writeback -= usize::from(in_flight);
        let _before =
            self.core.writeback_pages.fetch_sub(usize::from(in_flight), Ordering::SeqCst);
        state.tree.remove(index);
        drop(state);
        drop(freed);
        self.core.pool.settle(page.id(), left);
    }

    /// Takes a locked page out of the mapping if it is clean and nobody else holds it.
    pub(crate) fn detach_if_clean(&self, page: &PageLock<'_>) -> bool {
        let mut state = self.lock();
        let gone = page.is_detached();
        if !gone && self.page(page.id()).try_detach_clean() {
            state.tree.remove(page.index());
            return true;
        }
        gone
    }

    /// Sets the size, for whoever removes the range of the old end.
    pub(crate) fn set_size_while_removing(&self, size: u64) {
        let state = self.lock();
        assert!(state.removing(PageIndex::of(size)), "the caller removes the range");
        self.size.store(size, Ordering::SeqCst);
    }

    /// Frees the page at `index` if nobody needs it and its bytes are durable (protocol 6).
    /// Linux: `__remove_mapping()`, mm/vmscan.c.
    pub(crate) fn evict(&self, index: PageIndex, id: PageId) -> Evicted {
        let mut state = self.lock();
        if state.tree.get(index) != Some(id) {
            return Evicted::No;
        }
        let page = self.page(id);
        if page.written().0 > self.dev.flushed() {
            let idle = page.word().dirty().is_empty();
            return if idle { Evicted::NeedsFlush } else { Evicted::No };
        }
        if !page.try_freeze() {
            return Evicted::No;
        }
        state.tree.remove(index);
        drop(state);
        self.core.pool.free(id);
        Evicted::Yes
    }

    /// Gives up every page, dirty or not: the cache goes away, and said what it could not write.
    pub(crate) fn abandon(&self) {
        let may_wait = MayWait::no_bio_held();
        let mut from = 0;
        while let Some(pin) = self.next_marked(from..u64::MAX, Mark::Present) {
            from = pin.index().0 + 1;
            self.detach(&pin.lock(&may_wait));
        }
    }

    /// Makes what was written after the last good flush dirty again, because a flush failed; records the
    /// error when there was anything. Returns how many pages.
    pub(crate) fn redirty_unflushed(&self, errno: Errno) -> usize {
        let flushed = self.dev.flushed();
        if self.last_write.load(Ordering::SeqCst) <= flushed {
            return 0;
        }
        self.record_error(errno);
        let now_ns = clock::now_ns();
        let mut again = 0;
        let mut from = 0;
        let mut state = self.lock();
        while let Some((index, id)) = state.tree.next(from..u64::MAX, Mark::Present) {
            from = index.0 + 1;
            let page = self.page(id);
            let (at, sectors) = page.written();
            if at > flushed && !sectors.is_empty() {
                self.note_dirty(&mut state, id, index, sectors, now_ns);
                state.failed += usize::from(!page.word().has(FAILED));
                let _now = page.set(FAILED);
                again += 1;
            }
        }
        again
    }

    /// Copies the bytes of a page under writeback, into which a store is in progress, to `frame`.
    pub(crate) fn sample(&self, page: &PageLock<'_>, frame: FrameId) {
        self.sample_with(page, |from| self.core.pool.arena().copy(from, frame));
    }

    /// As [`sample`](Self::sample), to ordinary memory.
    pub(crate) fn sample_bytes(&self, page: &PageLock<'_>, to: &mut [u8]) {
        self.sample_with(page, |from| self.core.pool.arena().read(from, 0, to));
    }

    fn sample_with(&self, page: &PageLock<'_>, mut copy: impl FnMut(FrameId)) {
        let page_of = self.page(page.id());
        loop {
            let Some(seen) = page_of.begin_read(self.id, page.index()) else { return };
            copy(seen.frame);
            if page_of.end_read(seen) {
                return;
            }
        }
    }

    /// Forgets what the device's own mapping has of blocks that were just allocated: their old content, be
    /// it clean, dirty or on its way, must not reach a reader or the device after the new owner's.
    /// Linux: `clean_bdev_bh_alias()`.
    pub(crate) fn forget_alias(&self, extent: &Extent, may_wait: &MayWait<'_>) {
        let (Some(alias), Some(first)) = (&self.ops.alias, extent.device_block(extent.first)) else {
            return;
        };
        let start = self.block_size.sector_of(first).0 * SECTOR_SIZE as u64;
        let bytes = start..start + extent.count * self.block_size.bytes();
        alias.forget(&bytes, may_wait);
    }

    /// Drops what is cached of byte `range`, dirty or not, sector by sector; waits for writes of it.
    pub(crate) fn forget(&self, range: &Range<u64>, may_wait: &MayWait<'_>) {
        let mut pages = pages_touched(range);
        while let Some(pin) = self.next_marked(pages.clone(), Mark::Present) {
            pages.start = pin.index().0 + 1;
            let part = part_in_page(range, pin.index());
            let page = pin.lock(may_wait);
            if page.is_detached() {
                continue;
            }
            let gone = SectorMask::of_bytes(part);
            let dirty = self.cancel_dirty(&page, gone);
            if dirty.is_empty() {
                self.detach(&page);
            } else {
                self.page(page.id()).clear_uptodate(gone);
            }
        }
        self.wait_for_writes(range);
    }

    /// Makes the page's own table entry, before it leaves another's bio for its own. Returns its number.
    pub(crate) fn enter_table(&self, index: PageIndex) -> u64 {
        let mut number = None;
        self.lock().enter_table(&mut number, index);
        number.expect("drawn by enter_table")
    }

    /// Notes that a write past the cache ended: the next sync flushes the device for it.
    pub(crate) fn note_direct_write(&self) {
        let at = self.dev.number_write(false);
        let _before = self.last_write.fetch_max(at, Ordering::SeqCst);
    }

    /// The number of the last write of this file on its device.
    pub(crate) fn last_write(&self) -> u64 {
        self.last_write.load(Ordering::SeqCst)
    }

    /// The byte ranges inside `range` whose last write failed and that are dirty still, in ascending
    /// order, cut at the file's size.
    pub fn failed_ranges(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut found: Vec<Range<u64>> = Vec::new();
        let state = self.lock();
        let mut pages = pages_touched(range);
        while state.failed > 0 {
            let Some((index, id)) = state.tree.next(pages.clone(), Mark::Dirty) else { break };
            pages.start = index.0 + 1;
            let word = self.page(id).word();
            if !word.has(FAILED) {
                continue;
            }
            for run in word.dirty().runs() {
                let start = (index.start() + run.start as u64).max(range.start);
                let end = (index.start() + run.end as u64).min(range.end).min(self.size());
                match found.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ if start < end => found.push(start..end),
                    _ => {}
                }
            }
        }
        found
    }

    /// How many pages are in each of the four sets now. Walks the whole tree.
    pub fn set_counts(&self) -> SetCounts {
        let state = self.lock();
        let all = 0..u64::MAX;
        let (dirty, writeback) = (Marks::from(Mark::Dirty), Marks::from(Mark::Writeback));
        let io = state.tree.count(all.clone(), Marks::IO, None);
        let only_dirty = state.tree.count(all.clone(), dirty, Some(Marks::IO));
        let locked = state.tree.count(all.clone(), writeback, Some(Marks::IO | dirty));
        let busy = Some(Marks::IO | dirty | writeback);
        let clean = state.tree.count(all.clone(), Mark::Present.into(), busy);
        assert_eq!(state.tree.count(all.clone(), dirty, None), state.dirty, "invariant 4");
        assert_eq!(state.tree.count(all, writeback, None), state.writeback, "invariant 4");
        SetCounts { clean, dirty: only_dirty, io, locked }
    }

    /// The dirty pages of byte `range`, ascending.
    pub fn dirty_pages(&self, range: &Range<u64>) -> Vec<PageIndex> {
        self.marked(range, Mark::Dirty)
    }

    /// The pages of byte `range` under writeback, ascending.
    pub fn writeback_pages(&self, range: &Range<u64>) -> Vec<PageIndex> {
        self.marked(range, Mark::Writeback)
    }

    fn marked(&self, range: &Range<u64>, mark: Mark) -> Vec<PageIndex> {
        let state = self.lock();
        let mut pages = pages_touched(range);
        let next = || {
            let (index, _) = state.tree.next(pages.clone(), mark)?;
            pages.start = index.0 + 1;
            Some(index)
        };
        std::iter::from_fn(next).collect()
    }

    /// When the file, clean before, was first dirtied, in clock nanoseconds; `None` while it is clean.
    pub fn dirtied_when_ns(&self) -> Option<u64> {
        let state = self.lock();
        (state.dirty > 0).then_some(state.dirtied_when_ns)
    }

    /// Pages that are dirty now.
    pub fn dirty_count(&self) -> usize {
        self.lock().dirty
    }

    /// True when the file has nothing to write, nothing in flight and no error that nobody was told of.
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.lock();
        state.dirty == 0 && state.in_flight.is_empty() && !self.errors.has_unseen()
    }
}

impl State {
    fn removing(&self, index: PageIndex) -> bool {
        self.removals.iter().any(|range| range.contains(&index.0))
    }

    /// Adds page `index` to the table entry `number`, drawing a number if there is none (invariant 3).
    fn enter_table(&mut self, number: &mut Option<u64>, index: PageIndex) {
        let page = index.0..index.0 + 1;
        let Some(number) = *number else {
            *number = Some(self.next_number);
            self.in_flight.push(InFlight { number: self.next_number, pages: page });
            self.next_number += 1;
            return;
        };
        let entry = self.in_flight.iter_mut().find(|entry| entry.number == number);
        let pages = &mut entry.expect("an entry lives until its bio ended").pages;
        *pages = pages.start.min(page.start)..pages.end.max(page.end);
    }
}

impl Drop for AddressSpace {
    /// The last reference is gone: no open, no dirty page, no write in flight is left to hold one.
    fn drop(&mut self) {
        self.core.mappings.forget(self.id);
        let mut state = self.state.lock();
        assert!(state.dirty == 0, "a dirty mapping is kept alive by its cache");
        while let Some((index, id)) = state.tree.next(0..u64::MAX, Mark::Present) {
            let (_, left) = self.core.pool.page(id).detach();
            state.tree.remove(index);
            self.core.pool.settle(id, left);
        }
    }
}

impl std::fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddressSpace").field("id", &self.id).field("size", &self.size()).finish()
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// The sectors that `len` bytes from `offset` of a page touch; `len` is not zero.
#[inline]
fn sectors_of(offset: usize, len: usize) -> SectorMask {
    let start = offset / SECTOR_SIZE * SECTOR_SIZE;
    let end = (offset + len).div_ceil(SECTOR_SIZE) * SECTOR_SIZE;
    SectorMask::of_bytes(start..end)
}
