//! Directories: blocks of entries, each a name and the number of an inode.
//!
//! The entries of a block follow each other without a gap, the last up to its end; one of inode 0
//! is room that is free. With checksums the last 12 bytes of a block are a tail, which looks like
//! such an entry.
//!
//! A block of a hashed directory that belongs to its index looks like one that is all free; only
//! block 0 has entries besides: `.` and `..`.
//!
//! How blocks and directories are changed is in `leaf` and `edit`.
//!
//! Linux: Documentation/filesystems/ext4/directory.rst; `__ext4_check_dir_entry()`, fs/ext4/dir.c;
//! `ext4_search_dir()`, fs/ext4/namei.c.

mod edit;
mod leaf;

use std::ops::Range;

use mpage::Place;
use mpage::units::FileBlock;
use mpage_block::Errno;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) use self::edit::{append, insert, make, parent, remove, set, set_parent};
pub(crate) use self::leaf::Name;
use crate::error::{Error, Result};
use crate::features::{DIR_INDEX, FILETYPE};
use crate::inode::{FileKind, INDEX_FLAG, Inode, InodeNumber};
use crate::layers::{Attempt, Block};
use crate::superblock::Superblock;
use crate::view::View;
use crate::{block_map, htree};

/// Bytes of a name at most.
pub(crate) const NAME_MAX: usize = 255;
/// Bytes of an entry before its name.
const HEADER: usize = 8;
/// Bytes of the shortest entry.
const ENTRY_MIN: usize = 12;
/// Bytes of a tail.
const TAIL: usize = 12;

/// An entry as it is on the device, up to its name.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawEntry {
    inode: U32,
    len: U16,
    name_len: u8,
    kind: u8,
}

/// What ends a block with checksums.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawTail {
    inode: U32,
    len: U16,
    name_len: u8,
    kind: u8,
    checksum: U32,
}

const _: () = assert!(size_of::<RawEntry>() == HEADER);
const _: () = assert!(size_of::<RawTail>() == TAIL);
/// The kind of entry that a tail says it is.
const TAIL_KIND: u8 = 0xde;

/// An entry that is in use, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) inode: InodeNumber,
    /// What the file is, where the entry says so.
    pub(crate) kind: Option<FileKind>,
    pub(crate) name: &'a [u8],
    /// Where in the block it is.
    pub(crate) at: Range<usize>,
}

/// Which block of a directory something is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) directory: InodeNumber,
    pub(crate) block: u64,
}

impl Part {
    /// This block is damaged: `what` says how.
    pub(crate) fn corrupt(self, what: impl std::fmt::Display) -> Error {
        Error::corrupt(format!("block {} of directory {}: {what}", self.block, self.directory))
    }
}

/// A block of entries, its tail checked.
pub(crate) struct Leaf {
    pub(crate) part: Part,
    /// The block of the image.
    place: u64,
    bytes: Block,
    /// Where the entries end.
    end: usize,
}

/// Inode `number`, which is a directory's.
///
/// # Errors
///
/// `ENOTDIR` of any other file; `ENOENT` when it was removed; `Corrupt`.
pub(crate) fn inode(view: &View<'_>, number: InodeNumber) -> Attempt<Inode> {
    let inode = view.inode(number)?;
    if inode.kind != FileKind::Directory {
        return Err(Error::errno(Errno::NOTDIR, format!("inode {number}")).into());
    }
    if inode.links == 0 {
        let detail = format!("directory {number} was removed");
        return Err(Error::errno(Errno::NOENT, detail).into());
    }
    // It has no holes. One that has blocks again and again can be longer than the image.
    let is_whole = inode.size.is_multiple_of(view.sb.block_bytes);
    if inode.size == 0 || !is_whole || blocks(view.sb, &inode) > view.sb.blocks {
        let detail = format!("directory {number} has {} bytes", inode.size);
        return Err(Error::corrupt(detail).into());
    }
    Ok(inode)
}

/// True when `directory` has an index.
pub(crate) fn is_hashed(sb: &Superblock, directory: &Inode) -> bool {
    sb.features.compat(DIR_INDEX) && directory.flags & INDEX_FLAG != 0
}

