//! The block map of a file in use: what the cache asks, and is told, of the file's blocks.
//!
//! 1. Every answer is found under the metadata lock, from the claims and the map together.
//! 2. A place is chosen when a walk asks for one, for as many delayed blocks as follow each other.
//! 3. Blocks that were written are settled, and go into the map with the next sync of the file, or
//!    the next commit of all.
//!
//! See docs/ext4-transactions.md, "Data and its blocks"; "Why writeback cannot deadlock with it"
//! says what may be waited for here.

use std::ops::Range;
use std::sync::Arc;

use mpage::units::{DeviceBlock, FileBlock};
use mpage::{Extent, GetBlock, MapRequest, Place, Purpose, SyncKind};
use mpage_locks::atomic::{AtomicU64, Ordering};

use crate::change::Change;
use crate::claims::Settled;
use crate::error::{Error, Result};
use crate::inode::{FileKind, Inode, Timestamp};
use crate::layers::Attempt;
use crate::metadata::Metadata;
use crate::open_inode::{OpenInode, State};
use crate::view::View;
use crate::{balloc, block_map, orphan};

/// Blocks that are claimed at once at most.
const CLAIM_MAX: u64 = 1 << 15;
/// Settled runs that one change puts into the map.
const RUNS_MAX: usize = 32;
/// Bitmaps, or blocks of numbers, that these can fill.
const FILLED_MAX: u64 = 64;

/// The block map of one file.
pub(crate) struct FileMap {
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) open: Arc<OpenInode>,
    /// Blocks were taken out of the map so often.
    removals: AtomicU64,
}

impl FileMap {
    /// The block map of `open`.
    pub(crate) fn new(metadata: &Arc<Metadata>, open: &Arc<OpenInode>) -> FileMap {
        let (metadata, open) = (Arc::clone(metadata), Arc::clone(open));
        FileMap { metadata, open, removals: AtomicU64::new(0) }
    }

    pub(crate) fn inode(&self, view: &View<'_>) -> Attempt<Inode> {
        view.inode(self.open.number)
    }

    /// The run that holds `block`, from there on.
    fn find(&self, view: &View<'_>, block: u64) -> Attempt<Extent> {
        let inode = self.inode(view)?;
        let run = block_map::find(view, &inode, block)?;
        let state = self.open.lock();
        Ok(state.claims.find(block).unwrap_or_else(|| before_claims(&state, run, block)))
    }

    /// As [`find`](Self::find); what has no place gets one.
    fn find_to_write(&self, view: &View<'_>, request: &MapRequest) -> Attempt<Extent> {
        let block = request.first.0;
        let run = self.find(view, block)?;
        match run.place {
            Place::Mapped(_) => Ok(run),
            Place::Unwritten(to) => {
                let end = block + run.count.min(request.count);
                let mut state = self.open.lock();
                if let Some(claimed) = state.claims.find(block) {
                    return Ok(claimed);
                }
                let end = state.claims.first_in(&(block..end)).unwrap_or(end);
                state.convert(block..end, to.0);
                Ok(Extent { count: end - block, ..run })
            }
            Place::Hole => self.claim(view, run),
        }
    }

    /// Chooses a place for the delayed blocks at the beginning of `hole`.
    fn claim(&self, view: &View<'_>, hole: Extent) -> Attempt<Extent> {
        let block = hole.first.0;
        let goal = self.goal(view, block)?;
        let mut state = self.open.lock();
        // Another walk may have come to a page before this one's.
        if let Some(claimed) = state.claims.find(block) {
            return Ok(claimed);
        }
        let end = hole.first.0.saturating_add(hole.count);
        let end = state.claims.first_in(&(block..end)).unwrap_or(end);
        let delayed = state.delayed.get(&block).map_or(block + 1, |run| run.end);
        let count = (delayed.min(end) - block).min(CLAIM_MAX);
        let run = balloc::claim(view, &self.metadata.space, goal, count)?;
        let blocks = block..block + (run.end - run.start);
        state.claim(&mut self.metadata.space.lock(), blocks, run.start);
        let count = run.end - run.start;
        Ok(Extent { fresh: true, ..Extent::mapped(hole.first, DeviceBlock(run.start), count) })
    }

