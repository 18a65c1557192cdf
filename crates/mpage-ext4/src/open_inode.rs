//! What is known in memory of a file that is open, or was a while ago: which blocks are dirty and
//! have no place, which have one that the map does not know, and how often it is open.
//!
//! 1. A block is in at most one of `delayed`, `converting` and the claims. In the first it is a
//!    hole of the map, in the second unwritten there.
//! 2. Room is reserved for each delayed block, and for what the map may need to take in the blocks
//!    of all three (`nodes`). Claimed blocks have their room by their claim.
//! 3. Claims are given up under the metadata lock at least: no change is under way that puts them
//!    into the map.
//!
//! Its lock comes behind the metadata lock, and before that of [`Space`].
//!
//! See docs/ext4-transactions.md, "Data and its blocks".

use std::ops::Range;

use mpage_locks::{Mutex, MutexGuard};
use rangemap::RangeSet;

use crate::block_map;
use crate::claims::Claims;
use crate::error::Result;
use crate::inode::{Inode, InodeNumber, Timestamp};
use crate::space::Space;
use crate::superblock::Superblock;
use mpage::CachedFile;

/// A file in memory.
pub(crate) struct OpenInode {
    pub(crate) number: InodeNumber,
    /// Its flags, which nothing here changes.
    pub(crate) flags: u32,
    /// The most bytes that its map can hold.
    pub(crate) size_max: u64,
    state: Mutex<State>,
    /// What is cached of it: there until it is forgotten.
    file: Mutex<Option<CachedFile>>,
    /// Held by who changes the size or the map for a user: one at a time.
    pub(crate) shaping: Mutex<()>,
}

/// What of it changes.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) delayed: RangeSet<u64>,
    pub(crate) converting: RangeSet<u64>,
    pub(crate) claims: Claims,
    /// Blocks reserved for the map.
    nodes: u64,
    /// How often it is open.
    pub(crate) opens: usize,
    /// It is among the files that were closed.
    pub(crate) is_listed: bool,
    /// When its content was changed, if the inode does not know it.
    pub(crate) modified: Option<Timestamp>,
    /// The last transaction that changed the inode.
    pub(crate) changed_in: u64,
    /// As `changed_in`, of more than times.
    pub(crate) data_changed_in: u64,
}

impl OpenInode {
    /// Of `inode`, of which nothing is dirty; what `running`, the transaction, has of it may not be
    /// durable.
    pub(crate) fn new(sb: &Superblock, inode: &Inode, running: u64) -> OpenInode {
        let (number, flags, size_max) = (inode.number, inode.flags, inode.size_max(sb));
        let state = State { changed_in: running, data_changed_in: running, ..State::default() };
        let (state, file, shaping) = (Mutex::new(state), Mutex::default(), Mutex::default());
        OpenInode { number, flags, size_max, state, file, shaping }
    }

    /// What is cached of it; `None` when it is not in use any more.
    pub(crate) fn file(&self) -> Option<CachedFile> {
        self.file.lock().clone()
    }

    /// Says what is cached of it. What was is the caller's to drop, with no lock held: it may be
    /// the last, and then asks its map.
    pub(crate) fn set_file(&self, file: Option<CachedFile>) -> Option<CachedFile> {
        std::mem::replace(&mut *self.file.lock(), file)
    }

    /// Its state, locked.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

fn len(range: &Range<u64>) -> u64 {
    range.end - range.start
}

impl State {
    /// True when the map, or the inode, does not know all.
    pub(crate) fn is_ahead(&self) -> bool {
        !self.claims.is_empty() || self.modified.is_some()
    }

    /// Transaction `number` changes the inode; more than its times if `more`.
    pub(crate) fn note_changed(&mut self, number: u64, more: bool) {
        self.changed_in = number;
        if more {
            self.data_changed_in = number;
        }
    }

    /// The run of blocks that holds `block`, if something is known of it beside the map.
    pub(crate) fn known_run(&self, block: u64) -> Option<Range<u64>> {
        let sets = [&self.delayed, &self.converting];
        let dirty = sets.into_iter().find_map(|set| set.get(&block).cloned());
        dirty.or_else(|| {
            let run = self.claims.find(block)?;
            Some(run.first.0..run.first.0 + run.count)
        })
    }

    /// The first of `blocks` of which something is known beside the map.
    pub(crate) fn first_known(&self, blocks: &Range<u64>) -> Option<u64> {
        let first = |set: &RangeSet<u64>| Some(set.overlapping(blocks).next()?.start);
        let known = [first(&self.delayed), first(&self.converting), self.claims.first_in(blocks)];
        Some(known.into_iter().flatten().min()?.max(blocks.start))
    }

    /// True when nothing but the map knows of `block`.
    pub(crate) fn is_unknown(&self, block: u64) -> bool {
        !self.delayed.contains(&block)
            && !self.converting.contains(&block)
            && self.claims.find(block).is_none()
    }

