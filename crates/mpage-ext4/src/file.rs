//! Regular files: opened, read, written, made durable.
//!
//! A file stays in memory for a while after it was closed ([`CLOSED_MAX`] of them do), so that what
//! is cached of it is found when it is opened again, and what the map does not know yet is not
//! lost.

use std::ops::Range;
use std::sync::Arc;

use mpage::units::FileBlock;
use mpage::{CachedFile, Operations, Span};
use mpage_block::Errno;

use crate::error::{Error, Result};
use crate::file_map::FileMap;
use crate::file_system::FileSystem;
use crate::inode::{APPEND_FLAG, EXTENTS_FLAG, FileKind, IMMUTABLE_FLAG, InodeNumber, Timestamp};
use crate::open_inode::OpenInode;
use crate::view::View;
use crate::writers::Writer;
use crate::{indirect, names, patience};

/// Files that are kept in memory though nobody has them open.
const CLOSED_MAX: usize = 1024;
/// Of these, files that are looked at when one more is closed.
const FORGOTTEN_MAX: usize = 2;

/// One open of a regular file.
pub struct File {
    fs: Arc<FileSystem>,
    inode: Arc<OpenInode>,
    map: Arc<FileMap>,
    cached: CachedFile,
}

impl FileSystem {
    /// Opens regular file `inode`. All opens share what is cached of it.
    ///
    /// # Errors
    ///
    /// `EISDIR` of a directory, `EINVAL` of anything else that has no content; `ENOENT` when its
    /// last name is gone, and nobody has it open or holds it; `Corrupt`; the device's.
    pub fn open_file(self: &Arc<Self>, inode: InodeNumber) -> Result<File> {
        let open = self.open_inode(inode)?;
        let cached = open.file().expect("it is open");
        let writable = self.metadata.read_only().is_none();
        let cached = CachedFile::new(Arc::clone(cached.mapping()), writable);
        let map = Arc::new(FileMap::new(&self.metadata, &open));
        Ok(File { fs: Arc::clone(self), inode: open, map, cached })
    }

    /// Inode `number` in memory, open once more.
    fn open_inode(&self, number: InodeNumber) -> Result<Arc<OpenInode>> {
        let read = |view: &View<'_>| Ok((view.inode(number)?, view.transactions.running.number));
        // No change is under way: between the look and the entry the inode cannot be freed, and
        // no transaction can change it.
        self.metadata.read_and(read, |(inode, running)| {
            let has_users = inode.links > 0 || self.metadata.holds.lock().contains_key(&number);
            let mut all = self.metadata.open.lock();
            if let Some(open) = all.get(&number) {
                let mut state = open.lock();
                // Without a name, an open and a hold it is about to be freed.
                if state.opens > 0 || has_users {
                    state.opens += 1;
                    return Ok(Arc::clone(open));
                }
            }
            let errno = match inode.kind {
                FileKind::Regular if has_users => None,
                FileKind::Regular => Some(Errno::NOENT),
                FileKind::Directory => Some(Errno::ISDIR),
                _ => Some(Errno::INVAL),
            };
            if let Some(errno) = errno {
                return Err(Error::errno(errno, format!("inode {number}")));
            }
            let open = Arc::new(OpenInode::new(self.metadata.superblock(), &inode, running));
            let ops = Operations {
                get_block: Some(Arc::new(FileMap::new(&self.metadata, &open))),
                alias: Some(Arc::clone(&self.device)),
                ..Operations::default()
            };
            let mapping = self.cache.add_mapping(&self.dev, self.block, inode.size, ops)?;
            let _none = open.set_file(Some(CachedFile::new(mapping, true)));
            open.lock().opens = 1;
            let _none = all.insert(number, Arc::clone(&open));
            Ok(open)
        })?
    }

    /// One open less. The last one of a file that has no name any more removes it.
    fn close_inode(&self, open: &OpenInode) {
        {
            let mut state = open.lock();
            state.opens -= 1;
            if state.opens > 0 {
                return;
            }
        }
        if self.metadata.orphans.lock().contains(&open.number) {
            self.release(open.number);
            return;
        }
        if std::mem::replace(&mut open.lock().is_listed, true) {
            return;
        }
        self.closed.lock().push_back(open.number);
        self.forget_some();
    }

    /// Forgets files that were closed long ago. Those that have to stay get another turn when all
    /// others had one.
    fn forget_some(&self) {
        for _ in 0..FORGOTTEN_MAX {
            let oldest = {
                let mut closed = self.closed.lock();
                if closed.len() > CLOSED_MAX { closed.pop_front() } else { None }
            };
            let Some(oldest) = oldest else { return };
            if !self.forget(oldest) {
                self.closed.lock().push_back(oldest);
            }
        }
    }

