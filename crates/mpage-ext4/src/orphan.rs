//! Orphans: inodes that still have blocks to be freed, and would keep them if the machine stopped.
//!
//! They are those without names, and those that are being truncated in steps. The superblock names
//! the newest; each names the one before it, where others say when they were removed.
//!
//! 1. The list in memory is that of the newest layer: it changes when a change is applied.
//! 2. One change puts at most one inode onto the list, and takes at most one off.
//! 3. An inode without names is on the list until the change that frees it.
//!
//! An orphan file, which Linux has for it too, is emptied into the list when the image is opened.
//!
//! Linux: Documentation/filesystems/ext4/orphan.rst; `ext4_orphan_add()`, `ext4_orphan_del()`,
//! `ext4_orphan_cleanup()`, fs/ext4/orphan.c; `ext4_evict_inode()`, fs/ext4/inode.c.

use std::collections::HashSet;
use std::sync::Arc;

use mpage_locks::Mutex;

use crate::change::Change;
use crate::checksum::Checksum;
use crate::error::{Error, Result};
use crate::features::ORPHAN_PRESENT;
use crate::file_system::{Attributes, FileSystem};
use crate::inode::{FileKind, Inode, InodeNumber, Timestamp};
use crate::layers::{Attempt, Block};
use crate::open_inode::OpenInode;
use crate::view::View;
use crate::{block_map, directory, ialloc, patience, superblock, xattr};

/// The magic number before the checksum that ends a block of an orphan file.
const MAGIC: u32 = 0x0b10_ca04;
/// Bytes of both.
const TAIL: usize = 8;

/// The orphans, the newest last.
pub(crate) type Orphans = Mutex<Vec<InodeNumber>>;

/// What a change does to the list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Edits {
    added: Option<InodeNumber>,
    removed: Option<InodeNumber>,
}

impl Edits {
    /// The change was applied.
    pub(crate) fn apply(self, orphans: &Orphans) {
        let mut orphans = orphans.lock();
        if let Some(removed) = self.removed {
            orphans.retain(|each| *each != removed);
        }
        orphans.extend(self.added);
    }
}

/// Puts `inode` onto the list, unless it is on it. It is the caller's to write.
pub(crate) fn add(change: &mut Change<'_>, inode: &mut Inode) -> Attempt<()> {
    if change.orphans.lock().contains(&inode.number) {
        return Ok(());
    }
    inode.deleted = change.superblock()?.last_orphan.get();
    change.edit_superblock(|raw| raw.last_orphan = inode.number.0.into())?;
    let before = change.orphan_edits.added.replace(inode.number);
    assert!(before.is_none(), "a change puts one inode onto the list");
    Ok(())
}

/// Takes `inode` off the list, if it is on it. It is the caller's to write.
///
/// # Errors
///
/// `Corrupt`.
pub(crate) fn remove(change: &mut Change<'_>, inode: &mut Inode) -> Attempt<()> {
    let newer = {
        let orphans = change.orphans.lock();
        let Some(at) = orphans.iter().rposition(|each| *each == inode.number) else {
            return Ok(());
        };
        orphans.get(at + 1).copied()
    };
    match newer {
        Some(newer) => {
            let mut newer = change.inode(newer)?;
            newer.deleted = inode.deleted;
            change.put_inode(&newer)?;
        }
        None => change.edit_superblock(|raw| raw.last_orphan = inode.deleted.into())?,
    }
    inode.deleted = 0;
    let before = change.orphan_edits.removed.replace(inode.number);
    assert!(before.is_none(), "a change takes one inode off the list");
    Ok(())
}

