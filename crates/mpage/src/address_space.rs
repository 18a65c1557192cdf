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
//! A splice moves every dirty page to io at one instant; what is dirtied later is in dirty until
//! somebody splices again. That, and ascending walks, is why a walk ends (see `mpage.rs`).
//!
//! Invariants, under the mapping lock:
//! 1. A page whose dirty bits are not all clear has the mark Dirty.
//! 2. A page with the mark ToWrite or ToSync has the mark Dirty.
//! 3. A page whose word has WRITEBACK is in the range of a table entry of a write in flight, from
//!    the exchange that set it until its result has been recorded.
//! 4. `dirty`, `writeback` and `failed` count the marks Dirty and Writeback and the flag FAILED.
//! 5. The size is lowered, and its removal registered, before a page of the removed range goes.
//! 6. What a page has behind the size is zeros, but for stores under way: one that is to make the
//!    file longer is in `growing`, and removals of its page wait for it, so that it does.
//!
//! Linux: `struct address_space`, include/linux/fs.h; the four lists are those of 2.5.

use std::ops::Range;
use std::sync::{Arc, Weak};

use mpage_block::Errno;
use mpage_locks::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use mpage_locks::{Mutex, MutexGuard};
use mpage_mem::FrameId;

use crate::backing_dev::BackingDev;
use crate::core::Core;
use crate::errseq::{Cursor, ErrSeq};
use crate::event::Event;
use crate::get_block::{Extent, GetBlock};
use crate::may_wait::MayWait;
use crate::page::{
    COPYING, DURABLE, FAILED, FROZEN, Page, PageId, REFERENCED, SHARED, Start, Word,
};
use crate::page_tree::{Mark, Marks, NoNodes, PageTree, TreeReader};
use crate::turn::Turn;
use crate::units::{
    BlockSize, FILE_SIZE_MAX, FileBlock, PageIndex, SECTOR_SIZE, SectorMask, pages_touched,
    part_in_page,
};
use crate::writepage::WritePage;
use crate::zeroed::Zeroed;

mod guards;
mod observe;
mod removal;
mod writeback;
pub(crate) use guards::{PageLock, PagePin, Store};
pub(crate) use removal::RemovalAt;

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
    size_max: u64,
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
    /// What becomes of bytes whose write failed: a [`FailurePolicy`] by number.
    on_failure: AtomicU32,
    /// A cleaning walk is under way.
    cleaning: AtomicBool,
    /// Pages that may be dirty or in flight before writers of this file wait.
    unwritten_pages_max: AtomicUsize,
    /// What removals zeroed on the device and no flush covers yet.
    pub(crate) zeroed: Zeroed,
    /// What lives as long as the mapping: the flusher of a device it has for itself.
    _keeps: Option<Keeps>,
}

/// Something a mapping keeps alive.
pub(crate) type Keeps = Box<dyn std::any::Any + Send + Sync>;

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
    removals: Vec<(u64, Range<u64>)>,
    /// Removals that began so far.
    removals_begun: u64,
    /// Pages of stores that may let the file grow.
    growing: Vec<PageIndex>,
    dirty: usize,
    writeback: usize,
    failed: usize,
    /// Zeros of it are lost, so it counts as dirty.
    lost_zeros: bool,
    dirtied_when_ns: u64,
}

#[derive(Debug)]
struct InFlight {
    number: u64,
    /// The number of the oldest entry any of its pages was in.
    since: u64,
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

/// What becomes of bytes whose write failed. In each case every open is told of the error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailurePolicy {
    /// They stay in the cache, dirty. The flusher tries them again, with pauses, and so does every
    /// sync.
    #[default]
    Keep = 0,
    /// They stay in the cache, dirty. Only syncs of their range try them again.
    Quarantine = 1,
    /// They are given up: the next read brings what the device has.
    Drop = 2,
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
    /// How many flushes of the device had failed when the write began.
    pub(crate) began: u64,
}

