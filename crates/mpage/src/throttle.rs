//! Holding writers back while too much is dirty.
//!
//! Linux: `balance_dirty_pages()`, mm/page-writeback.c.

use crate::address_space::AddressSpace;

/// Called after a write: wakes the flusher when enough is dirty to be worth writing, and waits
/// while more is dirty than the cache, or the file's own limit, allows. Never fails; takes no lock
/// while it waits.
pub(crate) fn balance_dirty_pages(space: &AddressSpace) {
    let core = space.core();
    let limits = core.limits;
    let over = || core.unwritten_pages() > limits.pages || space.is_over_limit();
    if core.unwritten_pages() > limits.background_pages {
        space.dev().want_cleaning();
    }
    let mut counted = false;
    loop {
        let ticket = core.pool.memory.ticket();
        if !over() {
            return;
        }
        if !counted {
            core.stats.waits_for_cleaning.add(1);
            counted = true;
        }
        // What is over the limit may be dirty on another device than this file's.
        core.want_cleaning();
        core.pool.memory.wait(ticket);
    }
}

/// True while a writer of `space` would have to wait. Wakes the flusher when enough is dirty to be
/// worth writing. Linux: `balance_dirty_pages()` with `BDP_ASYNC`.
pub(crate) fn must_wait_to_dirty(space: &AddressSpace) -> bool {
    let core = space.core();
    let unwritten = core.unwritten_pages();
    if unwritten > core.limits.background_pages {
        space.dev().want_cleaning();
    }
    unwritten >= core.limits.pages || space.is_over_limit()
}