impl FileSystem {
    /// Frees `inode` if it is an orphan without names that nobody has open, or holds. Where the
    /// thread must not wait it does nothing.
    ///
    /// # Errors
    ///
    /// `Corrupt`; the device's. It stays an orphan then, and is freed with a later commit, or when
    /// the image is opened again.
    pub(crate) fn free_if_unused(&self, inode: InodeNumber) -> Result<()> {
        loop {
            let is_orphan = self.metadata.orphans.lock().contains(&inode);
            let is_held = self.metadata.holds.lock().contains_key(&inode);
            if !is_orphan || is_held || !patience::may_wait() {
                return Ok(());
            }
            let open = self.metadata.open.lock().get(&inode).cloned();
            let Some(open) = open else { return self.free_orphan(inode) };
            if open.lock().opens > 0 {
                return Ok(());
            }
            // Who takes its last name and who closes it last may both be here.
            let _alone = open.shaping.lock();
            let is_same = |it: &Arc<OpenInode>| Arc::ptr_eq(it, &open);
            if self.metadata.open.lock().get(&inode).is_some_and(is_same) {
                return self.free_closed(&open);
            }
            // It was forgotten meanwhile, or another is here who frees it.
        }
    }

    /// As [`free_if_unused`](Self::free_if_unused), of a file in memory, by who shapes it.
    fn free_closed(&self, open: &OpenInode) -> Result<()> {
        let inode = open.number;
        let has_names = self.metadata.read(|view| Ok(view.inode(inode)?.links > 0))?;
        if has_names || open.lock().opens > 0 {
            return Ok(());
        }
        // Nobody can open it any more. What is cached of it goes, written or not, and no write is
        // under way when its blocks are freed.
        if let Some(file) = open.file() {
            file.set_len(0)?;
        }
        let file = {
            let mut all = self.metadata.open.lock();
            let _open = all.remove(&inode);
            open.set_file(None)
        };
        drop(file);
        self.free_orphan(inode)
    }

    /// Frees the orphans without names that nobody has open: what failed when they lost both.
    ///
    /// # Errors
    ///
    /// The first of those of [`free_if_unused`](Self::free_if_unused); all were tried.
    pub(crate) fn release_all(&self) -> Result<()> {
        if self.metadata.read_only().is_some() {
            return Ok(());
        }
        let orphans = self.metadata.orphans.lock().clone();
        let mut result = Ok(());
        for orphan in orphans {
            let freed = self.free_if_unused(orphan);
            result = result.and(freed);
        }
        result
    }

    /// Frees `inode`, unless it has names, or somebody else has freed it.
    fn free_orphan(&self, inode: InodeNumber) -> Result<()> {
        let mut end = u64::MAX;
        while let Some(left) = self.metadata.change(|change| release_step(change, inode, end))? {
            end = left;
        }
        Ok(())
    }

    /// Does what was left to be done of the orphans of the image.
    ///
    /// # Errors
    ///
    /// `Corrupt`; the device's.
    pub(crate) fn finish_orphans(self: &Arc<Self>) -> Result<()> {
        if self.metadata.read(|view| Ok(view.superblock()?.state.get()))? & superblock::ERRORS != 0
        {
            // What is damaged is not to be trusted: e2fsck looks for them.
            return self
                .metadata
                .change(|change| change.edit_superblock(|raw| raw.last_orphan = 0.into()));
        }
        *self.metadata.orphans.lock() = self.metadata.read(list)?;
        self.empty_orphan_file()?;
        let orphans = self.metadata.orphans.lock().clone();
        for orphan in orphans.into_iter().rev() {
            match self.attributes(orphan)?.links {
                0 => self.free_if_unused(orphan)?,
                _ => self.finish_truncate(orphan)?,
            }
        }
        Ok(())
    }

    /// Removes what `inode` has behind its size, and takes it off the list.
    fn finish_truncate(self: &Arc<Self>, inode: InodeNumber) -> Result<()> {
        self.zero_tail(inode)?;
        let mut end = u64::MAX;
        while let Some(left) = self.metadata.change(|change| {
            let mut inode = change.inode(inode)?;
            let first = inode.size.div_ceil(change.sb.block_bytes);
            let left = remove_blocks(change, &mut inode, first, end)?;
            if left.is_none() {
                remove(change, &mut inode)?;
            }
            change.put_inode(&inode)?;
            Ok(left)
        })? {
            end = left;
        }
        Ok(())
    }