/// Blocks of `directory`.
pub(crate) fn blocks(sb: &Superblock, directory: &Inode) -> u64 {
    directory.size / sb.block_bytes
}

/// Where block `block` of `directory` is in the image.
///
/// # Errors
///
/// `Corrupt` when it is a hole, was never written, or is behind the end.
pub(crate) fn place(view: &View<'_>, directory: &Inode, block: u64) -> Attempt<u64> {
    let part = Part { directory: directory.number, block };
    if block >= blocks(view.sb, directory) {
        return Err(part.corrupt("it is behind the end").into());
    }
    let extent = block_map::find(view, directory, block)?;
    let Place::Mapped(_) = extent.place else {
        return Err(part.corrupt("it has no place on the device").into());
    };
    Ok(extent.device_block(FileBlock(block)).expect("it is mapped").0)
}

/// Block `block` of `directory`, whatever it holds.
///
/// # Errors
///
/// Those of [`place`].
pub(crate) fn block(view: &View<'_>, directory: &Inode, block: u64) -> Attempt<Block> {
    let place = place(view, directory, block)?;
    view.block(place, || format!("block {block} of directory {}", directory.number))
}

/// A name that was found.
pub(crate) struct Found {
    /// The block that has it.
    pub(crate) leaf: Leaf,
    pub(crate) inode: InodeNumber,
}

/// The entry of `name` in `directory` as far as it is in `range`, a range of its blocks.
pub(crate) fn find_in(
    view: &View<'_>,
    directory: &Inode,
    name: &[u8],
    range: Range<u64>,
) -> Attempt<Option<Found>> {
    for block in range {
        let leaf = Leaf::read(view, directory, block)?;
        if let Some(inode) = leaf.find(view.sb, name)? {
            return Ok(Some(Found { leaf, inode }));
        }
    }
    Ok(None)
}

/// The entry of `name` in `directory`.
///
/// # Errors
///
/// `Corrupt`.
pub(crate) fn find(view: &View<'_>, directory: &Inode, name: &[u8]) -> Attempt<Option<Found>> {
    match is_hashed(view.sb, directory) {
        true => htree::find(view, directory, name),
        false => find_in(view, directory, name, 0..blocks(view.sb, directory)),
    }
}

impl Leaf {
    /// Block `block` of `directory`, which holds entries and nothing else.
    ///
    /// # Errors
    ///
    /// `Corrupt`, as those of [`place`], and when its tail or checksum is wrong.
    pub(crate) fn read(view: &View<'_>, directory: &Inode, block: u64) -> Attempt<Leaf> {
        let mut leaf = Leaf::unchecked(view, directory, block)?;
        if view.sb.has_checksums() {
            leaf.end -= TAIL;
            if !view.is_changed(leaf.place) {
                leaf.check_sum(directory)?;
            }
        }
        Ok(leaf)
    }

    /// Block 0 of hashed `directory`, of which only `.` and `..` are entries.
    ///
    /// # Errors
    ///
    /// Those of [`place`].
    pub(crate) fn dots(view: &View<'_>, directory: &Inode) -> Attempt<Leaf> {
        Leaf::unchecked(view, directory, 0)
    }

    /// Block `block` of `directory`, all of it entries.
    fn unchecked(view: &View<'_>, directory: &Inode, block: u64) -> Attempt<Leaf> {
        let part = Part { directory: directory.number, block };
        let place = place(view, directory, block)?;
        let name = || format!("block {block} of directory {}", directory.number);
        let bytes = view.block(place, name)?;
        Ok(Leaf { part, place, end: bytes.len(), bytes })
    }

    fn check_sum(&self, directory: &Inode) -> Result<()> {
        let (entries, tail) = self.bytes.split_at(self.end);
        let tail = RawTail::ref_from_bytes(tail).expect("as long as it is");
        let is_tail = tail.inode == 0
            && usize::from(tail.len.get()) == TAIL
            && tail.name_len == 0
            && tail.kind == TAIL_KIND;
        if !is_tail {
            return Err(self.part.corrupt("it has no room for a checksum"));
        }
        if tail.checksum != directory.checksum_seed.of(entries).0 {
            return Err(self.part.corrupt("the checksum is wrong"));
        }
        Ok(())
    }

