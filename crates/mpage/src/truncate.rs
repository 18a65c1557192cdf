//! Taking parts of a file away: truncate, punch, collapse, invalidate.
//!
//! The order, which the tests hold:
//! 1. The range is registered: from now on nobody inserts a page there or grows the file. Then the
//!    size is lowered.
//! 2. Pages wholly inside go, dirty or not, waiting for who maps them.
//! 3. Writes of them that are in flight are waited for.
//! 4. Pages at the edges are zeroed in place: before 2 where a removal that fails changes nothing.
//! 5. Only then the block map frees blocks, and the range is given up.
//!
//! Linux: `truncate_inode_pages_range()`, mm/truncate.c.

use std::ops::Range;

use crate::address_space::{AddressSpace, Dirtied, PagePin, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::filemap::reserve;
use crate::flush::flush_device;
use crate::get_block::{GetBlock, MapRequest, Place, Purpose};
use crate::may_wait::MayWait;
use crate::page::{FILLING, FROZEN, WRITEBACK};
use crate::page_tree::Mark;
use crate::readahead::{get_block_of, read_page};
use crate::reclaim::{get_page, make_room};
use crate::units::{FILE_SIZE_MAX, PAGE_BYTES, PageIndex, SectorMask, pages_touched, part_in_page};
use crate::write_and_wait::{flush_mapping, write_and_wait};
use crate::zeroed::Room;

/// Sets the file's size. What is cut off is gone, dirty or not; what is added reads as zeros.
///
/// # Errors
///
/// `TooLarge`, and those of reading the last block, which is to be zeroed beyond the end: nothing
/// is changed then. Those of the block map: the size is set.
pub(crate) fn set_size(space: &AddressSpace, size: u64) -> Result<()> {
    // There may be room behind the end of a file that is just as long.
    if size > space.size() {
        return grow(space, size);
    }
    let range = size..FILE_SIZE_MAX;
    let pages = pages_touched(&range);
    // The last block's bytes beyond the end have to be zeros on the device too.
    let tail = size..size.next_multiple_of(PAGE_BYTES);
    space.begin_removal(&pages);
    // What cannot be read cannot be zeroed, and would be back when the file grows again.
    let may_wait = MayWait::no_bio_held();
    let last = bring_in(space, &tail, &may_wait).inspect_err(|_| space.end_removal(&pages))?;
    space.set_size_while_removing(size);
    remove(space, &range);
    let zeroed = zero_edge(space, &tail, &may_wait);
    drop(last);
    let began = space.dev().failed_flushes();
    let removed = match &space.ops().get_block {
        Some(get_block) => {
            let blocks = space.block_size();
            get_block.remove(blocks.block_after(size)..blocks.block_of(FILE_SIZE_MAX))
        }
        None => Ok(()),
    };
    // What could not be cut off is by the next sync: the size is set.
    let noted = note_removal(space, (&range, Room::Freed), began, removed.is_ok());
    space.end_removal(&pages);
    zeroed.and(removed).and(noted)
}

/// Makes the file `size` bytes long, unless it is longer.
///
/// # Errors
///
/// `TooLarge`.
pub(crate) fn grow(space: &AddressSpace, size: u64) -> Result<()> {
    if size > space.size_max() {
        return Err(Error::new(ErrorKind::TooLarge, "truncate"));
    }
    while !space.try_grow(size) {
        space.wait_for_removal(PageIndex::of(size - 1));
    }
    Ok(())
}

/// A write past the cache into byte `range`, which it registered, failed with `error`: what it made
/// of blocks behind the end is given back. Linux: `ext4_truncate_failed_write()`.
pub(crate) fn undo_growth(space: &AddressSpace, range: &Range<u64>, mut error: Error) -> Error {
    let Some(get_block) = &space.ops().get_block else { return error };
    let size = space.block_size();
    let behind = size.block_after(space.size().max(range.start))..size.block_after(range.end);
    if get_block.removes_by_writing() || behind.start >= behind.end {
        return error;
    }
    if let Err(cause) = get_block.remove(behind) {
        error.detail += &format!(" (its blocks were not given back: {cause})");
    }
    error
}

/// Lets the device end where the file ends, if its end is the file's. What would move that end is
/// kept away meanwhile: the range behind it is registered as being removed, so that the file does
/// not grow, and the last page is locked, so that no write of it begins.
///
/// # Errors
///
/// Those of the block map.
pub(crate) fn settle_size(space: &AddressSpace, get_block: &dyn GetBlock) -> Result<()> {
    let may_wait = MayWait::no_bio_held();
    loop {
        let seen = space.size();
        if !get_block.size_differs(seen) {
            // Another sync may have set it, and not noted yet that the device is to be flushed.
            space.wait_for_removals(&(seen..FILE_SIZE_MAX));
            return Ok(());
        }
        let pages = pages_touched(&(seen..FILE_SIZE_MAX));
        space.begin_removal(&pages);
        let size = space.size();
        let settled = (PageIndex::of(size).0 >= pages.start).then(|| {
            let last = space.pin(PageIndex::of(size)).map(|pin| pin.lock(&may_wait));
            space.wait_for_writes(&(size / PAGE_BYTES * PAGE_BYTES..FILE_SIZE_MAX));
            let began = space.dev().failed_flushes();
            let result = get_block.set_size(size);
            let _number = space.note_direct_write(began);
            drop(last);
            result
        });
        space.end_removal(&pages);
        if let Some(result) = settled {
            return result;
        }
    }
}

/// Makes byte `range` read as zeros. The size stays.
///
/// # Errors
///
/// As [`set_size`].
pub(crate) fn zero_range(space: &AddressSpace, range: &Range<u64>, room: Room) -> Result<()> {
    let range = range.start..range.end.min(space.size().next_multiple_of(PAGE_BYTES));
    if range.start >= range.end {
        return Ok(());
    }
    let pages = pages_touched(&range);
    let head_end = range.start.next_multiple_of(PAGE_BYTES).min(range.end);
    let tail_start = (range.end / PAGE_BYTES * PAGE_BYTES).max(head_end);
    space.begin_removal(&pages);
    let written = range.start..written_end(space, &range);
    let may_wait = MayWait::no_bio_held();
    let edges = [range.start..head_end, tail_start..range.end];
    let (mut zeroed, mut count) = (Ok(()), 0);
    while zeroed.is_ok() && count < edges.len() {
        zeroed = zero_edge(space, &edges[count], &may_wait);
        count += usize::from(zeroed.is_ok());
    }
    // What is dropped while its blocks stay would be read as the device has it: lost, maybe.
    if zeroed.is_ok() {
        remove(space, &range);
    }
    let began = space.dev().failed_flushes();
    let removed = match &space.ops().get_block {
        Some(get_block) if zeroed.is_ok() => {
            let size = space.block_size();
            let blocks = size.block_after(written.start)..size.block_of(written.end);
            match room {
                _ if blocks.start >= blocks.end => Ok(()),
                Room::Freed => get_block.remove(blocks),
                Room::Kept => get_block.zero(blocks),
            }
        }
        _ => Ok(()),
    };
    let noted = match zeroed.is_ok() && removed.is_ok() {
        true => note_removal(space, (&written, room), began, true),
        false => {
            let _number = space.note_direct_write(began);
            edges[..count].iter().for_each(|edge| forget_edge(space, edge, &may_wait));
            Ok(())
        }
    };
    space.end_removal(&pages);
    zeroed.and(removed).and(noted)
}

/// Where a removal of `range` ends that leaves the size: of what lies behind the end of the file
/// nothing is promised, and zeros that are written there would make it longer.
fn written_end(space: &AddressSpace, range: &Range<u64>) -> u64 {
    let writes = space.ops().get_block.as_ref().is_some_and(|map| map.removes_by_writing());
    let end = space.size().next_multiple_of(space.block_size().bytes());
    if writes { range.end.min(end).max(range.start) } else { range.end }
}

/// The content of the pages wholly inside byte `range` is not needed: they leave the cache, dirty
/// or not, and the block map is told. The size stays.
///
/// # Errors
///
/// Those of the block map.
pub(crate) fn discard(space: &AddressSpace, range: &Range<u64>) -> Result<()> {
    let end = range.end.min(space.size());
    let range = range.start.next_multiple_of(PAGE_BYTES)..end / PAGE_BYTES * PAGE_BYTES;
    if range.start >= range.end {
        return Ok(());
    }
    let (pages, size) = (pages_touched(&range), space.block_size());
    space.begin_removal(&pages);
    remove(space, &range);
    let began = space.dev().failed_flushes();
    let discarded = match &space.ops().get_block {
        Some(get_block) => get_block.discard(size.block_of(range.start)..size.block_of(range.end)),
        None => Ok(()),
    };
    let _number = space.note_direct_write(began);
    space.end_removal(&pages);
    discarded
}

/// After a removal of byte `range`, with its room freed or kept, before whose change of the device
/// `began` flushes had failed: the next sync flushes the device. Blocks that were zeroed on the
/// device itself are remembered until then, since no page could write those zeros again. If it was
/// not `done`, the next sync does it.
fn note_removal(
    space: &AddressSpace,
    (range, room): (&Range<u64>, Room),
    began: u64,
    done: bool,
) -> Result<()> {
    let (at, lost) = space.note_direct_write(began);
    let lost = lost || !done;
    let size = space.block_size();
    let (first, end) = (size.block_after(range.start), size.block_of(range.end));
    let whole = size.start_of(first)..size.start_of(end);
    if first >= end {
        return Ok(());
    }
    // What has no blocks any more reads as zeros. One that failed before is over now.
    let writes = space.ops().get_block.as_ref().is_some_and(|map| map.removes_by_writing());
    if done && !writes && !space.zeroed.meets(&whole, space.dev().flushed()) {
        return Ok(());
    }
    let has_room = space.zeroed.note(&whole, room, (at, lost), space.dev().flushed());
    // The leader of a flush that failed just now may have looked before that.
    if space.dev().limits().volatile_cache && space.dev().failed_flushes() != began {
        space.zeroed.flush_failed(space.dev().flushed());
    }
    space.count_lost_zeros();
    if has_room {
        return Ok(());
    }
    flush_mapping(space).map_err(|errno| Error::new(ErrorKind::Device(errno), "removal"))
}

/// Registers `pages`, which byte `range` touches, as being removed, for a write past the cache.
/// What a removal zeroed in the range is durable then: no page would write those zeros, or the
/// bytes over them, again when a flush fails.
///
/// # Errors
///
/// Those of the flush, and of zeroing again what an earlier one lost; nothing is registered then.
pub(crate) fn begin_overwriting(
    space: &AddressSpace,
    range: &Range<u64>,
    pages: &Range<u64>,
) -> Result<()> {
    loop {
        space.begin_removal(pages);
        if !space.zeroed.meets(range, space.dev().flushed()) {
            return Ok(());
        }
        let flushed = flush_mapping(space);
        if flushed.is_ok() && space.zeroed.lost(range, space.dev().flushed()).is_empty() {
            return Ok(());
        }
        space.end_removal(pages);
        flushed.map_err(|errno| Error::new(ErrorKind::Device(errno), "write direct"))?;
        redo_removals(space, range)?;
    }
}

/// Zeroes again what removals zeroed on the device and a failed flush may have lost: what meets
/// `range`, and each by itself, so that a page in use keeps no other from being done.
///
/// # Errors
///
/// The first of those of writing and dropping what is cached there, and of the block map; the range
/// stays lost then, and the others were tried.
pub(crate) fn redo_removals(space: &AddressSpace, range: &Range<u64>) -> Result<()> {
    redo_each(space, range, |pages| {
        space.begin_removal(pages);
        true
    })
}

/// As [`redo_removals`], of all that is lost but where something is being removed: who removes it
/// may wait for memory, and the caller is who makes room.
///
/// # Errors
///
/// As [`redo_removals`].
pub(crate) fn try_redo_removals(space: &AddressSpace) -> Result<()> {
    redo_each(space, &(0..u64::MAX), |pages| space.try_begin_removal(pages))
}

/// Does again what is lost and meets `range`, where `begin` registers the pages.
fn redo_each(
    space: &AddressSpace,
    range: &Range<u64>,
    begin: impl Fn(&Range<u64>) -> bool,
) -> Result<()> {
    let mut result = Ok(());
    let lost = space.zeroed.lost(&(0..u64::MAX), space.dev().flushed());
    let meets = |lost: &Range<u64>| lost.start < range.end && range.start < lost.end;
    for lost in lost.into_iter().map(|(lost, _)| lost).filter(meets) {
        let pages = pages_touched(&lost);
        if !begin(&pages) {
            continue;
        }
        let redone = redo_removal(space, &lost);
        space.end_removal(&pages);
        result = result.and(redone);
    }
    result
}

/// Zeroes again what is lost of `range`, whose pages are registered as being removed. What is
/// cached there is written and dropped first: then nothing is written over the range meanwhile.
fn redo_removal(space: &AddressSpace, range: &Range<u64>) -> Result<()> {
    let Some(get_block) = &space.ops().get_block else { return Ok(()) };
    let size = space.block_size();
    // Somebody else may have done it, or has written there.
    if space.zeroed.lost(range, space.dev().flushed()).is_empty() {
        return Ok(());
    }
    invalidate_strict(space, range)?;
    // What lies behind the end is cut off by itself: else the file would be shorter meanwhile.
    let end = size.start_of(size.block_after(space.size()));
    let parts =
        space.zeroed.lost(range, space.dev().flushed()).into_iter().flat_map(|(lost, room)| {
            let middle = end.clamp(lost.start, lost.end);
            [(lost.start..middle, room), (middle..lost.end, room)]
        });
    let mut result = Ok(());
    for (part, room) in parts.filter(|(part, _)| !part.is_empty()) {
        let began = space.dev().failed_flushes();
        let blocks = size.block_of(part.start)..size.block_of(part.end);
        let removed = match room {
            Room::Freed => get_block.remove(blocks),
            Room::Kept => get_block.zero(blocks),
        };
        let noted = removed.and_then(|()| note_removal(space, (&part, room), began, true));
        result = result.and(noted);
    }
    result
}

/// Steps 2 and 3: pages wholly inside `range` go.
fn remove(space: &AddressSpace, range: &Range<u64>) {
    let may_wait = MayWait::no_bio_held();
    let inside = range.start.div_ceil(PAGE_BYTES)..range.end / PAGE_BYTES;
    drop_pages(space, inside.clone(), &may_wait);
    if inside.start < inside.end {
        space.wait_for_writes(&(inside.start * PAGE_BYTES..inside.end * PAGE_BYTES));
    }
}

fn drop_pages(space: &AddressSpace, mut pages: Range<u64>, may_wait: &MayWait<'_>) {
    while let Some(pin) = space.next_marked(pages.clone(), Mark::Present) {
        pages.start = pin.index().0 + 1;
        space.detach(&pin.lock(may_wait));
    }
}

/// The page of bytes `edge`, which lie in one page, with what of its blocks is kept up to date;
/// `None` if nothing of them is, and the page is not cached.
fn bring_in<'a>(
    space: &'a AddressSpace,
    edge: &Range<u64>,
    may_wait: &MayWait<'_>,
) -> Result<Option<PagePin<'a>>> {
    if edge.start >= edge.end {
        return Ok(None);
    }
    let index = PageIndex::of(edge.start);
    let (_, kept) = blocks_of_edge(space, edge);
    let pin = match space.pin(index) {
        Some(pin) => pin,
        None if kept.is_empty() => return Ok(None),
        None => get_page(space, index, true, may_wait),
    };
    read_page(space, &pin, kept, may_wait)?;
    Ok(Some(pin))
}

