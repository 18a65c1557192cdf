//! Changes of a block of entries.
//!
//! An entry that nobody touches stays where it is: a new one gets the room of one that is not in
//! use, or what another has behind its name; one that goes leaves its room to the one before it.
//!
//! Linux: `add_dirent_to_buf()`, `ext4_generic_delete_entry()`, fs/ext4/namei.c.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::{Entry, HEADER, Leaf, Part, RawEntry, RawTail, TAIL, TAIL_KIND};
use crate::change::Change;
use crate::error::Result;
use crate::features::FILETYPE;
use crate::inode::{FileKind, Inode, InodeNumber};
use crate::superblock::Superblock;

/// A name, and what it is to name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Name<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) inode: InodeNumber,
    /// What that is, where it is known.
    pub(crate) kind: Option<FileKind>,
}

impl<'a> Name<'a> {
    /// `name` for `inode`.
    pub(crate) fn new(name: &'a [u8], inode: &Inode) -> Name<'a> {
        Name { name, inode: inode.number, kind: Some(inode.kind) }
    }

    /// Bytes that its entry needs.
    pub(crate) fn room(&self) -> usize {
        room(self.name)
    }

    /// Writes its entry, `len` bytes long, at the beginning of `bytes`.
    pub(crate) fn write(&self, sb: &Superblock, bytes: &mut [u8], len: usize) {
        let name_len = u8::try_from(self.name.len()).expect("a name is short");
        let raw = RawEntry {
            inode: self.inode.0.into(),
            len: u16_of(len).into(),
            name_len,
            kind: self.kind.map_or(0, |kind| kind_byte(sb, kind)),
        };
        bytes[..HEADER].copy_from_slice(raw.as_bytes());
        bytes[HEADER..HEADER + self.name.len()].copy_from_slice(self.name);
    }
}

impl<'a> From<&Entry<'a>> for Name<'a> {
    fn from(entry: &Entry<'a>) -> Name<'a> {
        Name { name: entry.name, inode: entry.inode, kind: entry.kind }
    }
}

/// Bytes that the entry of `name` needs.
fn room(name: &[u8]) -> usize {
    (HEADER + name.len()).next_multiple_of(4)
}

fn u16_of(len: usize) -> u16 {
    u16::try_from(len).expect("inside a block")
}

/// What an entry says of a file of `kind`.
fn kind_byte(sb: &Superblock, kind: FileKind) -> u8 {
    if !sb.features.incompat(FILETYPE) {
        return 0;
    }
    match kind {
        FileKind::Regular => 1,
        FileKind::Directory => 2,
        FileKind::CharacterDevice => 3,
        FileKind::BlockDevice => 4,
        FileKind::Fifo => 5,
        FileKind::Socket => 6,
        FileKind::SymbolicLink => 7,
    }
}

/// Where room for an entry is.
struct Free {
    at: usize,
    /// Bytes of it that the entry there keeps; zero if that is not in use.
    kept: usize,
    /// All that there is.
    len: usize,
}

impl Leaf {
    /// A leaf without entries, for block `place` of the image.
    pub(crate) fn empty(sb: &Superblock, part: Part, place: u64) -> Leaf {
        let len = usize::try_from(sb.block_bytes).expect("at most a page");
        let end = if sb.has_checksums() { len - TAIL } else { len };
        let mut bytes = vec![0; len];
        bytes[4..6].copy_from_slice(&u16_of(end).to_le_bytes());
        Leaf { part, place, bytes: bytes.into(), end }
    }

    /// An empty leaf in place of this one.
    pub(crate) fn emptied(&self, sb: &Superblock) -> Leaf {
        Leaf::empty(sb, self.part, self.place)
    }

    /// Bytes for entries.
    pub(crate) fn capacity(&self) -> usize {
        self.end
    }

    /// Puts `new` into free room; false when there is not enough in one piece.
    ///
    /// # Errors
    ///
    /// `Corrupt`.
    pub(crate) fn insert(&mut self, sb: &Superblock, new: &Name<'_>) -> Result<bool> {
        let Some(free) = self.find_room(sb, new.room())? else { return Ok(false) };
        let bytes = Arc::make_mut(&mut self.bytes);
        if free.kept > 0 {
            set_len(bytes, free.at, free.kept);
        }
        let at = free.at + free.kept;
        new.write(sb, &mut bytes[at..], free.len - free.kept);
        Ok(true)
    }

    fn find_room(&self, sb: &Superblock, needed: usize) -> Result<Option<Free>> {
        let mut at = 0;
        while at < self.end {
            let (end, entry) = self.entry(sb, at)?;
            let kept = entry.map_or(0, |entry| room(entry.name));
            let len = end - at;
            if kept + needed <= len {
                return Ok(Some(Free { at, kept, len }));
            }
            at = end;
        }
        Ok(None)
    }

    /// Takes the entry of `name` out; false when there is none.
    ///
    /// # Errors
    ///
    /// `Corrupt`.
    pub(crate) fn remove(&mut self, sb: &Superblock, name: &[u8]) -> Result<bool> {
        let (mut at, mut before) = (0, None);
        while at < self.end {
            let (end, entry) = self.entry(sb, at)?;
            if entry.is_some_and(|entry| entry.name == name) {
                let bytes = Arc::make_mut(&mut self.bytes);
                // The name goes too; an entry of inode 0 keeps its length.
                bytes[at..at + 4].fill(0);
                bytes[at + 6..end].fill(0);
                if let Some(before) = before {
                    set_len(bytes, before, end - before);
                }
                return Ok(true);
            }
            (before, at) = (Some(at), end);
        }
        Ok(false)
    }

    /// Makes the entry of `new`'s name be of its inode; false when there is none.
    ///
    /// # Errors
    ///
    /// `Corrupt`.
    pub(crate) fn set(&mut self, sb: &Superblock, new: &Name<'_>) -> Result<bool> {
        let found = self.find_entry(sb, new.name)?.map(|entry| entry.at);
        let Some(at) = found else { return Ok(false) };
        new.write(sb, &mut Arc::make_mut(&mut self.bytes)[at.start..], at.len());
        Ok(true)
    }

    /// Writes the block, with its tail.
    pub(crate) fn put(mut self, change: &mut Change<'_>, directory: &Inode) {
        if self.end < self.bytes.len() {
            let (entries, tail) = Arc::make_mut(&mut self.bytes).split_at_mut(self.end);
            let raw = RawTail {
                inode: 0.into(),
                len: u16_of(TAIL).into(),
                name_len: 0,
                kind: TAIL_KIND,
                checksum: directory.checksum_seed.of(entries).0.into(),
            };
            tail.copy_from_slice(raw.as_bytes());
        }
        change.put(self.place, self.bytes);
    }
}

/// Sets the length of the entry at byte `at`.
fn set_len(bytes: &mut [u8], at: usize, len: usize) {
    bytes[at + 4..at + 6].copy_from_slice(&u16_of(len).to_le_bytes());
}
