//! Transactions: changes that become durable together.
//!
//! 1. A change is applied to the running transaction, whole. Nothing else writes to one.
//! 2. The running transaction becomes the committing one, and then does not change any more.
//! 3. A block or inode that was freed is given to nobody while the transaction that freed it is one
//!    of these two.
//!
//! See docs/ext4-transactions.md, "Terms" and "Freed blocks".

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

use rangemap::RangeSet;

use crate::inode::InodeNumber;
use crate::layers::Block;

/// The changes of many operations.
#[derive(Default)]
pub(crate) struct Transaction {
    /// Transactions are numbered, and commit in that order.
    pub(crate) number: u64,
    pub(crate) changed: Changed,
}

/// What a change did, or all changes of a transaction.
#[derive(Clone, Default)]
pub(crate) struct Changed {
    /// The newest content of the blocks that were written.
    pub(crate) blocks: BTreeMap<u64, Block>,
    /// Blocks that were freed.
    pub(crate) freed: RangeSet<u64>,
    /// Inodes that were freed.
    pub(crate) freed_inodes: HashSet<InodeNumber>,
}

impl Changed {
    /// True when nothing was changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty() && self.freed.is_empty() && self.freed_inodes.is_empty()
    }

    /// Blocks that were freed.
    pub(crate) fn freed_count(&self) -> u64 {
        self.freed.iter().map(|range| range.end - range.start).sum()
    }

    /// The first of `blocks` that was freed.
    pub(crate) fn freed_in(&self, blocks: &Range<u64>) -> Option<Range<u64>> {
        self.freed.overlapping(blocks).next().cloned()
    }

    /// Applies `newer` on top.
    fn apply(&mut self, newer: Changed) {
        self.blocks.extend(newer.blocks);
        for range in newer.freed {
            let gone: Vec<u64> = self.blocks.range(range.clone()).map(|(at, _)| *at).collect();
            for number in gone {
                let _content = self.blocks.remove(&number);
            }
            self.freed.insert(range);
        }
        self.freed_inodes.extend(newer.freed_inodes);
    }
}

/// The transactions that are not over.
pub(crate) struct Transactions {
    pub(crate) running: Transaction,
    pub(crate) committing: Option<Transaction>,
}

impl Default for Transactions {
    fn default() -> Transactions {
        let running = Transaction { number: 1, ..Transaction::default() };
        Transactions { running, committing: None }
    }
}

impl Transactions {
    fn newest_first(&self) -> impl Iterator<Item = &Transaction> {
        std::iter::once(&self.running).chain(&self.committing)
    }

    /// The newest content of block `number`, if a transaction has it.
    pub(crate) fn look(&self, number: u64) -> Option<&Block> {
        self.newest_first().find_map(|each| each.changed.blocks.get(&number))
    }

    /// The first run of `blocks` that a transaction freed.
    pub(crate) fn freed_in(&self, blocks: &Range<u64>) -> Option<Range<u64>> {
        let freed = self.newest_first().filter_map(|each| each.changed.freed_in(blocks));
        freed.min_by_key(|run| run.start)
    }

    /// True when a transaction freed `inode`.
    pub(crate) fn has_freed_inode(&self, inode: InodeNumber) -> bool {
        self.newest_first().any(|each| each.changed.freed_inodes.contains(&inode))
    }

    /// True when a transaction freed any inode.
    pub(crate) fn has_freed_inodes(&self) -> bool {
        self.newest_first().any(|each| !each.changed.freed_inodes.is_empty())
    }

    /// Applies a change to the running transaction.
    pub(crate) fn apply(&mut self, changed: Changed) {
        self.running.changed.apply(changed);
    }

    /// Begins a commit: the running transaction becomes the committing one. There is none.
    pub(crate) fn begin_commit(&mut self) {
        let next = Transaction { number: self.running.number + 1, ..Transaction::default() };
        debug_assert!(self.committing.is_none(), "one commit at a time");
        self.committing = Some(std::mem::replace(&mut self.running, next));
    }

    /// The committing transaction is durable and over; returns what it freed.
    pub(crate) fn end_commit(&mut self) -> u64 {
        self.committing.take().map_or(0, |over| over.changed.freed_count())
    }

    /// The committing transaction is not durable: what it did is done by the running one.
    pub(crate) fn fail_commit(&mut self) {
        let Some(failed) = self.committing.take() else { return };
        let newer = std::mem::replace(&mut self.running.changed, failed.changed);
        self.running.changed.apply(newer);
    }
}