/// The sectors of blocks wholly inside `edge`, and those of blocks partly inside.
fn blocks_of_edge(space: &AddressSpace, edge: &Range<u64>) -> (SectorMask, SectorMask) {
    let part = part_in_page(edge, PageIndex::of(edge.start));
    let freed = space.block_size().sectors_covered(part.clone());
    (freed, space.block_size().sectors_touched(part).without(freed))
}

/// Zeroes bytes `edge`, which lie in one page. Blocks wholly inside lose their place: they are
/// neither read nor written, and what was dirty in them is dropped. Of blocks partly inside the
/// rest is kept, and they are written, unless they are holes.
fn zero_edge(space: &AddressSpace, edge: &Range<u64>, may_wait: &MayWait<'_>) -> Result<()> {
    let mut began = false;
    let mut attempt = || {
        let Some(pin) = bring_in(space, edge, may_wait)? else { return Ok(true) };
        began = true;
        zero_page(space, pin, edge, may_wait)
    };
    let zeroed = loop {
        match attempt() {
            Ok(true) => break Ok(()),
            Ok(false) => {}
            Err(error) => break Err(error),
        }
    };
    match zeroed {
        Ok(()) => space.wait_for_writes(edge),
        // What was dirty there may be no more.
        Err(_) if began => forget_edge(space, edge, may_wait),
        Err(_) => {}
    }
    zeroed
}