    /// Where `block` should be: behind the block before it.
    pub(crate) fn goal(&self, view: &View<'_>, block: u64) -> Attempt<u64> {
        if let Some(before) = block.checked_sub(1) {
            let run = self.find(view, before)?;
            if let Some(place) = run.device_block(FileBlock(before)) {
                return Ok(place.0 + 1);
            }
        }
        Ok(view.goal_of_inode(self.open.number))
    }

    /// Puts what is settled into the map, in as many changes as it takes, and brings the inode up
    /// to date. `size_bytes` gives the size that the file has, if all up to there was written. It
    /// goes through the file once, however fast more is settled.
    ///
    /// # Errors
    ///
    /// Those of reading the map; `EROFS`.
    pub(crate) fn bring_up_to_date(&self, size_bytes: &dyn Fn() -> u64) -> Result<()> {
        // What is not to be written is not ahead, unless it was until it was found damaged.
        if self.metadata.read_only().is_some() && !self.is_ahead()? {
            return Ok(());
        }
        let mut from = Some(0);
        while let Some(first) = from {
            let step = |change: &mut Change<'_>| self.map_some(change, first, size_bytes);
            from = self.metadata.change_and(step, |step, _| {
                let mut state = self.open.lock();
                let mut space = self.metadata.space.lock();
                for run in &step.runs {
                    state.mapped(&mut space, &run.blocks);
                }
                if let Some(inode) = &step.inode {
                    let of = (self.metadata.superblock(), inode);
                    state.map_changed(of, &mut space, step.nodes_used);
                }
                if state.modified == step.modified {
                    state.modified = None;
                }
                step.rest
            })?;
        }
        Ok(())
    }

    /// True when the map, or the inode, does not know all.
    fn is_ahead(&self) -> Result<bool> {
        let Some(file) = self.open.file() else { return Ok(false) };
        let inode = self.metadata.read(|view| self.inode(view))?;
        Ok(self.open.lock().is_ahead() || file.size() != inode.size)
    }

    /// Maps some of what is settled from block `first` on.
    fn map_some(
        &self,
        change: &mut Change<'_>,
        first: u64,
        size_bytes: &dyn Fn() -> u64,
    ) -> Attempt<Step> {
        // A file that was forgotten meanwhile is another one's by now, who knows its size.
        let Some(file) = self.open.file() else { return Ok(Step::default()) };
        let mut inode = self.inode(change)?;
        let (block_bytes, per_group) = (change.sb.block_bytes, change.sb.blocks_per_group);
        let blocks_max = FILLED_MAX * per_group.min(block_bytes / 4);
        let ((runs, rest), modified, nodes) = {
            let state = self.open.lock();
            // What a direct write has put behind the end so far is not the file's yet.
            let end = file.size().div_ceil(block_bytes);
            let settled = state.claims.settled(&(first..end), (RUNS_MAX, blocks_max));
            (settled, state.modified, state.nodes())
        };
        change.allowance = nodes;
        let size = size_on_device(block_bytes, &runs, &inode, size_bytes, file.size());
        let more_than_times = !runs.is_empty() || size != inode.size;
        if !more_than_times && modified.is_none() {
            return Ok(Step { runs, rest, modified, inode: None, nodes_used: 0 });
        }
        change.only_times = !more_than_times;
        for run in &runs {
            if !run.unwritten {
                mark(change, run.places())?;
            }
            block_map::insert(change, &mut inode, &run.extent())?;
        }
        inode.size = size;
        if let Some(now) = modified {
            inode.set_modified(change.sb, now);
        }
        change.put_inode(&inode)?;
        let nodes_used = nodes - change.allowance;
        Ok(Step { runs, rest, modified, inode: Some(inode), nodes_used })
    }

    /// Takes `blocks` out of the map, in as many changes as it takes.
    fn remove_mapped(&self, blocks: Range<u64>) -> Result<()> {
        let mut end = blocks.end;
        loop {
            let step = |change: &mut Change<'_>| {
                let mut inode = self.inode(change)?;
                let left = block_map::remove(change, &mut inode, blocks.start..end)?;
                match blocks.end >= self.open.size_max / change.sb.block_bytes {
                    // Such a map needs no more than before.
                    true => self.settle_cut(change, &mut inode, left)?,
                    false => self.hold_nodes(change, &inode)?,
                }
                change.put_inode(&inode)?;
                Ok((left, inode))
            };
            match self.metadata.change_and(step, |step, _| self.map_changed(step))? {
                Some(left) => end = left,
                None => return Ok(()),
            }
        }
    }
}

