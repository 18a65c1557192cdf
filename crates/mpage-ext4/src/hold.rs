//! Inodes that somebody outside knows by their numbers.
//!
//! Who serves an image to others gives them numbers of inodes, and cannot know whether one is
//! about to be used: it holds those. What is held is not freed when its last name goes, so that
//! its number means the same file for as long as it is held, and it can be looked at, changed and
//! opened.
//!
//! 1. An inode is held only if it has a name, or is held already: one that is being freed cannot
//!    become held.
//! 2. Holds change under the metadata lock at least, shared; an inode is freed under it alone.
//! 3. Who gives up the last hold of an inode without names frees it, unless it is open.
//!
//! Linux: what `FUSE_LOOKUP` and `FUSE_FORGET` count, include/uapi/linux/fuse.h.

use std::collections::HashMap;

use mpage_block::Errno;
use mpage_locks::Mutex;

use crate::error::{Error, Result};
use crate::file_system::{Attributes, FileSystem};
use crate::inode::InodeNumber;
use crate::patience;

/// How often each inode is held. Its lock comes behind the metadata lock, and is held for a moment.
pub(crate) type Holds = Mutex<HashMap<InodeNumber, u64>>;

impl FileSystem {
    /// Holds `inode` once more, until [`unhold`](Self::unhold). Returns what is known of it.
    ///
    /// Who got the number by a name has to keep that name from going meanwhile.
    ///
    /// # Errors
    ///
    /// `ENOENT` when it has no name and nobody holds it; `Corrupt`; the device's.
    pub fn hold(&self, inode: InodeNumber) -> Result<Attributes> {
        let known = self.metadata.read_and(
            |view| view.inode(inode),
            |known| {
                let mut holds = self.metadata.holds.lock();
                if known.links == 0 && !holds.contains_key(&inode) {
                    return Err(Error::errno(Errno::NOENT, format!("inode {inode} was removed")));
                }
                *holds.entry(inode).or_default() += 1;
                Ok(known)
            },
        )??;
        Ok(self.attributes_of(known))
    }

    /// Gives up `count` holds of `inode`. The last one of a file without names, that nobody has
    /// open, frees it: true when that is still to be done, by [`release`](Self::release). An image
    /// that was closed holds nothing any more.
    pub fn unhold(&self, inode: InodeNumber, count: u64) -> bool {
        {
            let _no_change = self.metadata.transactions.read();
            let mut holds = self.metadata.holds.lock();
            let Some(left) = holds.get_mut(&inode) else { return false };
            *left = left.saturating_sub(count);
            if *left > 0 {
                return false;
            }
            let _none = holds.remove(&inode);
        }
        self.metadata.orphans.lock().contains(&inode)
    }

    /// True when `inode` has lost its last name: who closes it last frees it, which waits.
    pub fn is_removed(&self, inode: InodeNumber) -> bool {
        self.metadata.orphans.lock().contains(&inode)
    }

    /// Frees what nobody holds any more, has open, or has a name of. Where it fails, `inode` is
    /// freed with the next commit, or when the image is opened again.
    pub fn release(&self, inode: InodeNumber) {
        if patience::may_wait() {
            // It stays an orphan.
            let begun = self.metadata.begin_writing();
            let _later = begun.and_then(|_writer| self.free_if_unused(inode));
        }
    }

    /// Gives up all holds.
    pub(crate) fn unhold_all(&self) {
        self.metadata.holds.lock().clear();
    }
}
