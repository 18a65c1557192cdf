//! Zeros, discards, logs and small reads on the device itself, past the cache.
//!
//! Linux: block/blk-lib.c.

use std::ops::Range;
use std::sync::Arc;

use mpage_block::{Bio, BioFlags, BlockDevice, Errno, SECTOR_SIZE, Sector, submit_and_wait};
use mpage_mem::{Arena, ArenaOptions, FrameId, PAGE_SIZE, Purpose};

use crate::backing_dev::BackingDev;
use crate::zeroed::Room;

/// Makes bytes `range` of a device read as zeros; waits for it. A device that has no operation for
/// that is written zeros. Linux: `blkdev_issue_zeroout()`.
///
/// # Errors
///
/// The device's; `ENOMEM` when there is no memory for a page of zeros.
pub(crate) fn write_zeroes(
    device: &dyn BlockDevice,
    range: &Range<u64>,
    room: Room,
) -> Result<(), Errno> {
    if !device.limits().write_zeroes {
        return write_pages_of_zeros(device, range);
    }
    let (sector, bytes) = (sector_at(range.start), range.end - range.start);
    let bio = match room {
        Room::Freed => Bio::write_zeroes(sector, bytes),
        Room::Kept => Bio::write_zeroes_keeping_room(sector, bytes),
    };
    submit_and_wait(device, bio)
}

/// One bio at a time, all of one frame. Linux: `__blkdev_issue_zero_pages()`.
fn write_pages_of_zeros(device: &dyn BlockDevice, range: &Range<u64>) -> Result<(), Errno> {
    let (arena, zeros) = one_frame()?;
    arena.zero(zeros, 0, PAGE_SIZE);
    let limits = device.limits();
    let mut at = range.start;
    while at < range.end {
        let mut bio = Bio::write(&arena, sector_at(at), BioFlags::default());
        let left = |bio: &Bio| range.end - at - bio.bytes();
        while left(&bio) > 0 {
            let len = usize::try_from(left(&bio)).map_or(PAGE_SIZE, |left| left.min(PAGE_SIZE));
            if !bio.push(zeros, 0, len, &limits) {
                break;
            }
        }
        assert!(!bio.is_empty(), "a device takes a page at a time");
        at += bio.bytes();
        submit_and_wait(device, bio)?;
    }
    Ok(())
}

/// Reads what `dev` has from byte `offset` on, past the cache and with memory of its own: for block
/// maps, which must not wait for memory that waits for them. What the cache has of those bytes may
/// be newer. Waits for the device.
///
/// # Errors
///
/// The device's; `ENOMEM` when there is no memory for a page.
///
/// # Panics
///
/// When the bytes are not whole sectors, or more than a page.
pub fn read_past_cache(dev: &BackingDev, offset: u64, to: &mut [u8]) -> Result<(), Errno> {
    assert!(to.len() <= PAGE_SIZE, "{} bytes are more than a page", to.len());
    assert!(offset.is_multiple_of(SECTOR_SIZE as u64), "byte {offset} begins no sector");
    let (arena, frame) = one_frame()?;
    let mut bio = Bio::read(&arena, sector_at(offset));
    let fits = bio.push(frame, 0, to.len(), dev.limits());
    assert!(fits, "a device takes a page at a time");
    submit_and_wait(&**dev.block(), bio)?;
    arena.read(frame, 0, to);
    Ok(())
}

/// Writes on a device, past the cache and with memory of its own: for block maps with a log, which
/// must not wait for memory that waits for them. What the cache has of those bytes is not touched.
#[derive(Debug)]
pub struct LogWriter {
    dev: Arc<BackingDev>,
    arena: Arc<Arena>,
    frames: Vec<FrameId>,
}

impl LogWriter {
    /// A writer on `dev` with `bytes` of memory, rounded up to pages: the most of one write to it.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when there is not so much memory.
    pub fn new(dev: &Arc<BackingDev>, bytes: usize) -> Result<LogWriter, Errno> {
        let count = bytes.div_ceil(PAGE_SIZE).max(1);
        let options = ArenaOptions { frames: count, reserve: 0, prefault: true };
        let arena = Arc::new(Arena::new(&options).map_err(|_| Errno::NOMEM)?);
        let taken = (0..count).map(|_| arena.alloc(Purpose::Cache, 0, None));
        let frames = taken.map(|frame| frame.expect("all frames are free")).collect();
        Ok(LogWriter { dev: Arc::clone(dev), arena, frames })
    }

    /// True when a write can be durable by itself. Else
    /// [`DeviceFlush::flush_writes`](crate::DeviceFlush::flush_writes) makes it so.
    pub fn has_fua(&self) -> bool {
        self.dev.limits().fua || !self.dev.limits().volatile_cache
    }

    /// Gets room for what of byte `range` has none, so that no write there meets a full file
    /// system: of a device that is a regular file; others have all their room. Waits for it.
    ///
    /// # Errors
    ///
    /// The device's: `ENOSPC`.
    pub fn keep_room(&self, range: &Range<u64>) -> Result<(), Errno> {
        let device = self.dev.block();
        if self.dev.limits().capacity.is_some() || !self.dev.limits().write_zeroes {
            return Ok(());
        }
        let mut at = range.start;
        while at < range.end {
            let span = device.span_at(at)?;
            let end = span.bytes.end.clamp(at + 1, range.end);
            if span.hole {
                write_zeroes(&**device, &(at..end), Room::Kept)?;
            }
            at = end;
        }
        Ok(())
    }

    /// Writes `from` at byte `offset` of the device; waits for it. With `durable` it is on the
    /// medium then, if [`has_fua`](Self::has_fua), and nothing else need be.
    ///
    /// # Errors
    ///
    /// The device's.
    ///
    /// # Panics
    ///
    /// When the bytes are not whole sectors.
    pub fn write(&mut self, offset: u64, from: &[u8], durable: bool) -> Result<(), Errno> {
        let is_whole = |bytes: u64| bytes.is_multiple_of(SECTOR_SIZE as u64);
        assert!(is_whole(offset) && is_whole(from.len() as u64), "a log is whole sectors");
        let limits = *self.dev.limits();
        let flags = BioFlags { sync: true, background: false, fua: durable && limits.fua };
        let mut done = 0;
        while done < from.len() {
            let mut bio = Bio::write(&self.arena, sector_at(offset + done as u64), flags);
            for frame in &self.frames {
                let piece = &from[done..from.len().min(done + PAGE_SIZE)];
                if piece.is_empty() || !bio.push(*frame, 0, piece.len(), &limits) {
                    break;
                }
                self.arena.write(*frame, 0, piece);
                done += piece.len();
            }
            assert!(!bio.is_empty(), "a device takes a page at a time");
            submit_and_wait(&**self.dev.block(), bio)?;
        }
        Ok(())
    }
}

fn one_frame() -> Result<(Arc<Arena>, FrameId), Errno> {
    let one = ArenaOptions { frames: 1, reserve: 0, prefault: false };
    let arena = Arc::new(Arena::new(&one).map_err(|_| Errno::NOMEM)?);
    let frame = arena.alloc(Purpose::Cache, 0, None).expect("the one frame is free");
    Ok((arena, frame))
}

/// Tells a device that bytes `range` are not needed; waits for it.
///
/// # Errors
///
/// The device's.
pub(crate) fn discard(device: &dyn BlockDevice, range: &Range<u64>) -> Result<(), Errno> {
    submit_and_wait(device, Bio::discard(sector_at(range.start), range.end - range.start))
}

fn sector_at(offset: u64) -> Sector {
    Sector(offset / SECTOR_SIZE as u64)
}
