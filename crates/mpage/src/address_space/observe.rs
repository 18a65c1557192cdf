//! What can be asked about a mapping.

use super::*;
use crate::units::PAGE_BYTES;

impl AddressSpace {
    /// Lets at most `bytes` of this file be dirty or on their way before writers of it wait. The
    /// cache's own limit holds besides.
    pub fn set_dirty_limit(&self, bytes: u64) {
        let pages = usize::try_from(bytes / PAGE_BYTES).unwrap_or(usize::MAX);
        self.unwritten_pages_max.store(pages.max(1), Ordering::SeqCst);
    }

    /// True while more of this file is dirty or on its way than its limit allows.
    pub(crate) fn is_over_limit(&self) -> bool {
        let limit = self.unwritten_pages_max.load(Ordering::SeqCst);
        if limit == usize::MAX {
            return false;
        }
        let state = self.lock();
        state.dirty + state.writeback > limit
    }

    /// The number of the last write of a page of byte `range` that no flush covers yet; zero when
    /// all that was written is durable.
    pub(crate) fn last_unflushed_write(&self, range: &Range<u64>) -> u64 {
        let state = self.lock();
        let mut pages = pages_touched(range);
        let mut last = 0;
        while let Some((index, id)) = state.tree.next(pages.clone(), Mark::Present) {
            pages.start = index.0 + 1;
            last = last.max(self.page(id).written().0);
        }
        last
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

    /// The first run of pages from byte `offset` on, before `end`, that are dirty or under
    /// writeback.
    pub(crate) fn next_unwritten(&self, offset: u64, end: u64) -> Option<Range<u64>> {
        let state = self.lock();
        let marks = Marks::from(Mark::Dirty) | Marks::from(Mark::Writeback);
        let (first, _) = state.tree.next(pages_touched(&(offset..end)), marks)?;
        let mut last = first;
        while last.end() < end && state.tree.has_mark(PageIndex(last.0 + 1), marks) {
            last = PageIndex(last.0 + 1);
        }
        Some(first.start()..last.end())
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

    /// When the page at `index`, clean before, was first dirtied, in clock nanoseconds; `None`
    /// while it is clean or not cached.
    pub fn page_dirtied_when_ns(&self, index: PageIndex) -> Option<u64> {
        let state = self.lock();
        let dirty = state.tree.has_mark(index, Mark::Dirty);
        let id = state.tree.get(index).filter(|_| dirty)?;
        Some(self.page(id).dirty_since_ns())
    }

    /// When the file, clean before, was first dirtied, in clock nanoseconds; `None` while it is
    /// clean.
    pub fn dirtied_when_ns(&self) -> Option<u64> {
        let state = self.lock();
        (state.dirty > 0).then_some(state.dirtied_when_ns)
    }

    /// Pages that are dirty now.
    pub fn dirty_count(&self) -> usize {
        self.lock().dirty
    }

    /// True when the device has all that was stored: no page is dirty, or on its way.
    pub fn is_written(&self) -> bool {
        let state = self.lock();
        !state.counts_as_dirty() && state.writeback == 0
    }

    /// True when the device has all that was stored, and a flush has covered it: the mapping can be
    /// closed, whatever the device does then.
    pub fn is_durable(&self) -> bool {
        self.is_written() && self.last_write() <= self.dev.flushed()
    }
}
