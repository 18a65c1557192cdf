//! Making room: a clock over all pages drops clean, idle ones.
//!
//! A page is dropped only if its bytes are durable: written since the last good device flush is not
//! enough, since a failed flush would have to make it dirty again. When the clock meets nothing it
//! may drop, the flushers are told what it met, dirty pages or pages that wait for a flush, and the
//! caller waits for a page or frame to become free. Reclaim never writes.
//!
//! Linux: `shrink_folio_list()`, mm/vmscan.c.

use mpage_locks::atomic::Ordering;
use mpage_mem::FrameId;

use crate::address_space::{AddressSpace, Evicted, NotInserted, PagePin};
use crate::core::Core;
use crate::may_wait::MayWait;
use crate::page::{FROZEN, NO_MAPPING, PageId, REFERENCED};
use crate::units::PageIndex;

/// Pages dropped at a time.
const BATCH: usize = 32;

/// The page at `index`, cached before or fresh, pinned. Waits for memory, and for a removal of the
/// index unless the caller is `by_remover` itself.
pub(crate) fn get_page<'a>(
    space: &'a AddressSpace,
    index: PageIndex,
    by_remover: bool,
    may_wait: &MayWait<'_>,
) -> PagePin<'a> {
    loop {
        match try_get_page(space, index, by_remover) {
            Ok(pin) => return pin,
            Err(NotInserted::Exists) => {}
            Err(NotInserted::Removing) => space.wait_for_removal(index),
            Err(NotInserted::NoNodes) => make_room(space.core(), may_wait),
        }
    }
}

/// As [`get_page`], without waiting: in memory that is free, or that cold pages have. `NoNodes`
/// stands for "no memory".
pub(crate) fn get_page_now(
    space: &AddressSpace,
    index: PageIndex,
) -> Result<PagePin<'_>, NotInserted> {
    match try_get_page(space, index, false) {
        Err(NotInserted::NoNodes) if drop_cold(space.core()) => try_get_page(space, index, false),
        page => page,
    }
}

/// The page at `index`, if there is one or memory is free for it.
fn try_get_page(
    space: &AddressSpace,
    index: PageIndex,
    by_remover: bool,
) -> Result<PagePin<'_>, NotInserted> {
    if let Some(pin) = space.pin(index) {
        return Ok(pin);
    }
    let pool = &space.core().pool;
    let Some(id) = pool.assign(space.id(), index, space.neighbour(index)) else {
        return Err(NotInserted::NoNodes);
    };
    let inserted = space.insert(index, id, by_remover);
    if inserted.is_err() {
        pool.discard(id);
    }
    inserted
}

/// A frame in no mapping, for I/O past the cache. Waits for memory.
pub(crate) fn get_frame(core: &Core, index: PageIndex, may_wait: &MayWait<'_>) -> FrameId {
    loop {
        if let Some(frame) = core.pool.alloc_frame(mpage_mem::Purpose::Cache, index, None) {
            return frame;
        }
        make_room(core, may_wait);
    }
}

/// As [`get_frame`], without waiting.
pub(crate) fn try_get_frame(core: &Core, index: PageIndex) -> Option<FrameId> {
    let take = || core.pool.alloc_frame(mpage_mem::Purpose::Cache, index, None);
    take().or_else(|| drop_some(core).then(take).flatten())
}

/// Drops some pages if there are any to drop; false when there are none.
fn drop_some(core: &Core) -> bool {
    evict_some(core, BATCH, 2) > 0
}

/// Drops some pages if there are any that nobody used since the clock passed them; false when there
/// are none. For those who can do without memory.
pub(crate) fn drop_cold(core: &Core) -> bool {
    evict_some(core, BATCH, 1) > 0
}

/// Drops some pages, or waits until something became free.
pub(crate) fn make_room(core: &Core, _: &MayWait<'_>) {
    let ticket = core.pool.memory.ticket();
    if evict_some(core, BATCH, 2) > 0 {
        return;
    }
    core.stats.waits_for_memory.add(1);
    core.want_cleaning();
    core.pool.memory.wait(ticket);
}

/// Passes the clock over the pages, at most `rounds` times around, until `wanted` were dropped.
fn evict_some(core: &Core, wanted: usize, rounds: usize) -> usize {
    let mut dropped = 0;
    let count = core.pool.len();
    for _ in 0..rounds * count {
        let at = core.clock_hand.fetch_add(1, Ordering::Relaxed) % count;
        let id = PageId(u32::try_from(at).expect("the pool numbers pages by 32 bits"));
        dropped += usize::from(try_evict(core, id));
        if dropped == wanted {
            break;
        }
    }
    core.stats.evictions.add(dropped as u64);
    dropped
}

fn try_evict(core: &Core, id: PageId) -> bool {
    let page = core.pool.page(id);
    let word = page.word();
    let (mapping, index) = page.identity();
    if mapping == NO_MAPPING || word.has(FROZEN) {
        return false;
    }
    if word.has(REFERENCED) {
        page.reset(REFERENCED);
        return false;
    }
    if !word.dirty().is_empty() {
        return false;
    }
    let Some(space) = core.mappings.get(mapping) else { return false };
    match space.evict(index, id) {
        Evicted::Yes => true,
        Evicted::No => false,
        Evicted::NeedsFlush => {
            space.dev().want_flush();
            false
        }
    }
}
