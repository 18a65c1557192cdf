//! Growing the index of a hashed directory: leaves and nodes that are full are split.
//!
//! 1. A directory of one block that is full becomes hashed: its names move to a leaf, and the root
//!    of the index takes their place.
//! 2. A full leaf is split by hash, in the middle of its bytes, and rather between two hashes than
//!    within one. If it has to be within one, the hash in the index is odd.
//! 3. Before a leaf is split there is room in the node above it: a full node is split, a full root
//!    that names leaves gets a level below it.
//!
//! Linux: `ext4_dx_add_entry()`, `do_split()`, `make_indexed_dir()`, fs/ext4/namei.c. Differs: a
//! leaf whose free room is in pieces is packed instead of split.

use std::sync::Arc;

use mpage_block::Errno;
use zerocopy::{FromBytes, IntoBytes};

use super::{
    BLOCK_MASK, CHAIN_MAX, DOT, ENTRY, INFO, Index, NODE_AT, Node, Place, ROOT_AT, RawCounts,
    RawEntry, RawInfo, RawTail, Span, right_sum, room,
};
use crate::change::Change;
use crate::directory::{self, Leaf, Name, Part};
use crate::error::{Error, Result};
use crate::hash::{Hash, Hasher};
use crate::inode::{FileKind, INDEX_FLAG, Inode, InodeNumber};
use crate::layers::Attempt;
use crate::space::no_space;
use crate::view::View;

/// The way to a leaf.
struct Path {
    hasher: Hasher,
    root: Node,
    node: Option<Node>,
}

/// Puts `new` into hashed `directory`, which does not have that name and is the caller's to write.
///
/// # Errors
///
/// `ENOSPC`, also when the index is full; `Corrupt`.
pub(crate) fn insert(
    change: &mut Change<'_>,
    directory: &mut Inode,
    new: &Name<'_>,
) -> Attempt<()> {
    let sb = change.sb;
    let mut path = Path::to(change, directory, new.name)?;
    let mut leaf = Leaf::read(change, directory, path.last().block()?)?;
    if leaf.insert(sb, new)? {
        leaf.put(change, directory);
        return Ok(());
    }
    let mut names = Vec::new();
    for entry in leaf.entries(sb) {
        let entry = entry?;
        names.push((path.hasher.hash(entry.name), Name::from(&entry)));
    }
    let used: usize = names.iter().map(|(_, name)| name.room()).sum();
    if used + new.room() <= leaf.capacity() {
        let mut packed = leaf.emptied(sb);
        fill(change, &mut packed, names.iter().map(|(_, name)| name).chain([new]))?;
        packed.put(change, directory);
        return Ok(());
    }
    names.sort_by_key(|(hash, _)| *hash);
    let span = path.last().span_taken();
    if !names.iter().all(|(hash, _)| span.has(hash.major)) {
        return Err(leaf.part.corrupt("a name has a hash of another block").into());
    }
    path.make_room(change, directory)?;
    path.split(change, directory, &leaf, &names, new)
}

/// Puts `names` into `leaf`, which has room for them.
fn fill<'a>(
    change: &Change<'_>,
    leaf: &mut Leaf,
    names: impl Iterator<Item = &'a Name<'a>>,
) -> Attempt<()> {
    for name in names {
        assert!(leaf.insert(change.sb, name)?, "it has room for what was in less");
    }
    Ok(())
}

