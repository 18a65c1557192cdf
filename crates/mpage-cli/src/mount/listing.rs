//! Directories, read entry by entry.
//!
//! FUSE goes on where the last entry it took says. Entries of one position cannot be told apart by
//! that: those that did not fit are kept, for who goes on from there.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use fuser::{Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use mpage_ext4::{Attributes, Cookie, DirectoryEntry, InodeNumber, Result};

use super::convert;
use super::shared::{FOREVER, Shared};

/// How far an open directory has been read.
#[derive(Default)]
pub(super) struct Position {
    /// Behind the entry that was taken last.
    at: u64,
    /// Entries that were read and not taken.
    read: VecDeque<DirectoryEntry>,
    /// Where to read more; `None` at the end.
    next: Option<Cookie>,
}

impl Position {
    /// Where the next entry is.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Goes to `offset`, where the caller goes on.
    fn seek(&mut self, offset: u64) {
        if offset != self.at || offset == 0 {
            *self = Position { at: offset, read: VecDeque::new(), next: Some(Cookie(offset)) };
        }
    }

    /// The entry at the position; `None` at the end.
    fn peek(&mut self, shared: &Shared, directory: InodeNumber) -> Result<Option<&DirectoryEntry>> {
        while self.read.is_empty() {
            let Some(next) = self.next else { return Ok(None) };
            let listing = shared.fs.read_directory(directory, next)?;
            self.read.extend(listing.entries);
            self.next = listing.next;
        }
        Ok(self.read.front())
    }

    /// The entry at the position was taken.
    fn take(&mut self) {
        if let Some(taken) = self.read.pop_front() {
            self.at = taken.next.0;
        }
    }
}

/// Where entries go to.
pub(super) trait Entries {
    /// Takes `entry`; false when there is no room for it.
    ///
    /// # Errors
    ///
    /// Those of looking at the inode.
    fn add(&mut self, shared: &Shared, entry: &DirectoryEntry) -> Result<bool>;
}

/// Gives `entries` what `directory` has from `offset` on, as much as they take.
pub(super) fn read(
    shared: &Shared,
    position: &mut Position,
    (directory, offset): (InodeNumber, u64),
    entries: &mut impl Entries,
) -> Result<()> {
    position.seek(offset);
    while let Some(entry) = position.peek(shared, directory)? {
        if !entries.add(shared, entry)? {
            break;
        }
        position.take();
    }
    Ok(())
}

impl Entries for ReplyDirectory {
    fn add(&mut self, shared: &Shared, entry: &DirectoryEntry) -> Result<bool> {
        let kind = match entry.kind {
            Some(kind) => kind,
            None => shared.fs.attributes(entry.inode)?.kind,
        };
        let node = INodeNo(entry.inode.0.into());
        let name = OsStr::from_bytes(&entry.name);
        Ok(!ReplyDirectory::add(self, node, entry.next.0, convert::file_type(kind), name))
    }
}

impl Entries for ReplyDirectoryPlus {
    /// Each entry counts as one that was looked up, but for `.` and `..`.
    fn add(&mut self, shared: &Shared, entry: &DirectoryEntry) -> Result<bool> {
        let is_itself = matches!(&entry.name[..], b"." | b"..");
        let known: Attributes = match is_itself {
            true => shared.fs.attributes(entry.inode)?,
            false => shared.fs.hold(entry.inode)?,
        };
        let attributes = convert::attributes(&known);
        let name = OsStr::from_bytes(&entry.name);
        let (node, next) = (INodeNo(entry.inode.0.into()), entry.next.0);
        let is_full =
            ReplyDirectoryPlus::add(self, node, next, name, &FOREVER, &attributes, Generation(0));
        if is_full && !is_itself && shared.fs.unhold(entry.inode, 1) {
            shared.fs.release(entry.inode);
        }
        Ok(!is_full)
    }
}
