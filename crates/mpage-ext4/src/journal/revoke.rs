//! Revoked blocks: those whose contents in the log are older than what they hold by now.
//!
//! Linux: `scan_revoke_records()`, fs/jbd2/recovery.c; `jbd2_journal_test_revoke()`,
//! fs/jbd2/revoke.c.

use std::collections::HashMap;

use super::record::{self, HEADER, Kind};
use super::superblock::Journal;
use crate::error::{Error, Result};

/// Bytes before the first record: the header, and how many bytes there are.
const RECORDS_AT: usize = HEADER + 4;

/// The newest transaction that revoked each block.
///
/// One entry for each block of the image that the log names: at most the log's bytes, divided by
/// those of a block number, and at most the blocks of the image.
#[derive(Default)]
pub(super) struct Revoked(HashMap<u64, u32>);

/// True when transaction `a` is later than `b`: numbers wrap around.
fn is_later(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() > 0
}

impl Revoked {
    /// Takes the records of revoke `block` of transaction `sequence`; `is_inside` says which blocks
    /// are blocks of the image: any other is never replayed, so that nothing has to be kept.
    ///
    /// # Errors
    ///
    /// `Corrupt` when it says that it has more bytes than a block.
    pub(super) fn take(
        &mut self,
        journal: &Journal,
        sequence: u32,
        block: &[u8],
        is_inside: impl Fn(u64) -> bool,
    ) -> Result<()> {
        let count = &block[HEADER..RECORDS_AT];
        let count = u32::from_be_bytes(count.try_into().expect("four bytes")) as usize;
        if count > block.len() - journal.tail_bytes() {
            let detail = format!("transaction {sequence} of the journal has {count} revoked bytes");
            return Err(Error::corrupt(detail));
        }
        let len = if journal.wide { 8 } else { 4 };
        for record in block[RECORDS_AT..count.max(RECORDS_AT)].chunks_exact(len) {
            let number = record.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
            if is_inside(number) {
                self.insert(number, sequence);
            }
        }
        Ok(())
    }

    fn insert(&mut self, block: u64, sequence: u32) {
        let newest = self.0.entry(block).or_insert(sequence);
        if is_later(sequence, *newest) {
            *newest = sequence;
        }
    }

    /// True when the content of `block` in transaction `sequence` is not to be replayed: the same
    /// transaction or a later one revoked it.
    pub(super) fn has(&self, block: u64, sequence: u32) -> bool {
        self.0.get(&block).is_some_and(|revoked| !is_later(sequence, *revoked))
    }
}

/// The blocks by which transaction `sequence` revokes `numbers`.
pub(super) fn blocks(journal: &Journal, sequence: u32, numbers: &[u64]) -> Vec<Vec<u8>> {
    let len = if journal.wide { 8 } else { 4 };
    let room = journal.block_bytes - RECORDS_AT - journal.tail_bytes();
    let blocks = numbers.chunks(room / len).map(|numbers| {
        let mut block = record::begin(journal, Kind::Revoke, sequence);
        let mut at = RECORDS_AT;
        for number in numbers {
            block[at..at + len].copy_from_slice(&number.to_be_bytes()[8 - len..]);
            at += len;
        }
        let count = u32::try_from(at).expect("at most a page");
        block[HEADER..RECORDS_AT].copy_from_slice(&count.to_be_bytes());
        record::end(journal, &mut block);
        block
    });
    blocks.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_revoke_of_a_block_wins_across_the_wrap_of_numbers() {
        let mut revoked = Revoked::default();
        revoked.insert(7, u32::MAX);
        revoked.insert(7, 1);
        revoked.insert(7, u32::MAX - 1);
        assert!(revoked.has(7, u32::MAX) && revoked.has(7, 0) && revoked.has(7, 1));
        assert!(!revoked.has(7, 2) && !revoked.has(8, 0));
    }
}
