//! The journal: replayed when an image was not closed, [written](writer) while one is open.
//!
//! A journal is a file of the image. Behind its [superblock] is a ring of blocks, the log:
//! transactions, each of descriptors with [tags] that say where the contents behind them belong,
//! of [revokes](revoke), and of a commit block at the end. Transactions have consecutive numbers,
//! which wrap around.
//!
//! # Three passes
//!
//! 1. [Scan](scan): the log is followed from its first transaction to its end.
//! 2. Revoke: the newest transaction that revokes each block is remembered; and it is checked that
//!    every tag names a block of the image.
//! 3. Write: each content that no revoke of the same or a later transaction names goes to its
//!    block, in the order of the log, so that the newest stays.
//!
//! Invariants:
//!
//! 1. Nothing is written before passes 1 and 2 have found the log good.
//! 2. Nothing is written outside of the image.
//! 3. At most two blocks of the log are in memory, a descriptor and a content, beside what was
//!    [revoked](revoke::Revoked).
//! 4. Each pass goes through the ring at most once, whatever is in it.
//!
//! # Where the log ends
//!
//! At the first block that is not of the expected transaction: that transaction was not committed.
//! A transaction with a commit block and a wrong checksum is
//!
//! - stale, of an earlier life of the log, if it was committed before the one before it: the log
//!   ends there;
//! - torn, if the sum of the commit block itself is wrong, or if commit blocks may overtake what
//!   they commit (`async_commit`): the log ends there, unless a whole transaction follows;
//! - damage else, since what it holds was durable before its commit block was written.
//!
//! # In which order it becomes durable
//!
//! 1. The contents go to their blocks. Should one be the file system's superblock, it is written
//!    with `needs_recovery` set, whatever the log says.
//! 2. The device is synced.
//! 3. The journal's superblock says that the log is empty, and that the next transaction has a
//!    number of which there is nothing in the log.
//! 4. The device is synced.
//! 5. `needs_recovery` is cleared in the file system's superblock.
//! 6. The device is synced.
//!
//! A crash before 4 is over leaves a log that is replayed again, from its start: contents are whole
//! blocks, so that what was there before does not matter. One behind it leaves an empty log, and at
//! most the flag to be cleared. The map of the journal's file and its inode are the same in the log
//! and outside of it. Of the journal's superblock what is written lies in one sector; the file
//! system's may be torn, and is read with that in mind ([`RawSuperblock::before_recovery`]).
//!
//! Linux: `jbd2_journal_recover()` and `do_one_pass()`, fs/jbd2/recovery.c;
//! Documentation/filesystems/ext4/journal.rst.

use std::cell::Cell;

use mpage::units::FileBlock;
use mpage::{CachedFile, Extent, Place};

use crate::block_map;
use crate::error::{Error, ErrorKind, Result};
use crate::features::HAS_JOURNAL;
use crate::inode::{FileKind, InodeNumber};
use crate::metadata::Metadata;
use crate::superblock::{self as file_system, RawSuperblock};

mod log;
mod record;
mod replay;
mod revoke;
mod scan;
mod superblock;
mod tags;
mod writer;

use self::log::Log;
use self::superblock::{Journal, RawJournal};
pub(crate) use self::writer::Writer;

/// Replays the log of the image that `device` is all of, and marks it as replayed. `metadata` is
/// what the image was before; it is to be read again.
///
/// # Errors
///
/// `Unsupported`, with the names of the features, or for a journal on another device; `Corrupt`
/// when the journal is damaged, and then nothing was written, unless the damage is in a superblock
/// of the file system in the log; the device's. The image can be replayed again, but not through
/// the same cache while that still has what was to be written.
pub(crate) fn recover(metadata: &Metadata, device: &CachedFile) -> Result<()> {
    let place = JournalFile::of(metadata, device)?;
    let mut raw = place.superblock()?;
    let journal = Journal::new(&raw, place.block_bytes, place.blocks)?;
    let image_blocks = device.size() / place.block_bytes as u64;
    let inside = metadata.superblock().first_data_block..image_blocks;
    let read = |index, block: &mut [u8]| place.read(index, block);
    if let Some(log) = Log::of(&journal, &read) {
        let write = |number, content: &mut [u8]| place.write(number, content);
        let end = replay::replay(&log, &inside, write)?;
        device.fsync()?;
        // Of transaction `end` there may be a part.
        raw.empty(end.wrapping_add(1));
        place.write_superblock(&raw)?;
        device.fsync()?;
    }
    let mut bytes = [0; file_system::LEN];
    let _all = device.read_at(&mut bytes, file_system::OFFSET)?;
    let mut sb = RawSuperblock::of(&bytes)?;
    sb.set_needs_recovery(false);
    device.write_all_at(sb.bytes(), file_system::OFFSET)?;
    Ok(device.fsync()?)
}

