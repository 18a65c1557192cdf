//! A page of the cache: who it is, what state it is in, and who may do what to it.
//!
//! A page is identity and state; its memory is a frame of the arena. Pages are type-stable: a
//! `Page` is never freed, only recycled, so a thread that holds a stale number looks at some page,
//! and finds out which.
//!
//! All state that decides anything is in one 64-bit *entry word*, changed by single exchanges. Its
//! fields and the seven protocols over it are in `docs/locking.md`; the numbers below are cited
//! there and here.
//!
//! ```text
//!            insert              store               start_writeback
//!   free ------------> clean ------------> dirty ------------------------> writeback
//!    ^                 ^   ^                ^  ^  store (copies the frame)   |
//!    |  freeze, detach |   |                |  +-----------------------------+
//!    +-----------------+   |                |  end_writeback, failed         |
//!                          |                +--------------------------------+
//!                          |           end_writeback                         |
//!                          +-------------------------------------------------+
//! ```
//!
//! Invariants:
//! 1. While SHARED is set nobody copies bytes into the page's frame.
//! 2. SHARED and FILLING are set only by an exchange that found `stores` zero.
//! 3. Dirty bits lie within uptodate bits.
//! 4. A frame leaves a page only after `version` moved, or after `mapping` was cleared and
//!    `version` moved.
//! 5. A page with stores, pins, WRITEBACK or FILLING is not freed; DETACHED makes the last of them
//!    free it.
//!
//! Linux: `struct folio`, include/linux/page-flags.h. Differs: dirtying takes no page lock, and a
//! write in flight does not hold writers back.

use mpage_locks::atomic::{AtomicU32, AtomicU64, Ordering};
use mpage_mem::FrameId;

use crate::units::{PageIndex, SectorMask};

/// The number of a page in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PageId(pub(crate) u32);

/// The number of a write that needs no flush.
pub(crate) const DURABLE: u64 = 0;

/// The mapping number of a page that belongs to none.
pub(crate) const NO_MAPPING: u64 = 0;

const UPTODATE_SHIFT: u32 = 0;
const DIRTY_SHIFT: u32 = 8;
const STORE: u64 = 1 << 16;
const STORES: u64 = 0xffff << 16;
const PIN: u64 = 1 << 32;
const PINS: u64 = 0xffff << 32;
/// A write of this page is on its way to the device.
pub(crate) const WRITEBACK: u64 = 1 << 48;
/// That write reads the page's own frame.
pub(crate) const SHARED: u64 = 1 << 49;
/// Somebody is giving the page a fresh frame.
pub(crate) const COPYING: u64 = 1 << 50;
/// Blocks that are not up to date are being read or zeroed.
pub(crate) const FILLING: u64 = 1 << 51;
/// The page lock.
pub(crate) const LOCKED: u64 = 1 << 52;
/// Nobody may enter.
pub(crate) const FROZEN: u64 = 1 << 53;
/// Out of the tree; the last one out frees it.
pub(crate) const DETACHED: u64 = 1 << 54;
/// Somebody sleeps on this page.
pub(crate) const WAITERS: u64 = 1 << 55;
/// Used since the clock hand passed.
pub(crate) const REFERENCED: u64 = 1 << 56;
/// Its last write failed, and the data waits for the next try.
pub(crate) const FAILED: u64 = 1 << 57;
/// Whoever reads the page starts to read the window behind it. Linux: `PG_readahead`.
pub(crate) const READAHEAD: u64 = 1 << 58;
/// While any of these is there the page is not freed (invariant 5).
pub(crate) const KEEPS_PAGE: u64 = STORES | PINS | WRITEBACK | FILLING;

/// A value of the entry word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) u64);

impl Word {
    /// True when any of `flags` is set.
    #[inline]
    pub(crate) fn has(self, flags: u64) -> bool {
        self.0 & flags != 0
    }

    /// The sectors whose bytes are those of the file.
    #[inline]
    pub(crate) fn uptodate(self) -> SectorMask {
        SectorMask(self.0.to_le_bytes()[0])
    }

    /// The sectors whose bytes the device does not have yet.
    #[inline]
    pub(crate) fn dirty(self) -> SectorMask {
        SectorMask(self.0.to_le_bytes()[1])
    }

    /// True while some thread copies bytes into the page.
    #[inline]
    pub(crate) fn has_stores(self) -> bool {
        self.0 & STORES != 0
    }

