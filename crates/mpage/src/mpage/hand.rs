//! What a walker holds: at most one unsubmitted bio, and with it the mapping's turn.

use std::sync::Arc;

use mpage_block::{Bio, BioFlags, Errno};
use mpage_locks::atomic::{AtomicU32, AtomicU64, Ordering};
use mpage_mem::FrameId;

use super::map::Run;
use crate::address_space::{AddressSpace, Ended};
use crate::completion;
use crate::may_wait::MayWait;
use crate::page::PageId;
use crate::turn::{Rank, TurnGuard};
use crate::units::{FileBlock, PageIndex, Sector, SectorMask};

/// A walker's hand. Whatever it holds is submitted when it is dropped, also by a panic.
pub(super) struct Hand<'a> {
    space: &'a AddressSpace,
    flags: BioFlags,
    pub(super) rank: Rank,
    /// Somebody waits for these pages alone: the device takes them beside all others.
    urgent: bool,
    pending: Option<Pending<'a>>,
}

/// The bio being built.
struct Pending<'a> {
    bio: Bio,
    end: Sector,
    pages: Vec<PendingPage>,
    number: Option<u64>,
    _turn: TurnGuard<'a>,
}

/// A page, or a part of one, in a bio.
struct PendingPage {
    page: PageId,
    index: PageIndex,
    sectors: SectorMask,
    split: Option<Arc<Split>>,
}

/// A page whose parts are in several bios: the last to complete ends its writeback.
pub(super) struct Split {
    parts: AtomicU32,
    failed: AtomicU32,
    written_at: AtomicU64,
    sectors: SectorMask,
    number: u64,
    /// How many flushes of the device had failed before the first part was submitted.
    began: u64,
}

impl Split {
    /// For a page in `parts` parts that hold `sectors`, entered in the table as `number`.
    pub(super) fn new(parts: usize, sectors: SectorMask, number: u64, began: u64) -> Arc<Split> {
        let parts = u32::try_from(parts).expect("a page has eight sectors");
        Arc::new(Split {
            parts: AtomicU32::new(parts),
            failed: AtomicU32::new(0),
            written_at: AtomicU64::new(0),
            sectors,
            number,
            began,
        })
    }

    /// One part ended. With the last: the sectors that failed, and the last write's number.
    fn part_ended(&self, failed: SectorMask, at: u64) -> Option<(SectorMask, u64)> {
        let _before = self.failed.fetch_or(u32::from(failed.0), Ordering::SeqCst);
        let _before = self.written_at.fetch_max(at, Ordering::SeqCst);
        if self.parts.fetch_sub(1, Ordering::SeqCst) > 1 {
            return None;
        }
        let failed = SectorMask(self.failed.load(Ordering::SeqCst).to_le_bytes()[0]);
        Some((failed, self.written_at.load(Ordering::SeqCst)))
    }
}

impl<'a> Hand<'a> {
    /// An empty hand.
    pub(super) fn new(space: &'a AddressSpace, rank: Rank) -> Hand<'a> {
        let flags =
            BioFlags { sync: !rank.cleaning, background: rank.cleaning, ..BioFlags::default() };
        Hand { space, flags, rank, urgent: false, pending: None }
    }

    /// The same for a write-through, past the device's cache if `fua`.
    pub(super) fn urgent(mut self, fua: bool) -> Hand<'a> {
        self.flags.fua = fua;
        self.urgent = true;
        self
    }

