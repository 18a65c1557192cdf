//! New files: of every kind but the further names of one, which `link` makes.
//!
//! Linux: `__ext4_new_inode()`, fs/ext4/ialloc.c; `ext4_create()`, `ext4_mknod()`, `ext4_mkdir()`,
//! `ext4_symlink()`, fs/ext4/namei.c; `inode_init_owner()`, fs/inode.c.

use mpage::Extent;
use mpage::units::{DeviceBlock, FileBlock};
use mpage_block::Errno;

use crate::change::Change;
use crate::directory::Name;
use crate::error::{Error, Result};
use crate::features::DIR_NLINK;
use crate::file_system::FileSystem;
use crate::inode::{FileKind, Inode, InodeNumber, Timestamp};
use crate::layers::Attempt;
use crate::superblock::Superblock;
use crate::{balloc, block_map, directory, ialloc, names, xattr};

/// Names of a file at most; of a directory too, where the image does not have it uncounted.
pub(crate) const LINKS_MAX: u16 = 65000;

/// The permission of a directory by which what is in it gets its group.
const SETGID: u16 = 0o2000;
/// Flags of a directory that what is in it gets: any file, any with content, or directories.
const FLAGS_OF_ANY: u32 = 0x40 | 0x80;
const FLAGS_OF_FILE: u32 = FLAGS_OF_ANY | 0x1 | 0x2 | 0x4 | 0x8 | 0x400 | 0x4000 | 0x8000;
const FLAGS_OF_DIRECTORY: u32 = FLAGS_OF_FILE | 0x1_0000;

/// What a new file is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct New {
    /// What it is.
    pub kind: FileKind,
    /// The twelve bits of permissions, the umask taken out if the directory has no default access
    /// list.
    pub permissions: u16,
    /// The owner.
    pub uid: u32,
    /// The group, where the directory does not say it.
    pub gid: u32,
    /// The number of a device file, as [`Attributes`](crate::Attributes) has it.
    pub device: u32,
}

impl FileSystem {
    /// Makes a file: a regular one, a fifo, a socket, or a device file.
    ///
    /// # Errors
    ///
    /// `EEXIST`; `ENOENT` when `parent` was removed; `ENOTDIR`; `ENAMETOOLONG`; `EINVAL` of a name
    /// that cannot be, and of other kinds; `EPERM` when the flags of `parent` forbid it; `ENOSPC`;
    /// `EROFS`; `Corrupt`; the device's.
    pub fn create(&self, parent: InodeNumber, name: &[u8], new: &New) -> Result<InodeNumber> {
        if matches!(new.kind, FileKind::Directory | FileKind::SymbolicLink) {
            let detail = format!("{} is to be made otherwise", name.escape_ascii());
            return Err(Error::errno(Errno::INVAL, detail));
        }
        self.make(parent, name, new, |_, _, inode| {
            if matches!(new.kind, FileKind::CharacterDevice | FileKind::BlockDevice) {
                inode.set_device(new.device);
            }
            Ok(())
        })
    }

    /// Makes a directory.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); `EMLINK` when `parent` has too many directories.
    pub fn mkdir(
        &self,
        parent: InodeNumber,
        name: &[u8],
        permissions: u16,
        (uid, gid): (u32, u32),
    ) -> Result<InodeNumber> {
        let new = New { kind: FileKind::Directory, permissions, uid, gid, device: 0 };
        self.make(parent, name, &new, |change, parent, inode| {
            parent.gain_directory(change.sb)?;
            inode.links = 2;
            directory::make(change, inode, parent.number)
        })
    }

    /// Makes a symbolic link that leads to `target`.
    ///
    /// # Errors
    ///
    /// As [`create`](Self::create); `ENOENT` of an empty target, `EINVAL` of one with a zero byte,
    /// `ENAMETOOLONG` of one that does not fit into a block with a zero behind it.
    pub fn symlink(
        &self,
        parent: InodeNumber,
        name: &[u8],
        target: &[u8],
        (uid, gid): (u32, u32),
    ) -> Result<InodeNumber> {
        if target.is_empty() {
            return Err(Error::errno(Errno::NOENT, "a symbolic link that leads nowhere"));
        }
        if target.contains(&0) {
            return Err(Error::errno(Errno::INVAL, "a symbolic link with a zero byte"));
        }
        let permissions = 0o777;
        let new = New { kind: FileKind::SymbolicLink, permissions, uid, gid, device: 0 };
        self.make(parent, name, &new, |change, _, inode| set_target(change, inode, target))
    }