    /// True while exactly one thread stores into the page.
    pub(crate) fn has_one_store(self) -> bool {
        self.0 & STORES == STORE
    }

    /// True when nothing but the tree refers to the page and its bytes are on the device.
    fn can_be_evicted(self) -> bool {
        let busy = KEEPS_PAGE | COPYING | LOCKED | FROZEN;
        self.0 & busy == 0 && self.dirty().is_empty()
    }
}

impl std::fmt::Debug for Word {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const NAMES: [(u64, &str); 11] = [
            (WRITEBACK, "writeback"),
            (SHARED, "shared"),
            (COPYING, "copying"),
            (FILLING, "filling"),
            (LOCKED, "locked"),
            (FROZEN, "frozen"),
            (DETACHED, "detached"),
            (WAITERS, "waiters"),
            (REFERENCED, "referenced"),
            (FAILED, "failed"),
            (READAHEAD, "readahead"),
        ];
        write!(f, "uptodate {:08b} dirty {:08b}", self.uptodate().0, self.dirty().0)?;
        write!(f, " stores {} pins {}", (self.0 & STORES) / STORE, (self.0 & PINS) / PIN)?;
        NAMES.iter().filter(|(bit, _)| self.has(*bit)).try_for_each(|(_, n)| write!(f, " {n}"))
    }
}

/// What [`Page::start_writeback`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// WRITEBACK is set. `own_frame`: the I/O may read the page's frame; otherwise a store is in
    /// progress and the content must be sampled into another.
    Started { before: Word, own_frame: bool, still_dirty: bool },
    /// A store is in progress and the caller would not sample.
    Busy,
    /// The page is under I/O, out of its mapping, or dirty elsewhere than the caller saw it.
    Changed,
}

/// One page. A cache line; lock-free readers touch no other part of the cache's books.
#[repr(align(64))]
#[derive(Debug)]
pub(crate) struct Page {
    word: AtomicU64,
    /// Moves whenever a frame leaves the page (invariant 4).
    version: AtomicU64,
    mapping: AtomicU64,
    index: AtomicU64,
    frame: AtomicU32,
    /// Where the write that is not covered by a device flush stands: see [`Written`].
    written_at: AtomicU64,
    written_sectors: AtomicU32,
    dirty_since: AtomicU64,
}

/// What a reader saw, to be compared after it copied.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    version: u64,
    pub(crate) frame: FrameId,
    pub(crate) word: Word,
}

impl Page {
    /// A page that belongs to nobody.
    pub(crate) fn free() -> Page {
        Page {
            word: AtomicU64::new(FROZEN),
            version: AtomicU64::new(0),
            mapping: AtomicU64::new(NO_MAPPING),
            index: AtomicU64::new(0),
            frame: AtomicU32::new(0),
            written_at: AtomicU64::new(0),
            written_sectors: AtomicU32::new(0),
            dirty_since: AtomicU64::new(0),
        }
    }

    /// The entry word now.
    #[inline]
    pub(crate) fn word(&self) -> Word {
        Word(self.word.load(Ordering::SeqCst))
    }

    /// True when the page is page `index` of mapping `mapping` now.
    #[inline]
    pub(crate) fn is(&self, mapping: u64, index: PageIndex) -> bool {
        self.mapping.load(Ordering::Acquire) == mapping
            && self.index.load(Ordering::Acquire) == index.0
    }

    /// The mapping and index the page has now. May be mixed up while the page is recycled: a hint.
    pub(crate) fn identity(&self) -> (u64, PageIndex) {
        (self.mapping.load(Ordering::Acquire), PageIndex(self.index.load(Ordering::Acquire)))
    }

    /// The page's frame now.
    #[inline]
    pub(crate) fn frame(&self) -> FrameId {
        FrameId::new(self.frame.load(Ordering::Acquire))
    }

    /// Begins a read that takes nothing: `None` when the page is not page `index` of `mapping`.
    #[inline]
    pub(crate) fn begin_read(&self, mapping: u64, index: PageIndex) -> Option<Seen> {
        let version = self.version.load(Ordering::Acquire);
        if !self.is(mapping, index) {
            return None;
        }
        let word = Word(self.word.load(Ordering::Acquire));
        Some(Seen { version, frame: self.frame(), word })
    }

    /// True when the bytes copied since [`begin_read`](Self::begin_read) were this page's. The copy
    /// out of the arena ends with an acquire fence, which this relies on.
    #[inline]
    pub(crate) fn end_read(&self, seen: Seen) -> bool {
        self.version.load(Ordering::Relaxed) == seen.version
    }