    /// Zeroes what the last block of `inode` has behind its size, durably: who cut it off may not
    /// have come to that, and it would be back when the file grows. Linux:
    /// `ext4_block_truncate_page()`, fs/ext4/inode.c.
    fn zero_tail(self: &Arc<Self>, inode: InodeNumber) -> Result<()> {
        let Attributes { kind, size, .. } = self.attributes(inode)?;
        let end = size.next_multiple_of(self.metadata.superblock().block_bytes);
        if kind != FileKind::Regular || size == end {
            return Ok(());
        }
        let file = self.open_file(inode)?;
        file.cached().punch_hole(size..end)?;
        file.fsync()
    }

    /// Puts the inodes of the orphan file onto the list.
    fn empty_orphan_file(&self) -> Result<()> {
        let sb = self.metadata.superblock();
        if !sb.features.ro_compat(ORPHAN_PRESENT) || sb.orphan_file_inode == 0 {
            return Ok(());
        }
        let file = InodeNumber(sb.orphan_file_inode);
        let size = self.metadata.read(|view| view.inode(file))?.size;
        let blocks = size / sb.block_bytes;
        if blocks > sb.blocks {
            // It has blocks again and again.
            let error = Error::corrupt(format!("the orphan file has {size} bytes"));
            return Err(self.metadata.note(error));
        }
        for block in 0..blocks {
            while self.metadata.change(|change| take_one(change, file, block))? {}
        }
        self.metadata.change(|change| {
            change.edit_superblock(|raw| {
                raw.feature_ro_compat = (raw.feature_ro_compat.get() & !ORPHAN_PRESENT).into();
            })
        })
    }
}

/// Frees `inode` as far as one change may, its blocks up to `end`: returns the end of what is left;
/// `None` when it is free.
fn release_step(change: &mut Change<'_>, inode: InodeNumber, end: u64) -> Attempt<Option<u64>> {
    if !change.orphans.lock().contains(&inode) {
        return Ok(None);
    }
    let mut inode = change.inode(inode)?;
    if inode.links > 0 {
        return Ok(None);
    }
    let left = remove_blocks(change, &mut inode, 0, end)?;
    if left.is_some() {
        change.put_inode(&inode)?;
        return Ok(left);
    }
    xattr::drop_block(change, &mut inode)?;
    remove(change, &mut inode)?;
    inode.size = 0;
    // A number that is not zero tells it from one that was never used.
    let now = Timestamp::now().seconds & 0xffff_ffff;
    inode.deleted = u32::try_from(now).expect("32 bits").max(1);
    change.put_inode(&inode)?;
    ialloc::free(change, &inode)?;
    Ok(None)
}

/// Removes the blocks of `inode` from `first` to `end`, as far as one change may.
fn remove_blocks(
    change: &mut Change<'_>,
    inode: &mut Inode,
    first: u64,
    end: u64,
) -> Attempt<Option<u64>> {
    if !inode.has_map(change.sb) {
        return Ok(None);
    }
    let end = end.min(inode.size_max(change.sb) / change.sb.block_bytes);
    match first < end {
        true => block_map::remove(change, inode, first..end),
        false => Ok(None),
    }
}

/// The list as the image has it, the newest last.
fn list(view: &View<'_>) -> Attempt<Vec<InodeNumber>> {
    let mut list = Vec::new();
    let mut known = HashSet::new();
    let mut number = view.superblock()?.last_orphan.get();
    while number != 0 {
        let inode = orphan(view, InodeNumber(number))?;
        if !known.insert(number) {
            let detail = format!("inode {number} is twice on the list of orphans");
            return Err(Error::corrupt(detail).into());
        }
        list.push(inode.number);
        number = inode.deleted;
    }
    list.reverse();
    Ok(list)
}