/// The journal's file, and the image around it.
struct JournalFile<'a> {
    metadata: &'a Metadata,
    device: &'a CachedFile,
    inode: InodeNumber,
    block_bytes: usize,
    /// Blocks of the file.
    blocks: u64,
    /// The run that the last block read is in.
    run: Cell<Option<Extent>>,
}

impl<'a> JournalFile<'a> {
    fn of(metadata: &'a Metadata, device: &'a CachedFile) -> Result<JournalFile<'a>> {
        let sb = metadata.superblock();
        if !sb.features.compat(HAS_JOURNAL) {
            return Err(Error::corrupt("there is no journal, and it has to be replayed"));
        }
        if sb.journal_inode == 0 {
            let detail = "the journal is on another device".to_owned();
            return Err(Error { kind: ErrorKind::Unsupported, detail });
        }
        let number = InodeNumber(sb.journal_inode);
        let inode = metadata.read(|view| view.inode(number))?;
        if inode.kind != FileKind::Regular || inode.links == 0 {
            return Err(Error::corrupt(format!("inode {number} is no journal")));
        }
        let block_bytes = usize::try_from(sb.block_bytes).expect("at most a page");
        // More than the image has cannot all be its own.
        let blocks = (inode.size / sb.block_bytes).min(sb.blocks);
        Ok(JournalFile {
            metadata,
            device,
            inode: number,
            block_bytes,
            blocks,
            run: Cell::new(None),
        })
    }

    /// Where block `index` of the file is in the image, in bytes.
    fn offset(&self, index: u32) -> Result<u64> {
        let block = FileBlock(index.into());
        let run = match self.run.get().filter(|run| run.contains(block)) {
            Some(run) => run,
            None => self.metadata.read(|view| {
                let inode = view.inode(self.inode)?;
                block_map::find(view, &inode, block.0)
            })?,
        };
        self.run.set(Some(run));
        let Place::Mapped(first) = run.place else {
            let detail = format!("block {index} of the journal is not there");
            return Err(Error::corrupt(detail));
        };
        Ok((first.0 + (block.0 - run.first.0)) * self.block_bytes as u64)
    }

    fn read(&self, index: u32, block: &mut [u8]) -> Result<()> {
        let count = self.device.read_at(block, self.offset(index)?)?;
        if count < block.len() {
            return Err(Error::corrupt(format!(
                "block {index} of the journal is behind the image"
            )));
        }
        Ok(())
    }

    fn superblock(&self) -> Result<RawJournal> {
        let mut bytes = [0; superblock::LEN];
        self.read(0, &mut bytes)?;
        RawJournal::of(&bytes)
    }

    fn write_superblock(&self, raw: &RawJournal) -> Result<()> {
        Ok(self.device.write_all_at(raw.bytes(), self.offset(0)?)?)
    }

    /// Writes `content`, which is changed if it has the superblock, to block `number` of the image.
    fn write(&self, number: u64, content: &mut [u8]) -> Result<()> {
        let start = number * self.block_bytes as u64;
        if (start..start + self.block_bytes as u64).contains(&file_system::OFFSET) {
            let at = usize::try_from(file_system::OFFSET - start).expect("inside the block");
            let bytes = &mut content[at..at + file_system::LEN];
            let mut sb = RawSuperblock::of(bytes)?;
            sb.set_needs_recovery(true);
            bytes.copy_from_slice(sb.bytes());
        }
        Ok(self.device.write_all_at(content, start)?)
    }
}

#[cfg(test)]
mod tests;
