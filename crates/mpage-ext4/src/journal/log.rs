//! The log of a journal: a ring of blocks, gone through from its first transaction on.

use super::record::{self, Kind};
use super::superblock::Journal;
use crate::error::{Error, Result};

/// How block n of the journal's file is read into memory that is a block long.
pub(super) type Read<'a> = &'a dyn Fn(u32, &mut [u8]) -> Result<()>;

/// The log of a journal that is not empty.
pub(super) struct Log<'a> {
    pub(super) journal: &'a Journal,
    start: u32,
    read: Read<'a>,
}

/// A way through the log, in the order in which it was written.
pub(super) struct Walk<'a> {
    log: &'a Log<'a>,
    at: u32,
    /// Blocks of the ring that were not passed yet.
    left: u32,
}

impl<'a> Log<'a> {
    /// The log of `journal`; `None` if it is empty.
    pub(super) fn of(journal: &'a Journal, read: Read<'a>) -> Option<Log<'a>> {
        journal.start.map(|start| Log { journal, start, read })
    }

    /// From its first transaction on.
    pub(super) fn walk(&'a self) -> Walk<'a> {
        Walk { log: self, at: self.start, left: self.journal.end - self.journal.first }
    }

    /// Memory for a block.
    pub(super) fn buffer(&self) -> Vec<u8> {
        vec![0; self.journal.block_bytes]
    }
}

impl Walk<'_> {
    /// Reads the next block; false when the whole ring was passed.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub(super) fn next(&mut self, block: &mut [u8]) -> Result<bool> {
        let at = self.at;
        if !self.skip() {
            return Ok(false);
        }
        (self.log.read)(at, block)?;
        Ok(true)
    }

    /// Passes the next block; false when the whole ring was passed.
    pub(super) fn skip(&mut self) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.at += 1;
        if self.at == self.log.journal.end {
            self.at = self.log.journal.first;
        }
        true
    }

    /// Reads the next block, and what it is in transaction `sequence`; `None` at the log's end,
    /// which is where nothing of that transaction is.
    ///
    /// # Errors
    ///
    /// Those of reading.
    pub(super) fn record(&mut self, block: &mut [u8], sequence: u32) -> Result<Option<Kind>> {
        let is_there = self.next(block)?;
        Ok(if is_there { record::kind(block, sequence) } else { None })
    }

    /// Goes through the transactions before `end`, with their numbers and descriptors and revokes.
    /// `visit` passes the contents behind a descriptor.
    ///
    /// # Errors
    ///
    /// Those of reading and of `visit`; `Corrupt` when the log ends before.
    pub(super) fn records(
        &mut self,
        end: u32,
        mut visit: impl FnMut(&mut Self, Record<'_>) -> Result<()>,
    ) -> Result<()> {
        let (mut block, mut sequence) = (self.log.buffer(), self.log.journal.sequence);
        while sequence != end {
            match self.record(&mut block, sequence)? {
                Some(Kind::Commit) => sequence = sequence.wrapping_add(1),
                Some(kind) => visit(self, Record { kind, sequence, block: &block })?,
                None => {
                    let detail = format!("transaction {sequence} of the journal went away");
                    return Err(Error::corrupt(detail));
                }
            }
        }
        Ok(())
    }
}

/// A descriptor or revoke block, and its transaction.
pub(super) struct Record<'a> {
    pub(super) kind: Kind,
    pub(super) sequence: u32,
    pub(super) block: &'a [u8],
}
