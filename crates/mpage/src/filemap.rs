//! Reading and writing a file through the cache.
//!
//! Linux: `filemap_read()`, `generic_perform_write()`, mm/filemap.c.

use std::ops::Range;

use crate::address_space::{AddressSpace, Dirtied, PagePin, RemovalAt, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::may_wait::MayWait;
use crate::page::{COPYING, FILLING, FROZEN, SHARED};
use crate::readahead::{Readahead, read_page, zero_unread};
use crate::reclaim::{drop_cold, get_page, get_page_now, make_room};
use crate::throttle::{balance_dirty_pages, must_wait_to_dirty};
use crate::units::{FileBlock, PageIndex, SectorMask, part_in_page};

/// Bytes `offset..offset + len`, if the file can have them.
pub(crate) fn checked_range(
    space: &AddressSpace,
    offset: u64,
    len: u64,
    op: &'static str,
) -> Result<Range<u64>> {
    let size_max = space.size_max();
    match offset.checked_add(len) {
        Some(end) if end <= size_max => Ok(offset..end),
        _ => Err(Error::new(ErrorKind::TooLarge, op)
            .because(format!("the file ends at {size_max} bytes at most"))),
    }
}

/// Reads bytes from `offset` on into `to`; returns how many: fewer only at the end of the file.
/// Cached bytes are copied without a lock or a system call; others wait for the device.
///
/// # Errors
///
/// Those of the device and the block map, when nothing could be read before them.
pub(crate) fn read(
    space: &AddressSpace,
    readahead: &Readahead,
    offset: u64,
    to: &mut [u8],
) -> Result<usize> {
    let Some(end) = end_of_read(space, offset, to.len()) else { return Ok(0) };
    let mut at = offset;
    while at < end {
        let done = bytes(at - offset);
        match copy_cached(space, readahead, at..end, &mut to[done..], true) {
            Some(copied) => at += copied,
            None => match readahead.fetch(space, at..end) {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            },
        }
    }
    Ok(bytes(end - offset))
}

/// As [`read`], if all of it is cached; else `None`, and what `to` holds then is not said. Waits
/// for nothing. Linux: `RWF_NOWAIT`.
pub(crate) fn try_read(
    space: &AddressSpace,
    readahead: &Readahead,
    offset: u64,
    to: &mut [u8],
) -> Option<usize> {
    let Some(end) = end_of_read(space, offset, to.len()) else { return Some(0) };
    let mut at = offset;
    while at < end {
        at += copy_cached(space, readahead, at..end, &mut to[bytes(at - offset)..], false)?;
    }
    Some(bytes(end - offset))
}

/// Where a read of `len` bytes at `offset` ends; `None` when there is nothing to read.
fn end_of_read(space: &AddressSpace, offset: u64, len: usize) -> Option<u64> {
    let end = space.size().min(offset.saturating_add(len as u64));
    (offset < end).then_some(end)
}

/// Copies what byte `range` has in its first page, if it is cached; returns how many bytes.
#[inline]
fn copy_cached(
    space: &AddressSpace,
    readahead: &Readahead,
    range: Range<u64>,
    to: &mut [u8],
    may_wait: bool,
) -> Option<u64> {
    let index = PageIndex::of(range.start);
    let part = part_in_page(&range, index);
    let word = space.read_cached(index, part.start, &mut to[..part.len()])?;
    readahead.note_hit(space, index, word, may_wait);
    Some(part.len() as u64)
}

fn bytes(n: u64) -> usize {
    usize::try_from(n).expect("no longer than the caller's buffer")
}

/// Writes `from` into the cache at `offset`; the file grows to hold it. Waits for memory, for
/// blocks that have to be read because they are covered in part, and while too much is dirty; never
/// for a write in flight.
///
/// # Errors
///
/// `TooLarge` beyond the largest file; those of reserving room or reading. Bytes written before the
/// error stay written: the count is returned if it is not zero.
pub(crate) fn write(space: &AddressSpace, offset: u64, from: &[u8]) -> Result<usize> {
    let range = checked_range(space, offset, from.len() as u64, "write")?;
    let mut at = range.start;
    while at < range.end {
        let index = PageIndex::of(at);
        let part = part_in_page(&(at..range.end), index);
        let done = bytes(at - range.start);
        let piece = &from[done..done + part.len()];
        if !store_fast(space, index, part.start, piece) {
            if let Err(error) = store(space, index, part.start, piece) {
                return if done > 0 { Ok(done) } else { Err(error) };
            }
            balance_dirty_pages(space);
        }
        at += part.len() as u64;
    }
    Ok(from.len())
}

/// As [`write`], as much from the front as can be stored at once: without waiting for memory, for a
/// read, for a removal, or while too much is dirty. Returns how many bytes; fewer than given, maybe
/// none: the rest would wait.
///
/// # Errors
///
/// As [`write`].
pub(crate) fn try_write(space: &AddressSpace, offset: u64, from: &[u8]) -> Result<usize> {
    let range = checked_range(space, offset, from.len() as u64, "write")?;
    let mut at = range.start;
    while at < range.end {
        let index = PageIndex::of(at);
        let part = part_in_page(&(at..range.end), index);
        let done = bytes(at - range.start);
        let piece = &from[done..done + part.len()];
        if !store_fast(space, index, part.start, piece) {
            match store_now(space, index, part.start, piece) {
                Ok(true) => {}
                Err(error) if done == 0 => return Err(error),
                Ok(false) | Err(_) => return Ok(done),
            }
        }
        at += part.len() as u64;
    }
    Ok(from.len())
}

/// As [`store`], if nothing has to be waited for; else false, and nothing was stored, unless the
/// page is being truncated: then the part that stays may have it.
fn store_now(
    space: &AddressSpace,
    index: PageIndex,
    offset: usize,
    content: &[u8],
) -> Result<bool> {
    if must_wait_to_dirty(space) {
        return Ok(false);
    }
    let part = offset..offset + content.len();
    let sectors = space.block_size().sectors_touched(part.clone());
    let needed = sectors.without(space.block_size().sectors_covered(part.clone()));
    let end = index.start() + part.end as u64;
    let Ok(pin) = get_page_now(space, index) else { return Ok(false) };
    if !pin.word().uptodate().contains(needed) {
        zero_unread(space, &pin);
    }
    // While it is being read, its frame may not be copied either.
    let word = pin.word();
    if word.has(FILLING) || !word.uptodate().contains(needed) {
        return Ok(false);
    }
    let Some(begun) = space.removals_begun(index) else { return Ok(false) };
    if !pin.word().dirty().contains(sectors) {
        reserve(space, index, part)?;
    }
    let store = || try_store(space, &pin, (offset, content), sectors, end, begun);
    let tried = match store() {
        Tried::NoFrame if drop_cold(space.core()) => store(),
        tried => tried,
    };
    Ok(matches!(tried, Tried::Done))
}

/// Stores into blocks of a cached page that are dirty already: nothing to reserve, nothing to mark.
/// False when it is not that simple.
#[inline]
fn store_fast(space: &AddressSpace, index: PageIndex, offset: usize, from: &[u8]) -> bool {
    let Some(store) = space.enter(index) else { return false };
    let sectors = space.block_size().sectors_touched(offset..offset + from.len());
    let entered = store.entered();
    let end = index.start() + (offset + from.len()) as u64;
    if entered.has(SHARED | COPYING) || !entered.dirty().contains(sectors) || end > space.size() {
        return false;
    }
    store.write(offset, from);
    store.finish(sectors, end) == Dirtied::Done
}

/// Stores into a page, whatever it takes: brings it in, reads blocks covered in part, reserves
/// room, copies a frame that is on its way to the device, grows the file.
///
/// # Errors
///
/// Those of reserving and reading; nothing of this page was written then.
fn store(space: &AddressSpace, index: PageIndex, offset: usize, content: &[u8]) -> Result<()> {
    let may_wait = MayWait::no_bio_held();
    let part = offset..offset + content.len();
    let sectors = space.block_size().sectors_touched(part.clone());
    let covered = space.block_size().sectors_covered(part.clone());
    let end = index.start() + part.end as u64;
    loop {
        let pin = get_page(space, index, false, &may_wait);
        read_page(space, &pin, sectors.without(covered), &may_wait)?;
        let Some(begun) = space.removals_begun(index) else {
            drop(pin);
            space.wait_for_removal(index);
            continue;
        };
        if !pin.word().dirty().contains(sectors) {
            reserve(space, index, part.clone())?;
        }
        match try_store(space, &pin, (part.start, content), sectors, end, begun) {
            Tried::Done => return Ok(()),
            Tried::Again => {}
            Tried::NoFrame => make_room(space.core(), &may_wait),
            Tried::Filling => {
                pin.wait_until(&may_wait, |word| !word.has(FILLING) || word.has(FROZEN))
            }
            Tried::Removing => {
                drop(pin);
                space.wait_for_removal(index);
            }
        }
    }
}

enum Tried {
    Done,
    /// The page left its mapping, lost a block that was up to date, or may have lost its room.
    Again,
    NoFrame,
    Filling,
    Removing,
}

/// Stores `content` at `offset` of the page. Room was set aside for `sectors` when so many removals
/// had `begun`.
fn try_store(
    space: &AddressSpace,
    pin: &PagePin<'_>,
    (offset, content): (usize, &[u8]),
    sectors: SectorMask,
    end: u64,
    begun: u64,
) -> Tried {
    let Some(store) = Store::enter(pin) else { return Tried::Again };
    let covered = space.block_size().sectors_covered(offset..offset + content.len());
    let stale = sectors.without(store.entered().uptodate());
    if !covered.contains(stale) {
        return Tried::Again;
    }
    if store.entered().has(FILLING) && !stale.is_empty() {
        return Tried::Filling;
    }
    if store.make_writable().is_err() {
        return Tried::NoFrame;
    }
    // Nothing is waited for from here on: removals wait for the growth.
    let (removal, _growth) = space.begin_growth(pin.index(), begun, end);
    match removal {
        RemovalAt::None => {}
        RemovalAt::Since => return Tried::Again,
        RemovalAt::UnderWay => return Tried::Removing,
    }
    store.write(offset, content);
    match store.finish(sectors, end) {
        Dirtied::Done => Tried::Done,
        Dirtied::Detached => Tried::Again,
        Dirtied::Removing => Tried::Removing,
    }
}

/// Sets room aside for the blocks that bytes `part` of page `index` touch.
pub(crate) fn reserve(space: &AddressSpace, index: PageIndex, part: Range<usize>) -> Result<()> {
    let Some(get_block) = &space.ops().get_block else { return Ok(()) };
    let size = space.block_size();
    let first = size.block_of(index.start() + part.start as u64);
    let end: FileBlock = size.block_after(index.start() + part.end as u64);
    get_block.reserve(first..end)
}