    /// Forgets a file that nobody has open and of which all is durable; false when it has to stay:
    /// what is on its way, or not flushed, would be nobody's if it failed, and who opens the file
    /// next would not find it.
    fn forget(&self, number: InodeNumber) -> bool {
        if !self.metadata.open.lock().contains_key(&number) {
            return true;
        }
        let Ok(inode) = self.metadata.read(|view| view.inode(number)) else { return false };
        let mut all = self.metadata.open.lock();
        let Some(open) = all.get(&number) else { return true };
        let file = open.file();
        // The inode may not know the size yet.
        let is_ahead =
            |file: &CachedFile| !file.mapping().is_durable() || file.size() != inode.size;
        let mut state = open.lock();
        if state.opens > 0 {
            state.is_listed = false;
            return true;
        }
        if state.is_ahead() || file.as_ref().is_some_and(is_ahead) {
            return false;
        }
        drop(state);
        let open = all.remove(&number).expect("it was there");
        // Before it can be opened again.
        let file = open.set_file(None);
        drop(all);
        drop(file);
        true
    }
}

impl Drop for File {
    fn drop(&mut self) {
        self.fs.close_inode(&self.inode);
    }
}

impl File {
    /// The inode.
    pub fn inode(&self) -> InodeNumber {
        self.inode.number
    }

    /// What is cached of it: to read, to give advice, to look at. What is written through it does
    /// not change the file's times, and has to be over when the image is closed.
    pub fn cached(&self) -> &CachedFile {
        &self.cached
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.cached.size()
    }

    /// Reads bytes from `offset` on; returns how many: see [`CachedFile::read_at`].
    ///
    /// # Errors
    ///
    /// Those of the device; `Corrupt`.
    pub fn read_at(&self, to: &mut [u8], offset: u64) -> Result<usize> {
        Ok(self.cached.read_at(to, offset)?)
    }

    /// Writes bytes from `offset` on; returns how many: see [`CachedFile::write_at`].
    ///
    /// # Errors
    ///
    /// `ENOSPC`; `EFBIG` behind what the map can hold; `EPERM` when its flags forbid it; `EROFS`;
    /// those of reading what is covered in part.
    pub fn write_at(&self, from: &[u8], offset: u64) -> Result<usize> {
        let appends = offset >= self.size();
        let forbidden = if appends { IMMUTABLE_FLAG } else { IMMUTABLE_FLAG | APPEND_FLAG };
        let _writer = self.begin_writing(forbidden)?;
        let written = self.cached.write_at(from, offset)?;
        self.note_modified();
        Ok(written)
    }

    /// As [`write_at`](Self::write_at), as much from the front as can be stored without waiting:
    /// see [`CachedFile::try_write_at`]. Returns how many bytes; zero when it would have to wait.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at).
    pub fn try_write_at(&self, from: &[u8], offset: u64) -> Result<usize> {
        let appends = offset >= self.size();
        let forbidden = if appends { IMMUTABLE_FLAG } else { IMMUTABLE_FLAG | APPEND_FLAG };
        let _writer = self.begin_writing(forbidden)?;
        let write = || Ok(self.cached.try_write_at(from, offset)?);
        let Some(written) = patience::without_waiting(write) else { return Ok(0) };
        let written = written?;
        if written > 0 {
            self.note_modified();
        }
        Ok(written)
    }

