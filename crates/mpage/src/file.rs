//! One open of a cached file.

use std::ops::Range;
use std::sync::Arc;

use mpage_block::{Errno, Span};
use mpage_mem::FrameId;

use crate::address_space::AddressSpace;
use crate::error::{Error, ErrorKind, Result};
use crate::errseq::Cursor;
use crate::filemap::{self, checked_range};
use crate::fsync::{self, RangeSteps};
use crate::get_block::{Purpose, SyncKind};
use crate::may_wait::MayWait;
use crate::mpage::DirectIo;
use crate::pinned_page::PinnedPage;
use crate::readahead::{Advice, Readahead, get_block_of, read_page, will_need};
use crate::reclaim::{get_frame, get_page, try_get_frame};
use crate::truncate;
use crate::units::{FILE_SIZE_MAX, PAGE_BYTES, PageIndex, SectorMask, pages_touched, part_in_page};
use crate::write_and_wait::write_and_wait;
use crate::zeroed::Room;

/// One open of a cached file, with its own record of which write errors it was told of. A clone is
/// a duplicate of the open: the two share that record. Linux: `struct file`.
#[derive(Clone)]
pub struct CachedFile {
    space: Arc<AddressSpace>,
    open: Arc<Open>,
}

struct Open {
    cursor: Cursor,
    writable: bool,
    readahead: Readahead,
}

/// Bytes of frames a direct transfer uses at a time.
const DIRECT_PAGES: u64 = 16;

impl CachedFile {
    /// Opens a mapping.
    pub fn new(space: Arc<AddressSpace>, writable: bool) -> CachedFile {
        let readahead = Readahead::new(&space);
        let open = Arc::new(Open { cursor: space.errors.sample(), writable, readahead });
        CachedFile { space, open }
    }

    /// The mapping of the file.
    pub fn mapping(&self) -> &Arc<AddressSpace> {
        &self.space
    }

    /// The file's size in bytes.
    pub fn size(&self) -> u64 {
        self.space.size()
    }

    /// Reads bytes from `offset` on; returns how many: fewer than asked for only at the end of the
    /// file, or when an error stopped it midway, which the next call then meets. Cached bytes cost
    /// no lock and no system call; others wait for the device, never for a write.
    ///
    /// # Errors
    ///
    /// Those of the device and the block map. Linux: `pread(2)`.
    pub fn read_at(&self, to: &mut [u8], offset: u64) -> Result<usize> {
        filemap::read(&self.space, &self.open.readahead, offset, to)
    }

    /// As [`read_at`](Self::read_at), if all of it is cached. `None`: it would have to wait; what
    /// `to` holds then is not said. Never waits, and starts to read nothing but what comes next for
    /// a reader that goes forward. Linux: `preadv2(2)` with `RWF_NOWAIT`. Differs: all or nothing.
    pub fn try_read_at(&self, to: &mut [u8], offset: u64) -> Option<usize> {
        filemap::try_read(&self.space, &self.open.readahead, offset, to)
    }

    /// Starts to read what a read of `range` would have to wait for, and what comes next, and calls
    /// `then` when it was read, or has failed: [`try_read_at`](Self::try_read_at) then mostly finds
    /// all of it. Waits for nothing. `then` runs on a thread of the device and must not wait
    /// either. False, and `then` is dropped, when nothing was started: all is cached, somebody else
    /// reads it already, there is no memory at hand, or the range is longer than 1 MiB. Linux: what
    /// io_uring does with a buffered read (`filemap_read()` with `IOCB_WAITQ`).
    pub fn start_fetch(&self, range: Range<u64>, then: impl FnOnce() + Send + 'static) -> bool {
        let range = range.start..range.end.min(self.space.size());
        if range.is_empty() {
            return false;
        }
        self.open.readahead.start_fetch(&self.space, &range, Box::new(then)).is_none()
    }