/// Zeroes bytes `edge` of a page. False: it changed, begin again.
///
/// Once a freed block's dirty bit is clear, a store into it takes the slow path, which waits for
/// the removal. So when no store but ours is in the page, and no freed block is dirty, none will
/// be.
fn zero_page(
    space: &AddressSpace,
    pin: PagePin<'_>,
    edge: &Range<u64>,
    may_wait: &MayWait<'_>,
) -> Result<bool> {
    let (freed, kept) = blocks_of_edge(space, edge);
    let page = pin.lock(may_wait);
    if page.is_detached() {
        return Ok(false);
    }
    // A write in flight that failed later would make freed blocks dirty again. No other begins
    // while the page is locked.
    if !freed.is_empty() {
        space.wait_for_writes(&(page.index().start()..page.index().end()));
    }
    let _still_dirty = space.cancel_dirty(&page, freed);
    let pin = page.unlock();
    pin.wait_until(may_wait, |word| word.has(FROZEN) || !(word.has_stores() || word.has(FILLING)));
    let Some(store) = Store::enter(&pin) else { return Ok(false) };
    let word = store.entered();
    let alone = word.has_one_store() && !word.has(FILLING);
    if !alone || !word.uptodate().contains(kept) || !word.dirty().and(freed).is_empty() {
        return Ok(false);
    }
    // A block that was clean just now stays so, and has a place or will have none: room for it was
    // never set aside. One without data reads as zeros already, unless its data is on its way.
    // Where nobody can tell it is written like one that has a place, with room set aside: bytes
    // that are not zeroed would be back when the file has grown again.
    let clean = kept.without(word.dirty());
    let in_flight = word.has(WRITEBACK);
    let holes = without_data(space, pin.index(), clean, in_flight).or_else(|error| {
        let mut reserved = clean.runs().map(|run| reserve(space, pin.index(), run));
        reserved.all(|result| result.is_ok()).then_some(SectorMask::NONE).ok_or(error)
    })?;
    if store.make_writable().is_err() {
        drop(store);
        make_room(space.core(), may_wait);
        return Ok(false);
    }
    let part = part_in_page(edge, pin.index());
    store.zero(part.start, part.len());
    space.page(pin.id()).set_uptodate(freed);
    let kept = kept.without(holes);
    Ok(kept.is_empty() || store.finish(kept, 0) != Dirtied::Detached)
}

