//! What can be seen of files from outside.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RawDir, SeekFrom, Statx, StatxFlags, StatxTimestamp, openat,
    seek, statx,
};
use rustix::io::Errno;

/// A time: seconds and nanoseconds.
pub(crate) type Instant = (i64, u32);

/// What statx(2) says of a file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) kind: FileType,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) links: u32,
    pub(crate) size: u64,
    pub(crate) blocks: u64,
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    pub(crate) accessed: Instant,
    pub(crate) modified: Instant,
    pub(crate) changed: Instant,
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { kind, mode, uid, gid, links, size, blocks, device, inode, .. } = self;
        let time = |(seconds, nanoseconds): Instant| format!("{seconds}.{nanoseconds:09}");
        let [accessed, modified, changed] = [self.accessed, self.modified, self.changed].map(time);
        write!(f, "{kind:?} {mode:04o} of {uid}:{gid}, {links} links, {size} bytes, ")?;
        write!(f, "{blocks} blocks, device {device:?}, inode {inode}, accessed {accessed}, ")?;
        write!(f, "modified {modified}, changed {changed}")
    }
}

/// All that lies in a folder, by path.
pub(crate) type Tree = BTreeMap<String, Seen>;

/// Depth to which folders are looked into.
const DEPTH_MAX: usize = 8;

fn instant(time: StatxTimestamp) -> Instant {
    (time.tv_sec, time.tv_nsec)
}

impl From<Statx> for Seen {
    fn from(stat: Statx) -> Seen {
        let mode = u32::from(stat.stx_mode);
        Seen {
            kind: FileType::from_raw_mode(mode),
            mode: mode & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            links: stat.stx_nlink,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            device: (stat.stx_rdev_major, stat.stx_rdev_minor),
            inode: stat.stx_ino,
            accessed: instant(stat.stx_atime),
            modified: instant(stat.stx_mtime),
            changed: instant(stat.stx_ctime),
        }
    }
}

/// Looks at `path` in `folder`, or at `folder` itself when the path is empty.
pub(crate) fn look(folder: impl AsFd, path: &str, flags: AtFlags) -> Result<Seen, Errno> {
    statx(folder, path, flags, StatxFlags::BASIC_STATS).map(Seen::from)
}

/// All names of an open folder, from its start, and the kinds they have.
pub(crate) fn names(folder: impl AsFd) -> Result<BTreeMap<String, FileType>, Errno> {
    let _start = seek(&folder, SeekFrom::Start(0))?;
    let mut found = BTreeMap::new();
    let mut memory = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(folder, &mut memory);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type();
        if found.insert(name.clone(), kind).is_some() {
            let _none = found.insert(format!("{name}, listed twice"), kind);
        }
    }
    Ok(found)
}

/// Opens a folder to list it.
pub(crate) fn folder(at: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty())
}

/// Looks at all that is in the folder `root`.
pub(crate) fn tree(root: &OwnedFd) -> Result<Tree, Errno> {
    let mut tree = Tree::new();
    let _none = tree.insert(".".to_owned(), look(root, "", AtFlags::EMPTY_PATH)?);
    below(root, ".", DEPTH_MAX, &mut tree)?;
    Ok(tree)
}

fn below(at: &OwnedFd, path: &str, depth: usize, tree: &mut Tree) -> Result<(), Errno> {
    for (name, kind) in names(folder(at, ".")?)? {
        if name == "." || name == ".." {
            continue;
        }
        let seen = match look(at, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(seen) => seen,
            Err(errno) => {
                let none = look(at, ".", AtFlags::empty())?;
                let _none = tree.insert(format!("{path}/{name}, listed, but {errno:?}"), none);
                continue;
            }
        };
        let place = format!("{path}/{name}");
        if seen.kind != kind {
            let _none = tree.insert(format!("{place}, listed as {kind:?}"), seen.clone());
        }
        if seen.kind == FileType::Directory && depth > 0 {
            below(&folder(at, &name)?, &place, depth - 1, tree)?;
        }
        let _none = tree.insert(place, seen);
    }
    Ok(())
}