/// Where to cut `names`, which are in order, and of which some half is to take `new` besides.
fn cut(names: &[(Hash, Name<'_>)], new: (Hash, &Name<'_>), capacity: usize) -> Option<usize> {
    let all: usize = names.iter().map(|(_, name)| name.room()).sum();
    let mut before = 0;
    let mut best = None;
    for at in 1..names.len() {
        before += names[at - 1].1.room();
        let goes_on = names[at - 1].0.major == names[at].0.major;
        let is_above = new.0.major >= names[at].0.major;
        let room = if is_above { all - before } else { before } + new.1.room();
        let cost = (goes_on, (2 * before).abs_diff(all));
        if room <= capacity && best.is_none_or(|(least, _)| cost < least) {
            best = Some((cost, at));
        }
    }
    best.map(|(_, at)| at)
}

impl Path {
    /// The way to the first leaf for `name`.
    fn to(view: &View<'_>, directory: &Inode, name: &[u8]) -> Attempt<Path> {
        let index = Index::read(view, directory)?;
        let major = index.hasher.hash(name).major;
        let walk = index.walk(major)?;
        Ok(Path { hasher: walk.index.hasher, root: walk.index.root, node: walk.node })
    }

    /// The node that names the leaf.
    fn last(&self) -> &Node {
        self.node.as_ref().unwrap_or(&self.root)
    }

    /// Sees to it that the last node has room for an entry.
    fn make_room(&mut self, change: &mut Change<'_>, directory: &mut Inode) -> Attempt<()> {
        if self.last().count < self.last().limit(change) {
            return Ok(());
        }
        if self.node.is_some() && self.root.count == self.root.limit(change) {
            return Err(no_space().into());
        }
        let part = directory::append(change, directory)?.part;
        let place = Place { part, start: NODE_AT, span: self.root.place.span };
        let block_bytes = usize::try_from(change.sb.block_bytes).expect("at most a page");
        let mut bytes = vec![0; block_bytes];
        // It looks like an entry of inode 0 that is all of the block.
        bytes[4..6].copy_from_slice(&u16_of(block_bytes).to_le_bytes());
        let mut new = Node { place, bytes: bytes.into(), count: 0, taken: 0 };
        let block = number_of(part)?;
        let Some(mut node) = self.node.take() else {
            new.set(change, &self.root.list());
            new.taken = self.root.taken;
            self.root.set(change, &[(0, block)]);
            self.root.set_levels(1);
            self.root.taken = 0;
            new.put(change, directory)?;
            self.root.put(change, directory)?;
            self.node = Some(new);
            return Ok(());
        };
        let mut lower = node.list();
        let upper = lower.split_off(lower.len() / 2);
        let start = upper[0].0;
        new.set(change, &upper);
        node.set(change, &lower);
        self.root.add(change, (start, block));
        if node.taken >= lower.len() {
            new.taken = node.taken - lower.len();
            self.root.taken += 1;
            std::mem::swap(&mut node, &mut new);
        }
        new.put(change, directory)?;
        node.put(change, directory)?;
        self.root.put(change, directory)?;
        node.place.span = self.root.span_taken();
        self.node = Some(node);
        Ok(())
    }

    /// Splits `leaf`, which has `names`, and puts `new` into one of its halves.
    fn split(
        mut self,
        change: &mut Change<'_>,
        directory: &mut Inode,
        leaf: &Leaf,
        names: &[(Hash, Name<'_>)],
        new: &Name<'_>,
    ) -> Attempt<()> {
        let hash = self.hasher.hash(new.name);
        let at = cut(names, (hash, new), leaf.capacity());
        let at = at.ok_or_else(|| leaf.part.corrupt("it cannot be split"))?;
        let (major, goes_on) = (names[at].0.major, names[at - 1].0.major == names[at].0.major);
        if goes_on {
            check_chain(change, directory, major)?;
        }
        let mut lower = leaf.emptied(change.sb);
        let mut upper = directory::append(change, directory)?;
        let block = number_of(upper.part)?;
        fill(change, &mut lower, names[..at].iter().map(|(_, name)| name))?;
        fill(change, &mut upper, names[at..].iter().map(|(_, name)| name))?;
        let half = if hash.major >= major { &mut upper } else { &mut lower };
        fill(change, half, [new].into_iter())?;
        lower.put(change, directory);
        upper.put(change, directory);
        let last = self.node.as_mut().unwrap_or(&mut self.root);
        last.add(change, (major | u32::from(goes_on), block));
        last.put(change, directory)
    }
}

/// The number by which an index names block `part`.
///
/// # Errors
///
/// `Corrupt` when it has too many bits: the directory is longer than an index may be.
fn number_of(part: Part) -> Result<u32> {
    match u32::try_from(part.block) {
        Ok(number) if number & !BLOCK_MASK == 0 => Ok(number),
        _ => Err(part.corrupt("no index can name it")),
    }
}

/// Sees to it that the leaves of `major` can be one more.
///
/// # Errors
///
/// `ENOSPC`.
fn check_chain(view: &View<'_>, directory: &Inode, major: u32) -> Attempt<()> {
    let mut walk = Index::read(view, directory)?.walk(major)?;
    for _ in 1..CHAIN_MAX {
        if walk.span().end != Some(major | 1) {
            return Ok(());
        }
        let _more = walk.advance()?;
    }
    let detail = format!("{CHAIN_MAX} blocks of directory {} have one hash", directory.number);
    Err(Error::errno(Errno::NOSPC, detail).into())
}

impl Node {
    fn limit(&self, view: &View<'_>) -> usize {
        room(view.sb, self.bytes.len(), self.place.start)
    }

    /// Its entries: hashes and blocks. The first has no hash.
    fn list(&self) -> Vec<(u32, u32)> {
        let each = self.entries().iter().map(|entry| (entry.hash.get(), entry.block.get()));
        let mut list: Vec<_> = each.collect();
        list[0].0 = 0;
        list
    }

    /// Gives it other entries.
    fn set(&mut self, view: &View<'_>, list: &[(u32, u32)]) {
        let (start, limit) = (self.place.start, self.limit(view));
        let bytes = &mut Arc::make_mut(&mut self.bytes)[start..];
        for (room, (hash, block)) in bytes.chunks_exact_mut(ENTRY).zip(list) {
            let entry = RawEntry { hash: (*hash).into(), block: (*block).into() };
            room.copy_from_slice(entry.as_bytes());
        }
        let counts = RawCounts { limit: u16_of(limit).into(), count: u16_of(list.len()).into() };
        bytes[..size_of::<RawCounts>()].copy_from_slice(counts.as_bytes());
        self.count = list.len();
    }

    /// Adds an entry behind the one that is taken. There is room.
    fn add(&mut self, view: &View<'_>, entry: (u32, u32)) {
        let mut list = self.list();
        list.insert(self.taken + 1, entry);
        self.set(view, &list);
    }

    /// Says in the root how many levels are below it.
    fn set_levels(&mut self, levels: u8) {
        let at = ROOT_AT + std::mem::offset_of!(RawInfo, levels);
        Arc::make_mut(&mut self.bytes)[at] = levels;
    }

    /// Writes it, with its checksum.
    fn put(&mut self, change: &mut Change<'_>, directory: &Inode) -> Attempt<()> {
        if change.sb.has_checksums() {
            let (start, count) = (self.place.start, self.count);
            let bytes = Arc::make_mut(&mut self.bytes);
            let sum = right_sum(directory.checksum_seed, bytes, start, count);
            let (_, tail) = RawTail::mut_from_suffix(bytes).expect("a block is longer");
            tail.checksum = sum.into();
        }
        let place = directory::place(change, directory, self.place.part.block)?;
        change.put(place, Arc::clone(&self.bytes));
        Ok(())
    }
}

fn u16_of(count: usize) -> u16 {
    u16::try_from(count).expect("inside a block")
}

/// Makes `directory`, which has one block and is the caller's to write, hashed.
///
/// # Errors
///
/// `ENOSPC`; `Corrupt`.
pub(crate) fn make(change: &mut Change<'_>, directory: &mut Inode) -> Attempt<()> {
    let (sb, part) = (change.sb, Part { directory: directory.number, block: 0 });
    if Hasher::new(sb, sb.hash_version).is_none() {
        return Err(Error::corrupt("the superblock's version of hashes is unknown").into());
    }
    let old = Leaf::read(change, directory, 0)?;
    let mut leaf = directory::append(change, directory)?;
    let mut dots = Vec::new();
    for entry in old.entries(sb) {
        let entry = entry?;
        match entry.name {
            b"." | b".." => dots.push(entry),
            _ => fill(change, &mut leaf, [Name::from(&entry)].iter())?,
        }
    }
    let [dot, dots] = &dots[..] else {
        return Err(part.corrupt("it has no '.' or no '..'").into());
    };
    if dot.name != b"." || dots.name != b".." {
        return Err(part.corrupt("'.' is not the first").into());
    }
    let mut bytes = vec![0; usize::try_from(sb.block_bytes).expect("at most a page")];
    Name::from(dot).write(sb, &mut bytes, DOT);
    let rest = bytes.len() - DOT;
    Name::from(dots).write(sb, &mut bytes[DOT..], rest);
    let info = RawInfo {
        reserved: 0.into(),
        hash_version: sb.hash_version,
        len: u8::try_from(INFO).expect("eight"),
        levels: 0,
        flags: 0,
    };
    bytes[ROOT_AT..ROOT_AT + INFO].copy_from_slice(info.as_bytes());
    let span = Span { start: 0, end: None };
    let place = Place { part, start: ROOT_AT + INFO, span };
    let mut root = Node { place, bytes: bytes.into(), count: 0, taken: 0 };
    root.set(change, &[(0, number_of(leaf.part)?)]);
    root.put(change, directory)?;
    leaf.put(change, directory);
    directory.flags |= INDEX_FLAG;
    Ok(())
}

/// Makes `..` of hashed `directory` be `parent`.
///
/// # Errors
///
/// `Corrupt`.
pub(crate) fn set_parent(
    change: &mut Change<'_>,
    directory: &Inode,
    parent: InodeNumber,
) -> Attempt<()> {
    let mut root = Index::read(change, directory)?.root;
    let name = Name { name: b"..", inode: parent, kind: Some(FileKind::Directory) };
    let bytes = &mut Arc::make_mut(&mut root.bytes)[DOT..];
    let len = bytes.len();
    name.write(change.sb, bytes, len);
    root.put(change, directory)
}