    /// Writes past the cache: see [`CachedFile::write_direct_at`].
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at), and the device's.
    pub fn write_direct_at(&self, from: &[u8], offset: u64) -> Result<()> {
        let _writer = self.begin_writing(IMMUTABLE_FLAG | APPEND_FLAG)?;
        self.cached.write_direct_at(from, offset)?;
        self.note_modified();
        Ok(())
    }

    /// Writes all bytes of `from` from `offset` on.
    ///
    /// # Errors
    ///
    /// As [`write_at`](Self::write_at); some may have been written.
    pub fn write_all_at(&self, from: &[u8], offset: u64) -> Result<()> {
        let mut done = 0;
        while done < from.len() {
            done += self.write_at(&from[done..], offset + done as u64)?;
        }
        Ok(())
    }

    /// Announces that the file, which must have none of the flags `forbidden`, is going to be
    /// changed, until the answer is dropped.
    fn begin_writing(&self, forbidden: u32) -> Result<Writer<'_>> {
        let writer = self.fs.metadata.begin_writing()?;
        match self.inode.flags & forbidden {
            0 => Ok(writer),
            _ => Err(names::flags_forbid(self.inode.number)),
        }
    }

    /// Checks that blocks of it can be mapped and unwritten.
    fn check_extents(&self) -> Result<()> {
        match self.inode.flags & EXTENTS_FLAG {
            0 => Err(indirect::no_unwritten(self.inode.number)),
            _ => Ok(()),
        }
    }

    fn note_modified(&self) {
        self.inode.lock().modified = Some(Timestamp::now());
    }

    /// Makes everything durable that was written before the call: content, size, times, the place
    /// of the blocks, and the name if it is new.
    ///
    /// # Errors
    ///
    /// As [`CachedFile::fsync`]; `ENOSPC` never.
    pub fn fsync(&self) -> Result<()> {
        Ok(self.cached.fsync()?)
    }

    /// As [`fsync`](Self::fsync), without what only times need. Linux: `fdatasync(2)`.
    ///
    /// # Errors
    ///
    /// As [`fsync`](Self::fsync).
    pub fn fdatasync(&self) -> Result<()> {
        Ok(self.cached.fdatasync()?)
    }

    /// Sets the size: what is cut off is gone, what is added reads as zeros.
    ///
    /// # Errors
    ///
    /// `EFBIG`; `EPERM` when its flags forbid it; `EROFS`; those of reading the last block, or the
    /// map.
    pub fn set_len(&self, size: u64) -> Result<()> {
        let _writer = self.begin_writing(IMMUTABLE_FLAG | APPEND_FLAG)?;
        let _alone = self.inode.shaping.lock();
        self.cached.set_len(size)?;
        self.note_size(size)
    }

    /// Tells the inode of a size that was set. Others may have made the file longer since, and may
    /// have synced that.
    fn note_size(&self, size: u64) -> Result<()> {
        let now = Timestamp::now();
        {
            // What was written before is not what changed it last.
            let mut state = self.inode.lock();
            state.modified = state.modified.map(|written| written.max(now));
        }
        self.fs.metadata.change(|change| {
            let mut inode = change.inode(self.inode.number)?;
            inode.size = inode.size.max(size).min(self.size().max(size));
            (inode.modified, inode.changed) = (now, now);
            change.put_inode(&inode)
        })
    }

    /// Gives a place on the device to all of byte `range` that has none, which reads as zeros; the
    /// file grows to hold it unless `keep_size`. Linux: `fallocate(2)`.
    ///
    /// # Errors
    ///
    /// `ENOSPC`, and some may have got a place; `EOPNOTSUPP` of a file without extents; `EFBIG`;
    /// `EINVAL` of nothing; `EPERM` when its flags forbid it; `EROFS`.
    pub fn allocate(&self, range: Range<u64>, keep_size: bool) -> Result<()> {
        let _writer = self.begin_writing(IMMUTABLE_FLAG)?;
        self.check_range(&range)?;
        self.check_extents()?;
        let _alone = self.inode.shaping.lock();
        self.give_room(range, keep_size)
    }

    /// As [`allocate`](Self::allocate), of a range that was checked, by who shapes the file.
    fn give_room(&self, range: Range<u64>, keep_size: bool) -> Result<()> {
        let blocks = self.blocks_of(&range);
        self.map.allocate(blocks)?;
        if keep_size || range.end <= self.size() {
            self.note_modified();
            return Ok(());
        }
        self.cached.grow(range.end)?;
        self.note_size(range.end)
    }

    /// Makes byte `range` read as zeros and frees its whole blocks; the size stays.
    ///
    /// # Errors
    ///
    /// As [`CachedFile::punch_hole`]; `ENOSPC` when the map needs room to be told, and there is
    /// none; `EINVAL` of nothing; `EPERM` when its flags forbid it; `EROFS`.
    pub fn punch_hole(&self, range: Range<u64>) -> Result<()> {
        let _writer = self.begin_writing(IMMUTABLE_FLAG | APPEND_FLAG)?;
        self.check_range(&range)?;
        let _alone = self.inode.shaping.lock();
        let punched = self.cached.punch_hole(range);
        // It may have been in part.
        self.note_modified();
        Ok(punched?)
    }

    /// Makes byte `range` read as zeros, with room for all of it; the file grows to hold it unless
    /// `keep_size`.
    ///
    /// # Errors
    ///
    /// As [`allocate`](Self::allocate) and [`punch_hole`](Self::punch_hole).
    pub fn zero_range(&self, range: Range<u64>, keep_size: bool) -> Result<()> {
        let _writer = self.begin_writing(IMMUTABLE_FLAG | APPEND_FLAG)?;
        self.check_range(&range)?;
        self.check_extents()?;
        let _alone = self.inode.shaping.lock();
        let zeroed = self.cached.zero_range(range.clone());
        // It may have been in part.
        self.note_modified();
        zeroed?;
        self.give_room(range, keep_size)
    }

    /// The run of bytes from `offset` on that is all data or all hole.
    ///
    /// # Errors
    ///
    /// `ENXIO` at or behind the end of the file; `Corrupt`; the device's.
    pub fn span_at(&self, offset: u64) -> Result<Span> {
        if offset >= self.size() {
            let detail = format!("offset {offset} of inode {}", self.inode.number);
            return Err(Error::errno(Errno::NXIO, detail));
        }
        Ok(self.cached.span_at(offset)?)
    }

    fn check_range(&self, range: &Range<u64>) -> Result<()> {
        let errno = match () {
            () if range.start >= range.end => Errno::INVAL,
            () if range.end > self.inode.size_max => Errno::FBIG,
            () => return Ok(()),
        };
        Err(Error::errno(errno, format!("bytes {range:?} of inode {}", self.inode.number)))
    }

    /// The blocks that byte `range` touches.
    fn blocks_of(&self, range: &Range<u64>) -> Range<u64> {
        let size = self.fs.block;
        let FileBlock(start) = size.block_of(range.start);
        let FileBlock(end) = size.block_after(range.end);
        start..end
    }
}

#[cfg(test)]
mod tests;