/// Inode `number`, which is said to be an orphan.
fn orphan(view: &View<'_>, number: InodeNumber) -> Attempt<Inode> {
    let detail = || format!("inode {number} cannot be an orphan");
    if number.0 < view.sb.first_inode || !ialloc::is_used(view, number)? {
        return Err(Error::corrupt(detail()).into());
    }
    let inode = view.inode(number)?;
    match inode.kind {
        _ if inode.links == 0 => Ok(inode),
        FileKind::Regular | FileKind::Directory | FileKind::SymbolicLink => Ok(inode),
        _ => Err(Error::corrupt(detail()).into()),
    }
}

/// Moves an inode from block `block` of the orphan file to the list; false when none is left.
fn take_one(change: &mut Change<'_>, file: InodeNumber, block: u64) -> Attempt<bool> {
    let file = change.inode(file)?;
    let place = directory::place(change, &file, block)?;
    let name = || format!("block {block} of the orphan file");
    let mut bytes: Block = change.block(place, name)?;
    let end = bytes.len() - TAIL;
    let wrong = || Error::corrupt(format!("{} has a wrong end", name()));
    let sum = |bytes: &[u8]| right_sum(file.checksum_seed, place, &bytes[..end]);
    let (magic, checksum) = bytes[end..].split_at(4);
    let has_checksums = change.sb.has_checksums();
    if magic != MAGIC.to_le_bytes() || has_checksums && checksum != sum(&bytes) {
        return Err(wrong().into());
    }
    let entry = bytes[..end].chunks_exact(4).position(|entry| entry != [0; 4]);
    let Some(at) = entry.map(|entry| entry * 4) else { return Ok(false) };
    let entry = bytes[at..at + 4].try_into().expect("four bytes");
    let mut inode = orphan(change, InodeNumber(u32::from_le_bytes(entry)))?;
    add(change, &mut inode)?;
    change.put_inode(&inode)?;
    let content = Arc::make_mut(&mut bytes);
    content[at..at + 4].fill(0);
    if has_checksums {
        let sum = sum(content);
        content[end + 4..].copy_from_slice(&sum);
    }
    change.put(place, bytes);
    Ok(true)
}

/// The checksum of the `entries` of the block of an orphan file that is block `place` of the image.
fn right_sum(seed: Checksum, place: u64, entries: &[u8]) -> [u8; 4] {
    seed.of(&place.to_le_bytes()).of(entries).0.to_le_bytes()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use mpage::{Options, PageCache};
    use mpage_block::{MemoryDevice, MemoryOptions};

    use super::*;

    const MANY: u32 = 7;

    #[test]
    fn orphans_leave_the_list_in_any_order() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let words = ["-q", "-t", "ext4", file.path().to_str().unwrap(), "8M"];
        assert!(Command::new("mke2fs").args(words).status().unwrap().success());
        let image = std::fs::read(file.path()).unwrap();
        let cache = Arc::new(PageCache::new(&Options::default()).unwrap());
        let device = MemoryDevice::from_contents(&image, MemoryOptions::default());
        let dev = cache.add_device(Arc::new(device)).unwrap();
        let how = crate::Options::default();
        let fs = FileSystem::open(&cache, &dev, image.len() as u64, &how).unwrap();
        let new =
            crate::New { kind: FileKind::Regular, permissions: 0o644, uid: 0, gid: 0, device: 0 };
        let mut orphans = Vec::new();
        let mut open = Vec::new();
        for number in 0..MANY {
            let name = number.to_string().into_bytes();
            let inode = fs.create(InodeNumber::ROOT, &name, &new).unwrap();
            let file = fs.open_file(inode).unwrap();
            file.write_all_at(&[7; 100_000], 0).unwrap();
            open.push(file);
            fs.unlink(InodeNumber::ROOT, &name).unwrap();
            orphans.push(inode);
        }
        let mut random = fastrand::Rng::with_seed(3);
        while !orphans.is_empty() {
            assert_eq!(*fs.metadata.orphans.lock(), orphans);
            assert_eq!(fs.metadata.read(list).unwrap(), orphans);
            let one = random.usize(..orphans.len());
            let _gone = orphans.remove(one);
            drop(open.remove(one));
        }
        assert_eq!(fs.metadata.read(list).unwrap(), []);
    }
}
