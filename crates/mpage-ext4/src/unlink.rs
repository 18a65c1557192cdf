//! Names that go: of files, and of empty directories.
//!
//! Linux: `ext4_unlink()`, `ext4_rmdir()`, fs/ext4/namei.c; `may_delete()`, fs/namei.c.

use mpage_block::Errno;

use crate::change::Change;
use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::inode::{APPEND_FLAG, FileKind, IMMUTABLE_FLAG, Inode, InodeNumber, Timestamp};
use crate::layers::Attempt;
use crate::listing::Cookie;
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
        self.warm_up_all(self.lookup(parent, name)?)?;
        let now = Timestamp::now();
        let gone = self.metadata.change(|change| {
            let mut parent = names::directory(change, parent, true)?;
            let mut inode = named(change, &parent, name)?;
            let fails = |errno, number| Err(Error::errno(errno, format!("inode {number}")).into());
            if inode.kind != FileKind::Directory {
                return fails(Errno::NOTDIR, inode.number);
            }
            if inode.number == InodeNumber::ROOT {
                return fails(Errno::BUSY, inode.number);
            }
            names::check_flags(&inode, IMMUTABLE_FLAG | APPEND_FLAG)?;
            if !directory::is_empty(change, &directory::inode(change, inode.number)?)? {
                return fails(Errno::NOTEMPTY, inode.number);
            }
            directory::remove(change, &parent, name)?;
            parent.lose_directory();
            (parent.modified, parent.changed) = (now, now);
            change.put_inode(&parent)?;
            let _gone = lose_name(change, &mut inode, now)?;
            Ok(Some(inode.number))
        })?;
        self.release_if_gone(gone)
    }

    /// Frees `gone`, a file that has lost its last name, unless somebody has it open.
    pub(crate) fn release_if_gone(&self, gone: Option<InodeNumber>) -> Result<()> {
        match gone {
            Some(inode) => self.release(inode),
            None => Ok(()),
        }
    }

    /// Brings the blocks of `directory`, which is to be empty, into memory, if it is one: a change
    /// that needs them begins again for each one that is not there. It may be gone by now: the
    /// change will see.
    pub(crate) fn warm_up_all(&self, directory: InodeNumber) -> Result<()> {
        match self.read_while_empty(directory) {
            Err(error) if matches!(error.kind.errno(), Errno::NOENT | Errno::NOTDIR) => Ok(()),
            result => result,
        }
    }

    fn read_while_empty(&self, directory: InodeNumber) -> Result<()> {
        let mut from = Some(Cookie::START);
        while let Some(cookie) = from {
            let some = self.read_directory(directory, cookie)?;
            let is_empty = some.entries.iter().all(|it| matches!(&it.name[..], b"." | b".."));
            from = some.next.filter(|_| is_empty);
        }
        Ok(())
    }
}

/// The inode that has `name` in `directory`.
///
/// # Errors
///
/// `ENOENT`; `Corrupt`.
pub(crate) fn named(change: &Change<'_>, directory: &Inode, name: &[u8]) -> Attempt<Inode> {
    let found = directory::find(change, directory, name)?;
    let number = found.ok_or_else(|| names::no_name(directory.number, name))?.inode;
    change.inode(number)
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