    /// Says how this open, or byte `range` of the file, is going to be used: see [`Advice`]. Never
    /// waits for the device.
    ///
    /// # Errors
    ///
    /// Of [`Advice::DontNeed`]: the first of mapping or submitting what is dirty, which stays so.
    /// Linux: `posix_fadvise(2)`.
    pub fn advise(&self, range: Range<u64>, advice: Advice) -> Result<()> {
        let range = range.start..range.end.min(self.space.size());
        match advice {
            Advice::WillNeed => will_need(&self.space, &range),
            Advice::DontNeed => {
                let started = fsync::clean_range(&self.space, &range);
                // The last page may lie behind the end in part.
                let to_end = range.end == self.space.size();
                let end = if to_end { range.end.next_multiple_of(PAGE_BYTES) } else { range.end };
                truncate::invalidate(&self.space, &(range.start..end));
                return started;
            }
            of_open => self.open.readahead.advise(&self.space, of_open),
        }
        Ok(())
    }

    /// Writes bytes at `offset` into the cache; the file grows to hold them. Returns how many:
    /// fewer than given only when an error stopped it midway, which the next call then meets. Waits
    /// for memory, for blocks covered in part that must be read first, and while too much is dirty.
    ///
    /// # Errors
    ///
    /// `TooLarge`; `ReadOnly`; those of reserving room (no space is told here, never by a sync) and
    /// of reading. Linux: `pwrite(2)`.
    pub fn write_at(&self, from: &[u8], offset: u64) -> Result<usize> {
        self.check_writable("write")?;
        filemap::write(&self.space, offset, from)
    }

    /// As [`write_at`](Self::write_at), as much from the front as can be stored without waiting for
    /// memory, for blocks that must be read first, or while too much is dirty. Returns how many
    /// bytes: fewer than given, maybe none, when the rest would wait. Of the rest nothing was
    /// stored, unless a truncate cuts through the page meanwhile. Whether reserving room waits is
    /// the block map's to say. Linux: `pwritev2(2)` with `RWF_NOWAIT`. Differs: zero instead of
    /// `EAGAIN`.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at).
    pub fn try_write_at(&self, from: &[u8], offset: u64) -> Result<usize> {
        self.check_writable("write")?;
        filemap::try_write(&self.space, offset, from)
    }

    /// As [`write_at`](Self::write_at), all of it.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at); how much was written before is not told.
    pub fn write_all_at(&self, from: &[u8], offset: u64) -> Result<()> {
        // Once for no bytes too: whether they could be written is told.
        let mut done = self.write_at(from, offset)?;
        while done < from.len() {
            done += self.write_at(&from[done..], offset + done as u64)?;
        }
        Ok(())
    }

    /// Makes everything dirty at the call durable, with all metadata. Linux: `fsync(2)`.
    ///
    /// # Errors
    ///
    /// Every write error this open was not told of, once; and, every time, whatever keeps a byte of
    /// the file from being durable. The ranges in it stay in the cache, dirty; the next sync tries
    /// them again.
    pub fn fsync(&self) -> Result<()> {
        self.sync_range(0..FILE_SIZE_MAX, SyncKind::All)
    }

    /// As [`fsync`](Self::fsync), without metadata that reading the data back does not need.
    /// Linux: `fdatasync(2)`.
    ///
    /// # Errors
    ///
    /// As [`fsync`](Self::fsync).
    pub fn fdatasync(&self) -> Result<()> {
        self.sync_range(0..FILE_SIZE_MAX, SyncKind::Data)
    }

    /// As [`fsync`](Self::fsync), for byte `range` alone: pages outside are not written and not
    /// waited for. This is also what msync is for stores through [`PinnedPage`]. Linux: `msync(2)`
    /// with `MS_SYNC`.
    ///
    /// # Errors
    ///
    /// As [`fsync`](Self::fsync).
    pub fn sync_range(&self, range: Range<u64>, kind: SyncKind) -> Result<()> {
        fsync::sync_range(&self.space, &self.open.cursor, &range, kind)
    }

    /// The steps of `sync_file_range(2)`: no metadata, no flush of the device, and with `write`
    /// alone no promise at all.
    ///
    /// # Errors
    ///
    /// As [`fsync`](Self::fsync), if a waiting step was asked for.
    pub fn sync_file_range(&self, range: Range<u64>, steps: RangeSteps) -> Result<()> {
        fsync::sync_file_range(&self.space, &self.open.cursor, &range, steps)
    }

    /// Begins to write what is dirty in `range` and returns: advice, and no promise. Pages in use
    /// are passed over. Linux: `filemap_flush()`.
    ///
    /// # Errors
    ///
    /// The first error of mapping or submitting; the page stays dirty.
    pub fn start_writing(&self, range: Range<u64>) -> Result<()> {
        fsync::clean_range(&self.space, &range)
    }

