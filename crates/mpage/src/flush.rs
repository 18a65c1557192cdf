//! Flushing a device's volatile cache, and what a failed flush means.
//!
//! After a failed flush nothing written since the last good one counts as written: the device may
//! have dropped any of it, and a second flush that succeeds says nothing about the first one's
//! data. So those pages become dirty again, in every mapping on the device, before anybody is told.

use mpage_block::Errno;

use crate::address_space::AddressSpace;
use crate::backing_dev::{BackingDev, Flushed};
use crate::core::Core;

/// Makes writes up to number `upto` of `dev` durable. Elided when they are; shared with other
/// callers.
///
/// # Errors
///
/// The flush's. Every mapping with something written since the last good flush has recorded it.
pub(crate) fn flush_device(core: &Core, dev: &BackingDev, upto: u64) -> Result<(), Errno> {
    let result = match dev.flush_upto(upto, &core.stats) {
        Flushed::Durable => Ok(()),
        Flushed::Failed { errno, leader } => {
            if leader {
                redirty(core, dev, errno);
                dev.end_failed_flush(errno);
            }
            Err(errno)
        }
    };
    core.pool.memory.notify();
    result
}

fn redirty(core: &Core, dev: &BackingDev, errno: Errno) {
    dev.errors.set(errno);
    let on_dev = |mapping: &AddressSpace| mapping.dev().id() == dev.id();
    for mapping in core.mappings.all().iter().filter(|mapping| on_dev(mapping)) {
        let pages = mapping.redirty_unflushed(errno);
        tracing::warn!(?mapping, pages, %errno, "a device flush failed; its pages are dirty again");
    }
}
