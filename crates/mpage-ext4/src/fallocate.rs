//! Room for blocks before they are written.
//!
//! Linux: `ext4_fallocate()`, `ext4_zero_range()`, fs/ext4/extents.c.

use std::ops::Range;

use mpage::units::{DeviceBlock, FileBlock};
use mpage::{Extent, Place};

use crate::change::Change;
use crate::error::Result;
use crate::file_map::FileMap;
use crate::inode::Inode;
use crate::layers::Attempt;
use crate::{balloc, block_map};

/// Runs that one change takes.
const RUNS_MAX: usize = 16;

impl FileMap {
    /// Gives a place to all holes among `blocks`, as unwritten. What is dirty there has room
    /// already, and keeps it.
    ///
    /// # Errors
    ///
    /// `ENOSPC`, and then some may have got a place; `EOPNOTSUPP` of a file without extents.
    pub(crate) fn allocate(&self, blocks: Range<u64>) -> Result<()> {
        let mut start = blocks.start;
        while start < blocks.end {
            let step = |change: &mut Change<'_>| self.allocate_some(change, start..blocks.end);
            start = self.metadata.change_and(step, |step, _| self.map_changed(step))?;
        }
        Ok(())
    }

    /// Does so for some runs from the beginning of `blocks` on; returns where to go on.
    fn allocate_some(&self, change: &mut Change<'_>, blocks: Range<u64>) -> Attempt<(u64, Inode)> {
        let mut inode = self.inode(change)?;
        let mut block = blocks.start;
        for _ in 0..RUNS_MAX {
            if block >= blocks.end {
                break;
            }
            let run = self.find_in(change, &inode, block)?;
            let end = run.first.0.saturating_add(run.count).min(blocks.end);
            block = match run.place {
                Place::Hole => self.take(change, &mut inode, block..end)?,
                _ => end,
            };
        }
        change.put_inode(&inode)?;
        self.hold_nodes(change, &inode)?;
        Ok((block, inode))
    }

    /// As [`find`](FileMap::find); what is dirty counts as unwritten.
    fn find_in(&self, change: &Change<'_>, inode: &Inode, block: u64) -> Attempt<Extent> {
        if let Some(run) = self.open.lock().known_run(block) {
            let nowhere = DeviceBlock(0);
            let run_of = Extent::mapped(FileBlock(run.start), nowhere, run.end - run.start);
            return Ok(Extent { place: Place::Unwritten(nowhere), ..run_of });
        }
        let run = block_map::find(change, inode, block)?;
        let end = run.first.0.saturating_add(run.count);
        let end = self.open.lock().first_known(&(block..end)).unwrap_or(end);
        Ok(Extent { first: FileBlock(block), count: end - block, ..run })
    }

    /// Gives a place to the first of `hole`; returns where to go on.
    fn take(&self, change: &mut Change<'_>, inode: &mut Inode, hole: Range<u64>) -> Attempt<u64> {
        let goal = self.goal(change, hole.start)?;
        let count = (hole.end - hole.start).min(1 << 15);
        let run = balloc::allocate_run(change, goal, count)?;
        let count = run.end - run.start;
        let extent = Extent::mapped(FileBlock(hole.start), DeviceBlock(run.start), count);
        let place = Place::Unwritten(DeviceBlock(run.start));
        block_map::insert(change, inode, &Extent { place, ..extent })?;
        Ok(hole.start + count)
    }

    /// Makes `blocks`, of which nothing is cached, read as zeros, with room for all of them.
    ///
    /// # Errors
    ///
    /// As those of [`allocate`](Self::allocate).
    pub(crate) fn make_unwritten(&self, blocks: Range<u64>) -> Result<()> {
        // What is settled is in the map then, and what is left of claims is of no use.
        self.bring_up_to_date(&|| 0)?;
        self.metadata.read_and(
            |_| Ok(()),
            |()| self.open.lock().remove(&mut self.metadata.space.lock(), &blocks),
        )?;
        let mut end = blocks.end;
        loop {
            let step = |change: &mut Change<'_>| {
                let mut inode = self.inode(change)?;
                let left = block_map::unwrite(change, &mut inode, blocks.start..end)?;
                change.put_inode(&inode)?;
                self.hold_nodes(change, &inode)?;
                Ok((left, inode))
            };
            match self.metadata.change_and(step, |step, _| self.map_changed(step))? {
                Some(left) => end = left,
                None => return self.allocate(blocks),
            }
        }
    }
}
