//! Pages leaving the mapping: removed with their range, evicted, or forgotten.

use super::*;

/// A store that may let the file grow. A removal of its page waits for it, so it is short: what it
/// stores behind the end would stay there, in nobody's file, if the file could not grow any more.
pub(crate) struct Growth<'a> {
    space: &'a AddressSpace,
    index: PageIndex,
}

impl Drop for Growth<'_> {
    fn drop(&mut self) {
        let mut state = self.space.lock();
        let at = state.growing.iter().position(|index| *index == self.index);
        let _ended = state.growing.swap_remove(at.expect("it was registered"));
        let awaited = !state.removals.is_empty();
        drop(state);
        if awaited {
            self.space.changed.notify();
        }
    }
}

/// What removals mean to a store that has entered its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RemovalAt {
    /// Nothing: one that begins now waits for the store, or takes it away.
    None,
    /// There were some, which may have given back the room that was set aside for it.
    Since,
    /// The page is in a range that is being removed: what is stored now could outlive the removal,
    /// or be dropped by it after we said that it was written.
    UnderWay,
}

impl AddressSpace {
    /// Begins the removal of `pages`: nobody inserts a page there, or lets the size grow there,
    /// before [`end_removal`](Self::end_removal). Waits for an overlapping removal, and for stores
    /// that let the size grow there.
    pub(crate) fn begin_removal(&self, pages: &Range<u64>) {
        loop {
            let ticket = self.changed.ticket();
            if self.lock().begin_removal(pages) {
                break;
            }
            self.changed.wait(ticket);
        }
        loop {
            let ticket = self.changed.ticket();
            if !self.lock().grows_in(pages) {
                return;
            }
            self.changed.wait(ticket);
        }
    }

    /// As [`begin_removal`](Self::begin_removal), without waiting; false when it would have to.
    pub(crate) fn try_begin_removal(&self, pages: &Range<u64>) -> bool {
        let mut state = self.lock();
        !state.grows_in(pages) && state.begin_removal(pages)
    }

    /// Ends a removal.
    pub(crate) fn end_removal(&self, pages: &Range<u64>) {
        let mut state = self.lock();
        let at = state.removals.iter().position(|(_, other)| other == pages).expect("it had begun");
        let _ended = state.removals.swap_remove(at);
        drop(state);
        self.changed.notify();
    }

    /// How many removals have begun so far: room that is set aside then for page `index` may be
    /// given back by a later one. `None` while the page is in a range that is being removed.
    pub(crate) fn removals_begun(&self, index: PageIndex) -> Option<u64> {
        let state = self.lock();
        (!state.removing(index)).then_some(state.removals_begun)
    }

    /// What removals mean to a store into page `index`, entered, for which room was set aside when
    /// `begun` had begun.
    pub(crate) fn removal_at(&self, index: PageIndex, begun: u64) -> RemovalAt {
        self.lock().removal_at(index, begun)
    }

