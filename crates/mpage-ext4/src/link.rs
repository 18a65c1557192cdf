//! Further names of a file.
//!
//! Linux: `ext4_link()`, fs/ext4/namei.c; `vfs_link()`, fs/namei.c.

use mpage_block::Errno;

use crate::create::LINKS_MAX;
use crate::directory::{self, Name};
use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::inode::{APPEND_FLAG, FileKind, IMMUTABLE_FLAG, InodeNumber, Timestamp};
use crate::names;

impl FileSystem {
    /// Gives `inode` another name, in `parent`.
    ///
    /// # Errors
    ///
    /// `EEXIST`; `EPERM` of a directory, and when flags forbid it; `EMLINK` when it has 65000
    /// names; `ENOENT` when it has none any more, or `parent` was removed; `ENOTDIR`;
    /// `ENAMETOOLONG`; `EINVAL` of a name that cannot be; `ENOSPC`; `EROFS`; `Corrupt`; the
    /// device's.
    pub fn link(&self, inode: InodeNumber, parent: InodeNumber, name: &[u8]) -> Result<()> {
        names::check(name)?;
        let _writer = self.metadata.begin_writing()?;
        self.warm_up(parent, name)?;
        let now = Timestamp::now();
        self.metadata.change(|change| {
            let fails = |errno| Err(Error::errno(errno, format!("inode {inode}")).into());
            let mut parent = names::directory(change, parent, false)?;
            if directory::find(change, &parent, name)?.is_some() {
                return fails(Errno::EXIST);
            }
            let mut inode = change.inode(inode)?;
            if inode.kind == FileKind::Directory {
                return fails(Errno::PERM);
            }
            names::check_flags(&inode, IMMUTABLE_FLAG | APPEND_FLAG)?;
            match inode.links {
                0 => return fails(Errno::NOENT),
                LINKS_MAX.. => return fails(Errno::MLINK),
                _ => inode.links += 1,
            }
            inode.changed = now;
            change.put_inode(&inode)?;
            directory::insert(change, &mut parent, &Name::new(name, &inode))?;
            (parent.modified, parent.changed) = (now, now);
            change.put_inode(&parent)
        })
    }
}
