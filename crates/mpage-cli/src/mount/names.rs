//! Names: looked up, made, moved and removed.

use fuser::RenameFlags;
use mpage_block::Errno;
use mpage_ext4::{At, Attributes, Error, ErrorKind, Existing, FileKind, InodeNumber, New, Result};

use super::shared::Shared;

/// What a request wants a new file to be like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) mode: u32,
    pub(super) umask: u32,
    pub(super) owner: (u32, u32),
    pub(super) device: u32,
}

impl Shared {
    /// What `name` in `parent` is, which is held from then on; `None` if there is no such name.
    ///
    /// # Errors
    ///
    /// Those of the image.
    pub(super) fn look_up(&self, parent: InodeNumber, name: &[u8]) -> Result<Option<Attributes>> {
        match self.fs.lookup(parent, name) {
            Ok(inode) => self.fs.hold(inode).map(Some),
            Err(error) if error.kind == ErrorKind::Errno(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a file that is no directory and no symbolic link, unless it was `made`.
    ///
    /// # Errors
    ///
    /// Those of the image; `EINVAL` of a mode without a kind.
    pub(super) fn create(
        &self,
        made: &mut Option<InodeNumber>,
        parent: InodeNumber,
        name: &[u8],
        wanted: Wanted,
    ) -> Result<Attributes> {
        self.make(made, |fs| {
            let kind = FileKind::of_mode((wanted.mode & 0xf000) as u16);
            let kind = kind.ok_or_else(|| Error {
                kind: ErrorKind::Errno(Errno::INVAL),
                detail: format!("a file of mode {:o}", wanted.mode),
            })?;
            let permissions = self.permissions(parent, wanted.mode, wanted.umask)?;
            let (uid, gid) = wanted.owner;
            let new = New { kind, permissions, uid, gid, device: wanted.device };
            fs.create(parent, name, &new)
        })
    }

    /// Makes a directory, unless it was `made`.
    ///
    /// # Errors
    ///
    /// Those of the image.
    pub(super) fn make_directory(
        &self,
        made: &mut Option<InodeNumber>,
        parent: InodeNumber,
        name: &[u8],
        wanted: Wanted,
    ) -> Result<Attributes> {
        self.make(made, |fs| {
            let permissions = self.permissions(parent, wanted.mode, wanted.umask)?;
            fs.mkdir(parent, name, permissions, wanted.owner)
        })
    }

    /// Gives what has the name `from` the name `to`.
    ///
    /// # Errors
    ///
    /// Those of the image; `EINVAL` of flags that it does not know.
    pub(super) fn rename(&self, from: At<'_>, to: At<'_>, flags: RenameFlags) -> Result<()> {
        let existing = match flags {
            flags if flags.is_empty() => Existing::Replace,
            RenameFlags::RENAME_NOREPLACE => Existing::Keep,
            RenameFlags::RENAME_EXCHANGE => Existing::Exchange,
            _ => {
                let detail = format!("a rename with {flags:?}");
                return Err(Error { kind: ErrorKind::Errno(Errno::INVAL), detail });
            }
        };
        self.fs.rename(from, to, existing)
    }
}