    /// Sets room aside for `holes` and `unwritten`, ranges that nothing is known of.
    ///
    /// # Errors
    ///
    /// `ENOSPC`, and then nothing was changed.
    pub(crate) fn reserve(
        &mut self,
        (sb, inode): (&Superblock, &Inode),
        space: &Mutex<Space>,
        holes: &[Range<u64>],
        unwritten: &[Range<u64>],
    ) -> Result<()> {
        let (mut runs, mut blocks) = self.counts();
        runs += (holes.len() + unwritten.len()) as u64;
        blocks += holes.iter().chain(unwritten).map(len).sum::<u64>();
        let nodes = block_map::nodes_for(sb, inode, runs, blocks).max(self.nodes);
        let wanted = holes.iter().map(len).sum::<u64>() + (nodes - self.nodes);
        space.lock().reserve(wanted)?;
        self.nodes = nodes;
        self.delayed.extend(holes.iter().cloned());
        self.converting.extend(unwritten.iter().cloned());
        Ok(())
    }

    fn counts(&self) -> (u64, u64) {
        let (claimed, claimed_runs) = self.claims.counts();
        let sets = self.delayed.iter().chain(self.converting.iter());
        let (blocks, runs) = sets
            .fold((claimed, claimed_runs), |(blocks, runs), range| (blocks + len(range), runs + 1));
        (runs, blocks)
    }

    /// Blocks that have room, and are not in the map.
    pub(crate) fn unmapped(&self) -> u64 {
        let delayed: u64 = self.delayed.iter().map(len).sum();
        delayed + self.claims.new_count()
    }

    /// Blocks reserved for the map.
    pub(crate) fn nodes(&self) -> u64 {
        self.nodes
    }

    /// Blocks that have to be reserved besides when the map is that of `inode`.
    pub(crate) fn nodes_missing(&self, sb: &Superblock, inode: &Inode) -> u64 {
        let (runs, blocks) = self.counts();
        block_map::nodes_for(sb, inode, runs, blocks).saturating_sub(self.nodes)
    }

    /// `blocks`, of the delayed, have the place from `to` on, which is claimed.
    pub(crate) fn claim(&mut self, space: &mut Space, blocks: Range<u64>, to: u64) {
        let reserved: u64 = inside(&self.delayed, &blocks).iter().map(len).sum();
        space.reserved -= reserved;
        self.delayed.remove(blocks.clone());
        self.claims.insert(blocks, to, false);
    }

    /// `blocks`, which are unwritten in the map from `to` on, are being written.
    pub(crate) fn convert(&mut self, blocks: Range<u64>, to: u64) {
        self.converting.remove(blocks.clone());
        self.claims.insert(blocks, to, true);
    }

    /// Forgets `blocks`, which leave the file, and gives back their room.
    pub(crate) fn remove(&mut self, space: &mut Space, blocks: &Range<u64>) {
        if blocks.start >= blocks.end {
            return;
        }
        let reserved: u64 = inside(&self.delayed, blocks).iter().map(len).sum();
        space.reserved -= reserved;
        self.delayed.remove(blocks.clone());
        self.converting.remove(blocks.clone());
        for places in self.claims.remove(blocks) {
            space.unclaim(places);
        }
        if self.counts() == (0, 0) {
            self.give_back_nodes(space, 0);
        }
    }

    /// `blocks` are in the map: their `places` are claimed no more.
    pub(crate) fn mapped(&mut self, space: &mut Space, blocks: &Range<u64>) {
        for places in self.claims.remove(blocks) {
            space.unclaim(places);
        }
    }

    /// The map was changed, and took `used` of the blocks that are reserved for it: what is
    /// reserved for what it is still to take in is that of `inode`, as it is now.
    pub(crate) fn map_changed(
        &mut self,
        (sb, inode): (&Superblock, &Inode),
        space: &mut Space,
        used: u64,
    ) {
        self.give_back_nodes(space, self.nodes.saturating_sub(used));
        let (runs, blocks) = self.counts();
        self.give_back_nodes(space, block_map::nodes_for(sb, inode, runs, blocks));
        // A map that was cut, or got unwritten blocks, may need more than before.
        let more = self.nodes_missing(sb, inode).min(space.available());
        space.reserved += more;
        self.nodes += more;
    }

    /// Keeps at most `nodes` of the blocks that are reserved for the map.
    fn give_back_nodes(&mut self, space: &mut Space, nodes: u64) {
        let kept = self.nodes.min(nodes);
        space.reserved -= self.nodes - kept;
        self.nodes = kept;
    }
}

/// What of `set` lies in `range`.
pub(crate) fn inside(set: &RangeSet<u64>, range: &Range<u64>) -> Vec<Range<u64>> {
    if range.start >= range.end {
        return Vec::new();
    }
    let runs = set.overlapping(range);
    runs.map(|run| run.start.max(range.start)..run.end.min(range.end)).collect()
}
