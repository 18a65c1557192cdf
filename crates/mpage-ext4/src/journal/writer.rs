//! Writing the log: transactions, and how far the device file has caught up with them.
//!
//! Words: the *ring* is the blocks of the journal behind its superblock. The log begins at the
//! block that the superblock names and ends at the *head*. A transaction is *checkpointed* when all
//! it changed is on the medium in its own place.
//!
//! 1. A transaction is committed when its commit block is on the medium; that is written when all
//!    else of it, and all file data that it maps, is.
//! 2. Nothing of a transaction is in its own place on the device before it is committed: its blocks
//!    get to the device file afterwards.
//! 3. A block of the ring is written again only when the superblock on the medium says that the log
//!    begins behind it, and it says so only of transactions that are checkpointed.
//! 4. What a transaction freed and the log has a content of is revoked by it: that content is not
//!    replayed over what the block's next owner wrote. Nobody owns it before the commit.
//! 5. When the log cannot be written, or a flush has failed, nothing is written to it any more:
//!    what is on the medium is not known.
//!
//! Who commits has the turn to; the state's lock is held by them, or for a moment.
//!
//! See docs/ext4-transactions.md, "A commit". Linux: `jbd2_journal_commit_transaction()`,
//! fs/jbd2/commit.c; `jbd2_journal_update_sb_log_tail()`, fs/jbd2/journal.c; fs/jbd2/revoke.c.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use mpage::units::FileBlock;
use mpage::{BackingDev, DeviceFlush, LogWriter, Place};
use mpage_block::Errno;
use mpage_locks::{Mutex, clock};
use rangemap::RangeMap;

use super::record::{self, MAGIC};
use super::superblock::{Journal, RawJournal};
use super::tags::Descriptor;
use super::{JournalFile, revoke};
use crate::block_map;
use crate::error::{Error, ErrorKind, Result};
use crate::features::{METADATA_CSUM, SIXTY_FOUR_BIT};
use crate::inode::InodeNumber;
use crate::layers::Block;
use crate::metadata::{CHANGE_BLOCKS_MAX, Metadata};
use crate::transaction::Changed;

/// The most that is written to the log at once, in bytes.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// The log of an image that is being written.
pub(crate) struct Writer {
    journal: Journal,
    /// Where the blocks of the journal's file are on the device: what is to be added to their
    /// numbers, wrapping around.
    places: RangeMap<u64, u64>,
    flush: DeviceFlush,
    state: Mutex<State>,
}

struct State {
    raw: RawJournal,
    output: LogWriter,
    /// Where the next transaction begins, and its number, which the log has the lower half of.
    head: u32,
    sequence: u64,
    /// Blocks between the beginning of the log, as it is on the medium, and the head.
    used: u32,
    /// The last transaction of those in the log that has a content of each block.
    logged: HashMap<u64, u64>,
}

/// How far the log was when a checkpoint began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    head: u32,
    sequence: u64,
}

/// A block as it is in the log.
enum LogBlock {
    Made(Vec<u8>),
    Content(Block),
}

impl LogBlock {
    fn bytes(&self) -> &[u8] {
        match self {
            LogBlock::Made(bytes) => bytes,
            LogBlock::Content(block) => block,
        }
    }
}

impl Writer {
    /// The log of the image that `metadata` is of, which is empty. Nothing is written yet.
    ///
    /// # Errors
    ///
    /// `Unsupported` for a journal that is too small; `Corrupt`; the device's; `ENOMEM`.
    pub(crate) fn open(
        metadata: &Metadata,
        dev: &Arc<BackingDev>,
        flush: DeviceFlush,
    ) -> Result<Writer> {
        let file = JournalFile::of(metadata, metadata.layers.device())?;
        let features = metadata.superblock().features;
        let mut raw = file.superblock()?;
        raw.set_features(features.incompat(SIXTY_FOUR_BIT), features.ro_compat(METADATA_CSUM));
        let journal = Journal::new(&raw, file.block_bytes, file.blocks)?;
        if journal.start.is_some() {
            return Err(Error::corrupt("the journal has transactions, and the image says none"));
        }
        let places = places(metadata, file.inode, journal.end)?;
        let output = LogWriter::new(dev, WRITE_BYTES_MAX)
            .map_err(|errno| Error::errno(errno, "memory for writing the journal".to_owned()))?;
        for (blocks, shift) in places.iter() {
            let start = blocks.start.wrapping_add(*shift) * journal.block_bytes as u64;
            let bytes = (blocks.end - blocks.start) * journal.block_bytes as u64;
            output.keep_room(&(start..start + bytes)).map_err(|errno| {
                Error::errno(errno, "room for the journal where the image is".to_owned())
            })?;
        }
        let (head, sequence) = (journal.first, u64::from(journal.sequence));
        let logged = HashMap::new();
        let state = State { raw, output, head, sequence, used: 0, logged };
        let writer = Writer { journal, places, flush, state: Mutex::new(state) };
        if writer.blocks_max() < 2 * CHANGE_BLOCKS_MAX {
            let detail = format!("a journal of {} blocks", writer.ring_blocks());
            return Err(Error { kind: ErrorKind::Unsupported, detail });
        }
        Ok(writer)
    }