    /// Writes bytes into the cache and at once to the device, and waits for their own write alone;
    /// no other page is written. With `durable` also past the device's volatile cache. The pages
    /// are clean and cached afterwards. Linux: `RWF_WRITETHROUGH`, `RWF_DSYNC`.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at), and those of its own write, whose bytes are dirty then.
    pub fn write_through_at(&self, from: &[u8], offset: u64, durable: bool) -> Result<()> {
        let removals = self.space.removals_over();
        self.write_all_at(from, offset)?;
        let range = checked_range(&self.space, offset, from.len() as u64, "write through")?;
        fsync::write_through(&self.space, &range, durable, removals)
    }

    /// Sets the file's size: what is cut off is gone, what is added reads as zeros. Returns when no
    /// write of what was cut off can reach the device any more. Linux: `ftruncate(2)`.
    ///
    /// # Errors
    ///
    /// `TooLarge`; `ReadOnly`; those of reading the new last block and of the block map.
    pub fn set_len(&self, size: u64) -> Result<()> {
        self.check_writable("truncate")?;
        truncate::set_size(&self.space, size)
    }

    /// Makes the file `size` bytes long if it is shorter; what is added reads as zeros.
    ///
    /// # Errors
    ///
    /// `TooLarge`; `ReadOnly`.
    pub fn grow(&self, size: u64) -> Result<()> {
        self.check_writable("grow")?;
        truncate::grow(&self.space, size)
    }

