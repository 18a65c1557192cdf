//! Blocks: which are free, which to take, and taking and giving them back.
//!
//! 1. A bitmap is used only if it has the checksum that its group says. One that was never written
//!    is computed.
//! 2. What belongs to the file system for ever, its [`Zone`], is never given away and never freed.
//! 3. A block is taken only if its bit is clear and no claim and no freed set has it.
//!
//! Linux: fs/ext4/balloc.c, fs/ext4/mballoc.c; `ext4_setup_system_zone()`,
//! fs/ext4/block_validity.c.

use std::ops::Range;
use std::sync::Arc;

use mpage_locks::Mutex;
use rangemap::RangeSet;

use crate::bitmap;
use crate::change::Change;
use crate::error::{Error, Result};
use crate::features::{GDT_CSUM, META_BG};
use crate::group::{BLOCKS_UNUSED, Group, has_superblock};
use crate::layers::{Attempt, Block};
use crate::space::{Space, no_space};
use crate::superblock::Superblock;
use crate::view::View;

/// A free run this long is taken at the goal, though a longer one may be elsewhere.
const RUN_ENOUGH: u64 = 256;
/// Groups in which the longest run is looked for, when none is long enough.
const GROUPS_COMPARED: u64 = 8;

/// The blocks that belong to the file system for ever: copies of the superblock and of descriptors,
/// bitmaps, inode tables.
pub(crate) type Zone = RangeSet<u64>;

/// The zone of the image that `view` shows.
pub(crate) fn zone(view: &View<'_>) -> Attempt<Zone> {
    let sb = view.sb;
    let mut zone = Zone::new();
    for number in 0..sb.groups() {
        let start = sb.first_block_of(number);
        let end = (start + base_blocks(sb, number)).min(sb.blocks);
        if start < end {
            zone.insert(start..end);
        }
        for part in view.group(number)?.parts(sb) {
            if zone.overlaps(&part) {
                let detail = format!("group {number} and another both have blocks {part:?}");
                return Err(Error::corrupt(detail).into());
            }
            zone.insert(part);
        }
    }
    Ok(zone)
}

/// Blocks at the beginning of a group that have copies of the superblock and of descriptors. Linux:
/// `ext4_num_base_meta_clusters()`.
fn base_blocks(sb: &Superblock, number: u64) -> u64 {
    let copy = u64::from(has_superblock(sb, number));
    let in_block = sb.block_bytes / sb.descriptor_bytes as u64;
    let all = sb.groups().div_ceil(in_block);
    if sb.features.incompat(META_BG) && number / in_block >= sb.first_meta_group {
        let first = number / in_block * in_block;
        let has = [first, first + 1, first + in_block - 1].contains(&number);
        return copy + u64::from(has);
    }
    let plain = all.min(sb.first_meta_group);
    if copy == 0 { 0 } else { 1 + plain + sb.reserved_descriptor_blocks }
}

impl Superblock {
    /// True when groups say what of them was never used.
    pub(crate) fn has_unused_marks(&self) -> bool {
        self.features.ro_compat(GDT_CSUM) || self.has_checksums()
    }

    /// The group that has `block`.
    pub(crate) fn group_of(&self, block: u64) -> u64 {
        (block - self.first_data_block) / self.blocks_per_group
    }
}

/// Bytes of the bitmap that a checksum covers, and the checksum.
pub(crate) fn bitmap_checksum(sb: &Superblock, bytes: &[u8], bits: u64) -> u32 {
    let covered = usize::try_from(bits / 8).expect("inside a block");
    sb.checksum_seed.of(&bytes[..covered]).0
}

/// True when `sum` is what a descriptor says: a short one has half of it.
pub(crate) fn is_sum(sb: &Superblock, sum: u32, said: u32) -> bool {
    let mask = if sb.descriptor_bytes < 64 { 0xffff } else { u32::MAX };
    !sb.has_checksums() || sum & mask == said & mask
}

impl View<'_> {
    /// The block bitmap of `group`, checked, or computed if it was never written.
    pub(crate) fn block_bitmap(&self, group: &Group) -> Attempt<Block> {
        let sb = self.sb;
        if sb.has_unused_marks() && group.flags & BLOCKS_UNUSED != 0 {
            return Ok(unwritten_bitmap(sb, group).into());
        }
        let name = || format!("the block bitmap of group {}", group.number);
        let bytes = self.block(group.block_bitmap, name)?;
        let sum = bitmap_checksum(sb, &bytes, sb.blocks_per_group);
        if !is_sum(sb, sum, group.block_bitmap_checksum) {
            return Err(Error::corrupt(format!("the checksum of {} is wrong", name())).into());
        }
        Ok(bytes)
    }
}

