//! From dirty to written: snapshots, the exchange that starts I/O, the table of writes in flight,
//! and what a write leaves behind when it ends. The invariants are those of the parent module.

use super::*;

/// Pages looked at under one hold of the mapping lock when they are spliced by age.
const SPLICE_PAGES: usize = 1024;

impl AddressSpace {
    /// Moves every dirty page of byte `range` to the io set of `mode`, at one instant; returns how
    /// many were not in it yet. Linux 2.6.0: `list_splice_init(&mapping->dirty_pages,
    /// &mapping->io_pages)`.
    pub fn splice(&self, range: &Range<u64>, mode: SyncMode) -> usize {
        self.lock().tree.copy_mark(pages_touched(range), Mark::Dirty, mode.mark())
    }

    /// Moves the pages that are dirty since `upto_ns` or longer to the cleaning callers' io set,
    /// not at one instant; returns how many. When there is none, the file counts as dirty since its
    /// oldest page is.
    pub(crate) fn splice_dirty_since(&self, upto_ns: u64) -> usize {
        let mut oldest_ns = self.core.clock.now_ns();
        let mut moved = 0;
        let mut from = 0;
        loop {
            let mut state = self.lock();
            for _ in 0..SPLICE_PAGES {
                let Some((index, id)) = state.tree.next(from..u64::MAX, Mark::Dirty) else {
                    if moved == 0 {
                        self.count_as_dirty_since(&mut state, oldest_ns);
                    }
                    return moved;
                };
                from = index.0 + 1;
                let since_ns = self.page(id).dirty_since_ns();
                if since_ns <= upto_ns {
                    moved += usize::from(state.tree.set_mark(index, Mark::ToWrite));
                } else {
                    oldest_ns = oldest_ns.min(since_ns);
                }
            }
        }
    }

    /// Moves a dirty file in the order of age. Pages that became dirty before the lock was taken
    /// are no older than `since_ns`.
    fn count_as_dirty_since(&self, state: &mut State, since_ns: u64) {
        // Lost zeros are as old as they are, whatever pages there are.
        if state.dirty == 0 || state.lost_zeros || since_ns <= state.dirtied_when_ns {
            return;
        }
        self.core.mappings.move_dirty(state.dirtied_when_ns, since_ns, self.id);
        state.dirtied_when_ns = since_ns;
    }

