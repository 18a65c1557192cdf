//! Who makes the calls of a program: on one mount, in a folder of the program's own.

use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid,
    accessat, chmodat, chownat, copy_file_range, fallocate, fchmod, fchown, fcntl_getfl, fdatasync,
    fgetxattr, flistxattr, fremovexattr, fsetxattr, fstatvfs, fsync, ftruncate, futimens, getxattr,
    lgetxattr, linkat, listxattr, llistxattr, lremovexattr, lsetxattr, makedev, mkdirat, mknodat,
    openat, readlinkat, removexattr, renameat_with, seek, setxattr, symlinkat, syncfs, unlinkat,
    utimensat,
};
use rustix::io::{Errno, pread, pwrite, read, write};

use crate::call::{Call, Content, Name, Object, SLOTS, Slot, Time};
use crate::outcome::Outcome;
use crate::seen::{Seen, Tree, look, names, tree};

/// Folders that a program's folder lies below, so that no `..` leaves it.
const ABOVE: &str = "w/x/y/z";

/// Bytes that memory for direct I/O is aligned to.
const ALIGNMENT: usize = 4096;

/// A program's folder on a mount, and its open files.
pub(crate) struct Player {
    /// The folder that is removed when the program ends.
    whole: PathBuf,
    path: PathBuf,
    root: OwnedFd,
    open: [Option<OwnedFd>; SLOTS],
}

