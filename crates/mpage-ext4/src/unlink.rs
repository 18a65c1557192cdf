//! Names that go: of files, and of empty directories.
//!
//! Linux: `ext4_unlink()`, `ext4_rmdir()`, `ext4_empty_dir()`, fs/ext4/namei.c; `may_delete()`,
//! fs/namei.c.

use mpage_block::Errno;

use crate::change::Change;
use crate::emptiness::Emptiness;
use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::inode::{APPEND_FLAG, FileKind, IMMUTABLE_FLAG, Inode, InodeNumber, Timestamp};
use crate::layers::Attempt;
use crate::rename::At;
use crate::view::View;
use crate::{directory, names, orphan};

impl FileSystem {
    /// Takes `name` out of `parent`. A file without names is freed as soon as nobody has it open.
    ///
    /// # Errors
    ///
    /// `ENOENT`, also when `parent` was removed; `EISDIR` of a directory; `ENOTDIR`;
    /// `ENAMETOOLONG`; `EPERM` when flags forbid it; `EROFS`; `Corrupt` and the device's, also when
    /// the name is gone and the file cannot be freed.
    pub fn unlink(&self, parent: InodeNumber, name: &[u8]) -> Result<()> {
        names::check_len(name)?;
        let _writer = self.metadata.begin_writing()?;
        self.warm_up(parent, name)?;
        let now = Timestamp::now();
        let gone = self.metadata.change(|change| {
            let mut parent = names::directory(change, parent, true)?;
            let mut inode = named(change, &parent, name)?;
            if inode.kind == FileKind::Directory {
                return Err(Error::errno(Errno::ISDIR, format!("inode {}", inode.number)).into());
            }
            names::check_flags(&inode, IMMUTABLE_FLAG | APPEND_FLAG)?;
            directory::remove(change, &parent, name)?;
            (parent.modified, parent.changed) = (now, now);
            change.put_inode(&parent)?;
            let is_gone = lose_name(change, &mut inode, now)?;
            Ok(is_gone.then_some(inode.number))
        })?;
        self.release_if_gone(gone)
    }

    /// Takes directory `name`, which is empty, out of `parent`.
    ///
    /// # Errors
    ///
    /// `ENOENT`, also when `parent` was removed; `ENOTEMPTY`, also of `..`; `EINVAL` of `.`;
    /// `EBUSY` of the root; `ENOTDIR`; `ENAMETOOLONG`; `EPERM` when flags forbid it; `EROFS`;
    /// `Corrupt` and the device's, also when the name is gone and the directory cannot be freed.
    pub fn rmdir(&self, parent: InodeNumber, name: &[u8]) -> Result<()> {
        let errno = match name {
            b"." => Some(Errno::INVAL),
            b".." => Some(Errno::NOTEMPTY),
            _ => None,
        };
        if let Some(errno) = errno {
            return Err(Error::errno(errno, format!("'{}'", name.escape_ascii())));
        }
        let _writer = self.metadata.begin_writing()?;
        let now = Timestamp::now();
        loop {
            let seen = self.look_if_empty(self.lookup(parent, name)?)?;
            let remove = |change: &mut Change<'_>| {
                remove_directory(change, At { parent, name }, seen.as_ref(), now)
            };
            if let Some(gone) = self.metadata.change(remove)? {
                return self.release_if_gone(Some(gone));
            }
        }
    }

    /// Frees `gone`, a file that has lost its last name, unless somebody has it open or holds it.
    pub(crate) fn release_if_gone(&self, gone: Option<InodeNumber>) -> Result<()> {
        match gone {
            Some(inode) => self.free_if_unused(inode),
            None => Ok(()),
        }
    }
}

/// Takes directory `at`, which is empty, out of its parent; returns it. `None` when one has to look
/// again whether it is empty, which was `seen`.
fn remove_directory(
    change: &mut Change<'_>,
    at: At<'_>,
    seen: Option<&Emptiness<'_>>,
    now: Timestamp,
) -> Attempt<Option<InodeNumber>> {
    let mut parent = names::directory(change, at.parent, true)?;
    let mut inode = named(change, &parent, at.name)?;
    let fails = |errno, number| Err(Error::errno(errno, format!("inode {number}")).into());
    if inode.kind != FileKind::Directory {
        return fails(Errno::NOTDIR, inode.number);
    }
    if inode.number == InodeNumber::ROOT {
        return fails(Errno::BUSY, inode.number);
    }
    names::check_flags(&inode, IMMUTABLE_FLAG | APPEND_FLAG)?;
    let Some(seen) = seen else { return Ok(None) };
    match seen.of(change, &directory::inode(change, inode.number)?)? {
        None => return Ok(None),
        Some(false) => return fails(Errno::NOTEMPTY, inode.number),
        Some(true) => {}
    }
    directory::remove(change, &parent, at.name)?;
    parent.lose_directory();
    (parent.modified, parent.changed) = (now, now);
    change.put_inode(&parent)?;
    let _gone = lose_name(change, &mut inode, now)?;
    Ok(Some(inode.number))
}

/// The inode that has `name` in `directory`.
///
/// # Errors
///
/// `ENOENT`; `Corrupt`.
pub(crate) fn named(view: &View<'_>, directory: &Inode, name: &[u8]) -> Attempt<Inode> {
    let found = directory::find(view, directory, name)?;
    let number = found.ok_or_else(|| names::no_name(directory.number, name))?.inode;
    view.inode(number)
}

/// Counts a name of `inode` less, a directory's last one, and writes it. Without any it is an
/// orphan: true.
///
/// # Errors
///
/// `Corrupt`.
pub(crate) fn lose_name(
    change: &mut Change<'_>,
    inode: &mut Inode,
    now: Timestamp,
) -> Attempt<bool> {
    inode.changed = now;
    inode.links = match inode.kind {
        FileKind::Directory => 0,
        _ => {
            let none = || Error::corrupt(format!("inode {} has no names", inode.number));
            inode.links.checked_sub(1).ok_or_else(none)?
        }
    };
    if inode.links == 0 {
        orphan::add(change, inode)?;
    }
    change.put_inode(inode)?;
    Ok(inode.links == 0)
}