/// The bitmap of a group of which no block was used. Linux: `ext4_init_block_bitmap()`.
fn unwritten_bitmap(sb: &Superblock, group: &Group) -> Vec<u8> {
    let bytes = usize::try_from(sb.block_bytes).expect("at most a page");
    let mut bitmap = vec![0; bytes];
    let first = sb.first_block_of(group.number);
    let end = first + sb.blocks_of(group.number);
    let base = first..first + base_blocks(sb, group.number);
    for part in group.parts(sb).into_iter().chain([base]) {
        let inside = part.start.max(first)..part.end.min(end);
        if inside.start < inside.end {
            bitmap::fill(&mut bitmap, bits(first, &inside), true);
        }
    }
    bitmap::fill(&mut bitmap, bits(first, &(end..first + bytes as u64 * 8)), true);
    bitmap
}

fn bits(first: u64, blocks: &Range<u64>) -> Range<usize> {
    let bit = |block: u64| usize::try_from(block - first).expect("inside a group");
    bit(blocks.start)..bit(blocks.end)
}

/// A free run for `count` blocks near `goal`, at most as long; `None` when nothing is free.
/// `unusable` says which part of a run must not be used.
///
/// # Errors
///
/// `Corrupt`, also when the run is the file system's own.
pub(crate) fn find_free(
    view: &View<'_>,
    goal: u64,
    count: u64,
    unusable: impl Fn(&Range<u64>) -> Option<Range<u64>>,
) -> Attempt<Option<Range<u64>>> {
    let sb = view.sb;
    let goal = if sb.has_blocks(goal, 1) { goal } else { sb.first_data_block + 1 };
    let first = sb.group_of(goal);
    let mut best: Option<Range<u64>> = None;
    let mut compared = 0;
    for step in 0..sb.groups() {
        let group = view.group((first + step) % sb.groups())?;
        if group.free_blocks == 0 {
            continue;
        }
        let from = if step == 0 { goal } else { sb.first_block_of(group.number) };
        let found = find_in(view, &group, from, count, &unusable)?;
        let longer = |run: &Range<u64>| best.as_ref().is_none_or(|best| len(run) > len(best));
        if let Some(run) = found.filter(longer) {
            best = Some(run);
        }
        compared += 1;
        match &best {
            Some(run) if len(run) >= count || compared >= GROUPS_COMPARED => break,
            // The file goes on where it was: that is worth more than a longer run elsewhere.
            Some(run) if run.start == goal && len(run) >= RUN_ENOUGH => break,
            _ => {}
        }
    }
    best.iter().try_for_each(|run| check_zone(view, run))?;
    Ok(best)
}

/// Checks that `run` is not the file system's own, whatever its bitmap says.
fn check_zone(view: &View<'_>, run: &Range<u64>) -> Result<()> {
    match view.zone.overlaps(run) {
        false => Ok(()),
        true => Err(Error::corrupt(format!("some of blocks {run:?} belong to the file system"))),
    }
}

fn len(run: &Range<u64>) -> u64 {
    run.end - run.start
}

/// In one group: the run at `from` if that is long enough, else the first that is behind it, then
/// before it, else the longest.
fn find_in(
    view: &View<'_>,
    group: &Group,
    from: u64,
    count: u64,
    unusable: impl Fn(&Range<u64>) -> Option<Range<u64>>,
) -> Attempt<Option<Range<u64>>> {
    let bitmap = view.block_bitmap(group)?;
    let first = view.sb.first_block_of(group.number);
    let whole = bits(first, &(first..first + view.sb.blocks_of(group.number)));
    let start = bits(first, &(from..from)).start;
    let mut best: Option<Range<u64>> = None;
    for part in [start..whole.end, whole.start..start] {
        let mut at = part.start;
        while at < part.end {
            let free = bitmap::find(&bitmap, at..part.end, false);
            let end = bitmap::find(&bitmap, free..part.end, true);
            at = end;
            let mut run = first + free as u64..first + end as u64;
            // What lies in front of and behind what cannot be used.
            while run.start < run.end {
                let hole = unusable(&run);
                let usable = hole.as_ref().map_or(run.end, |hole| hole.start.max(run.start));
                let piece = run.start..usable.min(run.start + count);
                if piece.start == from && len(&piece) >= count.min(RUN_ENOUGH) {
                    return Ok(Some(piece));
                }
                if best.as_ref().is_none_or(|best| len(&piece) > len(best)) && len(&piece) > 0 {
                    best = Some(piece);
                }
                if best.as_ref().is_some_and(|best| len(best) >= count) {
                    return Ok(best);
                }
                run.start = hole.map_or(run.end, |hole| hole.end);
            }
        }
    }
    Ok(best)
}