impl Player {
    pub(crate) fn new(mount: &Path, name: &str) -> Player {
        let whole = mount.join(name);
        let path = whole.join(ABOVE);
        std::fs::create_dir_all(&path).unwrap();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, &path, flags, Mode::empty()).unwrap();
        fchmod(&root, Mode::from_raw_mode(0o777)).unwrap();
        Player { whole, path, root, open: [const { None }; SLOTS] }
    }

    /// All that is in the folder.
    pub(crate) fn tree(&self) -> Result<Tree, Errno> {
        tree(&self.root)
    }

    /// What is seen of an open file.
    pub(crate) fn look_at(&self, slot: Slot) -> Option<Seen> {
        let file = self.open[slot].as_ref()?;
        Some(look(file, "", AtFlags::EMPTY_PATH).unwrap())
    }

    /// Forgets an open file.
    pub(crate) fn close(&mut self, slot: Slot) {
        self.open[slot] = None;
    }

    /// The folder.
    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// The open file there.
    pub(crate) fn file(&self, slot: Slot) -> Option<&OwnedFd> {
        self.open[slot].as_ref()
    }

    /// A path for calls that take no folder.
    pub(crate) fn whole_path(&self, name: &str) -> String {
        match name.is_empty() {
            true => String::new(),
            false => format!("{}/{name}", self.path.display()),
        }
    }

    pub(crate) fn play(&mut self, call: &Call) -> Outcome {
        self.names(call)
            .or_else(|| self.attributes(call))
            .or_else(|| self.content(call))
            .unwrap_or(Outcome::Skipped)
    }

    /// Calls about names. `None`: it is another call, or there is no such open file.
    fn names(&mut self, call: &Call) -> Option<Outcome> {
        let root = &self.root;
        Some(match call {
            Call::Open { slot, path, flags, mode } => {
                return Some(self.open(*slot, path, *flags, mode.0));
            }
            Call::Close { slot } => {
                let _file = self.open[*slot].take()?;
                Outcome::Done
            }
            Call::Mkdir { path, mode } => {
                Outcome::done(mkdirat(root, &*path.0, Mode::from_raw_mode(mode.0)))
            }
            Call::Unlink { path, flags } => Outcome::done(unlinkat(root, &*path.0, *flags)),
            Call::Rename { from, to, flags } => {
                Outcome::done(renameat_with(root, &*from.0, root, &*to.0, *flags))
            }
            Call::Link { from, to, flags } => {
                Outcome::done(linkat(root, &*from.0, root, &*to.0, *flags))
            }
            Call::LinkOpen { slot, to } => {
                let file = self.open[*slot].as_ref()?;
                Outcome::done(linkat(file, "", root, &*to.0, AtFlags::EMPTY_PATH))
            }
            Call::Symlink { target, path } => Outcome::done(symlinkat(&*target.0, root, &*path.0)),
            Call::ReadLink { path } => {
                Outcome::of(readlinkat(root, &*path.0, Vec::new()), |target| {
                    Outcome::Bytes(target.into_bytes())
                })
            }
            Call::Mknod { path, kind, mode, device } => {
                let device: Dev = makedev(device.0, device.1);
                Outcome::done(mknodat(root, &*path.0, *kind, Mode::from_raw_mode(mode.0), device))
            }
            Call::List { slot } => {
                let folder = self.open[*slot].as_ref()?;
                let names = names(folder);
                // Where a list has come to is each one's own.
                let _start = seek(folder, SeekFrom::Start(0));
                Outcome::of(names, |names| {
                    Outcome::Names(
                        names.iter().map(|(name, kind)| format!("{name} {kind:?}")).collect(),
                    )
                })
            }
            Call::Fill { path, count } => self.fill(path, *count),
            Call::Thin { path, count } => self.thin(path, *count),
            _ => return None,
        })
    }

    /// Opens a file. No open waits for the other end of a pipe.
    fn open(&mut self, slot: Slot, path: &Name, flags: OFlags, mode: u32) -> Outcome {
        let flags = flags | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        match openat(&self.root, &*path.0, flags, Mode::from_raw_mode(mode)) {
            Ok(file) => {
                self.open[slot] = Some(file);
                Outcome::Done
            }
            Err(errno) => Outcome::Failed(errno),
        }
    }

    fn fill(&self, path: &Name, count: usize) -> Outcome {
        if path.0.is_empty() {
            // It would be the root of all file systems.
            return Outcome::Skipped;
        }
        for number in 0..count {
            let name = format!("{}/name-{number}", path.0);
            if let Err(errno) = mknodat(&self.root, &*name, FileType::RegularFile, Mode::RUSR, 0) {
                return Outcome::Failed(errno);
            }
        }
        Outcome::Done
    }

    fn thin(&self, path: &Name, count: usize) -> Outcome {
        if path.0.is_empty() {
            return Outcome::Skipped;
        }
        for number in (0..count).step_by(2) {
            let name = format!("{}/name-{number}", path.0);
            if let Err(errno) = unlinkat(&self.root, &*name, AtFlags::empty()) {
                return Outcome::Failed(errno);
            }
        }
        Outcome::Done
    }

    /// Calls about attributes.
    fn attributes(&mut self, call: &Call) -> Option<Outcome> {
        let root = &self.root;
        Some(match call {
            Call::Chmod { object, mode } => {
                let mode = Mode::from_raw_mode(mode.0);
                Outcome::done(match object {
                    Object::Path(path) => chmodat(root, &*path.0, mode, AtFlags::empty()),
                    Object::Link(path) => chmodat(root, &*path.0, mode, AtFlags::SYMLINK_NOFOLLOW),
                    Object::Open(slot) => fchmod(self.open[*slot].as_ref()?, mode),
                })
            }
            Call::Chown { object, uid, gid } => {
                let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
                Outcome::done(match object {
                    Object::Path(path) => chownat(root, &*path.0, uid, gid, AtFlags::empty()),
                    Object::Link(path) => {
                        chownat(root, &*path.0, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
                    }
                    Object::Open(slot) => fchown(self.open[*slot].as_ref()?, uid, gid),
                })
            }
            Call::Times { object, access, modification } => {
                let times = Timestamps {
                    last_access: timespec(*access),
                    last_modification: timespec(*modification),
                };
                Outcome::done(match object {
                    Object::Path(path) => utimensat(root, &*path.0, &times, AtFlags::empty()),
                    Object::Link(path) => {
                        utimensat(root, &*path.0, &times, AtFlags::SYMLINK_NOFOLLOW)
                    }
                    Object::Open(slot) => futimens(self.open[*slot].as_ref()?, &times),
                })
            }
            Call::Access { path, access, flags } => {
                let access: Access = *access;
                Outcome::done(accessat(root, &*path.0, access, *flags))
            }
            Call::Stat { object } => {
                let seen = match object {
                    Object::Path(path) => look(root, &path.0, AtFlags::empty()),
                    Object::Link(path) => look(root, &path.0, AtFlags::SYMLINK_NOFOLLOW),
                    Object::Open(slot) => look(self.open[*slot].as_ref()?, "", AtFlags::EMPTY_PATH),
                };
                Outcome::of(seen, Outcome::Saw)
            }
            Call::Umask { mode } => {
                // It is the process's, and set for both mounts at once.
                let _before = rustix::process::umask(Mode::from_raw_mode(mode.0));
                Outcome::Done
            }
            _ => return self.extended(call),
        })
    }

    /// Calls about extended attributes.
    fn extended(&mut self, call: &Call) -> Option<Outcome> {
        let whole = |path: &Name| self.whole_path(&path.0);
        Some(match call {
            Call::GetXattr { object, name, len } => {
                let (mut bytes, name) = (vec![0; *len], &*name.0);
                let read = match object {
                    Object::Path(path) => getxattr(whole(path), name, &mut bytes[..]),
                    Object::Link(path) => lgetxattr(whole(path), name, &mut bytes[..]),
                    Object::Open(slot) => {
                        fgetxattr(self.open[*slot].as_ref()?, name, &mut bytes[..])
                    }
                };
                Outcome::of(read, |len| Outcome::Bytes(bytes[..len.min(bytes.len())].to_vec()))
            }
            Call::SetXattr { object, name, value, flags } => {
                let (name, value) = (&*name.0, &value.0);
                Outcome::done(match object {
                    Object::Path(path) => setxattr(whole(path), name, value, *flags),
                    Object::Link(path) => lsetxattr(whole(path), name, value, *flags),
                    Object::Open(slot) => {
                        fsetxattr(self.open[*slot].as_ref()?, name, value, *flags)
                    }
                })
            }
            Call::ListXattrs { object, len } => {
                let mut bytes = vec![0; *len];
                let listed = match object {
                    Object::Path(path) => listxattr(whole(path), &mut bytes[..]),
                    Object::Link(path) => llistxattr(whole(path), &mut bytes[..]),
                    Object::Open(slot) => flistxattr(self.open[*slot].as_ref()?, &mut bytes[..]),
                };
                Outcome::of(listed, |len| Outcome::Names(split(&bytes[..len.min(bytes.len())])))
            }
            Call::RemoveXattr { object, name } => {
                let name = &*name.0;
                Outcome::done(match object {
                    Object::Path(path) => removexattr(whole(path), name),
                    Object::Link(path) => lremovexattr(whole(path), name),
                    Object::Open(slot) => fremovexattr(self.open[*slot].as_ref()?, name),
                })
            }
            _ => return None,
        })
    }

    /// Calls about content.
    fn content(&mut self, call: &Call) -> Option<Outcome> {
        let open = |slot: &Slot| self.open[*slot].as_ref();
        Some(match call {
            Call::Truncate { slot, len } => Outcome::done(ftruncate(open(slot)?, *len)),
            Call::Allocate { slot, mode, at, len } => {
                Outcome::done(fallocate(open(slot)?, *mode, *at, *len))
            }
            Call::Seek { slot, to } => Outcome::of(seek(open(slot)?, *to), Outcome::Number),
            Call::Read { slot, at, len } => {
                let file = open(slot)?;
                let (at, len) = place(file, *at, *len)?;
                let mut memory = Aligned::new(len);
                let bytes = memory.bytes();
                let count = match at {
                    Some(at) => pread(file, &mut *bytes, at),
                    None => read(file, &mut *bytes),
                };
                Outcome::of(count, |count| Outcome::Bytes(bytes[..count].to_vec()))
            }
            Call::Write { slot, at, content } => {
                let file = open(slot)?;
                let (at, len) = place(file, *at, content.len)?;
                let mut memory = Aligned::new(len);
                let bytes = memory.bytes();
                fill_with(bytes, *content);
                Outcome::number(match at {
                    Some(at) => pwrite(file, bytes, at),
                    None => write(file, bytes),
                })
            }
            Call::Copy { from, to, len } => {
                let ((from, mut at), (to, mut place)) = (*from, *to);
                let (from, to) = (open(&from)?, open(&to)?);
                if is_direct(from) || is_direct(to) {
                    return None;
                }
                Outcome::number(copy_file_range(from, at.as_mut(), to, place.as_mut(), *len))
            }
            Call::Sync { slot, data: true } => Outcome::done(fdatasync(open(slot)?)),
            Call::Sync { slot, data: false } => Outcome::done(fsync(open(slot)?)),
            Call::SyncAll => Outcome::done(syncfs(&self.root)),
            Call::Room => Outcome::of(fstatvfs(&self.root), |room| {
                let said = [
                    ("bytes of a block", room.f_bsize),
                    ("of a fragment", room.f_frsize),
                    ("blocks", room.f_blocks),
                    ("files", room.f_files),
                    ("of a name", room.f_namemax),
                ];
                Outcome::Names(said.map(|(what, number)| format!("{number} {what}")).into())
            }),
            _ => return None,
        })
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.open = [const { None }; SLOTS];
        if let Err(error) = std::fs::remove_dir_all(&self.whole) {
            eprintln!("{} (open as {}): {error}", self.whole.display(), self.root.as_raw_fd());
        }
    }
}

fn is_direct(file: &OwnedFd) -> bool {
    fcntl_getfl(file).unwrap().contains(OFlags::DIRECT)
}

/// Where to read or write: of a file that is open for direct I/O whole pages, at a place that is
/// told. What lies on no block is refused by the kernel, and goes through mpage's cache.
fn place(file: &OwnedFd, at: Option<u64>, len: usize) -> Option<(Option<u64>, usize)> {
    if !is_direct(file) {
        return Some((at, len));
    }
    let at = at?;
    Some((Some(at - at % ALIGNMENT as u64), len.next_multiple_of(ALIGNMENT)))
}

fn timespec(time: Time) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds }
}

fn split(names: &[u8]) -> BTreeSet<String> {
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

fn fill_with(bytes: &mut [u8], content: Content) {
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = content.byte(index);
    }
}

/// Memory for direct I/O.
struct Aligned {
    memory: Vec<u8>,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        Aligned { memory: vec![0; len + ALIGNMENT], len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let start = self.memory.as_ptr().align_offset(ALIGNMENT);
        &mut self.memory[start..start + self.len]
    }
}