    /// Gives a free page to a mapping, with `frame` and one pin.
    pub(crate) fn assign(&self, mapping: u64, index: PageIndex, frame: FrameId) {
        self.index.store(index.0, Ordering::Release);
        self.frame.store(frame.get(), Ordering::Release);
        self.written_at.store(0, Ordering::Relaxed);
        self.dirty_since.store(0, Ordering::Relaxed);
        self.mapping.store(mapping, Ordering::Release);
        // Late comers to the page's former life may still be in the counts, and leave them later.
        let counts = STORES | PINS;
        let _before = self.update(|word| Some(((word.0 & counts) + PIN) | REFERENCED));
    }

    /// Takes the page from its mapping; returns its frame, which the caller gives back (invariant
    /// 4).
    pub(crate) fn take_frame(&self) -> FrameId {
        self.mapping.store(NO_MAPPING, Ordering::Release);
        let frame = self.frame();
        let _before: u64 = self.version.fetch_add(1, Ordering::SeqCst);
        frame
    }

    /// Replaces the frame; the caller holds COPYING, and gives the returned one back.
    pub(crate) fn replace_frame(&self, fresh: FrameId) -> FrameId {
        let old = self.frame();
        self.frame.store(fresh.get(), Ordering::Release);
        let _before: u64 = self.version.fetch_add(1, Ordering::SeqCst);
        old
    }

    /// Adds a store in progress; returns the word with it.
    #[inline]
    pub(crate) fn add_store(&self) -> Word {
        let old = self.word.fetch_add(STORE, Ordering::SeqCst);
        assert!(old & STORES != STORES, "fewer than 65535 threads store into one page");
        Word(old + STORE)
    }

    /// Adds a pin; returns the word with it.
    #[inline]
    pub(crate) fn add_pin(&self) -> Word {
        let old = self.word.fetch_add(PIN, Ordering::SeqCst);
        assert!(old & PINS != PINS, "fewer than 65535 pins hold one page");
        Word(old + PIN)
    }

    /// Ends a store. True when the caller was the last one out of a detached page and must free it.
    #[inline]
    pub(crate) fn drop_store(&self) -> Left {
        self.leave(|word| word.0 - STORE)
    }

    /// Ends a store into `sectors` of a page that was already dirty there; `None`, and nothing
    /// changed, when it no longer is, or is detached: the first dirtying is the mapping's to do.
    #[inline]
    pub(crate) fn drop_store_into_dirty(&self, sectors: SectorMask) -> Option<Left> {
        let mut old = self.word.load(Ordering::SeqCst);
        loop {
            if Word(old).dirty().is_empty() || old & FROZEN != 0 {
                return None;
            }
            let new = (old | dirty_bits(sectors) | REFERENCED) - STORE;
            match self.exchange(old, new) {
                Ok(()) => return Some(Left::new(old, new)),
                Err(now) => old = now,
            }
        }
    }

    /// Ends a pin. True when the caller was the last one out of a detached page and must free it.
    pub(crate) fn drop_pin(&self) -> Left {
        self.leave(|word| word.0 - PIN)
    }

    /// Marks `sectors` dirty and up to date; the caller holds the mapping lock and is entered.
    /// Returns the word before.
    pub(crate) fn set_dirty(&self, sectors: SectorMask, flags: u64) -> Word {
        Word(self.word.fetch_or(dirty_bits(sectors) | flags, Ordering::SeqCst))
    }

    /// Clears dirty bits that will never be written: blocks beyond the end, holes. Mapping lock
    /// held.
    pub(crate) fn clear_dirty(&self, sectors: SectorMask) -> Word {
        Word(self.word.fetch_and(!(u64::from(sectors.0) << DIRTY_SHIFT), Ordering::SeqCst))
    }

    /// Ends a fill (protocol 5): `sectors` are up to date.
    pub(crate) fn end_fill(&self, sectors: SectorMask) -> Left {
        self.leave(|word| (word.0 & !FILLING) | u64::from(sectors.0) << UPTODATE_SHIFT)
    }

    /// Marks `sectors` up to date.
    pub(crate) fn set_uptodate(&self, sectors: SectorMask) {
        let bits = u64::from(sectors.0) << UPTODATE_SHIFT;
        let _before: u64 = self.word.fetch_or(bits, Ordering::SeqCst);
    }