    /// Submits what the hand holds, gives up the turn, and proves it: now the caller may wait.
    pub(super) fn empty(&mut self) -> MayWait<'_> {
        self.submit();
        MayWait::of_empty_hand(self)
    }

    /// Submits what the hand holds, if anything, and gives up the turn.
    pub(super) fn submit(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        let Pending { mut bio, pages, number, .. } = pending;
        if pages.is_empty() {
            self.space.dev().bio_done();
            return;
        }
        let space = self.space.arc();
        let durable = self.flags.fua && space.dev().limits().fua;
        let stats = &self.space.core().stats;
        stats.write_bios.add(1);
        stats.bytes_written.add(bio.bytes());
        let began = space.dev().failed_flushes();
        let (bytes, submitted_ns) = (bio.bytes(), self.space.core().clock.now_ns());
        let write = self.space.dev().write_submitted();
        let ended = move |result| {
            let took_ns = space.core().clock.now_ns().saturating_sub(submitted_ns);
            space.dev().write_ended(write, bytes, took_ns);
            complete(&space, pages, (number, began), durable, result);
        };
        bio.on_completion(move |result| completion::run(move || ended(result)));
        if let Err(refused) = bio.submit(&**self.space.dev().block()) {
            refused.bio.complete(Err(refused.error));
        }
    }

    /// Makes the hand hold a bio that goes on at `sector`: the one it holds, or a fresh one, for
    /// which it may wait with an empty hand for the turn and for a place at the device.
    pub(super) fn prepare(&mut self, sector: Sector) {
        if self.pending.as_ref().is_some_and(|pending| pending.end == sector) {
            return;
        }
        self.submit();
        let dev = self.space.dev();
        let turn = loop {
            let ticket = dev.bio_ended.ticket();
            let turn = self.space.turn.take(self.rank);
            if dev.try_begin_bio(self.urgent) {
                break turn;
            }
            // An urgent hand has a place, and must not wait for the turn until there is one here.
            drop(turn);
            dev.bio_ended.wait(ticket);
        };
        let bio = Bio::write(self.space.core().pool.arena(), sector, self.flags);
        let pages = Vec::with_capacity(64);
        self.pending = Some(Pending { bio, end: sector, pages, number: None, _turn: turn });
    }

    /// The table number of the bio the hand holds, for a page that is about to join it.
    pub(super) fn number(&mut self) -> &mut Option<u64> {
        &mut self.pending.as_mut().expect("prepared").number
    }

    /// Adds a run of a page under writeback, whose bytes are in `frame`, to the prepared bio; a bio
    /// that has no room for it is submitted and a fresh one takes it.
    pub(super) fn add(
        &mut self,
        page: (PageId, PageIndex),
        frame: FrameId,
        run: &Run,
        split: Option<&Arc<Split>>,
    ) {
        self.prepare(run.sector);
        let limits = *self.space.dev().limits();
        let pending = self.pending.as_mut().expect("prepared");
        if !pending.bio.push(frame, run.offset, run.len, &limits) {
            // The page moves to an entry of its own before the old bio, whose end removes the old
            // entry, is let go.
            let from = pending.number;
            let number = split.is_none().then(|| self.space.move_in_table(page.1, from));
            self.submit();
            self.prepare(run.sector);
            let pending = self.pending.as_mut().expect("prepared");
            pending.number = number;
            let fits = pending.bio.push(frame, run.offset, run.len, &limits);
            assert!(fits, "an empty bio has room for a part of a page");
        }
        let pending = self.pending.as_mut().expect("prepared");
        pending.end = pending.bio.end_sector();
        let sectors = run.sectors();
        let split = split.map(Arc::clone);
        pending.pages.push(PendingPage { page: page.0, index: page.1, sectors, split });
    }
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        self.submit();
    }
}

/// Ends a write bio: the error first, then what the block map has to know, then the pages. Whoever
/// waits for the write is woken last. Linux: `mpage_write_end_io()`.
fn complete(
    space: &AddressSpace,
    pages: Vec<PendingPage>,
    (number, began): (Option<u64>, u64),
    durable: bool,
    result: Result<(), Errno>,
) {
    let at = match result {
        Ok(()) => {
            tell_block_map(space, &pages);
            space.dev().number_write(durable)
        }
        Err(errno) => {
            space.record_error(errno);
            0
        }
    };
    let mut ended = Vec::with_capacity(pages.len());
    for part in &pages {
        let failed = if result.is_ok() { SectorMask::NONE } else { part.sectors };
        let Some(split) = &part.split else {
            let (page, index, sectors) = (part.page, part.index, part.sectors);
            ended.push(Ended { page, index, sectors, failed, began });
            continue;
        };
        if let Some((failed, at)) = split.part_ended(failed, at) {
            let (sectors, began) = (split.sectors, split.began);
            let whole = Ended { page: part.page, index: part.index, sectors, failed, began };
            space.end_writeback(&[whole], Some(split.number), at);
        }
    }
    space.end_writeback(&ended, number, at);
    space.dev().bio_done();
}

/// Tells the block map which runs of blocks have their data now.
fn tell_block_map(space: &AddressSpace, pages: &[PendingPage]) {
    let Some(get_block) = &space.ops().get_block else { return };
    let size = space.block_size();
    let mut run = FileBlock(0)..FileBlock(0);
    for part in pages {
        for bytes in part.sectors.runs() {
            let start = size.block_of(part.index.start() + bytes.start as u64);
            let end = size.block_after(part.index.start() + bytes.end as u64);
            if start != run.end && run.start != run.end {
                space.note_blocks_written(&**get_block, run.clone());
            }
            run = if start == run.end { run.start..end } else { start..end };
        }
    }
    if run.start != run.end {
        space.note_blocks_written(&**get_block, run);
    }
}