    /// As [`removal_at`](Self::removal_at), for a store up to byte `end` of the file. When there is
    /// none, and the file would grow, also what keeps removals away until it has.
    pub(crate) fn begin_growth(
        &self,
        index: PageIndex,
        begun: u64,
        end: u64,
    ) -> (RemovalAt, Option<Growth<'_>>) {
        let mut state = self.lock();
        let removal = state.removal_at(index, begun);
        let grows = removal == RemovalAt::None && end > self.size();
        let growth = grows.then(|| {
            state.growing.push(index);
            Growth { space: self, index }
        });
        (removal, growth)
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

    /// How many removals there were so far; `None` while one is under way.
    pub(crate) fn removals_over(&self) -> Option<u64> {
        let state = self.lock();
        state.removals.is_empty().then_some(state.removals_begun)
    }

    /// Waits until the removals in byte `range` that have begun are at their end.
    pub(crate) fn wait_for_removals(&self, range: &Range<u64>) {
        let pages = pages_touched(range);
        let begun = self.lock().removals_begun;
        loop {
            let ticket = self.changed.ticket();
            let state = self.lock();
            let mut older = state.removals.iter().filter(|(number, _)| *number <= begun);
            if !older.any(|(_, other)| overlap(other, &pages)) {
                return;
            }
            drop(state);
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

    /// Lets the size grow to `size`, for whoever registered the last bytes before it.
    pub(crate) fn grow_while_removing(&self, size: u64) {
        let state = self.lock();
        assert!(state.removing(PageIndex::of(size - 1)), "the caller registered the range");
        if size > self.size() {
            self.size.store(size, Ordering::SeqCst);
        }
    }

    /// Sets the size, for whoever removes the range of the old end.
    pub(crate) fn set_size_while_removing(&self, size: u64) {
        let state = self.lock();
        assert!(state.removing(PageIndex::of(size)), "the caller removes the range");
        self.size.store(size, Ordering::SeqCst);
    }

    /// Takes a locked page out of the mapping. What was dirty in it is nobody's any more; who is in
    /// it notices. Linux: `filemap_remove_folio()` after `folio_cancel_dirty()`.
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
        let _before = self.core.writeback_pages.fetch_sub(usize::from(in_flight), Ordering::SeqCst);
        state.tree.remove(index);
        drop(state);
        drop(freed);
        self.core.pool.settle(page.id(), left);
    }

    /// Takes a locked page out of the mapping if it is clean, durable, and nobody else holds it.
    pub(crate) fn detach_if_clean(&self, page: &PageLock<'_>) -> bool {
        let mut state = self.lock();
        let gone = page.is_detached();
        let durable = self.page(page.id()).written().0 <= self.dev.flushed();
        if !gone && durable && self.page(page.id()).try_detach_clean() {
            state.tree.remove(page.index());
            return true;
        }
        gone
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

    /// Forgets what the device's own mapping has of blocks that were just allocated: their old
    /// content, be it clean, dirty or on its way, must not reach a reader or the device after the
    /// new owner's. Linux: `clean_bdev_bh_alias()`.
    pub(crate) fn forget_alias(&self, extent: &Extent, may_wait: &MayWait<'_>) {
        let (Some(alias), Some(first)) = (&self.ops.alias, extent.device_block(extent.first))
        else {
            return;
        };
        let start = self.block_size.sector_of(first).0 * SECTOR_SIZE as u64;
        let bytes = start..start + extent.count * self.block_size.bytes();
        alias.forget(&bytes, may_wait);
    }

    /// Drops what is cached of byte `range`, dirty or not, sector by sector; waits for writes of
    /// it. One that fails makes its sectors dirty again, so that they are dropped once more.
    pub(crate) fn forget(&self, range: &Range<u64>, may_wait: &MayWait<'_>) {
        loop {
            self.forget_cached(range, may_wait);
            if !self.has_writes_in_flight(range) {
                return;
            }
            self.wait_for_writes(range);
        }
    }

    fn forget_cached(&self, range: &Range<u64>, may_wait: &MayWait<'_>) {
        let mut pages = pages_touched(range);
        while let Some(pin) = self.next_marked(pages.clone(), Mark::Present) {
            pages.start = pin.index().0 + 1;
            let part = part_in_page(range, pin.index());
            let page = pin.lock(may_wait);
            if page.is_detached() {
                continue;
            }
            let gone = SectorMask::of_bytes(part);
            let _dirty = self.cancel_dirty(&page, gone);
            // What else the page has may be on its way to the device, or not be durable there.
            if gone == SectorMask::ALL {
                self.detach(&page);
            } else {
                self.page(page.id()).clear_uptodate(gone);
            }
        }
    }

    /// Gives up every page, dirty or not: the cache goes away, and said what it could not write.
    pub(crate) fn abandon(&self) {
        let may_wait = MayWait::no_bio_held();
        let mut from = 0;
        while let Some(pin) = self.next_marked(from..u64::MAX, Mark::Present) {
            from = pin.index().0 + 1;
            self.detach(&pin.lock(&may_wait));
        }
        self.lock().lost_zeros = false;
    }
}
