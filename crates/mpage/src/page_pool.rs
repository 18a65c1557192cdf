//! All pages of one cache, their frames, and sleeping on a page.
//!
//! The pool is as large as the arena: a page that is in use has one frame, so a free frame means a
//! free page. A page gets the frame of its own number if both are free: so a reader can fetch the
//! frame's memory while it waits for that of the page, which says which frame it has.

use std::sync::Arc;

use mpage_locks::{Condvar, Mutex};
use mpage_mem::{Arena, FrameId, Purpose, RUN};

use crate::event::Event;
use crate::page::{FROZEN, KEEPS_PAGE, Left, Page, PageId, WAITERS, Word};
use crate::units::PageIndex;

const BUCKETS: usize = if cfg!(any(mpage_loom, mpage_shuttle)) { 2 } else { 64 };

/// The pages of one cache.
pub(crate) struct PagePool {
    pages: Box<[Page]>,
    free: Mutex<FreePages>,
    arena: Arc<Arena>,
    sleepers: Box<[Bucket]>,
    /// Notified when a frame was freed or a page became evictable.
    pub(crate) memory: Event,
}

/// The numbers of the pages that are free.
struct FreePages {
    numbers: Vec<u32>,
    /// Where in `numbers` each number is, or was when it was last there.
    places: Box<[u32]>,
}

impl FreePages {
    fn new(count: u32) -> FreePages {
        FreePages { numbers: (0..count).collect(), places: (0..count).collect() }
    }

    /// Takes `wanted` if it is free, else another.
    fn take(&mut self, wanted: u32) -> Option<u32> {
        let place = self.places[wanted as usize];
        if self.numbers.get(place as usize) != Some(&wanted) {
            return self.numbers.pop();
        }
        let taken = self.numbers.swap_remove(place as usize);
        if let Some(moved) = self.numbers.get(place as usize) {
            self.places[*moved as usize] = place;
        }
        Some(taken)
    }

    fn put(&mut self, number: u32) {
        let place = u32::try_from(self.numbers.len()).expect("fewer than there are pages");
        self.places[number as usize] = place;
        self.numbers.push(number);
    }
}

#[derive(Default)]
struct Bucket {
    lock: Mutex<()>,
    changed: Condvar,
}

impl PagePool {
    /// A page for every frame of `arena`.
    pub(crate) fn new(arena: Arc<Arena>) -> PagePool {
        let count = u32::try_from(arena.frames()).expect("the arena numbers frames by 32 bits");
        PagePool {
            pages: (0..count).map(|_| Page::free()).collect(),
            free: Mutex::new(FreePages::new(count)),
            arena,
            sleepers: (0..BUCKETS).map(|_| Bucket::default()).collect(),
            memory: Event::default(),
        }
    }

    /// The page with number `id`.
    #[inline]
    pub(crate) fn page(&self, id: PageId) -> &Page {
        &self.pages[id.0 as usize]
    }

    /// The page with number `id`, unless the number was misread from a recycled node.
    #[inline]
    pub(crate) fn get(&self, id: PageId) -> Option<&Page> {
        self.pages.get(id.0 as usize)
    }

    /// Asks the processor for the byte at `offset` of the frame that page `id` most likely has.
    #[inline]
    pub(crate) fn touch_likely_frame(&self, id: PageId, offset: usize) {
        // To a checker of schedules it would only be one more turn.
        if cfg!(not(any(mpage_loom, mpage_shuttle))) {
            let mut unused = [0];
            self.arena.read(FrameId::new(id.0), offset, &mut unused);
        }
    }

    /// How many pages there are.
    pub(crate) fn len(&self) -> usize {
        self.pages.len()
    }

    /// The frames.
    #[inline]
    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// Takes a free page and a frame for it and gives them to `mapping`, pinned; `None` when no
    /// frame is free. `neighbour` is a page of the same run of the file: its frame's run is
    /// preferred.
    pub(crate) fn assign(
        &self,
        mapping: u64,
        index: PageIndex,
        neighbour: Option<PageId>,
    ) -> Option<PageId> {
        let frame = self.alloc_frame(Purpose::Cache, index, neighbour)?;
        let number = self.free.lock().take(frame.get()).expect("a free frame means a free page");
        let id = PageId(number);
        self.page(id).assign(mapping, index, frame);
        Some(id)
    }