    /// Makes a file, of which `fill` makes what only its kind has.
    fn make(
        &self,
        parent: InodeNumber,
        name: &[u8],
        new: &New,
        fill: impl Fn(&mut Change<'_>, &mut Inode, &mut Inode) -> Attempt<()>,
    ) -> Result<InodeNumber> {
        names::check(name)?;
        let _writer = self.metadata.begin_writing()?;
        self.warm_up(parent, name)?;
        let now = Timestamp::now();
        self.metadata.change(|change| {
            let mut parent = names::directory(change, parent, false)?;
            if directory::find(change, &parent, name)?.is_some() {
                let detail = format!("{} in {}", name.escape_ascii(), parent.number);
                return Err(Error::errno(Errno::EXIST, detail).into());
            }
            let taken = ialloc::allocate(change, parent.number, new.kind)?;
            let generation = taken.generation.wrapping_add(1);
            let mode = new.kind.mode() | new.permissions & 0o7777;
            let mut inode = Inode::new(change.sb, taken.number, generation, mode, now);
            (inode.uid, inode.gid, inode.links) = (new.uid, new.gid, 1);
            inherit(&parent, &mut inode);
            xattr::inherit(change, &parent, &mut inode)?;
            fill(change, &mut parent, &mut inode)?;
            change.put_inode(&inode)?;
            directory::insert(change, &mut parent, &Name::new(name, &inode))?;
            (parent.modified, parent.changed) = (now, now);
            change.put_inode(&parent)?;
            Ok(inode.number)
        })
    }
}

/// Gives new `inode` what it has of its directory.
fn inherit(parent: &Inode, inode: &mut Inode) {
    let flags = match inode.kind {
        FileKind::Directory => FLAGS_OF_DIRECTORY,
        FileKind::Regular => FLAGS_OF_FILE,
        _ => FLAGS_OF_ANY,
    };
    inode.flags |= parent.flags & flags;
    if parent.mode & SETGID != 0 {
        inode.gid = parent.gid;
        if inode.kind == FileKind::Directory {
            inode.mode |= SETGID;
        }
    }
}

/// Puts `target` into new symbolic link `inode`.
fn set_target(change: &mut Change<'_>, inode: &mut Inode, target: &[u8]) -> Attempt<()> {
    inode.size = target.len() as u64;
    if target.len() < inode.block.len() {
        inode.block[..target.len()].copy_from_slice(target);
        return Ok(());
    }
    if target.len() as u64 >= change.sb.block_bytes {
        let detail = format!("a symbolic link with a target of {} bytes", target.len());
        return Err(Error::errno(Errno::NAMETOOLONG, detail).into());
    }
    inode.set_empty_map(change.sb);
    let block = balloc::allocate(change, change.goal_of_inode(inode.number))?;
    let run = Extent::mapped(FileBlock(0), DeviceBlock(block), 1);
    block_map::insert(change, inode, &run)?;
    let mut bytes = vec![0; usize::try_from(change.sb.block_bytes).expect("at most a page")];
    bytes[..target.len()].copy_from_slice(target);
    change.fill(block, bytes);
    Ok(())
}

impl Inode {
    /// Counts another directory in this one. One link says that they are too many to be counted.
    /// Linux: `ext4_inc_count()`.
    ///
    /// # Errors
    ///
    /// `EMLINK`.
    pub(crate) fn gain_directory(&mut self, sb: &Superblock) -> Result<()> {
        let is_uncounted = sb.features.ro_compat(DIR_NLINK) && directory::is_hashed(sb, self);
        self.links = match self.links {
            1 if is_uncounted => 1,
            links if links < LINKS_MAX => links + 1,
            _ if is_uncounted => 1,
            _ => {
                let detail = format!("the directories in directory {}", self.number);
                return Err(Error::errno(Errno::MLINK, detail));
            }
        };
        Ok(())
    }

    /// Counts a directory in this one less.
    pub(crate) fn lose_directory(&mut self) {
        if self.links > 2 {
            self.links -= 1;
        }
    }
}