    /// Makes `sectors`, which are not dirty, stale: the next reader reads the device again.
    pub(crate) fn clear_uptodate(&self, sectors: SectorMask) {
        let bits = u64::from(sectors.0) << UPTODATE_SHIFT;
        let _before: u64 = self.word.fetch_and(!bits, Ordering::SeqCst);
    }

    /// Takes `sectors` from dirty and sets WRITEBACK, in one exchange (protocol 4). Mapping lock
    /// held. `seen`: what the caller saw dirty when it chose `sectors`; what was dirtied since may
    /// belong to the snapshot of somebody whose mark goes with this write, so the caller looks
    /// again. `sample`: start even though a store is in progress, without the page's own frame.
    pub(crate) fn start_writeback(
        &self,
        sectors: SectorMask,
        seen: SectorMask,
        sample: bool,
    ) -> Start {
        let mut old = self.word.load(Ordering::SeqCst);
        loop {
            let word = Word(old);
            let as_seen = word.dirty().contains(sectors) && seen.contains(word.dirty());
            if word.has(WRITEBACK | FROZEN) || !as_seen {
                return Start::Changed;
            }
            let own_frame = !word.has_stores();
            if !own_frame && !sample {
                return Start::Busy;
            }
            let mut new = (old & !(u64::from(sectors.0) << DIRTY_SHIFT)) | WRITEBACK;
            if own_frame {
                new |= SHARED;
            }
            let still_dirty = !Word(new).dirty().is_empty();
            if !still_dirty {
                new &= !FAILED;
            }
            match self.exchange(old, new) {
                Ok(()) => return Start::Started { before: word, own_frame, still_dirty },
                Err(now) => old = now,
            }
        }
    }

    /// Ends the write of the page: `failed` sectors are dirty again. Mapping lock held. Returns the
    /// word before and whether the caller must free the page.
    pub(crate) fn end_writeback(&self, failed: SectorMask) -> (Word, Left) {
        let again = if failed.is_empty() { 0 } else { dirty_bits(failed) | FAILED };
        let mut old = self.word.load(Ordering::SeqCst);
        loop {
            let live = if old & DETACHED == 0 { again } else { 0 };
            let mut new = (old & !(WRITEBACK | SHARED)) | live;
            let left = Left::new(old, new);
            if left.frees {
                new &= !DETACHED;
            }
            match self.exchange(old, new) {
                Ok(()) => return (Word(old), left),
                Err(now) => old = now,
            }
        }
    }

    /// Sets `flag` if the word has none of `unless`; true when this call set it.
    pub(crate) fn try_set(&self, flag: u64, unless: u64) -> bool {
        self.update(|word| (!word.has(flag | unless)).then_some(word.0 | flag)).is_some()
    }

    /// Begins exclusive filling (protocol 5): true when no store, copy, fill or detach is in the
    /// way.
    pub(crate) fn try_fill(&self) -> bool {
        self.try_set(FILLING, STORES | COPYING | FROZEN)
    }

    /// Clears `flag`; the caller had set it. True in `Left` as for the others.
    pub(crate) fn clear(&self, flag: u64) -> Left {
        self.leave(|word| word.0 & !flag)
    }

    /// Sets flags that only inform: REFERENCED, WAITERS, FAILED, READAHEAD.
    pub(crate) fn set(&self, flags: u64) -> Word {
        Word(self.word.fetch_or(flags, Ordering::SeqCst) | flags)
    }

    /// Clears flags that only inform.
    pub(crate) fn reset(&self, flags: u64) {
        let _before: u64 = self.word.fetch_and(!flags, Ordering::SeqCst);
    }

    /// Clears a flag that only informs; true when this call cleared it.
    pub(crate) fn take(&self, flag: u64) -> bool {
        self.word.fetch_and(!flag, Ordering::SeqCst) & flag != 0
    }

    /// Freezes a clean, idle, unpinned page for eviction, in one exchange (protocol 6). Mapping
    /// lock held.
    pub(crate) fn try_freeze(&self) -> bool {
        self.update(|word| word.can_be_evicted().then_some(word.0 | FROZEN)).is_some()
    }

    /// Detaches a page that is clean, idle, and pinned by the caller alone, who holds its lock.
    /// False when it is not. Mapping lock held. The caller's pin is the last one out.
    pub(crate) fn try_detach_clean(&self) -> bool {
        let change = |word: Word| {
            let others = (KEEPS_PAGE & !PINS) | COPYING | FROZEN;
            let idle = word.0 & others == 0 && word.0 & PINS == PIN && word.dirty().is_empty();
            idle.then_some(word.0 | FROZEN | DETACHED)
        };
        self.update(change).is_some()
    }