    /// Makes byte `range` read as zeros and frees its whole blocks; the size stays.
    /// Linux: `FALLOC_FL_PUNCH_HOLE`.
    ///
    /// # Errors
    ///
    /// As [`set_len`](Self::set_len). After one the range holds what it held, zeros, or what the
    /// device has there.
    pub fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        self.check_writable("punch")?;
        truncate::zero_range(&self.space, &range, Room::Freed)
    }

    /// Makes byte `range` read as zeros and keeps the room of its blocks; the size stays. No page
    /// is brought into the cache but those of blocks covered in part.
    /// Linux: `FALLOC_FL_ZERO_RANGE` with `FALLOC_FL_KEEP_SIZE`.
    ///
    /// # Errors
    ///
    /// As [`punch_hole`](Self::punch_hole); `EOPNOTSUPP` where the block map cannot.
    pub fn zero_range(&self, range: Range<u64>) -> Result<()> {
        self.check_writable("zero")?;
        truncate::zero_range(&self.space, &range, Room::Kept)
    }

    /// Says that the content of byte `range` is not needed: pages wholly inside leave the cache,
    /// written or not, and read afterwards as what the device then has there, mostly zeros. Waits
    /// for writes of them that are in flight. Linux: `BLKDISCARD`.
    ///
    /// # Errors
    ///
    /// `ReadOnly`; those of the device and the block map.
    pub fn discard(&self, range: Range<u64>) -> Result<()> {
        self.check_writable("discard")?;
        truncate::discard(&self.space, &range)
    }

    /// The run of bytes from `offset` on that is all data or all hole, up to the end of the file.
    /// What is written but not on the device yet is data. A hole reads as zeros; so may data.
    /// Linux: `SEEK_DATA` and `SEEK_HOLE`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` at or behind the end of the file; those of the block map.
    pub fn span_at(&self, offset: u64) -> Result<Span> {
        let size = self.space.size();
        if offset >= size {
            return Err(Error::new(ErrorKind::InvalidInput, "find data")
                .because("the offset lies behind the end of the file"));
        }
        // First the pages: what is clean when they are looked at, the block map knows of.
        let unwritten = self.space.next_unwritten(offset, size);
        if let Some(run) = &unwritten
            && run.start <= offset
        {
            return Ok(Span { bytes: offset..run.end.min(size), hole: false });
        }
        let blocks = self.space.block_size();
        let get_block = get_block_of(&self.space)?;
        let (run, hole) = get_block.span_at(blocks.block_of(offset))?;
        let mut end = blocks.start_of(run.end).min(size);
        if hole && let Some(run) = unwritten {
            end = end.min(run.start);
        }
        Ok(Span { bytes: offset..end, hole })
    }

    /// Takes byte `range`, whole blocks, out of the file: what follows moves to its front.
    /// Linux: `FALLOC_FL_COLLAPSE_RANGE`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` unless the range lies on whole blocks before the end of the file;
    /// `EOPNOTSUPP` where the block map cannot; `ReadOnly`; those of writing what follows.
    pub fn collapse_range(&self, range: Range<u64>) -> Result<()> {
        self.check_writable("collapse")?;
        truncate::collapse_range(&self.space, &range)
    }

    /// Drops pages wholly inside `range` that are clean and unused; others stay. Never waits.
    pub fn invalidate(&self, range: Range<u64>) {
        truncate::invalidate(&self.space, &range);
    }

    /// Drops all pages `range` touches, writing dirty ones first.
    ///
    /// # Errors
    ///
    /// `Busy` when a page is pinned or was dirtied meanwhile; those of writing.
    pub fn invalidate_strict(&self, range: Range<u64>) -> Result<()> {
        truncate::invalidate_strict(&self.space, &range)
    }

    /// Reads past the cache, after writing what is dirty there. Offset and length lie on blocks;
    /// returns how many bytes, fewer at the end of the file. Linux: `O_DIRECT`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` off the blocks; those of the device and the block map.
    pub fn read_direct_at(&self, to: &mut [u8], offset: u64) -> Result<usize> {
        self.check_aligned(offset, to.len(), "read direct")?;
        let size = self.space.size();
        let end = size.min(offset.saturating_add(to.len() as u64));
        if offset >= end {
            return Ok(0);
        }
        // Nobody frees the blocks of the range, for another file's data to show, meanwhile.
        let pages = pages_touched(&(offset..end));
        self.space.begin_removal(&pages);
        let end = end.min(self.space.size()).max(offset);
        let result = self.read_removed(to, &(offset..end));
        self.space.end_removal(&pages);
        result.map(|()| usize::try_from(end - offset).expect("inside the buffer"))
    }

    /// Reads past the cache from `range`, which is registered as being removed. What the device has
    /// there is older than the cache when a write of it failed, or a flush behind one.
    fn read_removed(&self, to: &mut [u8], range: &Range<u64>) -> Result<()> {
        loop {
            let recorded = self.space.errors.recorded();
            write_and_wait(&self.space, range)?;
            let failed = self.space.failed_ranges(range);
            if !failed.is_empty() {
                let errno = self.space.errors.last().unwrap_or(Errno::IO);
                let mut error = Error::new(ErrorKind::Device(errno), "read direct").at(failed);
                error.retained = true;
                return Err(error);
            }
            self.read_device(to, range)?;
            if self.space.last_unflushed_write(range) > self.space.dev().flushed() {
                self.space.dev().wait_for_flush();
            }
            if self.space.errors.recorded() == recorded {
                return Ok(());
            }
        }
    }

    fn read_device(&self, to: &mut [u8], range: &Range<u64>) -> Result<()> {
        let whole = range.end.next_multiple_of(self.space.block_size().bytes());
        self.direct(range.start..whole, Purpose::Read, |space, part, frame, from| {
            let part = part.start.min(range.end)..part.end.min(range.end);
            let at = usize::try_from(part.start - range.start).expect("inside the buffer");
            let len = usize::try_from(part.end - part.start).expect("inside a page");
            space.core().pool.arena().read(frame, from, &mut to[at..at + len]);
        })
    }

    /// Writes past the cache: what is cached of the range is written before and dropped after.
    /// Offset and length lie on blocks. Durable after the next sync. Linux: `O_DIRECT`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` off the blocks; `Busy` when a cached page could not be dropped, so that cache
    /// and device may differ; those of the device and the block map.
    pub fn write_direct_at(&self, from: &[u8], offset: u64) -> Result<()> {
        self.check_writable("write direct")?;
        self.check_aligned(offset, from.len(), "write direct")?;
        let range = checked_range(&self.space, offset, from.len() as u64, "write direct")?;
        if range.is_empty() {
            return Ok(());
        }
        // Nobody else brings the range into the cache, dirties it or frees its blocks meanwhile.
        let pages = pages_touched(&range);
        truncate::begin_overwriting(&self.space, &range, &pages)?;
        let result = self.write_removed(from, &range);
        self.space.end_removal(&pages);
        result
    }

    /// Writes past the cache into `range`, which is registered as being removed.
    fn write_removed(&self, from: &[u8], range: &Range<u64>) -> Result<()> {
        let size = self.space.block_size();
        if let Some(get_block) = &self.space.ops().get_block {
            get_block.reserve(size.block_of(range.start)..size.block_after(range.end))?;
        }
        truncate::invalidate_strict(&self.space, range)?;
        let written = self.direct(range.clone(), Purpose::Write, |space, part, frame, to| {
            let at = usize::try_from(part.start - range.start).expect("inside the buffer");
            let len = usize::try_from(part.end - part.start).expect("inside a page");
            space.core().pool.arena().write(frame, to, &from[at..at + len]);
        });
        if let Err(error) = written {
            return Err(truncate::undo_growth(&self.space, range, error));
        }
        self.space.grow_while_removing(range.end);
        truncate::invalidate_strict(&self.space, range)
    }

    /// Moves bytes `range` between the device and frames, a few pages at a time; `copy` fills a
    /// frame before a write, or empties it after a read.
    fn direct(
        &self,
        range: Range<u64>,
        purpose: Purpose,
        mut copy: impl FnMut(&AddressSpace, &Range<u64>, FrameId, usize),
    ) -> Result<()> {
        let get_block = get_block_of(&self.space)?;
        let pool = &self.space.core().pool;
        let mut at = range.start;
        while at < range.end {
            let mut stop = range.end.min((at / PAGE_BYTES + DIRECT_PAGES) * PAGE_BYTES);
            let mut io = DirectIo::new(&self.space, &*get_block, purpose);
            let mut frames = Vec::new();
            let mut result = Ok(());
            for index in pages_touched(&(at..stop)).map(PageIndex) {
                let part = at.max(index.start())..stop.min(index.end());
                // Who waits for a frame holds none, or all could be held by those who wait.
                let frame = match frames.is_empty() {
                    true => Some(get_frame(self.space.core(), index, &MayWait::no_bio_held())),
                    false => try_get_frame(self.space.core(), index),
                };
                let Some(frame) = frame else {
                    stop = part.start;
                    break;
                };
                let offset = part_in_page(&part, index).start;
                if purpose == Purpose::Write {
                    copy(&self.space, &part, frame, offset);
                }
                result = result.and_then(|()| io.add(&part, frame));
                frames.push((part, frame, offset));
            }
            let result = io.finish(&*get_block).and(result);
            for (part, frame, offset) in frames {
                if purpose == Purpose::Read && result.is_ok() {
                    copy(&self.space, &part, frame, offset);
                }
                pool.unpin_frame(frame);
            }
            result?;
            at = stop;
        }
        Ok(())
    }

    /// Pins page `index`, reading it first, so that it stays in memory and can be used as a buffer.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for a page wholly beyond the end of the file; those of reading it.
    pub fn pin_page(&self, index: PageIndex) -> Result<PinnedPage> {
        let may_wait = MayWait::no_bio_held();
        loop {
            if index > PageIndex::MAX || index.start() >= self.space.size() {
                return Err(Error::new(ErrorKind::InvalidInput, "pin")
                    .because("the page lies beyond the end of the file"));
            }
            let pin = get_page(&self.space, index, false, &may_wait);
            read_page(&self.space, &pin, SectorMask::ALL, &may_wait)?;
            if !pin.word().has(crate::page::FROZEN) {
                return Ok(PinnedPage::new(self.clone(), pin.leak()));
            }
        }
    }

    pub(crate) fn check_writable(&self, op: &'static str) -> Result<()> {
        match self.open.writable {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::ReadOnly, op).because("open the file for writing")),
        }
    }

    fn check_aligned(&self, offset: u64, len: usize, op: &'static str) -> Result<()> {
        let block = self.space.block_size().bytes();
        if offset.is_multiple_of(block) && (len as u64).is_multiple_of(block) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::InvalidInput, op)
            .because(format!("offset and length must be multiples of {block} bytes")))
    }
}

impl std::fmt::Debug for CachedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedFile").field("mapping", &self.space).finish_non_exhaustive()
    }
}
