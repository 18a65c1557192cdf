//! Bringing pages into the cache, and how far ahead of the reader.
//!
//! Each open tells streams apart by where they read: a few readers that go forward, interleaved, on
//! one open all stay ahead. A stream has one *window* at a time: the pages it started to read last.
//! One page of it has a *marker*, a bit of the page's entry word; who reads that page starts the
//! next window. Reading what is cached takes no lock and costs nothing more for it.
//!
//! The rule for windows, in pages:
//! - A stream begins with a miss of page 0, or of the page behind an earlier miss. Its first window
//!   is four times what was asked for, in powers of two; the marker is on the first page not asked
//!   for.
//! - A marker that is read starts a window behind the last, twice as long as that, or four times if
//!   that was less than a sixteenth of the longest; its marker is on its first page. So a whole
//!   window is in flight, or there, while the reader is in the one before.
//! - A miss of the first page behind the window that is not cached goes on in the same way, with
//!   the marker behind what was asked for.
//! - Other misses read what was asked for, and change no stream.
//! - What is asked for at once counts up to the longest window there may be.
//! - The longest window is 1 MiB at first. It doubles when a reader had to wait for a page in
//!   flight: the device takes longer than the reader needs for a window. It ends at 8 MiB, and at
//!   an eighth of the cache. When a page was read ahead and dropped before it was read, it becomes
//!   half of the window that was.
//!
//! Invariants:
//! 1. Nothing behind the end of the file is read.
//! 2. Reading ahead waits for nothing, and takes only memory that is free, or that nobody used
//!    since the clock passed. A window ends where there is no more, or where the device has enough
//!    to do; what was asked for is read all the same.
//! 3. An error is silent: its pages stay not up to date, and who needs one reads it again, alone
//!    with what else it asked for, and reports.
//! 4. A marker is on a page whose reading its window began. It is taken by the one who acts on it.
//!
//! Linux: `page_cache_sync_ra()`, `page_cache_async_ra()`, `page_cache_ra_unbounded()`,
//! mm/readahead.c; `generic_fadvise()`, mm/fadvise.c; `filemap_read_folio()`, mm/filemap.c.
//! Differs: several streams an open instead of one and a search of the cache; the longest window
//! follows the device.

use std::ops::Range;
use std::sync::Arc;

use mpage_locks::Mutex;
use mpage_locks::atomic::{AtomicBool, Ordering};

use crate::address_space::{AddressSpace, PagePin};
use crate::error::{Error, ErrorKind, Result};
use crate::get_block::GetBlock;
use crate::may_wait::MayWait;
use crate::mpage::{Filling, Then, mpage_readahead};
use crate::page::{FILLING, READAHEAD, REFERENCED, Word};
use crate::reclaim::{get_page, get_page_now};
use crate::units::{PAGE_BYTES, PageIndex, SectorMask, pages_touched, part_in_page};

mod stream;
use stream::{Streams, Window};

/// Pages read together at most: 1 MiB.
const BATCH_PAGES: u64 = 256;

/// The longest window at first, and for a reader that waits for the device: 1 MiB and 8 MiB.
const PAGES_MAX: Range<u64> = BATCH_PAGES..8 * BATCH_PAGES;

/// Pages of a request that are looked at for one that is missing.
const LOOKED_AT: usize = 256;

/// A window takes at most this part of the cache.
const PART_MAX: u64 = 8;

/// How an open is going to be used. Linux: `posix_fadvise(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing is known: windows grow as readers go forward. The default. Of the whole open,
    /// whatever the range.
    Normal,
    /// Nothing is read but what is asked for. Of the whole open, whatever the range.
    Random,
    /// Windows may be twice as long. Of the whole open, whatever the range.
    Sequential,
    /// The range is needed soon: starts to read it, as much as a quarter of the cache holds and
    /// memory is free for, and does not wait.
    WillNeed,
    /// The range is not needed: starts to write what is dirty, and drops the pages wholly inside
    /// that are clean, durable and unused. Does not wait.
    DontNeed,
    /// What this open reads will not be read again: it does not count as used, and goes first when
    /// memory is wanted. Of the whole open, whatever the range, until `Normal` is advised.
    NoReuse,
}

/// What one open knows about its readers. Linux: `struct file_ra_state`.
#[derive(Debug)]
pub(crate) struct Readahead {
    /// `None`: read what is asked for and nothing else.
    streams: Mutex<Option<Streams>>,
    no_reuse: AtomicBool,
}

impl Readahead {
    /// For a fresh open of a file in `space`.
    pub(crate) fn new(space: &AddressSpace) -> Readahead {
        let streams = Mutex::new(Some(Streams::new(pages_max(space, 1))));
        Readahead { streams, no_reuse: AtomicBool::new(false) }
    }

