//! Trees of extents: file blocks to device blocks, in runs.
//!
//! The root is in the inode, with room for four entries; a node below fills a block. An entry of a
//! leaf is a run; one of any other node names the node of all file blocks from its own first block
//! on, up to the next entry's.
//!
//! Linux: Documentation/filesystems/ext4/ifork.rst; `ext4_find_extent()`, fs/ext4/extents.c.

use std::ops::Range;

use mpage::units::{DeviceBlock, FileBlock};
use mpage::{Extent, Place};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::block_map::check_place;
use crate::error::{Error, Result};
use crate::inode::Inode;
use crate::layers::{Attempt, Block};
use crate::superblock::Superblock;
use crate::view::View;

/// Levels above the leaves at most: four entries, then 84 a node of 1 KiB, hold all blocks.
const DEPTH_MAX: u16 = 5;
const MAGIC: u16 = 0xf30a;
/// The longest run of written blocks; a longer count says that they were not written.
const WRITTEN_MAX: u16 = 1 << 15;
/// File blocks that a file can have: they are numbered with 32 bits.
pub(crate) const FILE_BLOCKS: u64 = 1 << 32;
const ENTRY: usize = 12;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    magic: U16,
    entries: U16,
    max: U16,
    depth: U16,
    generation: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawExtent {
    first: U32,
    len: U16,
    start_hi: U16,
    start_lo: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawIndex {
    first: U32,
    leaf_lo: U32,
    leaf_hi: U16,
    unused: U16,
}

mod edit;
mod tree;

pub(crate) use edit::{insert, nodes_for, remove, unwrite};

/// A node, its header checked.
struct Node<'a> {
    depth: u16,
    /// Its entries, and no more.
    entries: &'a [u8],
}

/// Where an entry is looked for: which node that is, and which file blocks are its own.
struct Part {
    name: String,
    blocks: Range<u64>,
}

/// The run of `inode` that holds file block `block`, as long as one entry or hole of a leaf tells.
pub(crate) fn find(view: &View<'_>, inode: &Inode, block: u64) -> Attempt<Extent> {
    if block >= FILE_BLOCKS {
        return Ok(Extent::hole(FileBlock(block), u64::MAX - block));
    }
    let root = Node::root(inode)?;
    let mut blocks = 0..FILE_BLOCKS;
    let mut below = match root.depth {
        0 => return Ok(root.find(view, inode, &Part { name: name(inode), blocks }, block)?),
        _ => root.child(&name(inode), &mut blocks, block)?,
    };
    let mut depth = root.depth;
    while let Some(number) = below {
        depth -= 1;
        let bytes = read(view, inode, number)?;
        let name = name_at(inode, number);
        let node = Node::at(&bytes, &name, depth)?;
        if depth == 0 {
            return Ok(node.find(view, inode, &Part { name, blocks }, block)?);
        }
        below = node.child(&name, &mut blocks, block)?;
    }
    // Before the first entry of a node there is nothing.
    Ok(Extent::hole(FileBlock(block), blocks.end - block))
}

fn name(inode: &Inode) -> String {
    format!("the map of inode {}", inode.number)
}

fn name_at(inode: &Inode, number: u64) -> String {
    format!("{}, block {number}", name(inode))
}

/// The block that node `number` fills, its checksum checked.
fn read(view: &View<'_>, inode: &Inode, number: u64) -> Attempt<Block> {
    check_place(view, inode, number, 1)?;
    let bytes = view.block(number, || name_at(inode, number))?;
    check_sum(view, inode, &bytes, number)?;
    Ok(bytes)
}

/// Entries that a node that fills a block has room for.
fn entries_max(sb: &Superblock) -> usize {
    // A checksum follows them.
    (usize::try_from(sb.block_bytes).expect("at most a page") - ENTRY - 4) / ENTRY
}

/// Checks the checksum behind the entries of a node that fills a block.
fn check_sum(view: &View<'_>, inode: &Inode, bytes: &[u8], number: u64) -> Result<()> {
    if !view.sb.has_checksums() {
        return Ok(());
    }
    let max = usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
    let end = ENTRY * (1 + max);
    let right = bytes
        .get(end..end + 4)
        .is_some_and(|sum| sum == inode.checksum_seed.of(&bytes[..end]).0.to_le_bytes());
    match right {
        true => Ok(()),
        false => Err(Error::corrupt(format!(
            "the checksum of block {number}, of the map of inode {}, is wrong",
            inode.number
        ))),
    }
}