    fn ring_blocks(&self) -> u32 {
        self.journal.end - self.journal.first
    }

    /// Blocks that a transaction may have, so that it fits into the log beside what describes it.
    pub(crate) fn blocks_max(&self) -> usize {
        let ring = self.ring_blocks() as usize;
        // As many blocks may have to be revoked as the log has contents.
        let revokes = ring.div_ceil(self.journal.block_bytes / 16);
        let tags = Descriptor::tags_min(self.journal.block_bytes);
        let left = ring.saturating_sub(revokes + 4);
        let fits = left - left.div_ceil(tags + 1);
        // One that could not be written for want of room is joined by the next.
        (fits / 2).max((2 * CHANGE_BLOCKS_MAX).min(fits))
    }

    /// True when the log is so full that the device file should catch up.
    pub(crate) fn wants_checkpoint(&self) -> bool {
        self.state.lock().used > self.ring_blocks() / 2
    }

    /// Where the log is now: all before that was committed, and is in the device file.
    pub(crate) fn mark(&self) -> Mark {
        let state = self.state.lock();
        Mark { head: state.head, sequence: state.sequence }
    }

    /// All before `mark` is checkpointed: the log begins there from now on.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn advance(&self, mark: Mark) -> Result<()> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let used = self.distance(mark.head, state.head);
        let is_empty = mark.sequence == state.sequence;
        match is_empty {
            true => state.raw.empty(low(mark.sequence)),
            false => state.raw.begin_at(mark.head, low(mark.sequence)),
        }
        self.write_superblock(state)?;
        state.used = if is_empty { 0 } else { used };
        state.logged.retain(|_, last| *last >= mark.sequence);
        Ok(())
    }

    /// True when transaction `changed` can be written without a checkpoint before.
    pub(crate) fn has_room(&self, changed: &Changed) -> bool {
        let state = self.state.lock();
        let revokes = revokes(&state.logged, changed).len().div_ceil(self.journal.block_bytes / 16);
        let tags = Descriptor::tags_min(self.journal.block_bytes);
        let contents = changed.blocks.len();
        let wanted = revokes + contents + contents.div_ceil(tags) + 2;
        // One block stays free: a full ring would look like an empty one.
        state.used as usize + wanted < self.ring_blocks() as usize
    }

    /// Commits `changed`, for which there is room.
    ///
    /// # Errors
    ///
    /// The device's: nothing may be written to the log any more.
    pub(crate) fn commit(&self, changed: &Changed) -> Result<()> {
        let mut state = self.state.lock();
        let state = &mut *state;
        if state.used == 0 {
            // The log begins here, should anything of it be found.
            state.raw.begin_at(state.head, low(state.sequence));
            self.write_superblock(state)?;
        }
        let revoked = revokes(&state.logged, changed);
        let blocks = self.encode(low(state.sequence), &changed.blocks, &revoked);
        let own = self.flush.begin_writes();
        let end = self.write(&mut state.output, state.head, &blocks)?;
        self.flush.flush_writes(&own)?;
        let time = clock::time_of_day();
        let time = (u64::try_from(time.0).unwrap_or(0), time.1);
        let commit = record::commit(&self.journal, low(state.sequence), time);
        let at = self.place(end);
        self.write_durably(&mut state.output, at, &commit)?;
        state.used += u32::try_from(blocks.len()).expect("it fits into the ring") + 1;
        state.head = self.after(end);
        for number in revoked {
            let _last = state.logged.remove(&number);
        }
        for number in changed.blocks.keys() {
            let _last = state.logged.insert(*number, state.sequence);
        }
        state.sequence += 1;
        Ok(())
    }

    /// The blocks of a transaction but the last.
    fn encode(
        &self,
        sequence: u32,
        contents: &BTreeMap<u64, Block>,
        revoked: &[u64],
    ) -> Vec<LogBlock> {
        let revokes = revoke::blocks(&self.journal, sequence, revoked);
        let mut blocks: Vec<_> = revokes.into_iter().map(LogBlock::Made).collect();
        let mut contents = contents.iter().peekable();
        while contents.peek().is_some() {
            let mut descriptor = Descriptor::new(&self.journal, sequence);
            let mut behind = Vec::new();
            while let Some((number, content)) = contents.peek() {
                let (block, is_escaped) = escaped(content);
                if !descriptor.push(**number, block.bytes(), is_escaped) {
                    break;
                }
                behind.push(block);
                let _taken = contents.next();
            }
            blocks.push(LogBlock::Made(descriptor.end()));
            blocks.extend(behind);
        }
        blocks
    }

    /// Writes `blocks` into the ring from block `at` on; returns the block behind them.
    fn write(&self, output: &mut LogWriter, at: u32, blocks: &[LogBlock]) -> Result<u32> {
        let mut next = at;
        let mut rest = blocks;
        while !rest.is_empty() {
            let start = self.place(next);
            let mut bytes = Vec::new();
            while let Some((block, behind)) = rest.split_first() {
                let is_next = self.place(next) == start + bytes.len() as u64;
                if !is_next || bytes.len() + block.bytes().len() > WRITE_BYTES_MAX {
                    break;
                }
                bytes.extend_from_slice(block.bytes());
                rest = behind;
                next = self.after(next);
            }
            output.write(start, &bytes, false).map_err(failed)?;
        }
        Ok(next)
    }

    fn write_durably(&self, output: &mut LogWriter, at: u64, bytes: &[u8]) -> Result<()> {
        if output.has_fua() {
            return output.write(at, bytes, true).map_err(failed);
        }
        let own = self.flush.begin_writes();
        output.write(at, bytes, false).map_err(failed)?;
        Ok(self.flush.flush_writes(&own)?)
    }

    fn write_superblock(&self, state: &mut State) -> Result<()> {
        let bytes = state.raw.bytes().to_vec();
        self.write_durably(&mut state.output, self.place(0), &bytes)
    }

    /// Where block `index` of the journal's file is on the device, in bytes.
    fn place(&self, index: u32) -> u64 {
        let index = u64::from(index);
        let shift = self.places.get(&index).expect("all of the journal has a place");
        index.wrapping_add(*shift) * self.journal.block_bytes as u64
    }

    /// The block of the ring behind `index`.
    fn after(&self, index: u32) -> u32 {
        if index + 1 == self.journal.end { self.journal.first } else { index + 1 }
    }

    /// Blocks of the ring from `from` to `to`.
    fn distance(&self, from: u32, to: u32) -> u32 {
        if from <= to { to - from } else { to + self.ring_blocks() - from }
    }
}

