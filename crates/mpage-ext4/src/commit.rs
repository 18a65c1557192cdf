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

use std::collections::BTreeMap;

use mpage_block::Errno;
use mpage_locks::{Condvar, Mutex};

use crate::error::{Error, Result};
use crate::journal::Writer;
use crate::layers::Block;
use crate::metadata::Metadata;
use crate::patience;
use crate::transaction::Changed;

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

impl Commits {
    /// Waits until nobody commits, and keeps it so.
    fn begin_any(&self) -> Turn<'_> {
        let mut state = self.state.lock();
        while state.busy {
            state = self.ended.wait(state);
        }
        state.busy = true;
        Turn { commits: self }
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
        let journal = self.journal();
        if journal.is_some() {
            self.check_writable()?;
        }
        let (number, changed) = {
            let mut transactions = self.transactions.write();
            transactions.begin_commit();
            let committing = transactions.committing.as_ref().expect("it has begun");
            (committing.number, committing.changed.clone())
        };
        let written = match &journal {
            Some(journal) => self.commit_to(journal, &changed),
            None => {
                self.release(&changed.blocks).and_then(|()| Ok(self.layers.device().fsync()?))
            }
        };
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

    /// Commits `changed` to `journal`, and stores it into the device file. What is in its way
    /// before anything is written to the log is met again by the next commit.
    fn commit_to(&self, journal: &Writer, changed: &Changed) -> Result<()> {
        if changed.is_empty() {
            return Ok(());
        }
        if !journal.has_room(changed) {
            self.checkpoint_to(journal)?;
        }
        let is_written = match journal.has_room(changed) {
            true => journal.commit(changed),
            false => Err(Error::errno(Errno::NOSPC, "the log is too short for a transaction")),
        };
        is_written.and_then(|()| self.release(&changed.blocks)).inspect_err(|it| self.abort(it))
    }

    /// Brings all that is committed to its own place, so that the log begins anew.
    fn checkpoint_to(&self, journal: &Writer) -> Result<()> {
        let mark = journal.mark();
        self.sync_device()?;
        journal.advance(mark).inspect_err(|error| self.abort(error))
    }

    /// Writes all that is in the device file. An error that was met before, of what could be
    /// written after all, is none: the log had it meanwhile.
    fn sync_device(&self) -> Result<()> {
        let device = self.layers.device();
        Ok(device.fsync().or_else(|_| device.fsync())?)
    }

    /// Lets the device file catch up with the log, if that is rather full.
    ///
    /// # Errors
    ///
    /// The device's: what could not be written is tried again.
    pub(crate) fn checkpoint_if_wanted(&self) -> Result<()> {
        let Some(journal) = self.journal().filter(|journal| journal.wants_checkpoint()) else {
            return Ok(());
        };
        self.check_writable()?;
        // What is marked is in the device file when nobody commits.
        let mark = {
            let _turn = self.commits.begin_any();
            journal.mark()
        };
        self.sync_device()?;
        let turn = self.commits.begin_any();
        let advanced = journal.advance(mark).inspect_err(|error| self.abort(error));
        drop(turn);
        advanced
    }

    /// Ends the log: all is in its own place, and says so.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn close_journal(&self) -> Result<()> {
        let Some(journal) = self.journal() else { return Ok(()) };
        let turn = self.commits.begin_any();
        self.checkpoint_to(&journal)?;
        self.set_journal(None);
        drop(turn);
        Ok(())
    }

    /// Stores `blocks` into the device file. Waits for memory.
    fn release(&self, blocks: &BTreeMap<u64, Block>) -> Result<()> {
        let block_bytes = self.superblock().block_bytes;
        for (number, block) in blocks {
            self.layers.device().write_all_at(block, number * block_bytes)?;
        }
        Ok(())
    }
}