/// A page under writeback.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Started {
    /// The I/O may read the page's own frame; else a store is in progress, and the caller samples
    /// it.
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
    /// The file was cut meanwhile, and what was stored behind its end is being zeroed: wait and
    /// store again.
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
        keeps: Option<Keeps>,
    ) -> Arc<AddressSpace> {
        let tree = PageTree::new(Arc::clone(&core.nodes));
        let id = core.next_id();
        let size_max = ops.get_block.as_ref().map_or(FILE_SIZE_MAX, |map| map.size_max());
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
                size_max: size_max.min(FILE_SIZE_MAX),
                state: Mutex::new(State {
                    tree,
                    in_flight: Vec::new(),
                    next_number: 1,
                    removals: Vec::new(),
                    growing: Vec::new(),
                    removals_begun: 0,
                    dirty: 0,
                    writeback: 0,
                    failed: 0,
                    lost_zeros: false,
                    dirtied_when_ns: 0,
                }),
                changed: Event::default(),
                errors: ErrSeq::new(),
                turn: Turn::default(),
                writeback_index: AtomicU64::new(0),
                last_write: AtomicU64::new(0),
                on_failure: AtomicU32::new(FailurePolicy::Keep as u32),
                cleaning: AtomicBool::new(false),
                unwritten_pages_max: AtomicUsize::new(usize::MAX),
                zeroed: Zeroed::default(),
                _keeps: keeps,
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

    /// The largest size the file can have, in bytes.
    pub(crate) fn size_max(&self) -> u64 {
        self.size_max
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

    /// Copies bytes of page `index` from `offset` on, if they are cached; takes nothing and leaves
    /// the page as it is. Returns the page's word; `None` when a part is not there.
    #[inline]
    pub(crate) fn read_cached(
        &self,
        index: PageIndex,
        offset: usize,
        to: &mut [u8],
    ) -> Option<Word> {
        let wanted = sectors_of(offset, to.len());
        let id = self.pages.lookup(index)?;
        let page = self.core.pool.get(id)?;
        self.core.pool.touch_likely_frame(id, offset);
        loop {
            let seen = page.begin_read(self.id, index)?;
            if !seen.word.uptodate().contains(wanted) {
                return None;
            }
            self.core.pool.arena().read(seen.frame, offset, to);
            if page.end_read(seen) {
                return Some(seen.word);
            }
        }
    }

    /// The page at `index`, not held: it may be another's at any moment, so this is for flags that
    /// only inform.
    pub(crate) fn peek(&self, index: PageIndex) -> Option<&Page> {
        let page = self.core.pool.get(self.pages.lookup(index)?)?;
        page.is(self.id, index).then_some(page)
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

    /// A page on which the caller has a pin, entered for a store; `None` when it left the mapping.
    pub(crate) fn enter_pinned(&self, id: PageId, index: PageIndex) -> Option<Store<'_>> {
        let word = self.page(id).add_store();
        let store = Store::new(self, id, index, word);
        (!word.has(FROZEN)).then_some(store)
    }

    /// A page of the same run of frames as `index`, to place a new frame beside.
    pub(crate) fn neighbour(&self, index: PageIndex) -> Option<PageId> {
        let before = index.0.checked_sub(1).and_then(|n| self.pages.lookup(PageIndex(n)));
        before.or_else(|| self.pages.lookup(PageIndex(index.0 ^ 1)))
    }

    /// Puts a page, which the caller took from the pool with its pin, at `index`. `by_remover`: the
    /// caller is the one who removes the range.
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

    /// Marks `sectors` of an entered page dirty and lets the size reach `end` (protocol 3,
    /// invariant 1). Linux: `folio_mark_dirty()`, mm/page-writeback.c, and `i_size_write()`.
    pub(crate) fn mark_dirty(&self, store: &Store<'_>, sectors: SectorMask, end: u64) -> Dirtied {
        let now_ns = self.core.clock.now_ns();
        let mut state = self.lock();
        let page = self.page(store.id());
        if page.word().has(FROZEN) {
            return Dirtied::Detached;
        }
        self.note_dirty(&mut state, store.id(), store.index(), sectors, now_ns);
        if end > self.size() {
            // A removal that has registered waits for a store that had registered before.
            if state.removing(store.index()) && !state.growing.contains(&store.index()) {
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
            let counted = state.counts_as_dirty();
            state.dirty += 1;
            if !counted {
                self.join_dirty(state, now_ns);
            }
        }
        let _before = self.page(id).set_dirty(sectors, REFERENCED);
    }

    /// Joins the dirty mappings, which their cache keeps alive.
    fn join_dirty(&self, state: &mut State, now_ns: u64) {
        state.dirtied_when_ns = now_ns;
        self.core.mappings.add_dirty(now_ns, self.arc());
    }

    /// Takes the marks of a page that is no longer dirty. The caller drops what it gets without the
    /// lock.
    fn note_clean(&self, state: &mut State, index: PageIndex) -> Option<Arc<AddressSpace>> {
        let _io = state.tree.clear_mark(index, Mark::ToWrite);
        let _io = state.tree.clear_mark(index, Mark::ToSync);
        if !state.tree.clear_mark(index, Mark::Dirty) {
            return None;
        }
        let _before = self.core.dirty_pages.fetch_sub(1, Ordering::SeqCst);
        state.dirty -= 1;
        if state.counts_as_dirty() {
            return None;
        }
        self.core.mappings.remove_dirty(state.dirtied_when_ns, self.id)
    }
}

impl State {
    fn counts_as_dirty(&self) -> bool {
        self.dirty > 0 || self.lost_zeros
    }

    fn removing(&self, index: PageIndex) -> bool {
        self.removals.iter().any(|(_, range)| range.contains(&index.0))
    }

    fn removal_at(&self, index: PageIndex, begun: u64) -> RemovalAt {
        match self.removing(index) {
            true => RemovalAt::UnderWay,
            false if self.removals_begun != begun => RemovalAt::Since,
            false => RemovalAt::None,
        }
    }

    fn grows_in(&self, pages: &Range<u64>) -> bool {
        self.growing.iter().any(|index| pages.contains(&index.0))
    }

    /// Registers `pages` as being removed, unless some of them are.
    fn begin_removal(&mut self, pages: &Range<u64>) -> bool {
        let alone = !self.removals.iter().any(|(_, other)| overlap(other, pages));
        if alone {
            self.removals_begun += 1;
            self.removals.push((self.removals_begun, pages.clone()));
        }
        alone
    }

    /// Adds page `index` to the table entry `number`, drawing a number if there is none (invariant
    /// 3).
    fn enter_table(&mut self, number: &mut Option<u64>, index: PageIndex) {
        let page = index.0..index.0 + 1;
        let Some(number) = *number else {
            *number = Some(self.next_number);
            let since = self.next_number;
            self.in_flight.push(InFlight { number: since, since, pages: page });
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
        let size = self.size();
        let get_block = self.ops.get_block.as_ref().filter(|map| map.size_differs(size));
        if let Some(Err(error)) = get_block.map(|map| map.set_size(size)) {
            // No open is left to tell, and nobody will try again.
            tracing::error!(%error, "a file is closed whose size could not be set");
        }
        let mut state = self.state.lock();
        assert!(!state.counts_as_dirty(), "a dirty mapping is kept alive by its cache");
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