/// The number of a transaction, as the log has it.
fn low(sequence: u64) -> u32 {
    (sequence & 0xffff_ffff) as u32
}

fn failed(errno: Errno) -> Error {
    Error::errno(errno, "the journal cannot be written".to_owned())
}

/// What of the blocks that `changed` frees the log has a content of.
fn revokes(logged: &HashMap<u64, u64>, changed: &Changed) -> Vec<u64> {
    let mut revoked: Vec<u64> = match changed.freed_count() < logged.len() as u64 {
        true => {
            let freed = changed.freed.iter().flat_map(Range::clone);
            freed.filter(|number| logged.contains_key(number)).collect()
        }
        false => logged.keys().copied().filter(|it| changed.freed.contains(it)).collect(),
    };
    revoked.sort_unstable();
    revoked
}

/// `content` as it may be in the log, where a block that begins with the magic number is one of the
/// log's own; true when that was taken away.
fn escaped(content: &Block) -> (LogBlock, bool) {
    let magic = MAGIC.to_be_bytes();
    if content[..magic.len()] != magic {
        return (LogBlock::Content(Block::clone(content)), false);
    }
    let mut bytes = content.to_vec();
    bytes[..magic.len()].fill(0);
    (LogBlock::Made(bytes), true)
}

/// Where blocks up to `end` of the journal's file are.
fn places(metadata: &Metadata, inode: InodeNumber, end: u32) -> Result<RangeMap<u64, u64>> {
    let mut places = RangeMap::new();
    let mut at = 0;
    while at < u64::from(end) {
        let run = metadata.read(|view| block_map::find(view, &view.inode(inode)?, at))?;
        let Place::Mapped(_) = run.place else {
            let detail = format!("block {at} of the journal is not there");
            return Err(Error::corrupt(detail));
        };
        let device = run.device_block(FileBlock(at)).expect("it is mapped");
        let blocks: Range<u64> = at..(run.first.0 + run.count).min(end.into());
        at = blocks.end;
        places.insert(blocks.clone(), device.0.wrapping_sub(blocks.start));
    }
    Ok(places)
}
