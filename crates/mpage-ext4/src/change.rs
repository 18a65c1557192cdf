//! Changes: what one operation, or one step of a long one, does to metadata.
//!
//! 1. A change writes private copies of blocks. Nobody else sees them until it is applied, and if
//!    it is not, nothing has happened.
//! 2. Whoever writes a block writes its checksum: a block of a change is always as it may be on the
//!    device.
//! 3. Room for new blocks is held while the change is open, and given back if it is not applied.
//!
//! See docs/ext4-transactions.md, "A change".

use std::collections::HashSet;
use std::ops::{Deref, Range};
use std::sync::Arc;

use mpage_locks::Mutex;
use rangemap::RangeSet;

use crate::error::Result;
use crate::features::LARGE_FILE;
use crate::group::{self, Group};
use crate::inode::{FileKind, Inode, InodeNumber};
use crate::layers::{Attempt, Block};
use crate::orphan::{self, Orphans};
use crate::space::Space;
use crate::superblock::{self, RawSuperblock};
use crate::transaction::Changed;
use crate::view::{InodePlace, View};

/// A change that is being made. What it changed so far is what it sees, as a [`View`].
pub(crate) struct Change<'a> {
    view: View<'a>,
    pub(crate) space: &'a Mutex<Space>,
    counts: Counts,
    freed: RangeSet<u64>,
    freed_inodes: HashSet<InodeNumber>,
    /// Inodes that were written.
    touched: Vec<InodeNumber>,
    /// Nothing but times of inodes was changed.
    pub(crate) only_times: bool,
    /// Blocks that it may still take of those that are reserved.
    pub(crate) allowance: u64,
    /// The directory that gets a name.
    pub(crate) named_in: Option<InodeNumber>,
    pub(crate) orphans: &'a Orphans,
    /// What becomes of them.
    pub(crate) orphan_edits: orphan::Edits,
}

/// What a change does to the counts of [`Space`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Blocks that were taken one by one, and are held.
    held: u64,
    /// Blocks that were marked as in use, those held among them.
    used: u64,
    used_inodes: u64,
}

impl Counts {
    /// The change was applied, and freed so many blocks and inodes.
    pub(crate) fn apply(self, space: &mut Space, changed: &Changed) {
        let freed = changed.freed_count();
        space.held -= self.held;
        space.free = (space.free + freed).saturating_sub(self.used);
        space.freed += freed;
        let inodes = space.free_inodes + changed.freed_inodes.len() as u64;
        space.free_inodes = inodes.saturating_sub(self.used_inodes);
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.space.lock().held -= self.counts.held;
    }
}

impl<'a> Deref for Change<'a> {
    type Target = View<'a>;

    fn deref(&self) -> &View<'a> {
        &self.view
    }
}