    /// Takes the advice that is about the open and not about a range. Streams begin anew.
    pub(crate) fn advise(&self, space: &AddressSpace, advice: Advice) {
        let streams = match advice {
            Advice::Normal => Some(Streams::new(pages_max(space, 1))),
            Advice::Sequential => Some(Streams::new(pages_max(space, 2))),
            Advice::Random => None,
            Advice::NoReuse => return self.no_reuse.store(true, Ordering::Relaxed),
            Advice::WillNeed | Advice::DontNeed => return,
        };
        if advice == Advice::Normal {
            self.no_reuse.store(false, Ordering::Relaxed);
        }
        *self.streams.lock() = streams;
    }

    /// Page `index` was read, when its word was `word`: marks it as used, and starts the next
    /// window if it was marked. With `may_wait` the block map may wait for its metadata; nothing
    /// else ever waits.
    #[inline]
    pub(crate) fn note_hit(
        &self,
        space: &AddressSpace,
        index: PageIndex,
        word: Word,
        may_wait: bool,
    ) {
        if word.0 & (REFERENCED | READAHEAD) != REFERENCED {
            self.note_first_use(space, index, word, may_wait);
        }
    }

    #[cold]
    fn note_first_use(&self, space: &AddressSpace, index: PageIndex, word: Word, may_wait: bool) {
        let Some(page) = space.peek(index) else { return };
        if !word.has(REFERENCED) && !self.no_reuse.load(Ordering::Relaxed) {
            let _now = page.set(REFERENCED);
        }
        if !word.has(READAHEAD) || space.dev().has_enough_reads() {
            return;
        }
        let mut streams = self.streams.lock();
        let Some(known) = streams.as_mut().filter(|_| page.take(READAHEAD)) else { return };
        let next_missing = |from| next_missing(space, from);
        let Some(window) = known.on_marker(index.0, next_missing) else { return };
        drop(streams);
        space.core().stats.readahead_markers.add(1);
        self.start(space, &window, may_wait);
    }

    /// Brings the first page of byte `range`, which is not cached, into the cache, and starts to
    /// read what else is asked for and what comes next. Waits for the first page.
    ///
    /// # Errors
    ///
    /// As [`read_page`].
    #[cold]
    pub(crate) fn fetch(&self, space: &AddressSpace, range: Range<u64>) -> Result<()> {
        let may_wait = MayWait::no_bio_held();
        let index = PageIndex::of(range.start);
        let mut asked = pages_touched(&range);
        asked.end = asked.end.min(asked.start + pages_max(space, 1).end);
        let word = space.pin(index).map(|pin| pin.word());
        match word {
            Some(word) if word.has(FILLING) => self.note_wait(space, index),
            // Its reading failed, or it has some blocks alone.
            Some(_) => self.start(space, &Window::only(&asked), true),
            None => {
                let on_miss =
                    |known: &mut Streams| known.on_miss(&asked, |from| next_missing(space, from));
                let window = self.streams.lock().as_mut().map(on_miss);
                self.start(space, &window.unwrap_or(Window::only(&asked)), true);
            }
        }
        let pin = get_page(space, index, false, &may_wait);
        // Also what a truncate has cut off meanwhile: the caller goes on until it has all.
        let wanted = space.block_size().sectors_touched(part_in_page(&range, index));
        read_page(space, &pin, wanted, &may_wait)
    }

    /// Starts to read what is missing of byte `range`, and what comes next, and waits for nothing.
    /// `then` is called, by a thread of the device, when what was missing has been read, or has
    /// failed. It is given back when nothing was started: somebody else reads the range already,
    /// there is no memory without waiting, or the range is long.
    pub(crate) fn start_fetch(
        &self,
        space: &AddressSpace,
        range: &Range<u64>,
        then: Then,
    ) -> Option<Then> {
        let mut asked = pages_touched(range);
        let missing = |n: &u64| space.peek(PageIndex(*n)).is_none();
        let first = asked.clone().take(LOOKED_AT).find(missing);
        let (Some(first), true) = (first, asked.end - asked.start <= BATCH_PAGES) else {
            return Some(then);
        };
        asked.start = first;
        let on_miss = |known: &mut Streams| known.on_miss(&asked, |from| next_missing(space, from));
        let window = self.streams.lock().as_mut().map(on_miss);
        let mut then = Some(then);
        self.start_then(space, &window.unwrap_or(Window::only(&asked)), false, &mut then);
        then
    }

    fn note_wait(&self, space: &AddressSpace, index: PageIndex) {
        let mut streams = self.streams.lock();
        if streams.as_mut().is_some_and(|streams| streams.on_wait(index.0)) {
            space.core().stats.readahead_waits.add(1);
        }
    }

    /// Starts to read the pages of a window.
    fn start(&self, space: &AddressSpace, window: &Window, may_wait: bool) {
        self.start_then(space, window, may_wait, &mut None);
    }

    /// As [`start`](Self::start); takes `then` if something is read, and calls it when the first
    /// batch has ended.
    fn start_then(
        &self,
        space: &AddressSpace,
        window: &Window,
        may_wait: bool,
        then: &mut Option<Then>,
    ) {
        let no_reuse = self.no_reuse.load(Ordering::Relaxed);
        let end = start_reading(space, window, (no_reuse, may_wait), then);
        if end < window.pages.end
            && let Some(streams) = self.streams.lock().as_mut()
        {
            streams.stopped(window, end);
        }
    }
}