/// A removal failed behind [`zero_edge`]: the device has what the blocks wholly inside `edge` hold,
/// but for what somebody stored before the removal began and is dirty, or not durable.
fn forget_edge(space: &AddressSpace, edge: &Range<u64>, may_wait: &MayWait<'_>) {
    let Some(pin) = space.pin(PageIndex::of(edge.start)).filter(|_| !edge.is_empty()) else {
        return;
    };
    pin.wait_until(may_wait, |word| word.has(FROZEN) || !word.has_stores());
    let page = pin.lock(may_wait);
    if page.is_detached() {
        return;
    }
    space.wait_for_writes(&(page.index().start()..page.index().end()));
    let (freed, _) = blocks_of_edge(space, edge);
    let content = space.page(page.id());
    let (_, written) = content.written();
    content.clear_uptodate(freed.without(page.word().dirty()).without(written));
}

/// The sectors of `clean` blocks of a page that have no data on the device: those without a place,
/// and unwritten ones unless a write of the page is `in_flight`, of which the map may not know yet.
fn without_data(
    space: &AddressSpace,
    index: PageIndex,
    clean: SectorMask,
    in_flight: bool,
) -> Result<SectorMask> {
    let mut holes = SectorMask::NONE;
    let Some(get_block) = &space.ops().get_block else { return Ok(holes) };
    let size = space.block_size();
    for run in clean.runs() {
        for start in run.step_by(usize::try_from(size.bytes()).expect("at most a page")) {
            let first = size.block_of(index.start() + start as u64);
            let request = MapRequest { first, count: 1, purpose: Purpose::Read, may_wait: true };
            let has_data = match get_block.get_block(&request)?.place {
                Place::Mapped(_) => true,
                Place::Unwritten(_) => in_flight,
                Place::Hole => false,
            };
            if !has_data {
                holes = holes.or(size.sectors_touched(start..start + 1));
            }
        }
    }
    Ok(holes)
}