impl<'a> Change<'a> {
    /// A change of what `view` shows, which changes nothing yet.
    pub(crate) fn new(view: View<'a>, space: &'a Mutex<Space>, orphans: &'a Orphans) -> Change<'a> {
        Change {
            view,
            space,
            counts: Counts::default(),
            freed: RangeSet::new(),
            freed_inodes: HashSet::new(),
            touched: Vec::new(),
            only_times: false,
            allowance: 0,
            named_in: None,
            orphans,
            orphan_edits: orphan::Edits::default(),
        }
    }

    /// The inodes that were written.
    pub(crate) fn take_touched(&mut self) -> Vec<InodeNumber> {
        std::mem::take(&mut self.touched)
    }

    /// What was changed, all of it. `Counts` are to be applied with it.
    pub(crate) fn finish(mut self) -> (Changed, Counts) {
        let changed = Changed {
            blocks: std::mem::take(&mut self.view.own),
            freed: std::mem::take(&mut self.freed),
            freed_inodes: std::mem::take(&mut self.freed_inodes),
        };
        (changed, std::mem::take(&mut self.counts))
    }

    /// Blocks that it has written.
    pub(crate) fn written(&self) -> usize {
        self.view.own.len()
    }

    /// The content of block `number` of the image, to be changed. The checksum is the caller's to
    /// set.
    pub(crate) fn edit(&mut self, number: u64) -> Attempt<&mut [u8]> {
        if !self.view.own.contains_key(&number) {
            let block = self.view.look(number)?;
            let _none = self.view.own.insert(number, block);
        }
        let block = self.view.own.get_mut(&number).expect("it was inserted");
        Ok(Arc::make_mut(block))
    }

    /// Gives block `number` a new content, whatever it had.
    pub(crate) fn fill(&mut self, number: u64, bytes: Vec<u8>) {
        debug_assert_eq!(bytes.len() as u64, self.sb.block_bytes);
        let _before = self.view.own.insert(number, bytes.into());
    }

    /// Gives block `number` a new content that may be shared.
    pub(crate) fn put(&mut self, number: u64, block: Block) {
        let _before = self.view.own.insert(number, block);
    }

    /// Writes `inode`, which was read or is new. What of it is not in [`Inode`] stays.
    pub(crate) fn put_inode(&mut self, inode: &Inode) -> Attempt<()> {
        let InodePlace { block, at } = self.inode_place(inode.number)?;
        let (sb, end) = (self.sb, at + self.sb.inode_bytes);
        inode.store(sb, &mut self.edit(block)?[at..end]);
        let is_large = inode.kind == FileKind::Regular && inode.size > i32::MAX as u64;
        if is_large && !sb.features.ro_compat(LARGE_FILE) {
            self.edit_superblock(RawSuperblock::set_large_file)?;
        }
        if !self.touched.contains(&inode.number) {
            self.touched.push(inode.number);
        }
        Ok(())
    }

    /// Makes every byte of inode `number` on the device zero.
    pub(crate) fn clear_inode(&mut self, number: InodeNumber) -> Attempt<()> {
        let InodePlace { block, at } = self.inode_place(number)?;
        let end = at + self.sb.inode_bytes;
        self.edit(block)?[at..end].fill(0);
        Ok(())
    }

    /// Writes the descriptor of a group.
    pub(crate) fn put_group(&mut self, group: &Group) -> Attempt<()> {
        let (block, at) = group::place(self.sb, group.number);
        let (sb, end) = (self.sb, at + self.sb.descriptor_bytes);
        group.store(sb, &mut self.edit(block)?[at..end]);
        Ok(())
    }

    /// Changes the superblock.
    pub(crate) fn edit_superblock<T>(
        &mut self,
        edit: impl FnOnce(&mut RawSuperblock) -> T,
    ) -> Attempt<T> {
        let (block, at) = superblock::place(self.sb);
        let bytes = &mut self.edit(block)?[at..at + superblock::LEN];
        let mut raw = RawSuperblock::of(bytes)?;
        let result = edit(&mut raw);
        raw.set_checksum();
        bytes.copy_from_slice(raw.bytes());
        Ok(result)
    }

    /// Holds `count` of the free blocks, for this change to take.
    ///
    /// # Errors
    ///
    /// `ENOSPC`.
    pub(crate) fn hold_blocks(&mut self, count: u64) -> Result<()> {
        self.space.lock().hold(count, self.allowance)?;
        self.allowance = self.allowance.saturating_sub(count);
        self.counts.held += count;
        Ok(())
    }

    /// Notes that `count` bits of block bitmaps were set.
    pub(crate) fn note_used(&mut self, count: u64) {
        self.counts.used += count;
    }

    /// Notes that the bits of `blocks` were cleared. What they held is nobody's.
    pub(crate) fn note_freed(&mut self, blocks: Range<u64>) {
        self.view.own.retain(|number, _| !blocks.contains(number));
        self.freed.insert(blocks);
    }

    /// Notes that an inode was taken.
    pub(crate) fn note_used_inode(&mut self) {
        self.counts.used_inodes += 1;
    }

    /// Notes that the bit of `inode` was cleared.
    pub(crate) fn note_freed_inode(&mut self, inode: InodeNumber) {
        let _new = self.freed_inodes.insert(inode);
    }

    /// The first of `blocks` that are free and must not be used yet: another claimed them, or they
    /// were freed a moment ago.
    pub(crate) fn unusable_in(&self, blocks: &Range<u64>) -> Option<Range<u64>> {
        let own = self.freed.overlapping(blocks).next().cloned();
        first_of([own, self.view.unusable_in(self.space, blocks)])
    }

    /// True when `inode` was freed a moment ago.
    pub(crate) fn has_freed_inode(&self, inode: InodeNumber) -> bool {
        self.freed_inodes.contains(&inode) || self.transactions.has_freed_inode(inode)
    }
}

impl View<'_> {
    /// The first of `blocks` that are free and must not be used yet.
    pub(crate) fn unusable_in(
        &self,
        space: &Mutex<Space>,
        blocks: &Range<u64>,
    ) -> Option<Range<u64>> {
        first_of([self.transactions.freed_in(blocks), space.lock().claimed_in(blocks)])
    }
}

/// The run that begins first.
fn first_of(runs: [Option<Range<u64>>; 2]) -> Option<Range<u64>> {
    runs.into_iter().flatten().min_by_key(|run| run.start)
}
