//! Writing a mapping's pages one by one, where there is no block map.

use std::ops::Range;

use crate::error::Result;
use crate::units::PageIndex;

/// What became of a page given to [`WritePage::writepage`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageWritten {
    /// It is where it belongs.
    Done,
    /// Not now: the page is dirty again, and counted as skipped. Linux:
    /// `redirty_page_for_writepage()`.
    Declined,
}

/// Writes single pages: to a network, an object store, another cache.
pub trait WritePage: Send + Sync {
    /// Writes page `index`. `bytes` are its bytes up to the end of the file and hold still during
    /// the call; `dirty` are the ranges of them that changed. May wait. An error leaves the page
    /// dirty.
    fn writepage(
        &self,
        index: PageIndex,
        bytes: &[u8],
        dirty: &[Range<usize>],
    ) -> Result<PageWritten>;
}
