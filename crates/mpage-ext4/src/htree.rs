//! The index of a hashed directory: which block has the names of which hashes.
//!
//! The root is in block 0, behind `.` and `..`; there is at most one level of nodes between it and
//! the blocks of names, its leaves. An entry of the root or a node names the block of all hashes
//! from its own on, up to the next entry's; the first has no hash, and is for all from where its
//! node begins.
//!
//! 1. Hashes of names are even. An entry whose hash is odd says that the names of the even hash
//!    below it begin in the leaf before: they are in a chain of leaves.
//! 2. The hashes of a node ascend, and lie within what its parent says it is for. So a walk over
//!    the leaves goes up, and ends.
//!
//! Linux: Documentation/filesystems/ext4/directory.rst, "Hash Tree Directories"; `dx_probe()` and
//! `ext4_htree_next_block()`, fs/ext4/namei.c. Differs: a damaged index is an error, not read as if
//! it were none.
//!
//! How an index grows is in `grow`.

mod grow;

use std::iter;

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) use self::grow::{insert, make, set_parent};
use crate::checksum::Checksum;
use crate::directory::{self, Found, Leaf, Part};
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::inode::Inode;
use crate::layers::{Attempt, Block};
use crate::superblock::Superblock;
use crate::view::View;

/// Leaves of a chain at most. Each has many names of one hash, of 2^31: more are no accident.
pub(crate) const CHAIN_MAX: usize = 256;

/// Bytes of the entry of `.`, and of that of `..` without the rest of the block.
const DOT: usize = 12;
/// Where the index begins in block 0.
const ROOT_AT: usize = 2 * DOT;
/// Where the entries of a node begin.
const NODE_AT: usize = 8;
/// Bits of a block number; what the others are for was never said.
const BLOCK_MASK: u32 = 0x0fff_ffff;

/// What the root says of the whole.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawInfo {
    reserved: U32,
    hash_version: u8,
    len: u8,
    levels: u8,
    flags: u8,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawEntry {
    hash: U32,
    block: U32,
}

/// What the first entry has instead of a hash.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawCounts {
    limit: U16,
    count: U16,
}

/// What follows the last entry that fits, with checksums.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawTail {
    reserved: U32,
    checksum: U32,
}

const ENTRY: usize = size_of::<RawEntry>();
const INFO: usize = size_of::<RawInfo>();

/// The hashes that a leaf or a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The first; odd when the names of the even one below began before.
    pub(crate) start: u32,
    /// The start of what follows; `None` at the end.
    pub(crate) end: Option<u32>,
}

impl Span {
    /// True when names of the even hash `major` may be here.
    pub(crate) fn has(self, major: u32) -> bool {
        major >= self.start & !1 && self.end.is_none_or(|end| major < end)
    }

    /// True when the last hash goes on in the next leaf.
    pub(crate) fn goes_on(self) -> bool {
        self.end.is_some_and(|end| end & 1 == 1)
    }
}

/// Which node of the index it is.
#[derive(Clone, Copy)]
struct Place {
    part: Part,
    /// Where in its block the entries begin.
    start: usize,
    span: Span,
}

/// A node of the index or its root, checked, with one of its entries taken.
struct Node {
    place: Place,
    bytes: Block,
    /// Entries: at least one.
    count: usize,
    taken: usize,
}

/// The index of a hashed directory.
pub(crate) struct Index<'a> {
    view: &'a View<'a>,
    directory: &'a Inode,
    /// How names are hashed here.
    pub(crate) hasher: Hasher,
    root: Node,
    /// There is a level of nodes between the root and the leaves.
    has_nodes: bool,
}

/// A walk over the leaves of a hashed directory.
pub(crate) struct Walk<'a> {
    index: Index<'a>,
    /// The node between the root and the leaf, if there is one.
    node: Option<Node>,
}

