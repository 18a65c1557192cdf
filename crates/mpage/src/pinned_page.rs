//! Pages the application uses as its own buffers.
//!
//! This is what a shared mapping is in an operating system: memory that is the cache's page. Stores
//! go through a guard, which is a store in progress as any other (`docs/locking.md`, protocols 1 to
//! 4), so that a write in flight never sees them, and a sync after them does.

use crate::address_space::{AddressSpace, Dirtied, PagePin, RemovalAt, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::file::CachedFile;
use crate::filemap;
use crate::may_wait::MayWait;
use crate::page::PageId;
use crate::reclaim::make_room;
use crate::units::{PAGE_SIZE, PageIndex, SectorMask, part_in_page};

/// A page of a file that stays in memory: the application's buffer is the cache's page.
///
/// It is written through [`write`](Self::write) alone, which copies it aside first when a write of
/// it is on its way to the device. A sync of its range covers what was written before the sync.
pub struct PinnedPage {
    file: CachedFile,
    id: PageId,
    index: PageIndex,
}

impl PinnedPage {
    /// Takes over a pin of a page of `file`.
    pub(crate) fn new(file: CachedFile, (id, index): (PageId, PageIndex)) -> PinnedPage {
        PinnedPage { file, id, index }
    }

    /// The page's place in its file.
    pub fn index(&self) -> PageIndex {
        self.index
    }

    /// Copies bytes of the page out; false, and nothing was copied, when the page was truncated
    /// away.
    ///
    /// # Panics
    ///
    /// When the range does not lie in the page.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> bool {
        assert!(offset + to.len() <= PAGE_SIZE, "the range lies in the page");
        to.is_empty() || self.file.mapping().read_cached(self.index, offset, to).is_some()
    }

    /// Copies bytes into the page and makes it dirty. False, and nothing happened, when the page
    /// was truncated away. Waits for a free frame when a write of the page is in flight and none is
    /// free.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the range is not inside the page and the file; `ReadOnly`; those of
    /// reserving room.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result<bool> {
        self.check_inside(offset, from.len())?;
        let Some(mut guard) = self.write_guard()? else { return Ok(false) };
        guard.write(offset, from)?;
        Ok(true)
    }

    /// Enters the page to store into it any number of times. While the guard lives the page's
    /// memory is the guard's to change: a write of the page that was in flight goes on with a copy.
    /// What was stored becomes dirty when the guard is dropped, and is covered by syncs from then
    /// on; a sync before that neither waits for the guard nor promises what it stored. Truncating,
    /// punching or invalidating the page waits for the guard, so its holder must not. Waits itself
    /// while a range of the page is being removed.
    ///
    /// `None` when the page was truncated away.
    ///
    /// # Errors
    ///
    /// `ReadOnly`; those of reserving room.
    pub fn write_guard(&self) -> Result<Option<WriteGuard<'_>>> {
        self.file.check_writable("write")?;
        let space: &AddressSpace = self.file.mapping();
        loop {
            let Some(begun) = space.removals_begun(self.index) else {
                space.wait_for_removal(self.index);
                continue;
            };
            let inside = part_in_page(&(0..space.size()), self.index).end;
            filemap::reserve(space, self.index, 0..inside)?;
            let Some(store) = space.enter_pinned(self.id, self.index) else { return Ok(None) };
            let removal = space.removal_at(self.index, begun);
            if removal != RemovalAt::None {
                drop(store);
                space.wait_for_removal(self.index);
                continue;
            }
            if store.make_writable().is_ok() {
                return Ok(Some(WriteGuard {
                    page: self,
                    store: Some(store),
                    inside,
                    stored: SectorMask::NONE,
                }));
            }
            drop(store);
            make_room(space.core(), &MayWait::no_bio_held());
        }
    }
}

/// The right to store into a pinned page. See [`PinnedPage::write_guard`].
pub struct WriteGuard<'a> {
    page: &'a PinnedPage,
    store: Option<Store<'a>>,
    /// Where the file ended in the page: room is set aside up to there.
    inside: usize,
    stored: SectorMask,
}

impl WriteGuard<'_> {
    /// Copies bytes into the page.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the range is empty, or not inside the page and the file, as it is and as
    /// it was when the guard was made.
    pub fn write(&mut self, offset: usize, from: &[u8]) -> Result<()> {
        // The store is entered: whoever lowers the size waits for it before zeroing what is beyond.
        self.page.check_inside(offset, from.len())?;
        if offset + from.len() > self.inside {
            return Err(not_inside());
        }
        let store = self.store.as_ref().expect("given up in drop alone");
        store.write(offset, from);
        let block_size = self.page.file.mapping().block_size();
        self.stored = self.stored.or(block_size.sectors_touched(offset..offset + from.len()));
        Ok(())
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        let store = self.store.take().expect("given up here alone");
        if !self.stored.is_empty() {
            // Detached meanwhile: the bytes went with the range that was removed.
            let _dirtied: Dirtied = store.finish(self.stored, 0);
        }
    }
}

impl std::fmt::Debug for WriteGuard<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteGuard").field("page", &self.page).finish_non_exhaustive()
    }
}

impl PinnedPage {
    fn check_inside(&self, offset: usize, len: usize) -> Result<()> {
        let inside = part_in_page(&(0..self.file.mapping().size()), self.index).end;
        if len > 0 && offset.checked_add(len).is_some_and(|end| end <= inside) {
            return Ok(());
        }
        Err(not_inside())
    }
}

fn not_inside() -> Error {
    Error::new(ErrorKind::InvalidInput, "write")
        .because("the range is empty, or not inside the page and the file")
}

impl Drop for PinnedPage {
    fn drop(&mut self) {
        drop(PagePin::adopt(self.file.mapping(), self.id, self.index));
    }
}

impl std::fmt::Debug for PinnedPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PinnedPage").field("index", &self.index).finish_non_exhaustive()
    }
}