    /// The entries that are in use, in order. Behind an error there is none.
    pub(crate) fn entries<'a>(&'a self, sb: &'a Superblock) -> Entries<'a> {
        Entries { sb, leaf: self, at: 0 }
    }

    /// The inode that has `name` here.
    ///
    /// # Errors
    ///
    /// `Corrupt`, of an entry before it or its own.
    pub(crate) fn find(&self, sb: &Superblock, name: &[u8]) -> Result<Option<InodeNumber>> {
        let Some(entry) = self.find_entry(sb, name)? else { return Ok(None) };
        if entry.inode == self.part.directory && name != b"." && name != b".." {
            return Err(self.part.corrupt("an entry names the directory itself"));
        }
        Ok(Some(entry.inode))
    }

    /// The entry of `name`. Names of others are not checked.
    fn find_entry(&self, sb: &Superblock, name: &[u8]) -> Result<Option<Entry<'_>>> {
        let mut at = 0;
        while at < self.end {
            let (end, entry) = self.entry(sb, at)?;
            if entry.as_ref().is_some_and(|entry| entry.name == name) {
                return Ok(entry);
            }
            at = end;
        }
        Ok(None)
    }
}

/// The entries of a block that are in use.
pub(crate) struct Entries<'a> {
    sb: &'a Superblock,
    leaf: &'a Leaf,
    at: usize,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    fn next(&mut self) -> Option<Result<Entry<'a>>> {
        while self.at < self.leaf.end {
            let start = self.at;
            match self.leaf.entry(self.sb, start) {
                Ok((end, None)) => self.at = end,
                Ok((end, Some(entry))) => {
                    let is_right = !entry.name.iter().any(|byte| matches!(byte, 0 | b'/'));
                    self.at = if is_right { end } else { self.leaf.end };
                    let wrong = || self.leaf.wrong(start, "has a name that cannot be");
                    return Some(is_right.then_some(entry).ok_or_else(wrong));
                }
                Err(error) => {
                    self.at = self.leaf.end;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl Leaf {
    fn wrong(&self, start: usize, what: &str) -> Error {
        self.part.corrupt(format!("the entry at byte {start} {what}"))
    }

    /// The entry at `start`, `None` if it is not in use, and where it ends. Whether its name can be
    /// is not checked.
    fn entry(&self, sb: &Superblock, start: usize) -> Result<(usize, Option<Entry<'_>>)> {
        let corrupt = |what: &str| self.wrong(start, what);
        let rest = &self.bytes[start..self.end];
        let Ok((raw, behind)) = RawEntry::ref_from_prefix(rest) else {
            return Err(corrupt("has no room"));
        };
        let (len, name_len) = (usize::from(raw.len.get()), usize::from(raw.name_len));
        if len < ENTRY_MIN || !len.is_multiple_of(4) || len < HEADER + name_len {
            return Err(corrupt("is too short, or no multiple of four"));
        }
        if len > rest.len() {
            return Err(corrupt("goes on behind the block"));
        }
        let number = raw.inode.get();
        if number == 0 {
            return Ok((start + len, None));
        }
        let inode = InodeNumber(number);
        if inode != InodeNumber::ROOT && !(sb.first_inode..=sb.inodes).contains(&number) {
            return Err(corrupt("names an inode that no directory has"));
        }
        let name = &behind[..name_len];
        if name.is_empty() {
            return Err(corrupt("has no name"));
        }
        let kind = if sb.features.incompat(FILETYPE) { kind(raw.kind) } else { None };
        Ok((start + len, Some(Entry { inode, kind, name, at: start..start + len })))
    }
}

/// What an entry says its file is.
fn kind(byte: u8) -> Option<FileKind> {
    Some(match byte {
        1 => FileKind::Regular,
        2 => FileKind::Directory,
        3 => FileKind::CharacterDevice,
        4 => FileKind::BlockDevice,
        5 => FileKind::Fifo,
        6 => FileKind::Socket,
        7 => FileKind::SymbolicLink,
        _ => return None,
    })
}
