//! Changes of what is known of a file beside its name and its content.
//!
//! Linux: `ext4_setattr()`, fs/ext4/inode.c; `setattr_copy()`, fs/attr.c.

use crate::change::Change;
use crate::error::Result;
use crate::file_system::FileSystem;
use crate::inode::{APPEND_FLAG, IMMUTABLE_FLAG, InodeNumber, Timestamp};
use crate::{acl, names};

/// What is to be changed of a file; what is `None` stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewAttributes {
    /// The twelve bits of permissions.
    pub permissions: Option<u16>,
    /// The owner.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// When it was read.
    pub accessed: Option<Timestamp>,
    /// When its content was changed.
    pub modified: Option<Timestamp>,
    /// When anything of it was changed: now, if `None`.
    pub changed: Option<Timestamp>,
}

impl FileSystem {
    /// Changes what is known of `inode`. Whether the bits setuid and setgid go with a new owner is
    /// the caller's to say.
    ///
    /// # Errors
    ///
    /// `EPERM` when its flags forbid it; `EROFS`; `Corrupt`; the device's.
    pub fn set_attributes(&self, inode: InodeNumber, new: &NewAttributes) -> Result<()> {
        let _writer = self.metadata.begin_writing()?;
        let now = Timestamp::now();
        let open = self.metadata.open.lock().get(&inode).cloned();
        let set = |change: &mut Change<'_>| {
            let mut inode = change.inode(inode)?;
            names::check_flags(&inode, IMMUTABLE_FLAG | APPEND_FLAG)?;
            // What was written before comes before this.
            let written = open.as_ref().and_then(|open| open.lock().modified);
            inode.modified = written.unwrap_or(inode.modified);
            if let Some(permissions) = new.permissions {
                acl::chmod(change, &mut inode, permissions)?;
            }
            inode.uid = new.uid.unwrap_or(inode.uid);
            inode.gid = new.gid.unwrap_or(inode.gid);
            inode.accessed = new.accessed.unwrap_or(inode.accessed);
            inode.modified = new.modified.unwrap_or(inode.modified);
            inode.changed = new.changed.unwrap_or(now);
            change.put_inode(&inode)?;
            Ok(written)
        };
        self.metadata.change_and(set, |written, _| {
            let Some(open) = &open else { return };
            let mut state = open.lock();
            if state.modified == written {
                state.modified = None;
            }
        })
    }
}