/// Where hashed `directory` has `name`.
///
/// # Errors
///
/// `Corrupt`, of the index or of a leaf that was searched.
pub(crate) fn find(view: &View<'_>, directory: &Inode, name: &[u8]) -> Attempt<Option<Found>> {
    if name == b"." || name == b".." {
        let leaf = Leaf::dots(view, directory)?;
        let inode = leaf.find(view.sb, name)?;
        return Ok(inode.map(|inode| Found { leaf, inode }));
    }
    let index = Index::read(view, directory)?;
    let major = index.hasher.hash(name).major;
    let mut walk = index.walk(major)?;
    for _ in 0..CHAIN_MAX {
        let leaf = walk.leaf()?;
        if let Some(inode) = leaf.find(view.sb, name)? {
            return Ok(Some(Found { leaf, inode }));
        }
        if walk.span().end != Some(major | 1) {
            return Ok(None);
        }
        let _more = walk.advance()?;
    }
    Err(walk.endless().into())
}

impl<'a> Index<'a> {
    /// Reads the root of the index of `directory`.
    ///
    /// # Errors
    ///
    /// `Corrupt`.
    pub(crate) fn read(view: &'a View<'a>, directory: &'a Inode) -> Attempt<Index<'a>> {
        let part = Part { directory: directory.number, block: 0 };
        let bytes = directory::block(view, directory, 0)?;
        let info = RawInfo::of(&bytes).ok_or_else(|| part.corrupt("it is no root of an index"))?;
        let hasher = Hasher::new(view.sb, info.hash_version);
        let hasher = hasher.ok_or_else(|| part.corrupt("the version of its hashes is unknown"))?;
        let has_nodes = match info.levels {
            0 => false,
            1 => true,
            levels => return Err(part.corrupt(format!("the index has {levels} levels")).into()),
        };
        let place = Place { part, start: ROOT_AT + INFO, span: Span { start: 0, end: None } };
        let root = Node::of(view, directory, place, bytes)?;
        Ok(Index { view, directory, hasher, root, has_nodes })
    }

    /// A walk from the first leaf on that may have names of hash `major`, which is even.
    ///
    /// # Errors
    ///
    /// `Corrupt`, of the node above that leaf.
    pub(crate) fn walk(self, major: u32) -> Attempt<Walk<'a>> {
        let index = Index { root: self.root.take(major), ..self };
        let node = match index.has_nodes {
            true => Some(index.node()?.take(major)),
            false => None,
        };
        Ok(Walk { index, node })
    }

    /// The node that the root's entry names, its first entry taken.
    fn node(&self) -> Attempt<Node> {
        let part = Part { directory: self.directory.number, block: self.root.block()? };
        let bytes = directory::block(self.view, self.directory, part.block)?;
        if !is_all_free(&bytes) {
            return Err(part.corrupt("it is no node of an index").into());
        }
        let place = Place { part, start: NODE_AT, span: self.root.span_taken() };
        Ok(Node::of(self.view, self.directory, place, bytes)?)
    }
}

impl Walk<'_> {
    /// The leaf.
    ///
    /// # Errors
    ///
    /// `Corrupt`.
    pub(crate) fn leaf(&self) -> Attempt<Leaf> {
        Leaf::read(self.index.view, self.index.directory, self.last().block()?)
    }

    /// The hashes that the leaf is for.
    pub(crate) fn span(&self) -> Span {
        self.last().span_taken()
    }

    /// Goes on to the next leaf; false when there is none.
    ///
    /// # Errors
    ///
    /// `Corrupt`, of the index.
    pub(crate) fn advance(&mut self) -> Attempt<bool> {
        let last = self.node.as_mut().unwrap_or(&mut self.index.root);
        if last.advance() {
            return Ok(true);
        }
        if self.node.is_none() || !self.index.root.advance() {
            return Ok(false);
        }
        self.node = Some(self.index.node()?);
        Ok(true)
    }

    /// The chain that the leaf is in has more than [`CHAIN_MAX`].
    pub(crate) fn endless(&self) -> Error {
        let detail = format!("more than {CHAIN_MAX} blocks have names of one hash");
        self.last().place.part.corrupt(detail)
    }

    fn last(&self) -> &Node {
        self.node.as_ref().unwrap_or(&self.index.root)
    }
}

/// True when `bytes` begin with an entry that is not in use, and is all of the block.
fn is_all_free(bytes: &[u8]) -> bool {
    bytes[..4] == [0; 4] && len_at(bytes, 0) == bytes.len()
}

/// The length of the directory entry at byte `at`.
fn len_at(bytes: &[u8], at: usize) -> usize {
    u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]).into()
}

