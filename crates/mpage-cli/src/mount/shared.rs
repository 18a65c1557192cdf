//! What all requests share: the image and what programs have open of it.

use std::sync::Arc;
use std::time::Duration;

use mpage_ext4::{Attributes, FileSystem, InodeNumber, Result};

use super::handles::Handles;
use super::privileges::Privileges;

/// How long the kernel may keep what it was told: nobody else changes the image.
pub(super) const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// What all requests share.
pub(super) struct Shared {
    pub(super) fs: Arc<FileSystem>,
    pub(super) handles: Handles,
    pub(super) privileges: Privileges,
}

impl Shared {
    /// Of `fs`, of which nothing is open.
    pub(super) fn new(fs: Arc<FileSystem>) -> Shared {
        Shared { fs, handles: Handles::default(), privileges: Privileges::default() }
    }

    /// Makes a file, unless it was `made` by an attempt that went no further, and holds it.
    pub(super) fn make(
        &self,
        made: &mut Option<InodeNumber>,
        make: impl FnOnce(&FileSystem) -> Result<InodeNumber>,
    ) -> Result<Attributes> {
        let inode = match *made {
            Some(inode) => inode,
            None => *made.insert(make(&self.fs)?),
        };
        self.fs.hold(inode)
    }
}
