//! Commits: making transactions durable, one at a time, in their order.
//!
//! 1. The running transaction becomes the committing one.
//! 2. Its blocks are stored into the device file. From then on they are ordinary dirty blocks.
//! 3. The device file is synced.
//! 4. The transaction is over, and what it freed is free. If anything of this failed, the running
//!    one takes over what it did, so that the next commit does it again.
//!
//! Who waits for a transaction while another commits it joins that commit. Nobody who waits holds
//! anything.
//!
//! See docs/ext4-transactions.md, "A commit".

use mpage_locks::{Condvar, Mutex};

use crate::error::Result;
use crate::layers::Block;
use crate::metadata::Metadata;
use crate::patience;

/// Who commits, and how far it came.
#[derive(Default)]
pub(crate) struct Commits {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// Somebody commits.
    busy: bool,
    /// The newest transaction that is durable.
    durable: u64,
}

impl Commits {
    /// Waits until nobody commits, and begins to; `None` when transaction `number` is durable.
    fn begin(&self, number: u64) -> Option<Turn<'_>> {
        let mut state = self.state.lock();
        loop {
            if state.durable >= number {
                return None;
            }
            if !state.busy {
                state.busy = true;
                return Some(Turn { commits: self });
            }
            state = self.ended.wait(state);
        }
    }
}

/// The turn to commit.
struct Turn<'a> {
    commits: &'a Commits,
}

impl Turn<'_> {
    fn note_durable(&self, number: u64) {
        let mut state = self.commits.state.lock();
        state.durable = state.durable.max(number);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.commits.state.lock().busy = false;
        self.commits.ended.notify_all();
    }
}

impl Metadata {
    /// The number of the transaction that runs.
    pub(crate) fn running(&self) -> u64 {
        self.transactions.read().running.number
    }

    /// Waits until transaction `number`, and all before it, are durable.
    ///
    /// # Errors
    ///
    /// The device's: nothing is lost, and the next commit tries it again.
    pub(crate) fn commit(&self, number: u64) -> Result<()> {
        patience::check()?;
        let Some(turn) = self.commits.begin(number) else { return Ok(()) };
        let blocks = {
            let mut transactions = self.transactions.write();
            transactions.begin_commit();
            let committing = transactions.committing.as_ref().expect("it has begun");
            let blocks = committing.changed.blocks.iter();
            let blocks = blocks.map(|(number, block)| (*number, Block::clone(block)));
            (committing.number, blocks.collect::<Vec<_>>())
        };
        let (number, blocks) = blocks;
        let written = self.release(&blocks).and_then(|()| Ok(self.layers.device().fsync()?));
        let mut transactions = self.transactions.write();
        match &written {
            Ok(()) => {
                let freed = transactions.end_commit();
                self.space.lock().freed -= freed;
                turn.note_durable(number);
            }
            Err(_) => transactions.fail_commit(),
        }
        drop(transactions);
        written
    }

    /// Stores `blocks` into the device file. Waits for memory.
    fn release(&self, blocks: &[(u64, Block)]) -> Result<()> {
        let block_bytes = self.superblock().block_bytes;
        for (number, block) in blocks {
            self.layers.device().write_all_at(block, number * block_bytes)?;
        }
        Ok(())
    }
}
