//! Zeros and discards on the device itself, past the cache.
//!
//! Linux: block/blk-lib.c.

use std::ops::Range;
use std::sync::Arc;

use mpage_block::{Bio, BioFlags, BlockDevice, Errno, SECTOR_SIZE, Sector, submit_and_wait};
use mpage_mem::{Arena, ArenaOptions, PAGE_SIZE, Purpose};

/// What becomes of the room of bytes that are made zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// The device may let it go.
    Freed,
    /// It stays.
    Kept,
}

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
    let one = ArenaOptions { frames: 1, reserve: 0, prefault: false };
    let arena = Arc::new(Arena::new(&one).map_err(|_| Errno::NOMEM)?);
    let zeros = arena.alloc(Purpose::Cache, 0, None).expect("the one frame is free");
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