impl<'a> Node<'a> {
    /// The root of the tree of `inode`.
    fn root(inode: &'a Inode) -> Result<Node<'a>> {
        let root = Node::of(&inode.block, &name(inode))?;
        if root.depth > DEPTH_MAX {
            return Err(Error::corrupt(format!("{} has {} levels", name(inode), root.depth)));
        }
        Ok(root)
    }

    /// The node in `bytes`, which is `depth` levels above the leaves.
    fn at(bytes: &'a [u8], name: &str, depth: u16) -> Result<Node<'a>> {
        let node = Node::of(bytes, name)?;
        if node.depth != depth {
            let detail = format!("{name} is at level {}, not {depth}", node.depth);
            return Err(Error::corrupt(detail));
        }
        Ok(node)
    }

    fn of(bytes: &'a [u8], name: &str) -> Result<Node<'a>> {
        let (header, rest) = Header::ref_from_prefix(bytes).expect("a node has a header");
        let (entries, max) = (usize::from(header.entries.get()), usize::from(header.max.get()));
        if header.magic != MAGIC || entries > max || max > rest.len() / ENTRY {
            let detail = format!("{name} has {entries} entries of {max}, or is no node");
            return Err(Error::corrupt(detail));
        }
        Ok(Node { depth: header.depth.get(), entries: &rest[..entries * ENTRY] })
    }

    /// The node below that has file block `block`, and in `blocks` the file blocks that it may
    /// have; `None` when there is nothing up to their end.
    fn child(&self, name: &str, blocks: &mut Range<u64>, block: u64) -> Result<Option<u64>> {
        let indexes = <[RawIndex]>::ref_from_bytes(self.entries).expect("whole entries");
        let behind = indexes.partition_point(|index| u64::from(index.first.get()) <= block);
        let first_of = |at: usize| indexes.get(at).map(|index| u64::from(index.first.get()));
        let end = first_of(behind).unwrap_or(blocks.end);
        let Some(at) = behind.checked_sub(1) else {
            blocks.end = end;
            return Ok(None);
        };
        let start = first_of(at).expect("it is there");
        if start < blocks.start && at > 0 || end > blocks.end {
            let detail = format!("{name} names blocks {start} to {end}, which are another's");
            return Err(Error::corrupt(detail));
        }
        *blocks = start.max(blocks.start)..end;
        Ok(Some(indexes[at].leaf()))
    }

    /// The run of a leaf that holds file block `block`.
    fn find(&self, view: &View<'_>, inode: &Inode, place: &Part, block: u64) -> Result<Extent> {
        let extents = <[RawExtent]>::ref_from_bytes(self.entries).expect("whole entries");
        let behind = extents.partition_point(|extent| u64::from(extent.first.get()) <= block);
        let end = extents.get(behind).map_or(place.blocks.end, |next| next.first.get().into());
        let Some(at) = behind.checked_sub(1) else {
            return Ok(Extent::hole(FileBlock(block), end - block));
        };
        let extent = extents[at].read(view, inode)?;
        let after = extent.first.0 + extent.count;
        if after > end || extent.first.0 < place.blocks.start {
            let detail = format!(
                "{} has blocks {} to {after}, some of them another's",
                place.name, extent.first.0
            );
            return Err(Error::corrupt(detail));
        }
        Ok(match extent.contains(FileBlock(block)) {
            true => extent,
            false => Extent::hole(FileBlock(block), end - block),
        })
    }
}

impl RawExtent {
    fn read(&self, view: &View<'_>, inode: &Inode) -> Result<Extent> {
        let (count, written) = self.count();
        check_place(view, inode, self.start(), count)?;
        let (first, to) = (FileBlock(self.first.get().into()), DeviceBlock(self.start()));
        let place = if written { Place::Mapped(to) } else { Place::Unwritten(to) };
        Ok(Extent { place, ..Extent::mapped(first, to, count) })
    }

    /// Its blocks, and whether they are written.
    fn count(&self) -> (u64, bool) {
        let len = self.len.get();
        let written = len <= WRITTEN_MAX;
        (u64::from(if written { len } else { len - WRITTEN_MAX }), written)
    }

    fn start(&self) -> u64 {
        u64::from(self.start_lo.get()) | u64::from(self.start_hi.get()) << 32
    }
}

impl RawIndex {
    /// The node below.
    fn leaf(&self) -> u64 {
        u64::from(self.leaf_lo.get()) | u64::from(self.leaf_hi.get()) << 32
    }
}