    /// Detaches the page: nobody may enter, what it holds is nobody's, and it is freed by the last
    /// one out, which the caller is when `Left` says so. Mapping lock held. Returns the word
    /// before.
    pub(crate) fn detach(&self) -> (Word, Left) {
        let mut old = self.word.load(Ordering::SeqCst);
        loop {
            assert!(old & FROZEN == 0, "a page is detached once");
            let mut new = (old & !(dirty_bits(SectorMask::ALL) | FAILED)) | FROZEN | DETACHED;
            let left = Left::new(old, new);
            if left.frees {
                new &= !DETACHED;
            }
            match self.exchange(old, new) {
                Ok(()) => return (Word(old), left),
                Err(now) => old = now,
            }
        }
    }

    /// Notes that `sectors` were written by a write that ended as number `at` of the device, and
    /// are not durable before a flush that covers it. `flushed` is the last number a good flush
    /// covered.
    pub(crate) fn note_written(&self, sectors: SectorMask, at: u64, flushed: u64) {
        let (before, waiting) = self.written();
        let waiting = if before > flushed { waiting } else { SectorMask::NONE };
        let (at, waiting) = match at {
            DURABLE => (before, waiting.without(sectors)),
            at => (at, waiting.or(sectors)),
        };
        let at = if waiting.is_empty() { DURABLE } else { at };
        self.written_sectors.store(u32::from(waiting.0), Ordering::Relaxed);
        self.written_at.store(at, Ordering::Relaxed);
    }

    /// `sectors` are removed: a failed flush does not make them dirty again. Mapping lock.
    pub(crate) fn forget_written(&self, sectors: SectorMask) {
        let (_, waiting) = self.written();
        self.written_sectors.store(u32::from(waiting.without(sectors).0), Ordering::Relaxed);
    }

    /// The number of the last write of the page, and the sectors written since the last good flush.
    pub(crate) fn written(&self) -> (u64, SectorMask) {
        let sectors = self.written_sectors.load(Ordering::Relaxed).to_le_bytes()[0];
        (self.written_at.load(Ordering::Relaxed), SectorMask(sectors))
    }

    /// When the page was first dirtied after it was last clean, in clock nanoseconds.
    pub(crate) fn dirty_since_ns(&self) -> u64 {
        self.dirty_since.load(Ordering::Relaxed)
    }

    /// Stamps the page's first dirtying.
    pub(crate) fn stamp_dirty(&self, now_ns: u64) {
        self.dirty_since.store(now_ns, Ordering::Relaxed);
    }

    fn exchange(&self, old: u64, new: u64) -> Result<(), u64> {
        self.word.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::SeqCst).map(|_| ())
    }

    /// Exchanges the word; `None` when `change` declined, else the word before.
    fn update(&self, change: impl Fn(Word) -> Option<u64>) -> Option<Word> {
        let mut old = self.word.load(Ordering::SeqCst);
        loop {
            match self.exchange(old, change(Word(old))?) {
                Ok(()) => return Some(Word(old)),
                Err(now) => old = now,
            }
        }
    }

    /// Gives something up; the last one out of a detached page frees it (protocol 7).
    #[inline]
    fn leave(&self, change: impl Fn(Word) -> u64) -> Left {
        let mut old = self.word.load(Ordering::SeqCst);
        loop {
            let mut new = change(Word(old));
            let left = Left::new(old, new);
            if left.frees {
                new &= !DETACHED;
            }
            match self.exchange(old, new) {
                Ok(()) => return left,
                Err(now) => old = now,
            }
        }
    }
}

fn dirty_bits(sectors: SectorMask) -> u64 {
    (u64::from(sectors.0) << DIRTY_SHIFT) | (u64::from(sectors.0) << UPTODATE_SHIFT)
}

/// What somebody who gave up a store, pin or flag still has to do.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Free the page: the caller was the last one out.
    pub(crate) frees: bool,
    /// Wake who sleeps on the page.
    pub(crate) wakes: bool,
}

impl Left {
    fn new(old: u64, new: u64) -> Left {
        let frees = new & DETACHED != 0 && new & KEEPS_PAGE == 0;
        Left { frees, wakes: old & WAITERS != 0 }
    }
}

#[cfg(all(test, mpage_loom))]
mod loom_tests;
