//! Pages into bios: the only module that builds a bio for file data.
//!
//! `mpage_writepages` is a library function for whoever writes a mapping's dirty pages. It writes
//! only pages that a caller put into io, in ascending order, and packs neighbours on the device
//! into one bio.
//!
//! Why it ends and cannot deadlock:
//! 1. Dirtying takes no lock a walk holds across anything, so a page in the walk's own unsubmitted
//!    bio may become dirty again. It is then in dirty, not in io; the walk consumes io only. A
//!    second caller may splice it into io behind the walk's cursor, where the walk does not come
//!    again, or ahead of it, where it was not yet.
//! 2. A walk gives its bio to the device before it waits for anything
//!    ([`MayWait`](crate::may_wait::MayWait)), so what it waits for never sits in its own hand.
//! 3. A walk meets an index once in each of its ascending passes, so it writes at most what was in
//!    io.
//!
//! A page's whole dirty content goes into one bio when it is one run on the device (the fast path).
//! Else each run goes into a bio of its place, and the last of them to complete ends the page's
//! writeback, once.
//!
//! Linux: fs/mpage.c. Differs: extents, sector-granular dirtiness, and no buffer heads.

mod hand;
mod map;
mod past_cache;
mod read;
mod walk;
mod write_range;

use crate::address_space::AddressSpace;
use crate::error::{Error, ErrorKind, Result};
use crate::get_block::GetBlock;
use crate::writeback::WritebackControl;

pub use past_cache::{LogWriter, read_past_cache};
pub(crate) use past_cache::{discard, write_zeroes};
pub(crate) use read::{Filling, Then, mpage_readahead};
pub(crate) use write_range::{DirectIo, write_dirty_range};

/// Writes the pages of `mapping` that are in io and in the range of `wbc`, in large bios.
///
/// Returns when every bio has been submitted; waiting for them is
/// [`AddressSpace::wait_for_writes`]. Without `get_block` the mapping's own
/// [`WritePage`](crate::WritePage) is called for each page. Linux: `mpage_writepages()`,
/// fs/mpage.c.
///
/// # Errors
///
/// The first error met in mapping or submitting. A cleaning walk stops there, and the next cyclic
/// walk begins after the bad page; an integrity walk tries all pages. Errors of the I/O itself come
/// later, through the mapping's error sequence.
pub fn mpage_writepages(
    mapping: &AddressSpace,
    wbc: &mut WritebackControl,
    get_block: Option<&dyn GetBlock>,
) -> Result<()> {
    match get_block {
        Some(get_block) => walk::Walk::new(mapping, wbc, get_block).run(),
        None => generic_writepages(mapping, wbc),
    }
}

/// Writes the pages of `mapping` that are in io one by one, through its own
/// [`WritePage`](crate::WritePage). Linux 2.6: `generic_writepages()`.
///
/// # Errors
///
/// As [`mpage_writepages`]; `InvalidInput` when the mapping has no `WritePage`.
pub fn generic_writepages(mapping: &AddressSpace, wbc: &mut WritebackControl) -> Result<()> {
    let Some(writepage) = mapping.ops().writepage.clone() else {
        return Err(Error::new(ErrorKind::InvalidInput, "writepages")
            .because("the mapping has neither a block map nor a writepage"));
    };
    walk::PageByPage::new(mapping, wbc, &*writepage).run()
}
