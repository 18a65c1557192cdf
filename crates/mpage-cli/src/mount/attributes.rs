//! Attributes, extended attributes and the room of the image.

use fuser::TimeOrNow;
use mpage_block::Errno;
use mpage_ext4::{
    Attributes, Error, ErrorKind, FileKind, InodeNumber, NewAttributes, Result, Timestamp,
    XattrFlags,
};

use super::privileges::{self, CAPABILITY};
use super::shared::Shared;
use super::time::{self, Time};

/// The kinds of extended attributes that ext4 has.
const KINDS: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
const LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// What a request wants of a file's attributes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    pub(super) mode: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) accessed: Option<TimeOrNow>,
    pub(super) modified: Option<TimeOrNow>,
    pub(super) changed: Option<Time>,
}

impl Wanted {
    /// True when nothing is to become anything else.
    pub(super) fn is_nothing(&self) -> bool {
        let Wanted { mode, uid, gid, accessed, modified, changed } = self;
        let owner = uid.is_some() || gid.is_some();
        let times = accessed.is_some() || modified.is_some() || changed.is_some();
        !(mode.is_some() || owner || times)
    }
}

fn timestamp(wanted: TimeOrNow) -> Timestamp {
    match wanted {
        TimeOrNow::Now => Timestamp::now(),
        TimeOrNow::SpecificTime(time) => time::of_fuse(time),
    }
}

impl Shared {
    /// Changes what user `by` has `wanted` of `inode`.
    ///
    /// Nothing is what a `chown(2)` wants that names neither owner nor group: privileges go, and
    /// the time of the last change is now. The kernel lets everybody ask for it, and asks for the
    /// same before somebody writes: privileges that are another user's stay.
    ///
    /// # Errors
    ///
    /// Those of [`FileSystem::set_attributes`](mpage_ext4::FileSystem::set_attributes).
    pub(super) fn set_attributes(
        &self,
        inode: InodeNumber,
        by: u32,
        wanted: &Wanted,
    ) -> Result<Attributes> {
        let mut permissions = wanted.mode.map(|mode| (mode & 0o7777) as u16);
        let mut changes_owner = wanted.uid.is_some() || wanted.gid.is_some();
        if wanted.is_nothing() {
            let now = self.fs.attributes(inode)?;
            changes_owner = by == 0 || by == now.uid;
            if !changes_owner && privileges::without(now.mode) != now.mode {
                return Ok(now);
            }
        }
        if changes_owner {
            let now = self.fs.attributes(inode)?;
            if now.kind == FileKind::Regular {
                let _none_left = privileges::take_from(&self.fs, inode, false)?;
            }
            let left = privileges::without(now.mode & 0o7777);
            if now.kind != FileKind::Directory && left != now.mode & 0o7777 {
                permissions = permissions.or(Some(left));
            }
        }
        let new = NewAttributes {
            permissions,
            uid: wanted.uid,
            gid: wanted.gid,
            accessed: wanted.accessed.map(timestamp),
            modified: wanted.modified.map(timestamp),
            changed: wanted.changed.map(time::of_fuse),
        };
        self.fs.set_attributes(inode, &new)?;
        if wanted.mode.is_some() {
            self.privileges.note();
        }
        self.fs.attributes(inode)
    }

    /// Gives `inode` extended attribute `name`; `flags` are those of `setxattr(2)`.
    ///
    /// # Errors
    ///
    /// Those of the image; `EINVAL` of unknown flags.
    pub(super) fn set_xattr(
        &self,
        inode: InodeNumber,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> Result<()> {
        check_kind(name)?;
        let flags = match flags {
            0 => XattrFlags::None,
            1 => XattrFlags::Create,
            2 => XattrFlags::Replace,
            // There is nothing that is there and is not.
            3 => {
                let _there = self.fs.extended_attribute(inode, name)?;
                return Err(error(Errno::EXIST, name));
            }
            _ => return Err(error(Errno::INVAL, name)),
        };
        self.fs.set_extended_attribute(inode, name, value, flags)?;
        if name == CAPABILITY {
            self.privileges.note();
        }
        Ok(())
    }

    /// Extended attribute `name` of `inode`.
    ///
    /// # Errors
    ///
    /// Those of the image; `EOPNOTSUPP` of a kind that ext4 has not.
    pub(super) fn xattr(&self, inode: InodeNumber, name: &[u8]) -> Result<Vec<u8>> {
        check_kind(name)?;
        self.fs.extended_attribute(inode, name)
    }

    /// The names of the extended attributes of `inode`, each with a zero behind it, as user `uid`
    /// sees them.
    ///
    /// # Errors
    ///
    /// Those of the image.
    pub(super) fn xattr_names(&self, inode: InodeNumber, uid: u32) -> Result<Vec<u8>> {
        let mut list = Vec::new();
        for name in self.fs.extended_attribute_names(inode)? {
            if uid == 0 || !name.starts_with(b"trusted.") {
                list.extend(name);
                list.push(0);
            }
        }
        Ok(list)
    }

    /// Takes extended attribute `name` from `inode`.
    ///
    /// # Errors
    ///
    /// Those of the image.
    pub(super) fn remove_xattr(&self, inode: InodeNumber, name: &[u8]) -> Result<()> {
        check_kind(name)?;
        self.fs.remove_extended_attribute(inode, name)
    }

    /// The permissions that a new file in `parent` gets, for which a program asked for `mode`.
    ///
    /// # Errors
    ///
    /// Those of looking at `parent`.
    pub(super) fn permissions(&self, parent: InodeNumber, mode: u32, umask: u32) -> Result<u16> {
        let has_list = umask & 0o777 != 0
            && match self.fs.extended_attribute(parent, LISTS[1]) {
                Ok(_) => true,
                Err(error) if error.kind == ErrorKind::Errno(Errno::NODATA) => false,
                Err(error) => return Err(error),
            };
        let mode = if has_list { mode } else { mode & !umask };
        Ok((mode & 0o7777) as u16)
    }
}

/// Checks that ext4 has attributes like `name`.
///
/// # Errors
///
/// `EOPNOTSUPP`; `EINVAL` of a name that is nothing but its kind.
fn check_kind(name: &[u8]) -> Result<()> {
    if KINDS.contains(&name) {
        return Err(error(Errno::INVAL, name));
    }
    match LISTS.contains(&name) || KINDS.iter().any(|kind| name.starts_with(kind)) {
        true => Ok(()),
        false => Err(error(Errno::OPNOTSUPP, name)),
    }
}

fn error(errno: Errno, name: &[u8]) -> Error {
    Error { kind: ErrorKind::Errno(errno), detail: format!("attribute {}", name.escape_ascii()) }
}