impl FileMap {
    /// What removes all blocks of `inode` behind its size sets that size too. The inode is an
    /// orphan while some are `left`.
    fn settle_cut(
        &self,
        change: &mut Change<'_>,
        inode: &mut Inode,
        left: Option<u64>,
    ) -> Attempt<()> {
        let Some(file) = self.open.file() else { return Ok(()) };
        inode.size = inode.size.min(file.size());
        match left {
            Some(_) => orphan::add(change, inode),
            None if inode.links > 0 => orphan::remove(change, inode),
            _ => Ok(()),
        }
    }
}

/// `run` for a reader: what is not settled has no data yet.
fn to_read(run: Extent) -> Extent {
    match run.place {
        Place::Mapped(to) if run.fresh => Extent { place: Place::Unwritten(to), ..run },
        _ => run,
    }
}

impl FileMap {
    /// Holds what has to be reserved besides when the map is that of `inode`, for what it is still
    /// to take in: [`map_changed`](Self::map_changed) finds it.
    ///
    /// # Errors
    ///
    /// `ENOSPC`.
    pub(crate) fn hold_nodes(&self, change: &mut Change<'_>, inode: &Inode) -> Result<()> {
        let missing = self.open.lock().nodes_missing(change.sb, inode);
        change.hold_blocks(missing)
    }

    /// The map is that of `inode` now; returns `rest`, what is still to be done.
    pub(crate) fn map_changed<T>(&self, (rest, inode): (T, Inode)) -> T {
        let mut state = self.open.lock();
        let of = (self.metadata.superblock(), &inode);
        state.map_changed(of, &mut self.metadata.space.lock(), 0);
        rest
    }
}

/// What one change of [`FileMap::bring_up_to_date`] did.
#[derive(Default)]
struct Step {
    runs: Vec<Settled>,
    /// Where the next one goes on; `None` when it was the last.
    rest: Option<u64>,
    modified: Option<Timestamp>,
    /// The inode, if it was written.
    inode: Option<Inode>,
    /// Blocks that the map took of those reserved for it.
    nodes_used: u64,
}

/// Sets the bits of `places`.
fn mark(change: &mut Change<'_>, places: Range<u64>) -> Attempt<()> {
    let mut start = places.start;
    while start < places.end {
        let next = change.sb.first_block_of(change.sb.group_of(start) + 1);
        let end = places.end.min(next);
        balloc::mark(change, start..end)?;
        start = end;
    }
    Ok(())
}

/// `run`, which the map has of `block`, from `block` on up to the next claim.
fn before_claims(state: &State, run: Extent, block: u64) -> Extent {
    let end = run.first.0.saturating_add(run.count);
    let end = state.claims.first_in(&(block..end)).unwrap_or(end);
    let place = match run.place {
        Place::Mapped(to) => Place::Mapped(DeviceBlock(to.0 + (block - run.first.0))),
        Place::Unwritten(to) => Place::Unwritten(DeviceBlock(to.0 + (block - run.first.0))),
        Place::Hole => Place::Hole,
    };
    Extent { first: FileBlock(block), count: end - block, place, ..run }
}

/// The size that the inode may have on the device, when `runs` are in its map and all that the file
/// has up to `size_bytes` is written: behind that it grows only over what is settled. It does not
/// shrink: what makes a file shorter sets its size itself.
fn size_on_device(
    block_bytes: u64,
    runs: &[Settled],
    inode: &Inode,
    size_bytes: &dyn Fn() -> u64,
    in_memory: u64,
) -> u64 {
    let settled = runs.last().map_or(0, |run| run.blocks.end.saturating_mul(block_bytes));
    size_bytes().max(settled.min(in_memory)).max(inode.size)
}

