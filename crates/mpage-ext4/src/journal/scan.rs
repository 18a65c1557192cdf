//! The first pass: where the log ends.

use crc::{CRC_32_MPEG_2, Crc, Digest};

use super::log::{Log, Walk};
use super::record::{self, Kind};
use super::superblock::{Journal, Sums};
use super::tags::Tags;
use crate::error::{Error, Result};

/// The crc32 of a whole transaction: the highest bit first, and not inverted at the end.
const CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_MPEG_2);

/// The number behind that of the last transaction to be replayed. What lies before it is whole;
/// see "Where the log ends" of the [module](super).
///
/// Differs from Linux: the sums of contents are checked here, before anything is written, and not
/// only those of contents that are then written.
///
/// # Errors
///
/// Those of reading the log; `Corrupt` when a transaction is damaged and a crash cannot have done
/// it.
pub(super) fn end(log: &Log<'_>) -> Result<u32> {
    let (mut block, mut content) = (log.buffer(), log.buffer());
    let mut scan = Scan::new(log);
    while let Some(kind) = scan.walk.record(&mut block, scan.sequence)? {
        let goes_on = match kind {
            Kind::Descriptor => scan.descriptor(&block, &mut content)?,
            Kind::Revoke => {
                scan.damaged |= !record::has_right_tail(scan.journal, &block);
                true
            }
            Kind::Commit => scan.commit(&block)?,
        };
        if !goes_on {
            break;
        }
    }
    Ok(scan.torn.unwrap_or(scan.sequence))
}

/// What is known of the transaction that is being read.
struct Scan<'a> {
    journal: &'a Journal,
    walk: Walk<'a>,
    sequence: u32,
    /// A sum of it, other than that of its commit block, is wrong.
    damaged: bool,
    /// Of its descriptors and contents.
    crc: Digest<'static, u32>,
    /// When the last whole transaction before it was committed.
    last_commit: u64,
    /// The transaction that may end the log, if no whole one follows.
    torn: Option<u32>,
}

impl<'a> Scan<'a> {
    fn new(log: &'a Log<'a>) -> Scan<'a> {
        Scan {
            journal: log.journal,
            walk: log.walk(),
            sequence: log.journal.sequence,
            damaged: false,
            crc: CRC32.digest(),
            last_commit: 0,
            torn: None,
        }
    }

    /// Passes a descriptor and its contents; false when the ring ends before them.
    fn descriptor(&mut self, block: &[u8], content: &mut [u8]) -> Result<bool> {
        self.damaged |= !record::has_right_tail(self.journal, block);
        self.crc.update(block);
        for tag in Tags::of(self.journal, block) {
            // The tags of a damaged transaction tell nothing of their contents.
            let is_read = self.journal.sums != Sums::None && !self.damaged;
            let is_there = match is_read {
                true => self.walk.next(content)?,
                false => self.walk.skip(),
            };
            if !is_there {
                return Ok(false);
            }
            if is_read {
                self.crc.update(content);
                self.damaged |= !tag.is_of(self.journal, self.sequence, content);
            }
        }
        Ok(true)
    }

    /// Decides on a transaction with a commit block; false at the log's end.
    fn commit(&mut self, block: &[u8]) -> Result<bool> {
        let crc = std::mem::replace(&mut self.crc, CRC32.digest()).finalize();
        let is_right = record::has_right_commit(self.journal, block, crc);
        let is_whole = is_right && !std::mem::take(&mut self.damaged);
        let time = record::commit_time(block);
        if time < self.last_commit && (!is_whole || self.torn.is_some()) {
            return Ok(false);
        }
        match (is_whole, self.torn) {
            (true, None) => self.last_commit = time,
            (true, Some(torn)) => {
                let next = self.sequence;
                return Err(Error::corrupt(format!(
                    "transaction {torn} of the journal has a wrong checksum, and {next} follows it"
                )));
            }
            (false, _) if is_right && !self.journal.async_commit => {
                return Err(Error::corrupt(format!(
                    "transaction {} of the journal is committed and has a wrong checksum",
                    self.sequence
                )));
            }
            (false, torn) => self.torn = torn.or(Some(self.sequence)),
        }
        self.sequence = self.sequence.wrapping_add(1);
        Ok(true)
    }
}
