//! Writing everything that is dirty in a range, and waiting for it.
//!
//! Linux: `filemap_write_and_wait_range()`, mm/filemap.c.

use std::ops::Range;

use mpage_block::Errno;

use crate::address_space::{AddressSpace, SyncMode};
use crate::error::Result;
use crate::flush::flush_device;
use crate::mpage::mpage_writepages;
use crate::writeback::WritebackControl;

/// Writes what is dirty in byte `range` at the call and waits for it, and for what was in flight
/// before. Linux: `filemap_write_and_wait_range()`.
pub(crate) fn write_and_wait(space: &AddressSpace, range: &Range<u64>) -> Result<()> {
    let walked = start_integrity(space, range);
    space.wait_for_writes(range);
    walked
}

/// Starts to write everything dirty in byte `range` at the call.
pub(crate) fn start_integrity(space: &AddressSpace, range: &Range<u64>) -> Result<()> {
    let pages = space.splice(range, SyncMode::DataIntegrity);
    let mut wbc = WritebackControl::integrity(range.clone());
    wbc.pages_expected = pages as u64;
    mpage_writepages(space, &mut wbc, space.ops().get_block.as_deref())
}

/// Makes the mapping's ended writes durable.
pub(crate) fn flush_mapping(space: &AddressSpace) -> std::result::Result<(), Errno> {
    flush_device(space.core(), space.dev(), space.last_write())
}
