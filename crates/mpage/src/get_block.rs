//! Where the blocks of a file are: the one thing the cache asks of a file system.
//!
//! [`GetBlock`] answers for the longest run it can give. It is asked to read, to reserve room when
//! a block is first dirtied (so that "no space" comes from write), and to choose blocks when they
//! are written back. It is told when the I/O ended, and only then does it change what is on the
//! device about the file: a crash then shows neither stale blocks nor a size without data.
//!
//! Linux: `get_block_t`, include/linux/fs.h; `iomap_begin`, fs/iomap. Differs: extents instead of
//! one block, a purpose instead of a `create` flag.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::units::{DeviceBlock, FILE_SIZE_MAX, FileBlock};

/// What the answer will be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To read: nothing is allocated. Linux: `create` = 0.
    Read,
    /// To write the blocks to the device now: a hole gets a place. Linux: `create` = 1.
    Write,
}

/// A question to [`GetBlock::get_block`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// The first block asked about. Never wholly beyond the end of the file.
    pub first: FileBlock,
    /// How many blocks are wanted; at least one. The answer may have fewer or more.
    pub count: u64,
    /// What for.
    pub purpose: Purpose,
    /// False: answer at once or with [`ErrorKind::WouldBlock`](crate::ErrorKind::WouldBlock); the
    /// caller then submits what it holds and asks again.
    pub may_wait: bool,
}

/// Where a run of blocks is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the device, from this block on, with the file's data.
    Mapped(DeviceBlock),
    /// On the device, but never written: reads as zeros. Writing converts it once the I/O ended.
    Unwritten(DeviceBlock),
    /// Nowhere: reads as zeros.
    Hole,
}

/// A run of file blocks that are neighbours on the device too. Linux: `struct iomap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first block of the run: at or before the one asked for.
    pub first: FileBlock,
    /// Blocks of the run, at least up to and with the one asked for.
    pub count: u64,
    /// Where they are.
    pub place: Place,
    /// Finding the next run needs a read near this one's end: the bio goes out right after. Linux:
    /// `BH_Boundary`.
    pub boundary: bool,
    /// The blocks were just allocated: what the device's own mapping has cached of them is stale.
    pub fresh: bool,
}

impl Extent {
    /// A run of `count` blocks on the device.
    pub fn mapped(first: FileBlock, to: DeviceBlock, count: u64) -> Extent {
        Extent { first, count, place: Place::Mapped(to), boundary: false, fresh: false }
    }

    /// A run of `count` blocks that are nowhere.
    pub fn hole(first: FileBlock, count: u64) -> Extent {
        Extent { first, count, place: Place::Hole, boundary: false, fresh: false }
    }

    /// True when the run holds `block`.
    pub fn contains(&self, block: FileBlock) -> bool {
        block >= self.first && block.0 - self.first.0 < self.count
    }

    /// Where `block`, which the run holds, is on the device; `None` in a hole.
    pub fn device_block(&self, block: FileBlock) -> Option<DeviceBlock> {
        debug_assert!(self.contains(block));
        match self.place {
            Place::Mapped(start) | Place::Unwritten(start) => {
                Some(DeviceBlock(start.0 + (block.0 - self.first.0)))
            }
            Place::Hole => None,
        }
    }

    /// Blocks of the run from `block`, which it holds, to its end.
    pub fn blocks_from(&self, block: FileBlock) -> u64 {
        self.count - (block.0 - self.first.0)
    }
}

/// How much of the metadata a sync needs on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncKind {
    /// Everything: fsync.
    All,
    /// What is needed to read the data back: size and allocation, but not timestamps. fdatasync.
    Data,
}

/// The block map of one file.
///
/// Called from many threads. No lock of the cache is held but the page lock of the page being
/// mapped, so an implementation may use other files of the cache, and must not write to or truncate
/// this one.
pub trait GetBlock: Send + Sync {
    /// The run of blocks that holds `request.first`.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when the answer needs waiting and `may_wait` is false; anything else fails the
    /// read, or leaves the blocks dirty and is reported by sync.
    fn get_block(&self, request: &MapRequest) -> Result<Extent>;

    /// Sets room aside for `blocks`, which are about to become dirty, so that [`Purpose::Write`]
    /// for them cannot run out of space. Asking again for a block that is mapped or reserved
    /// changes nothing. May wait. The default has room for all.
    fn reserve(&self, _blocks: Range<FileBlock>) -> Result<()> {
        Ok(())
    }

    /// The blocks are removed from the file, by truncate or punch: frees what is mapped and gives
    /// up what is reserved. Called when no page and no write of them is left. May wait.
    fn remove(&self, _blocks: Range<FileBlock>) -> Result<()> {
        Ok(())
    }

    /// The content of `blocks` is not needed any more: what reads of them bring afterwards may be
    /// anything that was there, or zeros. Called as [`remove`](Self::remove) is. May wait. The
    /// default does nothing. That is not enough where blocks were somebody else's before: no page
    /// has what was written, and a flush that fails then brings back what the device had.
    fn discard(&self, _blocks: Range<FileBlock>) -> Result<()> {
        Ok(())
    }