    /// Takes a free frame for page `index`, near that of `neighbour` if one can be had.
    pub(crate) fn alloc_frame(
        &self,
        purpose: Purpose,
        index: PageIndex,
        neighbour: Option<PageId>,
    ) -> Option<FrameId> {
        let sibling = neighbour.map(|id| self.page(id).frame());
        self.arena.alloc(purpose, slot_of(index), sibling)
    }

    /// Gives up one pin of a frame.
    pub(crate) fn unpin_frame(&self, frame: FrameId) {
        if self.arena.unpin(frame) {
            self.memory.notify();
        }
    }

    /// Frees a page nobody refers to: frozen, out of the tree, idle.
    pub(crate) fn free(&self, id: PageId) {
        let page = self.page(id);
        assert!(page.word().has(FROZEN), "only a frozen page is freed");
        let frame = page.take_frame();
        page.reset(!(FROZEN | KEEPS_PAGE));
        self.free.lock().put(id.0);
        self.unpin_frame(frame);
    }

    /// Does what is left to do after something of the page was given up.
    #[inline]
    pub(crate) fn settle(&self, id: PageId, left: Left) {
        if left.wakes {
            self.wake(id);
        }
        if left.frees {
            self.free(id);
        }
    }

    /// Gives up a pin of a page. It may have been all that kept the page from being evicted.
    pub(crate) fn unpin(&self, id: PageId) {
        self.settle(id, self.page(id).drop_pin());
        self.memory.notify();
    }

    /// Gives back a page that was assigned and found no place in its tree.
    pub(crate) fn discard(&self, id: PageId) {
        let (_, left) = self.page(id).detach();
        self.settle(id, left);
        self.unpin(id);
    }

    /// Wakes everybody who sleeps on the page.
    #[cold]
    pub(crate) fn wake(&self, id: PageId) {
        let bucket = self.bucket(id);
        let guard = bucket.lock.lock();
        self.page(id).reset(WAITERS);
        bucket.changed.notify_all();
        drop(guard);
    }

    /// Sleeps until `done` holds of the page's word.
    ///
    /// The sleeper announces itself by WAITERS in the exchange that reads the word it judges, so
    /// whoever changes the word afterwards sees it and wakes it.
    pub(crate) fn wait_until(&self, id: PageId, done: impl Fn(Word) -> bool) {
        if done(self.page(id).word()) {
            return;
        }
        let bucket = self.bucket(id);
        let mut guard = bucket.lock.lock();
        while !done(self.page(id).set(WAITERS)) {
            guard = bucket.changed.wait(guard);
        }
        drop(guard);
    }

    fn bucket(&self, id: PageId) -> &Bucket {
        &self.sleepers[id.0 as usize % BUCKETS]
    }
}

/// Where in a run of neighbouring frames the frame of page `index` belongs.
fn slot_of(index: PageIndex) -> usize {
    usize::try_from(index.0 % RUN as u64).expect("smaller than a run")
}

#[cfg(all(test, mpage_loom))]
mod loom_tests;

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn a_free_page_is_taken_by_its_number_and_once() {
        let mut free = FreePages::new(4);
        assert_eq!(free.take(1), Some(1));
        let other = free.take(1).expect("three are free");
        assert_ne!(other, 1);
        free.put(1);
        assert_eq!(free.take(1), Some(1));
        let rest = [free.take(1), free.take(1)].map(|number| number.expect("two are free"));
        let mut all = [1, other, rest[0], rest[1]];
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3]);
        assert_eq!(free.take(1), None);
        for number in [2, 0, 3, 1] {
            free.put(number);
        }
        assert_eq!([3, 0, 1, 2].map(|number| free.take(number)), [3, 0, 1, 2].map(Some));
    }
}
