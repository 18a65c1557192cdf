//! Listings: the entries of a directory in an order that stays when it is changed.
//!
//! A cookie is a position in that order. An entry that nobody touches keeps its position, so who
//! goes on from a cookie gets each such entry once, whatever happened to others meanwhile.
//!
//! 1. In a linear directory the position of an entry is the byte at which it begins. Entries are
//!    put into free room and taken out, and never move.
//! 2. In a hashed one it is the hash: names move to other blocks when a block is split. `.` and
//!    `..` come first. Names with one hash have one position, so they are given together.
//! 3. A directory of one block in an image that can have hashed ones is listed as if it were
//!    hashed, since it is made such when it grows. One of more blocks stays what it is.
//!
//! Linux: `ext4_readdir()` and `ext4_dx_readdir()`, fs/ext4/dir.c; `ext4_htree_fill_tree()`,
//! fs/ext4/namei.c. Differs: nothing is kept between two calls.

use crate::directory::{self, Entry, Leaf};
use crate::error::Error;
use crate::features::DIR_INDEX;
use crate::hash::{Hash, Hasher};
use crate::htree::{CHAIN_MAX, Index};
use crate::inode::{FileKind, Inode, InodeNumber};
use crate::layers::Attempt;
use crate::view::View;

/// Positions before those of hashes: of `.` and of `..`.
const DOTS: u64 = 2;

/// A position in the order of a directory's entries; below 2^63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cookie(pub u64);

impl Cookie {
    /// Before the first entry.
    pub const START: Cookie = Cookie(0);
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The inode that it names.
    pub inode: InodeNumber,
    /// What that is; `None` where only the inode says so.
    pub kind: Option<FileKind>,
    /// Its name: 1 to 255 bytes, none of them `/` or zero.
    pub name: Vec<u8>,
    /// Where to go on behind it. Neighbours with the same one cannot be told apart by it: who takes
    /// one of them has to take all.
    pub next: Cookie,
}

/// Some entries of a directory, in the order of their cookies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The entries. There may be none though others follow.
    pub entries: Vec<DirectoryEntry>,
    /// Where to go on behind them; `None` at the end of the directory.
    pub next: Option<Cookie>,
}

/// The entries of `directory` from `from` on: those of one block, or of a chain of leaves.
///
/// # Errors
///
/// `Corrupt`.
pub(crate) fn read(view: &View<'_>, directory: &Inode, from: Cookie) -> Attempt<Listing> {
    if directory::is_hashed(view.sb, directory) {
        return hashed(view, directory, from);
    }
    if view.sb.features.compat(DIR_INDEX) && directory::blocks(view.sb, directory) == 1 {
        return one_block(view, directory, from);
    }
    linear(view, directory, from)
}

fn linear(view: &View<'_>, directory: &Inode, from: Cookie) -> Attempt<Listing> {
    let mut entries = Vec::new();
    if from.0 >= directory.size {
        return Ok(Listing { entries, next: None });
    }
    let block = from.0 / view.sb.block_bytes;
    let start = block * view.sb.block_bytes;
    let leaf = Leaf::read(view, directory, block)?;
    for entry in leaf.entries(view.sb) {
        let entry = entry?;
        if start + entry.at.start as u64 >= from.0 {
            entries.push(DirectoryEntry::of(&entry, Cookie(start + entry.at.end as u64)));
        }
    }
    let end = start + view.sb.block_bytes;
    Ok(Listing { entries, next: (end < directory.size).then_some(Cookie(end)) })
}

fn one_block(view: &View<'_>, directory: &Inode, from: Cookie) -> Attempt<Listing> {
    let unknown = || Error::corrupt("the superblock's version of hashes is unknown");
    let hasher = Hasher::new(view.sb, view.sb.hash_version).ok_or_else(unknown)?;
    let leaf = Leaf::read(view, directory, 0)?;
    let mut found = Found { from, entries: Vec::new() };
    for entry in leaf.entries(view.sb) {
        let entry = entry?;
        let position = match entry.name {
            b"." => 0,
            b".." => 1,
            name => position(hasher.hash(name)),
        };
        found.push(position, &entry);
    }
    Ok(Listing { entries: found.in_order(), next: None })
}

fn hashed(view: &View<'_>, directory: &Inode, from: Cookie) -> Attempt<Listing> {
    let mut found = Found { from, entries: Vec::new() };
    if from.0 < DOTS {
        for (position, entry) in (0..DOTS).zip(Leaf::dots(view, directory)?.entries(view.sb)) {
            found.push(position, &entry?);
        }
    }
    let index = Index::read(view, directory)?;
    let hasher = index.hasher;
    let mut walk = index.walk(major_at(from))?;
    for _ in 0..CHAIN_MAX {
        let (leaf, span) = (walk.leaf()?, walk.span());
        for entry in leaf.entries(view.sb) {
            let entry = entry?;
            let hash = hasher.hash(entry.name);
            if !span.has(hash.major) {
                return Err(leaf.part.corrupt("a name has a hash of another block").into());
            }
            found.push(position(hash), &entry);
        }
        if !span.goes_on() {
            let next = span.end.map(|major| Cookie(position(Hash { major, minor: 0 })));
            return Ok(Listing { entries: found.in_order(), next });
        }
        let _more = walk.advance()?;
    }
    Err(walk.endless().into())
}

/// The position of names with `hash`.
fn position(hash: Hash) -> u64 {
    DOTS + (u64::from(hash.major >> 1) << 32 | u64::from(hash.minor))
}

/// The hash of the names from `from` on; behind all of them, one that no name has.
fn major_at(from: Cookie) -> u32 {
    let half = from.0.saturating_sub(DOTS) >> 32;
    u32::try_from(half << 1).unwrap_or(!1)
}

/// Entries that were found, not in order yet.
struct Found {
    /// What lies before it is left out.
    from: Cookie,
    entries: Vec<DirectoryEntry>,
}

impl Found {
    fn push(&mut self, position: u64, entry: &Entry<'_>) {
        if position >= self.from.0 {
            self.entries.push(DirectoryEntry::of(entry, Cookie(position + 1)));
        }
    }

    fn in_order(mut self) -> Vec<DirectoryEntry> {
        self.entries.sort_by_key(|entry| entry.next);
        self.entries
    }
}

impl DirectoryEntry {
    fn of(entry: &Entry<'_>, next: Cookie) -> DirectoryEntry {
        DirectoryEntry { inode: entry.inode, kind: entry.kind, name: entry.name.to_vec(), next }
    }
}