    /// Makes `blocks` read as zeros without giving their room up: they are mapped, unwritten, or
    /// reserved afterwards. Called as [`remove`](Self::remove) is. May wait. The default cannot.
    fn zero(&self, _blocks: Range<FileBlock>) -> Result<()> {
        Err(Error::new(ErrorKind::Device(mpage_block::Errno::OPNOTSUPP), "zero"))
    }

    /// The run of blocks from `first` on that is all data or all hole; not empty. What is not
    /// written back yet counts for nothing. May wait. The default asks
    /// [`get_block`](Self::get_block).
    ///
    /// # Errors
    ///
    /// Those of looking it up.
    fn span_at(&self, first: FileBlock) -> Result<(Range<FileBlock>, bool)> {
        let request = MapRequest { first, count: 1, purpose: Purpose::Read, may_wait: true };
        let extent = self.get_block(&request)?;
        let hole = !matches!(extent.place, Place::Mapped(_));
        Ok((first..FileBlock(first.0 + extent.blocks_from(first)), hole))
    }

    /// True when [`remove`](Self::remove) and [`zero`](Self::zero) write the blocks on the device
    /// itself: when a flush of the device failed after one of them, the same is asked again for
    /// those blocks.
    fn removes_by_writing(&self) -> bool {
        false
    }

    /// Takes `blocks` out of the file: what follows moves to their front. Called when nothing from
    /// the first of them on is cached or in flight. May wait. The default cannot.
    fn collapse(&self, _blocks: Range<FileBlock>) -> Result<()> {
        Err(Error::new(ErrorKind::Device(mpage_block::Errno::OPNOTSUPP), "collapse"))
    }

    /// A write of `blocks` ended well; the blocks now hold the file's data. Called before
    /// anybody who waits for that write is woken. Must not wait for I/O.
    fn written(&self, _blocks: Range<FileBlock>) {}

    /// Writes the metadata a sync needs, after the data reached the device and before the device is
    /// flushed. `size_bytes` gives the file's size at the moment it is asked: who lets syncs of one
    /// file overtake each other asks under the lock that orders what they write, so that an older
    /// size never comes last. True when the device must be flushed for what was written. May wait.
    /// Who has to flush in between uses [`DeviceFlush`](crate::DeviceFlush): when a flush that the
    /// cache does not know of fails, what other files wrote is lost.
    fn sync(&self, _kind: SyncKind, _size_bytes: &dyn Fn() -> u64) -> Result<bool> {
        Ok(false)
    }

    /// The largest size of the file, in bytes: a write or truncate behind it is `TooLarge`. Asked
    /// once, by the new mapping.
    fn size_max(&self) -> u64 {
        FILE_SIZE_MAX
    }

    /// True when the end of the device itself is the end of the file, and is elsewhere than at
    /// `size_bytes` now. A sync sets it then, and so does the end of the mapping, when nothing is
    /// dirty or in flight any more.
    fn size_differs(&self, _size_bytes: u64) -> bool {
        false
    }

    /// Sets the end of the device to `size_bytes`, the size of the file. No write behind it is in
    /// flight, and none begins meanwhile; the file does not grow. May wait, but for no I/O of the
    /// device: at the end of a mapping it may be called on the device's thread.
    fn set_size(&self, _size_bytes: u64) -> Result<()> {
        Ok(())
    }

    /// A flush of the device failed: what this map wrote there since the last good one may be lost,
    /// sizes it set included, and has to be written again by the next sync. So may the blocks that
    /// it was told are [`written`](Self::written): what the cache has of them is dirty again.
    /// Called when the error is recorded, and before anybody is told of it. Must not wait for I/O.
    fn flush_failed(&self) {}

    /// Changes whenever an answer given before may no longer hold. Answers are kept between pages
    /// of one walk only while it stays the same.
    fn cookie(&self) -> u64 {
        0
    }
}

/// Fits a function that maps one block at a time, like Linux's `get_block_t`: asks it for
/// neighbours and joins those that follow each other on the device.
pub struct OneBlock<F>(pub F);

impl<F> GetBlock for OneBlock<F>
where
    F: Fn(FileBlock, Purpose) -> Result<Option<DeviceBlock>> + Send + Sync,
{
    fn get_block(&self, request: &MapRequest) -> Result<Extent> {
        let place = |n: u64| (self.0)(FileBlock(request.first.0 + n), request.purpose);
        let start = place(0)?;
        let mut count = 1;
        while count < request.count {
            let expected = start.map(|block| DeviceBlock(block.0 + count));
            match place(count) {
                Ok(next) if next == expected => count += 1,
                _ => break,
            }
        }
        Ok(match start {
            Some(block) => Extent::mapped(request.first, block, count),
            None => Extent::hole(request.first, count),
        })
    }
}
