//! Reading pages: neighbours on the device in one bio.
//!
//! Linux: `mpage_readahead()`, fs/mpage.c.

use std::sync::Arc;

use mpage_block::{Bio, Errno};
use mpage_locks::Mutex;
use mpage_locks::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::map::{Mapper, Run};
use crate::address_space::{AddressSpace, PagePin};
use crate::completion;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::get_block::{GetBlock, Purpose};
use crate::may_wait::MayWait;
use crate::page::{COPYING, FILLING, FROZEN, PageId};
use crate::units::{PAGE_SIZE, PageIndex, Sector, SectorMask, part_in_page};

/// A page whose stale sectors its holder alone may fill.
#[derive(Debug)]
pub(crate) struct Filling {
    page: PageId,
    index: PageIndex,
    missing: SectorMask,
}

impl Filling {
    /// Begins to fill a pinned page (protocol 5), waiting for stores, copies and other fills to
    /// end. `None` when nothing is missing in `wanted` any more, or the page left its mapping.
    pub(crate) fn begin(
        space: &AddressSpace,
        pin: &PagePin<'_>,
        wanted: SectorMask,
        may_wait: &MayWait<'_>,
    ) -> Option<Filling> {
        loop {
            if let Some(filling) = Filling::try_begin(space, pin, wanted)? {
                return Some(filling);
            }
            pin.wait_until(may_wait, |word| {
                word.has(FROZEN) || !(word.has(FILLING | COPYING) || word.has_stores())
            });
        }
    }

    /// As [`begin`](Self::begin); `Some(None)` where that would wait.
    pub(crate) fn try_begin(
        space: &AddressSpace,
        pin: &PagePin<'_>,
        wanted: SectorMask,
    ) -> Option<Option<Filling>> {
        let word = pin.word();
        if word.has(FROZEN) || word.uptodate().contains(wanted) {
            return None;
        }
        if !space.page(pin.id()).try_fill() {
            return Some(None);
        }
        let missing = SectorMask::ALL.without(pin.word().uptodate());
        Some(Some(Filling { page: pin.id(), index: pin.index(), missing }))
    }

    /// The page's place in its file.
    pub(crate) fn index(&self) -> PageIndex {
        self.index
    }

    /// The page.
    pub(crate) fn page(&self) -> PageId {
        self.page
    }

    /// Ends the fill: the sectors are up to date, or still missing if it failed.
    fn end(&self, space: &AddressSpace, filled: bool) {
        let sectors = if filled { self.missing } else { SectorMask::NONE };
        space.core().pool.settle(self.page, space.page(self.page).end_fill(sectors));
    }
}

/// A page of a batch.
struct BatchPage {
    filling: Filling,
    /// Parts to go.
    parts: AtomicU32,
    /// A part could not be read.
    failed: AtomicBool,
}

/// What is done when pages were read, by whoever ends the last of them: it must not wait.
pub(crate) type Then = Box<dyn FnOnce() + Send>;

/// Pages being read together. Ends each page when all its parts are in.
pub(crate) struct ReadBatch {
    space: Arc<AddressSpace>,
    pages: Vec<BatchPage>,
    /// The file's size when the fill began: bytes beyond it are zeros.
    size: u64,
    /// The first error; zero while there is none.
    error: AtomicU32,
    /// Pages to go.
    left: AtomicU64,
    ended: Event,
    /// Called when the last page has ended.
    then: Mutex<Option<Then>>,
}

impl ReadBatch {
    /// Waits until every page has ended.
    ///
    /// # Errors
    ///
    /// The first error of the device or the block map.
    pub(crate) fn wait(&self) -> Result<()> {
        loop {
            let ticket = self.ended.ticket();
            if self.left.load(Ordering::SeqCst) == 0 {
                break;
            }
            self.ended.wait(ticket);
        }
        match self.error.load(Ordering::SeqCst) {
            0 => Ok(()),
            code => {
                let code = i32::try_from(code).expect("it was a positive i32");
                Err(Error::new(ErrorKind::Device(Errno::from_raw_os_error(code)), "read"))
            }
        }
    }

    /// Parts of pages `ascending` ended, or were given up.
    ///
    /// The last page ends first: whoever reads in order, and waits for the first, is woken once and
    /// finds them all.
    fn parts_ended(&self, ascending: &[usize], result: std::result::Result<(), Errno>) {
        if let Err(errno) = result {
            let code = errno.raw_os_error().unsigned_abs();
            let _first = self.error.compare_exchange(0, code, Ordering::SeqCst, Ordering::SeqCst);
        }
        let ended = ascending.iter().rev().filter(|n| self.part_ended(**n, result.is_err()));
        let ended = ended.count() as u64;
        if ended == 0 {
            return;
        }
        self.space.core().pool.memory.notify();
        if self.left.fetch_sub(ended, Ordering::SeqCst) == ended {
            self.ended.notify();
            let then = self.then.lock().take();
            if let Some(then) = then {
                then();
            }
        }
    }

    /// One part of page `n` ended; true when it was the last.
    fn part_ended(&self, n: usize, failed: bool) -> bool {
        let page = &self.pages[n];
        if failed {
            page.failed.store(true, Ordering::SeqCst);
        }
        if page.parts.fetch_sub(1, Ordering::SeqCst) > 1 {
            return false;
        }
        let filled = !page.failed.load(Ordering::SeqCst);
        if filled {
            self.zero_beyond_size(&page.filling);
        }
        page.filling.end(&self.space, filled);
        true
    }