/// Takes byte `range`, whole blocks of it, out of the file: what follows moves to its front. What
/// follows is written first, then dropped from the cache, since its place in the file changes.
///
/// # Errors
///
/// `InvalidInput` unless both ends lie on blocks and before the end of the file, and whatever the
/// block map says, which may not support it; `Busy` when a page of what follows is pinned or being
/// stored into; those of writing. The file is unchanged then.
pub(crate) fn collapse_range(space: &AddressSpace, range: &Range<u64>) -> Result<()> {
    let size = space.block_size();
    let on_blocks =
        range.start.is_multiple_of(size.bytes()) && range.end.is_multiple_of(size.bytes());
    if !on_blocks || range.start >= range.end || range.end >= space.size() {
        return Err(Error::new(ErrorKind::InvalidInput, "collapse")
            .because("the range must lie on whole blocks and end before the end of the file"));
    }
    let get_block = get_block_of(space)?;
    let rest = range.start / PAGE_BYTES * PAGE_BYTES..FILE_SIZE_MAX;
    let pages = pages_touched(&rest);
    space.begin_removal(&pages);
    let result = invalidate_strict(space, &rest).and_then(|()| {
        get_block.collapse(size.block_of(range.start)..size.block_of(range.end))?;
        space.set_size_while_removing(space.size() - (range.end - range.start));
        Ok(())
    });
    space.end_removal(&pages);
    result
}

