//! Numbers, kinds, attributes and errors, as the image has them and as FUSE does.
//!
//! FUSE calls the root node 1, the image calls it inode 2; every other node has the number of its
//! inode.

use fuser::{FileAttr, FileType, INodeNo};
use mpage_ext4::{Attributes, Error, ErrorKind, FileKind, InodeNumber, Timestamp};

use super::time;

/// The inode that node `node` is.
pub(super) fn inode(node: INodeNo) -> InodeNumber {
    match node {
        INodeNo::ROOT => InodeNumber::ROOT,
        // What is no inode is none of the image's either.
        INodeNo(number) => InodeNumber(u32::try_from(number).unwrap_or(0)),
    }
}

/// What FUSE calls `kind`.
pub(super) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::SymbolicLink => FileType::Symlink,
        FileKind::CharacterDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
    }
}

/// What FUSE is told of a file.
pub(super) fn attributes(known: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(known.inode.0.into()),
        size: known.size,
        blocks: known.sectors,
        atime: time::to_fuse(known.accessed),
        mtime: time::to_fuse(known.modified),
        ctime: time::to_fuse(known.changed),
        crtime: time::to_fuse(known.created.unwrap_or_default()),
        kind: file_type(known.kind),
        perm: known.mode & 0o7777,
        nlink: known.links,
        uid: known.uid,
        gid: known.gid,
        rdev: known.device,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

/// What FUSE is told of a name that there is not, so that it need not ask again.
pub(super) fn nothing() -> FileAttr {
    let never = time::to_fuse(Timestamp::default());
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: never,
        mtime: never,
        ctime: never,
        crtime: never,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// What programs are advised to read and write at once.
const BLOCK_BYTES: u32 = 4096;

/// What FUSE is told instead of an answer. What is more than an answer goes to the log.
pub(super) fn errno(error: &Error) -> fuser::Errno {
    let errno = error.kind.errno();
    let is_serious = match error.kind {
        ErrorKind::Errno(errno) => errno == mpage_block::Errno::IO,
        _ => true,
    };
    if is_serious {
        tracing::error!("{error}");
    }
    fuser::Errno::from_i32(errno.raw_os_error())
}
