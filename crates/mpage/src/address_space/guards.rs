//! Holding a page: so that it stays, so that nobody else maps it, or to store into it.

use mpage_mem::Purpose;

use super::{AddressSpace, Dirtied};
use crate::may_wait::MayWait;
use crate::page::{COPYING, FILLING, FROZEN, LOCKED, PageId, SHARED, Word};
use crate::units::{PageIndex, SectorMask};

/// Keeps a page in its place, or at least its memory its own: a detached page stays until the last
/// pin.
#[derive(Debug)]
pub(crate) struct PagePin<'a> {
    space: &'a AddressSpace,
    id: PageId,
    index: PageIndex,
}

impl<'a> PagePin<'a> {
    /// Takes over a pin that was added to the page.
    pub(super) fn new(space: &'a AddressSpace, id: PageId, index: PageIndex) -> PagePin<'a> {
        PagePin { space, id, index }
    }

    pub(crate) fn id(&self) -> PageId {
        self.id
    }

    pub(crate) fn index(&self) -> PageIndex {
        self.index
    }

    /// The page's word now.
    pub(crate) fn word(&self) -> Word {
        self.space.page(self.id).word()
    }

    /// Keeps the pin beyond the guard; [`adopt`](Self::adopt) takes it back.
    pub(crate) fn leak(self) -> (PageId, PageIndex) {
        let held = (self.id, self.index);
        std::mem::forget(self);
        held
    }

    /// Takes back a leaked pin.
    pub(crate) fn adopt(space: &'a AddressSpace, id: PageId, index: PageIndex) -> PagePin<'a> {
        PagePin { space, id, index }
    }

    /// Takes the page lock if it is free.
    pub(crate) fn try_lock(self) -> Result<PageLock<'a>, PagePin<'a>> {
        if self.space.page(self.id).try_set(LOCKED, 0) {
            Ok(PageLock { pin: self })
        } else {
            Err(self)
        }
    }

    /// Waits for the page lock. Linux: `folio_lock()`.
    pub(crate) fn lock(self, _: &MayWait<'_>) -> PageLock<'a> {
        let mut pin = self;
        loop {
            match pin.try_lock() {
                Ok(locked) => return locked,
                Err(back) => pin = back,
            }
            pin.space.core.pool.wait_until(pin.id, |word| !word.has(LOCKED));
        }
    }

    /// Waits until `done` holds of the page's word.
    pub(crate) fn wait_until(&self, _: &MayWait<'_>, done: impl Fn(Word) -> bool) {
        self.space.core.pool.wait_until(self.id, done);
    }
}

impl Drop for PagePin<'_> {
    fn drop(&mut self) {
        self.space.core.pool.unpin(self.id);
    }
}

/// The page lock: nobody else maps, truncates or invalidates the page. Linux: `PG_locked`.
#[derive(Debug)]
pub(crate) struct PageLock<'a> {
    pin: PagePin<'a>,
}

impl<'a> PageLock<'a> {
    /// Gives up the lock and keeps the pin.
    pub(crate) fn unlock(self) -> PagePin<'a> {
        let (space, id, index) = (self.pin.space, self.pin.id, self.pin.index);
        let _word = space.page(id).add_pin();
        PagePin::new(space, id, index)
    }

    pub(crate) fn id(&self) -> PageId {
        self.pin.id
    }

    pub(crate) fn index(&self) -> PageIndex {
        self.pin.index
    }

    pub(crate) fn word(&self) -> Word {
        self.pin.word()
    }

    /// True when the page left its mapping before it was locked.
    pub(crate) fn is_detached(&self) -> bool {
        self.word().has(FROZEN)
    }
}

impl Drop for PageLock<'_> {
    fn drop(&mut self) {
        let left = self.pin.space.page(self.pin.id).clear(LOCKED);
        self.pin.space.core.pool.settle(self.pin.id, left);
    }
}

