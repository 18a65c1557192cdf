//! Bringing pages into the cache.
//!
//! Linux: `page_cache_ra_unbounded()`, mm/readahead.c; `filemap_read_folio()`, mm/filemap.c.

use std::ops::Range;
use std::sync::Arc;

use crate::address_space::{AddressSpace, NotInserted, PagePin};
use crate::error::{Error, ErrorKind, Result};
use crate::get_block::GetBlock;
use crate::may_wait::MayWait;
use crate::mpage::{Filling, ReadBatch, mpage_readahead};
use crate::reclaim::{drop_some, try_get_page};
use crate::units::{PageIndex, SectorMask};

/// Pages read together at most: 1 MiB.
const BATCH_PAGES: usize = 256;

/// Starts to read the pages of `pages` that are missing and can be had without waiting, in large
/// bios. Errors are silent: whoever needs the page reads it again, and reports.
pub(crate) fn read_ahead(space: &AddressSpace, pages: Range<u64>) -> Option<Arc<ReadBatch>> {
    let get_block = space.ops().get_block.clone()?;
    let mut fillings = Vec::new();
    for index in pages.take(BATCH_PAGES).map(PageIndex) {
        let page = match try_get_page(space, index, false) {
            Err(NotInserted::NoNodes) if drop_some(space.core()) => {
                try_get_page(space, index, false)
            }
            page => page,
        };
        let Ok(pin) = page else { break };
        if let Some(Some(filling)) = Filling::try_begin(space, &pin, SectorMask::ALL) {
            fillings.push(filling);
        }
    }
    (!fillings.is_empty()).then(|| mpage_readahead(space, fillings, &*get_block))
}

/// Makes `wanted` sectors of a pinned page up to date, reading what is missing of the page. Waits
/// for it.
///
/// # Errors
///
/// Those of the device and the block map, every time; `InvalidInput` when the mapping cannot read.
pub(crate) fn read_page(
    space: &AddressSpace,
    pin: &PagePin<'_>,
    wanted: SectorMask,
    may_wait: &MayWait<'_>,
) -> Result<()> {
    if pin.word().uptodate().contains(wanted) {
        return Ok(());
    }
    let get_block = get_block_of(space)?;
    let Some(filling) = Filling::begin(space, pin, wanted, may_wait) else { return Ok(()) };
    mpage_readahead(space, vec![filling], &*get_block).wait()
}

/// The mapping's block map.
pub(crate) fn get_block_of(space: &AddressSpace) -> Result<Arc<dyn GetBlock>> {
    space.ops().get_block.clone().ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, "read").because("the mapping has no block map")
    })
}