/// Drops the pages wholly inside byte `range` that are clean and unused. Others stay. Never waits.
/// Linux: `invalidate_mapping_pages()`.
pub(crate) fn invalidate(space: &AddressSpace, range: &Range<u64>) {
    let mut pages = range.start.div_ceil(PAGE_BYTES)..range.end / PAGE_BYTES;
    while let Some(pin) = space.next_marked(pages.clone(), Mark::Present) {
        pages.start = pin.index().0 + 1;
        let (id, index) = (pin.id(), pin.index());
        drop(pin);
        let _evicted_or_in_use = space.evict(index, id);
    }
}

/// Drops all pages that byte `range` touches, writing dirty ones first and making them durable.
/// Linux: `invalidate_inode_pages2_range()`.
///
/// # Errors
///
/// `Busy` when a page is pinned, or was dirtied again meanwhile; those of writing it.
pub(crate) fn invalidate_strict(space: &AddressSpace, range: &Range<u64>) -> Result<()> {
    write_and_wait(space, range)?;
    // A page that is not durable is the only copy a failed flush leaves.
    let upto = space.last_unflushed_write(range);
    flush_device(space.core(), space.dev(), upto)
        .map_err(|errno| Error::new(ErrorKind::Device(errno), "invalidate"))?;
    let may_wait = MayWait::no_bio_held();
    let mut pages = pages_touched(range);
    let mut busy = Vec::new();
    while let Some(pin) = space.next_marked(pages.clone(), Mark::Present) {
        pages.start = pin.index().0 + 1;
        // A read in flight is nobody's use of the page: it may be readahead that nobody asked for.
        pin.wait_until(&may_wait, |word| word.has(FROZEN) || !word.has(FILLING));
        let page = pin.lock(&may_wait);
        let index = page.index();
        if !space.detach_if_clean(&page) {
            busy.push(index.start()..index.end());
        }
    }
    match busy.is_empty() {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::Busy, "invalidate").at(busy)),
    }
}