impl GetBlock for FileMap {
    fn get_block(&self, request: &MapRequest) -> mpage::Result<Extent> {
        let find = |view: &View<'_>| match request.purpose {
            Purpose::Read => Ok(to_read(self.find(view, request.first.0)?)),
            Purpose::Write => self.find_to_write(view, request),
        };
        if request.may_wait {
            return Ok(self.metadata.read(find)?);
        }
        let found = self.metadata.try_read(find)?;
        found.ok_or_else(|| mpage::Error::new(mpage::ErrorKind::WouldBlock, "get_block"))
    }

    fn reserve(&self, blocks: Range<FileBlock>) -> mpage::Result<()> {
        let blocks = blocks.start.0..blocks.end.0;
        self.metadata.check_writable()?;
        let reserve = |view: &View<'_>| self.try_reserve(view, &blocks);
        match self.metadata.read(reserve) {
            // What was freed a moment ago is free behind a commit.
            Err(error) if error.is_no_space() && self.metadata.space.lock().freed > 0 => {
                self.metadata.commit(self.metadata.running())?;
                Ok(self.metadata.read(reserve)?)
            }
            result => Ok(result?),
        }
    }

    fn remove(&self, blocks: Range<FileBlock>) -> mpage::Result<()> {
        let blocks = blocks.start.0..blocks.end.0;
        if blocks.is_empty() {
            return Ok(());
        }
        let _count = self.removals.fetch_add(1, Ordering::Release);
        self.metadata.read_and(
            |_| Ok(()),
            |()| self.open.lock().remove(&mut self.metadata.space.lock(), &blocks),
        )?;
        Ok(self.remove_mapped(blocks)?)
    }

    fn zero(&self, blocks: Range<FileBlock>) -> mpage::Result<()> {
        let blocks = blocks.start.0..blocks.end.0;
        let _count = self.removals.fetch_add(1, Ordering::Release);
        Ok(self.make_unwritten(blocks)?)
    }

    /// A hole: what the blocks held before they were this file's must never be read.
    fn discard(&self, blocks: Range<FileBlock>) -> mpage::Result<()> {
        self.remove(blocks)
    }

    fn written(&self, blocks: Range<FileBlock>) {
        self.open.lock().claims.settle(&(blocks.start.0..blocks.end.0));
    }

    fn sync(&self, kind: SyncKind, size_bytes: &dyn Fn() -> u64) -> mpage::Result<bool> {
        self.bring_up_to_date(size_bytes)?;
        let number = {
            let state = self.open.lock();
            match kind {
                SyncKind::All => state.changed_in,
                SyncKind::Data => state.data_changed_in,
            }
        };
        self.metadata.commit(number)?;
        Ok(false)
    }

    fn size_max(&self) -> u64 {
        self.open.size_max
    }

    /// A commit must not map what may be lost.
    fn flush_failed(&self) {
        if self.metadata.journal().is_some() {
            let errno = mpage_block::Errno::IO;
            self.metadata.abort(&Error::errno(errno, "a flush of the device failed"));
        }
    }

    fn cookie(&self) -> u64 {
        self.removals.load(Ordering::Acquire)
    }
}

impl FileMap {
    /// Sets room aside for what of `blocks` has none.
    fn try_reserve(&self, view: &View<'_>, blocks: &Range<u64>) -> Attempt<()> {
        let inode = self.inode(view)?;
        if inode.kind != FileKind::Regular {
            return Err(Error::corrupt(format!("inode {} has no content", inode.number)).into());
        }
        let mut state = self.open.lock();
        let (mut holes, mut unwritten) = (Vec::new(), Vec::new());
        let mut block = blocks.start;
        while block < blocks.end {
            if !state.is_unknown(block) {
                block += 1;
                continue;
            }
            let run = block_map::find(view, &inode, block)?;
            let end = run.first.0.saturating_add(run.count).min(blocks.end);
            let end = (block + 1..end).find(|next| !state.is_unknown(*next)).unwrap_or(end);
            match run.place {
                Place::Mapped(_) => {}
                Place::Unwritten(_) => unwritten.push(block..end),
                Place::Hole => holes.push(block..end),
            }
            block = end;
        }
        if holes.is_empty() && unwritten.is_empty() {
            return Ok(());
        }
        let of = (view.sb, &inode);
        Ok(state.reserve(of, &self.metadata.space, &holes, &unwritten)?)
    }
}