/// The runs of `blocks`, which lie in one group, whose bits are clear.
///
/// # Errors
///
/// `Corrupt`, also when one of them is the file system's own.
pub(crate) fn free_runs(view: &View<'_>, blocks: &Range<u64>) -> Attempt<Vec<Range<u64>>> {
    let group = view.group(view.sb.group_of(blocks.start))?;
    let bitmap = view.block_bitmap(&group)?;
    let first = view.sb.first_block_of(group.number);
    let whole = bits(first, blocks);
    let mut runs = Vec::new();
    let mut at = whole.start;
    while at < whole.end {
        let free = bitmap::find(&bitmap, at..whole.end, false);
        at = bitmap::find(&bitmap, free..whole.end, true);
        if free < at {
            let run = first + free as u64..first + at as u64;
            check_zone(view, &run)?;
            runs.push(run);
        }
    }
    Ok(runs)
}

/// Takes one block near `goal`; its content is the caller's to fill.
///
/// # Errors
///
/// `ENOSPC`.
pub(crate) fn allocate(change: &mut Change<'_>, goal: u64) -> Attempt<u64> {
    change.hold_blocks(1)?;
    let run = find_free(change, goal, 1, |run| change.unusable_in(run))?.ok_or_else(no_space)?;
    let block = run.start;
    mark(change, run)?;
    Ok(block)
}

/// Takes a run of up to `count` blocks near `goal`, as long as one is free.
///
/// # Errors
///
/// `ENOSPC`.
pub(crate) fn allocate_run(change: &mut Change<'_>, goal: u64, count: u64) -> Attempt<Range<u64>> {
    let count = count.min(change.space.lock().available());
    if count == 0 {
        return Err(no_space().into());
    }
    let run =
        find_free(change, goal, count, |run| change.unusable_in(run))?.ok_or_else(no_space)?;
    change.hold_blocks(len(&run))?;
    mark(change, run.clone())?;
    Ok(run)
}

/// Claims a run for up to `count` blocks near `goal`, of those reserved.
///
/// # Errors
///
/// `ENOSPC` when the bitmaps have less than they should.
pub(crate) fn claim(
    view: &View<'_>,
    space: &Mutex<Space>,
    goal: u64,
    count: u64,
) -> Attempt<Range<u64>> {
    loop {
        let run = find_free(view, goal, count, |run| view.unusable_in(space, run))?;
        let run = run.ok_or_else(no_space)?;
        let mut space = space.lock();
        // Another may have been faster.
        if space.claimed_in(&run).is_none() {
            space.claim(run.clone());
            return Ok(run);
        }
    }
}

/// Sets the bits of `run`, which lies in one group and is free.
///
/// # Errors
///
/// `Corrupt` when some of it is not free.
pub(crate) fn mark(change: &mut Change<'_>, run: Range<u64>) -> Attempt<()> {
    set_bits(change, &run, true)?;
    change.note_used(len(&run));
    Ok(())
}

/// Frees `run`, which may lie in several groups.
///
/// # Errors
///
/// `Corrupt` when some of it is free already, or the file system's own.
pub(crate) fn free(change: &mut Change<'_>, run: Range<u64>) -> Attempt<()> {
    let mut start = run.start;
    while start < run.end {
        let group = change.sb.group_of(start);
        let end = run.end.min(change.sb.first_block_of(group + 1));
        set_bits(change, &(start..end), false)?;
        start = end;
    }
    change.note_freed(run);
    Ok(())
}

fn set_bits(change: &mut Change<'_>, run: &Range<u64>, used: bool) -> Attempt<()> {
    let sb = change.sb;
    check_zone(change, run)?;
    let mut group = change.group(sb.group_of(run.start))?;
    let first = sb.first_block_of(group.number);
    let mut bitmap = change.block_bitmap(&group)?;
    let bytes = Arc::make_mut(&mut bitmap);
    let range = bits(first, run);
    if bitmap::find(bytes, range.clone(), used) != range.end {
        let state = if used { "in use" } else { "free" };
        let detail = format!("some of blocks {run:?} are {state} already in their bitmap");
        return Err(Error::corrupt(detail).into());
    }
    bitmap::fill(bytes, range, used);
    let count = u32::try_from(len(run)).expect("inside a group");
    group.free_blocks = match used {
        true => group.free_blocks.checked_sub(count),
        false => Some(group.free_blocks + count),
    }
    .ok_or_else(|| Error::corrupt(format!("group {} counts too few blocks", group.number)))?;
    group.flags &= !BLOCKS_UNUSED;
    group.block_bitmap_checksum = bitmap_checksum(sb, bytes, sb.blocks_per_group);
    change.put(group.block_bitmap, bitmap);
    change.put_group(&group)
}

impl Group {
    /// The blocks of its bitmaps and its inodes.
    pub(crate) fn parts(&self, sb: &Superblock) -> [Range<u64>; 3] {
        let table =
            (u64::from(sb.inodes_per_group) * sb.inode_bytes as u64).div_ceil(sb.block_bytes);
        let part = |first: u64, count: u64| first..first + count;
        [part(self.block_bitmap, 1), part(self.inode_bitmap, 1), part(self.inode_table, table)]
    }
}