    fn zero_beyond_size(&self, filling: &Filling) {
        let inside = part_in_page(&(0..self.size), filling.index).end;
        let beyond = SectorMask::of_bytes(inside.div_ceil(512) * 512..PAGE_SIZE);
        let pool = &self.space.core().pool;
        let frame = self.space.page(filling.page).frame();
        for run in beyond.and(filling.missing).runs() {
            pool.arena().zero(frame, run.start, run.len());
        }
        let within = inside % 512;
        if within != 0 && filling.missing.contains(SectorMask::of_bytes(sector_of(inside))) {
            pool.arena().zero(frame, inside, 512 - within);
        }
    }
}

fn sector_of(byte: usize) -> std::ops::Range<usize> {
    byte / 512 * 512..(byte / 512 + 1) * 512
}

/// Reads pages, ascending, in large bios; returns when all are submitted. Holes, unwritten blocks
/// and what is beyond the end of the file become zeros without I/O. Where the block map would have
/// to wait and must not (`may_wait`), pages fail. `then` is called when the last page has ended, if
/// there is one. Linux: `mpage_readahead()`, fs/mpage.c.
pub(crate) fn mpage_readahead(
    space: &AddressSpace,
    fillings: Vec<Filling>,
    get_block: &dyn GetBlock,
    may_wait: bool,
    then: Option<Then>,
) -> Arc<ReadBatch> {
    let page =
        |filling| BatchPage { filling, parts: AtomicU32::new(1), failed: AtomicBool::new(false) };
    let batch = Arc::new(ReadBatch {
        space: space.arc(),
        left: AtomicU64::new(fillings.len() as u64),
        pages: fillings.into_iter().map(page).collect(),
        size: space.size(),
        error: AtomicU32::new(0),
        ended: Event::default(),
        then: Mutex::new(then),
    });
    let mut reader = Reader {
        space,
        batch: &batch,
        mapper: Mapper::new(space, get_block, Purpose::Read),
        pending: None,
        may_wait,
    };
    for n in 0..batch.pages.len() {
        let added = reader.add_page(n);
        batch.parts_ended(&[n], added.map_err(|error| error.kind.errno()));
    }
    reader.submit();
    drop(reader);
    batch
}

struct Reader<'a> {
    space: &'a AddressSpace,
    batch: &'a Arc<ReadBatch>,
    mapper: Mapper<'a>,
    pending: Option<(Bio, Sector, Vec<usize>)>,
    may_wait: bool,
}

impl Reader<'_> {
    fn add_page(&mut self, n: usize) -> Result<()> {
        let filling = &self.batch.pages[n].filling;
        let size = self.space.block_size();
        let end = size.start_of(size.block_after(self.batch.size));
        let inside = SectorMask::of_bytes(part_in_page(&(0..end), filling.index));
        let wanted = filling.missing.and(inside);
        let more = (self.batch.pages.len() - n - 1) as u64;
        let (mut map, mut result) = self.mapper.map(filling.index, wanted, || more, false);
        let blocked = result.as_ref().is_err_and(|error| error.kind == ErrorKind::WouldBlock);
        if blocked && self.may_wait {
            self.submit();
            (map, result) = self.mapper.map(filling.index, wanted, || more, true);
        }
        result?;
        let frame = self.space.page(filling.page).frame();
        for run in map.holes.or(filling.missing.without(inside)).runs() {
            self.space.core().pool.arena().zero(frame, run.start, run.len());
        }
        for run in map.runs() {
            self.add_run(n, frame, run);
        }
        Ok(())
    }

    fn add_run(&mut self, n: usize, frame: mpage_mem::FrameId, run: &Run) {
        let limits = *self.space.dev().limits();
        let follows = self.pending.as_ref().is_some_and(|(_, end, _)| *end == run.sector);
        if !follows || !self.push(frame, run, &limits) {
            self.submit();
            let bio = Bio::read(self.space.core().pool.arena(), run.sector);
            self.pending = Some((bio, run.sector, Vec::new()));
            let fits = self.push(frame, run, &limits);
            assert!(fits, "an empty bio has room for a part of a page");
        }
        let (_, _, pages) = self.pending.as_mut().expect("just made");
        let _before = self.batch.pages[n].parts.fetch_add(1, Ordering::SeqCst);
        pages.push(n);
    }

    fn push(&mut self, frame: mpage_mem::FrameId, run: &Run, limits: &mpage_block::Limits) -> bool {
        let (bio, end, _) = self.pending.as_mut().expect("the caller looked");
        let fits = bio.push(frame, run.offset, run.len, limits);
        *end = bio.end_sector();
        fits
    }

    fn submit(&mut self) {
        let Some((mut bio, _, pages)) = self.pending.take() else { return };
        let stats = &self.space.core().stats;
        stats.read_bios.add(1);
        stats.bytes_read.add(bio.bytes());
        let batch = Arc::clone(self.batch);
        self.space.dev().begin_read();
        let ended = move |result| {
            batch.space.dev().end_read();
            batch.parts_ended(&pages, result);
        };
        bio.on_completion(move |result| completion::run(move || ended(result)));
        if let Err(refused) = bio.submit(&**self.space.dev().block()) {
            refused.bio.complete(Err(refused.error));
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.submit();
    }
}