/// A store in progress. Ends when dropped, leaving the page as it was found unless it was marked
/// dirty.
#[derive(Debug)]
pub(crate) struct Store<'a> {
    space: &'a AddressSpace,
    id: PageId,
    index: PageIndex,
    entered: Word,
}

/// Every frame is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoFrame;

impl<'a> Store<'a> {
    /// Takes over a store that was added to the page's word, which then was `entered`.
    #[inline]
    pub(super) fn new(
        space: &'a AddressSpace,
        id: PageId,
        index: PageIndex,
        entered: Word,
    ) -> Store<'a> {
        Store { space, id, index, entered }
    }

    /// Enters a pinned page; `None` when it left its mapping.
    pub(crate) fn enter(pin: &PagePin<'a>) -> Option<Store<'a>> {
        let entered = pin.space.page(pin.id).add_store();
        let store = Store { space: pin.space, id: pin.id, index: pin.index, entered };
        (!entered.has(FROZEN)).then_some(store)
    }

    pub(crate) fn id(&self) -> PageId {
        self.id
    }

    pub(crate) fn index(&self) -> PageIndex {
        self.index
    }

    /// The page's word on entry. Only SHARED, COPYING and FILLING of it may have been cleared
    /// since.
    #[inline]
    pub(crate) fn entered(&self) -> Word {
        self.entered
    }

    /// Makes the page's frame one that no write in flight reads (invariant 1 of `page.rs`), by
    /// copying it if need be. Waits for the length of somebody else's copy, or for a read of the
    /// page.
    #[inline]
    pub(crate) fn make_writable(&self) -> Result<(), NoFrame> {
        if self.entered.has(SHARED | COPYING) { self.copy_on_write() } else { Ok(()) }
    }

    #[cold]
    fn copy_on_write(&self) -> Result<(), NoFrame> {
        let pool = &self.space.core.pool;
        let page = pool.page(self.id);
        loop {
            pool.wait_until(self.id, |word| !word.has(COPYING | FILLING));
            if !page.word().has(SHARED | COPYING) {
                return Ok(());
            }
            let neighbour = self.space.neighbour(self.index);
            let frame = pool.alloc_frame(Purpose::Cache, self.index, neighbour).ok_or(NoFrame)?;
            if !page.try_set(COPYING, FILLING) {
                pool.unpin_frame(frame);
                continue;
            }
            if page.word().has(SHARED) {
                self.space.core.stats.copies_on_write.add(1);
                self.space.replace_shared_frame(self.id, frame);
            } else {
                pool.settle(self.id, page.clear(COPYING));
                pool.unpin_frame(frame);
            }
            return Ok(());
        }
    }

    /// Copies bytes into the page; the frame is writable.
    #[inline]
    pub(crate) fn write(&self, offset: usize, from: &[u8]) {
        let frame = self.space.page(self.id).frame();
        self.space.core.pool.arena().write(frame, offset, from);
    }

    /// Zeroes bytes of the page; the frame is writable.
    pub(crate) fn zero(&self, offset: usize, len: usize) {
        let frame = self.space.page(self.id).frame();
        self.space.core.pool.arena().zero(frame, offset, len);
    }

    /// Ends a store into `sectors` with the page dirty, and the size at least `end`.
    #[inline]
    pub(crate) fn finish(self, sectors: SectorMask, end: u64) -> Dirtied {
        let page = self.space.page(self.id);
        if end <= self.space.size()
            && let Some(left) = page.drop_store_into_dirty(sectors)
        {
            self.space.core.pool.settle(self.id, left);
            std::mem::forget(self);
            return Dirtied::Done;
        }
        self.space.mark_dirty(&self, sectors, end)
    }
}

impl Drop for Store<'_> {
    #[inline]
    fn drop(&mut self) {
        let left = self.space.page(self.id).drop_store();
        self.space.core.pool.settle(self.id, left);
    }
}