/// The first page from `from` on that is not cached, unless that is farther than a window is long.
fn next_missing(space: &AddressSpace, from: u64) -> Option<u64> {
    (from..from + pages_max(space, 1).end).find(|n| space.peek(PageIndex(*n)).is_none())
}

/// Where the longest window of an open begins to grow, `factor` times the usual, and where it ends.
fn pages_max(space: &AddressSpace, factor: u64) -> Range<u64> {
    let most = (space.core().pool.len() as u64 / PART_MAX).clamp(1, PAGES_MAX.end);
    (PAGES_MAX.start * factor).min(most)..most
}

/// Starts to read byte `range`, as much of it as a quarter of the cache holds. Waits for nothing.
/// Linux: `force_page_cache_ra()`, mm/readahead.c.
pub(crate) fn will_need(space: &AddressSpace, range: &Range<u64>) {
    let mut pages = pages_touched(range);
    pages.end = pages.end.min(pages.start.saturating_add(space.core().pool.len() as u64 / 4));
    let count = pages.end.saturating_sub(pages.start);
    let window = Window { pages, asked: count, marker: None };
    let _end = start_reading(space, &window, (false, true), &mut None);
}

/// Starts to read the pages of `window` that are missing and can be had without waiting, in large
/// bios; returns the page before which it stopped. The marker goes on the first page that is read
/// from its place on, or the last before it.
/// `then` goes to the first batch that has something to read.
fn start_reading(
    space: &AddressSpace,
    window: &Window,
    (no_reuse, may_wait): (bool, bool),
    then: &mut Option<Then>,
) -> u64 {
    let (mut at, mut begun, mut marker) = (window.pages.start, 0, window.marker);
    let Some(get_block) = space.ops().get_block.clone() else { return at };
    // Invariant 1.
    let end = window.pages.end.min(space.size().div_ceil(PAGE_BYTES));
    while at < end {
        let whole = at..end.min(at + BATCH_PAGES);
        // Invariant 2.
        let batch = match space.dev().has_enough_reads() {
            true => at..whole.end.min(window.pages.start + window.asked),
            false => whole.clone(),
        };
        let (fillings, stop) = begin(space, batch, no_reuse);
        let last = stop < whole.end || stop == end;
        if let Some(filling) = marker.and_then(|place| to_mark(&fillings, place, last)) {
            let _now = space.page(filling.page()).set(READAHEAD);
            marker = None;
        }
        begun += fillings.len() as u64;
        let then = if fillings.is_empty() { None } else { then.take() };
        let _batch = mpage_readahead(space, fillings, &*get_block, may_wait, then);
        at = stop;
        if last {
            break;
        }
    }
    if window.marker.is_some() && begun > 0 {
        space.core().stats.readahead_windows.add(1);
        space.core().stats.readahead_pages.add(begun);
    }
    at
}

/// The page of `fillings` to mark: the first from `place` on, or the `last` of all.
fn to_mark(fillings: &[Filling], place: u64, last: bool) -> Option<&Filling> {
    let found = fillings.iter().find(|filling| filling.index().0 >= place);
    found.or_else(|| fillings.last().filter(|_| last))
}

/// Begins to fill what is missing of `pages`. Stops where there is no memory for a page, or it is
/// being removed; returns where, too.
fn begin(space: &AddressSpace, pages: Range<u64>, no_reuse: bool) -> (Vec<Filling>, u64) {
    let mut fillings = Vec::new();
    for index in pages.clone().map(PageIndex) {
        let Ok(pin) = get_page_now(space, index) else { return (fillings, index.0) };
        if let Some(Some(filling)) = Filling::try_begin(space, &pin, SectorMask::ALL) {
            if no_reuse {
                space.page(pin.id()).reset(REFERENCED);
            }
            fillings.push(filling);
        }
    }
    (fillings, pages.end.max(pages.start))
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
    mpage_readahead(space, vec![filling], &*get_block, true, None).wait()
}

/// Makes what a pinned page lacks zeros, if all of it lies behind the end of the file: without I/O.
/// Waits for nothing.
pub(crate) fn zero_unread(space: &AddressSpace, pin: &PagePin<'_>) {
    let blocks = space.block_size();
    let end = blocks.start_of(blocks.block_after(space.size()));
    let inside = SectorMask::of_bytes(part_in_page(&(0..end), pin.index()));
    let Some(get_block) = &space.ops().get_block else { return };
    if pin.word().uptodate().contains(inside)
        && let Some(Some(filling)) = Filling::try_begin(space, pin, SectorMask::ALL)
    {
        let _batch = mpage_readahead(space, vec![filling], &**get_block, false, None);
    }
}

/// The mapping's block map.
pub(crate) fn get_block_of(space: &AddressSpace) -> Result<Arc<dyn GetBlock>> {
    space.ops().get_block.clone().ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, "read").because("the mapping has no block map")
    })
}