impl RawInfo {
    /// Reads it from block 0; `None` if that is no root of an index.
    fn of(bytes: &[u8]) -> Option<&RawInfo> {
        let (info, _) = RawInfo::ref_from_prefix(&bytes[ROOT_AT..]).expect("a block is longer");
        let dots = len_at(bytes, 0) == DOT && len_at(bytes, DOT) == bytes.len() - DOT;
        let known = info.reserved == 0 && usize::from(info.len) == INFO && info.flags & 1 == 0;
        (dots && known).then_some(info)
    }
}

impl Node {
    /// Checks the node in `bytes`. Its first entry is taken.
    ///
    /// # Errors
    ///
    /// `Corrupt`.
    fn of(view: &View<'_>, directory: &Inode, place: Place, bytes: Block) -> Result<Node> {
        let part = place.part;
        let (counts, _) = RawCounts::ref_from_prefix(&bytes[place.start..]).expect("it has room");
        let (limit, count) = (usize::from(counts.limit.get()), usize::from(counts.count.get()));
        let has_checksums = view.sb.has_checksums();
        let room = room(view.sb, bytes.len(), place.start);
        if limit != room || count == 0 || count > limit {
            let detail = format!("it has {count} entries of {limit}, with room for {room}");
            return Err(part.corrupt(detail));
        }
        if has_checksums && !is_sum_right(directory.checksum_seed, &bytes, place.start, count) {
            return Err(part.corrupt("the checksum is wrong"));
        }
        let node = Node { place, bytes, count, taken: 0 };
        let hashes = node.entries()[1..].iter().map(|entry| entry.hash.get());
        let Span { start, end } = place.span;
        if !iter::once(start).chain(hashes).chain(end).is_sorted() {
            return Err(part.corrupt("the hashes are not in order"));
        }
        Ok(node)
    }

    /// With the entry taken that is for hash `major`, which is even; of a chain, its first.
    fn take(mut self, major: u32) -> Node {
        // An odd hash is above the even one that goes on there.
        self.taken = self.entries()[1..].partition_point(|entry| entry.hash.get() <= major);
        self
    }

    /// Takes the next entry; false when there is none.
    fn advance(&mut self) -> bool {
        let has_next = self.taken + 1 < self.count;
        self.taken += usize::from(has_next);
        has_next
    }

    fn entries(&self) -> &[RawEntry] {
        let start = self.place.start;
        let bytes = &self.bytes[start..start + self.count * ENTRY];
        <[RawEntry]>::ref_from_bytes(bytes).expect("whole entries")
    }

    /// The hashes of what the taken entry names.
    fn span_taken(&self) -> Span {
        let entries = self.entries();
        let start = match self.taken {
            0 => self.place.span.start,
            taken => entries[taken].hash.get(),
        };
        let next = entries.get(self.taken + 1).map(|entry| entry.hash.get());
        Span { start, end: next.or(self.place.span.end) }
    }

    /// The block that the taken entry names.
    ///
    /// # Errors
    ///
    /// `Corrupt` when that is the root's.
    fn block(&self) -> Result<u64> {
        match self.entries()[self.taken].block.get() & BLOCK_MASK {
            0 => Err(self.place.part.corrupt("it names the root")),
            block => Ok(block.into()),
        }
    }
}

/// True when the tail of the node in `bytes`, whose `count` entries begin at `start`, has the right
/// checksum.
fn is_sum_right(seed: Checksum, bytes: &[u8], start: usize, count: usize) -> bool {
    let (_, tail) = RawTail::ref_from_suffix(bytes).expect("a block is longer");
    tail.checksum == right_sum(seed, bytes, start, count)
}

fn right_sum(seed: Checksum, bytes: &[u8], start: usize, count: usize) -> u32 {
    let (_, tail) = RawTail::ref_from_suffix(bytes).expect("a block is longer");
    let entries = &bytes[..start + count * ENTRY];
    seed.of(entries).of(tail.reserved.as_bytes()).of(&[0; 4]).0
}

/// Entries for which a node has room that begins at `start` of a block.
fn room(sb: &Superblock, block_bytes: usize, start: usize) -> usize {
    (block_bytes - start) / ENTRY - usize::from(sb.has_checksums())
}