    /// Begins a cleaning walk; `None` when one is under way: it does what a second would.
    pub(crate) fn try_begin_cleaning(&self) -> Option<Cleaning<'_>> {
        let taken = self.cleaning.swap(true, Ordering::SeqCst);
        (!taken).then_some(Cleaning(self))
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
        let in_run = |n: &u64| state.tree.has_mark(PageIndex(*n), marks);
        (index.0..index.0.saturating_add(most)).take_while(in_run).count() as u64
    }

    /// Takes a page that a cleaning walk passes over out of the cleaning callers' io set.
    pub(crate) fn pass_over(&self, index: PageIndex) {
        let _was = self.lock().tree.clear_mark(index, Mark::ToWrite);
    }

    /// Puts a locked page under writeback: takes `sectors` from dirty, the page from io, and enters
    /// it in the table of writes in flight under `number`, all at one instant. A fresh number is
    /// drawn when there is none. `seen` is what the caller saw dirty. Linux:
    /// `folio_clear_dirty_for_io()` and `__folio_start_writeback()`.
    pub(crate) fn start_writeback(
        &self,
        page: &PageLock<'_>,
        (sectors, seen): (SectorMask, SectorMask),
        sample: bool,
        number: &mut Option<u64>,
    ) -> Result<Started, Start> {
        let mut state = self.lock();
        let start = self.page(page.id()).start_writeback(sectors, seen, sample);
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

    /// Gives an entered, SHARED page `fresh` with the same bytes. The caller holds COPYING, which
    /// ends with SHARED. The frame moves under the mapping lock, so that starting I/O can tell
    /// which one it got.
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

    /// Clears the dirty bits of a locked page that lie in blocks wholly beyond the file's end,
    /// which no write will ever take; returns what is dirty still. A page that is clean then leaves
    /// dirty and io. Linux: `block_write_full_folio()` and `folio_cancel_dirty()`.
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
        self.page(page.id()).forget_written(sectors);
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
        drop(state);
        // A sync that took the page into its snapshot behind the error has just lost it again.
        self.errors.is_dirty_again();
    }

    /// Chooses what becomes of bytes whose write fails from now on.
    pub fn set_failure_policy(&self, policy: FailurePolicy) {
        self.on_failure.store(policy as u32, Ordering::SeqCst);
    }

    /// What becomes of bytes whose write fails.
    pub fn failure_policy(&self) -> FailurePolicy {
        let chosen = self.on_failure.load(Ordering::SeqCst);
        let is = |policy: &FailurePolicy| *policy as u32 == chosen;
        [FailurePolicy::Quarantine, FailurePolicy::Drop].into_iter().find(is).unwrap_or_default()
    }

    /// Ends the writes of `ended` pages, whose device write has number `at`, and takes entry
    /// `number` out of the table of writes in flight. Errors were recorded before. Linux:
    /// `folio_end_writeback()`.
    pub(crate) fn end_writeback(&self, ended: &[Ended], number: Option<u64>, at: u64) {
        let flushed = self.dev.flushed();
        let _before = self.last_write.fetch_max(at, Ordering::SeqCst);
        let now_ns = self.core.clock.now_ns();
        let mut left = Vec::with_capacity(ended.len());
        let mut recorded = false;
        let mut state = loop {
            let state = self.lock();
            if recorded || !ended.iter().any(|one| self.is_lost(one, at)) {
                break state;
            }
            drop(state);
            self.record_error(self.dev.errors.last().unwrap_or(Errno::IO));
            // It was told that the blocks are written.
            if let Some(get_block) = &self.ops.get_block {
                get_block.flush_failed();
            }
            recorded = true;
        };
        for one in ended {
            let failed = if self.is_lost(one, at) { one.sectors } else { one.failed };
            let one = Ended { failed, ..*one };
            if !failed.is_empty() {
                self.errors.is_dirty_again();
            }
            left.push((one.page, self.end_page(&mut state, &one, at, flushed, now_ns)));
        }
        if let Some(number) = number {
            state.in_flight.retain(|entry| entry.number != number);
        }
        drop(state);
        left.into_iter().for_each(|(id, left)| self.core.pool.settle(id, left));
        self.changed.notify();
        self.core.pool.memory.notify();
    }

    /// True when a flush failed while the write of a page was in flight. The failed flush's leader
    /// does not find such a write among those that ended, and a later flush may not cover it.
    fn is_lost(&self, one: &Ended, at: u64) -> bool {
        at != DURABLE && self.dev.failed_flushes() != one.began
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
            if self.failure_policy() == FailurePolicy::Drop {
                page.clear_uptodate(one.failed.without(page.word().dirty()));
                return page.end_writeback(SectorMask::NONE).1;
            }
            if !one.failed.is_empty() {
                self.note_dirty(state, one.page, one.index, one.failed, now_ns);
                state.failed += usize::from(!page.word().has(FAILED));
            }
        }
        page.end_writeback(one.failed).1
    }

    /// True when a write of a page of byte `range` is in flight.
    pub(crate) fn has_writes_in_flight(&self, range: &Range<u64>) -> bool {
        let pages = pages_touched(range);
        self.lock().in_flight.iter().any(|entry| overlap(&entry.pages, &pages))
    }

    /// Waits until no write of a page of byte `range` that was in flight at the call is left.
    /// Writes begun later are not waited for.
    pub fn wait_for_writes(&self, range: &Range<u64>) {
        let pages = pages_touched(range);
        let upto = self.lock().next_number;
        loop {
            let ticket = self.changed.ticket();
            let state = self.lock();
            let busy = state
                .in_flight
                .iter()
                .any(|entry| entry.since < upto && overlap(&entry.pages, &pages));
            drop(state);
            if !busy {
                return;
            }
            self.changed.wait(ticket);
        }
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

    /// Makes the page's own table entry, before it leaves the bio of entry `from` for its own.
    /// Whoever waits for that entry goes on to wait for this one. Returns its number.
    pub(crate) fn move_in_table(&self, index: PageIndex, from: Option<u64>) -> u64 {
        let mut number = None;
        let mut state = self.lock();
        let since = state.in_flight.iter().find(|entry| Some(entry.number) == from);
        let since = since.expect("the page is in the entry it leaves").since;
        state.enter_table(&mut number, index);
        state.in_flight.last_mut().expect("just made").since = since;
        number.expect("drawn by enter_table")
    }

    /// Makes what was written after the last good flush dirty again, because a flush failed;
    /// records the error when there was anything. Returns how many pages.
    pub(crate) fn redirty_unflushed(&self, errno: Errno) -> usize {
        let flushed = self.dev.flushed();
        if self.last_write.load(Ordering::SeqCst) <= flushed {
            return 0;
        }
        self.record_error(errno);
        self.zeroed.flush_failed(flushed);
        self.count_lost_zeros();
        if let Some(get_block) = &self.ops.get_block {
            get_block.flush_failed();
        }
        let now_ns = self.core.clock.now_ns();
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
        drop(state);
        self.errors.is_dirty_again();
        again
    }

    /// Counts as dirty while zeros of it are lost: its cache keeps it alive then, as long as it has
    /// not written them again, and its flusher looks after them. Called behind each change of what
    /// is lost: whoever comes last sees how it is.
    pub(crate) fn count_lost_zeros(&self) {
        let now_ns = self.core.clock.now_ns();
        let mut state = self.lock();
        let counted = state.counts_as_dirty();
        state.lost_zeros = self.zeroed.has_lost();
        let mut freed = None;
        match (counted, state.counts_as_dirty()) {
            (false, true) => self.join_dirty(&mut state, now_ns),
            (true, false) => {
                freed = self.core.mappings.remove_dirty(state.dirtied_when_ns, self.id);
            }
            _ => {}
        }
        drop(state);
        drop(freed);
    }

    /// The number of the last write of this file on its device.
    pub(crate) fn last_write(&self) -> u64 {
        self.last_write.load(Ordering::SeqCst)
    }

    /// Tells the block map that `blocks` have the file's data on the device now.
    pub(crate) fn note_blocks_written(&self, get_block: &dyn GetBlock, blocks: Range<FileBlock>) {
        let size = self.block_size;
        let bytes = size.start_of(blocks.start)..size.start_of(blocks.end);
        if self.zeroed.overwritten(&bytes) {
            self.count_lost_zeros();
        }
        get_block.written(blocks);
    }

    /// Notes that the device was changed past the cache since it had `began` failed flushes: the
    /// next sync flushes it. Returns the change's number, and whether a flush failed meanwhile, and
    /// may have lost it: its leader did not find it among the writes that had ended.
    pub(crate) fn note_direct_write(&self, began: u64) -> (u64, bool) {
        let at = self.dev.number_write(false);
        let _before = self.last_write.fetch_max(at, Ordering::SeqCst);
        let lost = self.dev.limits().volatile_cache && self.dev.failed_flushes() != began;
        if lost {
            self.record_error(self.dev.errors.last().unwrap_or(Errno::IO));
            if let Some(get_block) = &self.ops.get_block {
                get_block.flush_failed();
            }
        }
        (at, lost)
    }

    /// A write error goes here before it goes anywhere else.
    pub(crate) fn record_error(&self, errno: Errno) {
        self.errors.set(errno);
        self.dev.errors.set(errno);
        self.core.stats.write_errors.add(1);
        self.core.mappings.keep_while_in_error(self.arc());
    }

    /// Tells `cursor` of an error it was not told of. Once nobody is left to be told, the mapping
    /// no longer has to live for it.
    pub(crate) fn check_error(&self, cursor: &Cursor) -> Option<Errno> {
        let told = self.errors.check_and_advance(cursor);
        if told.is_some() {
            self.core.mappings.keep_while_in_error(self.arc());
        }
        told
    }

    /// The byte ranges inside `range` whose last write failed and that are dirty still, in
    /// ascending order, cut at the file's size.
    pub fn failed_ranges(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut found: Vec<Range<u64>> = Vec::new();
        let state = self.lock();
        let mut pages = pages_touched(range);
        if state.failed == 0 {
            return found;
        }
        while let Some((index, id)) = state.tree.next(pages.clone(), Mark::Dirty) {
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
}

/// The one cleaning walk of a mapping; over when dropped. Linux: `I_SYNC`.
pub(crate) struct Cleaning<'a>(&'a AddressSpace);

impl Drop for Cleaning<'_> {
    fn drop(&mut self) {
        self.0.cleaning.store(false, Ordering::SeqCst);
    }
}
