//! Opening a file or block device: what it is, whose it is, and what it can do.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, Mode, OFlags, SeekFrom, Stat, StatxFlags, fallocate, fstat,
    ioctl_blksszget, seek, stat, statx,
};
use rustix::io::pread;

use super::backend::Backend;
use super::{Kind, Target, owner};
use crate::{Errno, Limits, SECTOR_SIZE};

/// Most vectors of one system call. Linux: `UIO_MAXIOV`, include/uapi/linux/uio.h.
const IOV_MAX: usize = 1024;

/// The largest alignment there is: a frame's.
const ALIGNMENT_MAX: usize = mpage_mem::PAGE_SIZE;

/// How to open a [`FileDevice`](super::FileDevice).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileOptions {
    /// Refuses everything that writes.
    pub read_only: bool,
    /// Makes a regular file of no bytes when there is nothing at the path.
    pub create: bool,
    /// Past the kernel's page cache. Without, the kernel keeps a second copy of everything, and
    /// tells a failed write to one sync only.
    pub direct: bool,
    /// Gets room for the whole of a regular file at once, and gives none of it back: no later write
    /// inside it meets a full file system.
    pub keep_room: bool,
    /// Who does the I/O.
    pub backend: Backend,
    /// Threads of a back end of threads; at least 1. Eight times as many bios are worth having in
    /// flight.
    pub threads: usize,
    /// Takes the image for this process: refuses one that another process, the kernel's loop
    /// driver or a mount has, and keeps others from opening it so.
    pub lock: bool,
    /// Most bytes of one bio. A block device may want less.
    pub bytes_max: usize,
}

impl Default for FileOptions {
    /// An existing image, read-write, direct, locked, with io_uring or 8 threads, and 1 MiB a bio.
    fn default() -> FileOptions {
        FileOptions {
            read_only: false,
            create: false,
            direct: true,
            keep_room: false,
            backend: Backend::Auto,
            threads: 8,
            lock: true,
            bytes_max: 1 << 20,
        }
    }
}

/// Why a file or block device was not opened. Each message names the path and the remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The path is the empty string.
    #[error("the path is empty: name a disk image or a block device")]
    EmptyPath,
    /// There is nothing at the path.
    #[error("{}: no such file: check the path, or create the file first", .path.display())]
    Missing {
        /// What was to be opened.
        path: PathBuf,
    },
    /// The permissions do not suffice.
    #[error(
        "{}: permission denied: change its mode or owner, or open it read-only", .path.display()
    )]
    Permission {
        /// What was to be opened.
        path: PathBuf,
    },
    /// The file system or device cannot be written.
    #[error("{}: cannot be written: open it read-only", .path.display())]
    ReadOnly {
        /// What was to be opened.
        path: PathBuf,
    },
    /// The path is a directory.
    #[error("{}: is a directory: name a disk image or a block device", .path.display())]
    Directory {
        /// What was to be opened.
        path: PathBuf,
    },
    /// The path is a pipe, a socket or a character device.
    #[error(
        "{}: is neither a regular file nor a block device: name a disk image", .path.display()
    )]
    NotADisk {
        /// What was to be opened.
        path: PathBuf,
    },
    /// The block device has no bytes.
    #[error(
        "{}: the block device has no medium, or is not set up: its size is zero", .path.display()
    )]
    ZeroLength {
        /// What was to be opened.
        path: PathBuf,
    },
    /// Somebody else has the image, and it is known who.
    #[error("{}: is in use by {holder}: {remedy}", .path.display())]
    Held {
        /// What was to be opened.
        path: PathBuf,
        /// Who has it.
        holder: String,
        /// What makes it free.
        remedy: String,
    },
    /// Somebody else has the block device.
    #[error(
        "{}: the block device is in use by the kernel or another program: stop its user, which \
         `lsblk` may name", .path.display()
    )]
    Busy {
        /// What was to be opened.
        path: PathBuf,
    },
    /// The file system has no locks.
    #[error(
        "{}: the file system takes no open-file-description lock ({source}): open it with \
         `lock: false` and see to it that nobody else uses it", .path.display()
    )]
    NoLocks {
        /// What was to be opened.
        path: PathBuf,
        /// The file system's answer.
        source: Errno,
    },
    /// The file system has no direct I/O.
    #[error(
        "{}: the file system refuses O_DIRECT: move the image to another, or open it with \
         `direct: false` and pay for a second cache in the kernel", .path.display()
    )]
    NotDirect {
        /// What was to be opened.
        path: PathBuf,
    },
    /// The device wants larger blocks than a frame.
    #[error(
        "{}: direct I/O wants {bytes}-byte blocks, more than a page: open it with \
         `direct: false`", .path.display()
    )]
    Alignment {
        /// What was to be opened.
        path: PathBuf,
        /// What it wants.
        bytes: u32,
    },
    /// The file system is too full for all of the file.
    #[error(
        "{}: no room for all of its {bytes} bytes: free some on its file system, or do without \
         getting it beforehand", .path.display()
    )]
    NoRoom {
        /// What was to be opened.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// There is no io_uring to be had.
    #[error(
        "{}: no io_uring ({source}): {why}; or open it with `backend: Backend::Threads`",
        .path.display()
    )]
    Uring {
        /// What was to be opened.
        path: PathBuf,
        /// What the system's answer comes from.
        why: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The threads could not be started.
    #[error("{}: cannot start the I/O threads: use fewer, or raise the limit", .path.display())]
    Threads {
        /// What was to be opened.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The system refused one of its calls for another reason.
    #[error("{}: {call}: {source}", .path.display())]
    System {
        /// What was to be opened.
        path: PathBuf,
        /// The call.
        call: &'static str,
        /// The system's answer.
        source: Errno,
    },
}

/// Opens `path` and finds out all that a device is.
pub(super) fn open(path: &Path, options: &FileOptions) -> Result<Target, OpenError> {
    if path.as_os_str().is_empty() {
        return Err(OpenError::EmptyPath);
    }
    let found = match stat(path) {
        Ok(found) => Some((kind_of(path, &found)?, found)),
        Err(Errno::NOENT) if options.create => None,
        Err(error) => return Err(refused(path, "stat", error)),
    };
    if let Some((Kind::Block, found)) = &found
        && options.lock
    {
        owner::refuse_held(path, found)?;
    }
    let wanted = found.map_or(Kind::Regular, |(kind, _)| kind);
    let open = || rustix::fs::open(path, flags(wanted, options), Mode::from_raw_mode(0o666));
    let fd = owner::patiently(open).map_err(|error| not_opened(path, wanted, options, error))?;
    let opened = fstat(&fd).map_err(|error| refused(path, "fstat", error))?;
    let kind = kind_of(path, &opened)?;
    if kind != wanted {
        return Err(OpenError::NotADisk { path: path.into() });
    }
    if options.lock && kind == Kind::Regular {
        owner::lock(path, &fd, options.read_only)?;
        owner::refuse_held(path, &opened)?;
    }
    let mut target = Target {
        fd,
        kind,
        read_only: options.read_only,
        direct: options.direct,
        keep_room: options.keep_room,
        limits: Limits::default(),
    };
    target.limits = limits(path, &target, &opened, options)?;
    if options.keep_room && kind == Kind::Regular {
        get_room(path, &target)?;
    }
    Ok(target)
}

/// Gets room for all of a regular file.
fn get_room(path: &Path, target: &Target) -> Result<(), OpenError> {
    let bytes = target.len().map_err(|error| refused(path, "fstat", error))?;
    if bytes == 0 {
        return Ok(());
    }
    match fallocate(&target.fd, FallocateFlags::KEEP_SIZE, 0, bytes) {
        Ok(()) => Ok(()),
        Err(Errno::NOSPC) => Err(OpenError::NoRoom { path: path.into(), bytes }),
        Err(error) => Err(refused(path, "fallocate", error)),
    }
}

fn kind_of(path: &Path, stat: &Stat) -> Result<Kind, OpenError> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Kind::Regular),
        FileType::BlockDevice => Ok(Kind::Block),
        FileType::Directory => Err(OpenError::Directory { path: path.into() }),
        _ => Err(OpenError::NotADisk { path: path.into() }),
    }
}

fn flags(kind: Kind, options: &FileOptions) -> OFlags {
    let mut flags = OFlags::CLOEXEC | OFlags::NOCTTY;
    flags |= if options.read_only { OFlags::RDONLY } else { OFlags::RDWR };
    if options.direct {
        flags |= OFlags::DIRECT;
    }
    match kind {
        Kind::Block if options.lock => flags | OFlags::EXCL,
        Kind::Regular if options.create => flags | OFlags::CREATE,
        _ => flags,
    }
}

fn not_opened(path: &Path, kind: Kind, options: &FileOptions, error: Errno) -> OpenError {
    match error {
        Errno::BUSY if kind == Kind::Block => OpenError::Busy { path: path.into() },
        Errno::INVAL if options.direct => OpenError::NotDirect { path: path.into() },
        other => refused(path, "open", other),
    }
}

/// The clear words for an error that has some.
pub(super) fn refused(path: &Path, call: &'static str, error: Errno) -> OpenError {
    let path = path.into();
    match error {
        Errno::NOENT => OpenError::Missing { path },
        Errno::ACCESS | Errno::PERM => OpenError::Permission { path },
        Errno::ROFS => OpenError::ReadOnly { path },
        Errno::NOMEDIUM | Errno::NXIO => OpenError::ZeroLength { path },
        source => OpenError::System { path, call, source },
    }
}

fn limits(
    path: &Path,
    target: &Target,
    stat: &Stat,
    options: &FileOptions,
) -> Result<Limits, OpenError> {
    let writes = !options.read_only;
    let limits = Limits {
        bytes_max: options.bytes_max,
        segments_max: IOV_MAX,
        alignment: alignment(path, target, stat)?,
        queue_depth: options.threads.max(1) * 8,
        parallel: false,
        volatile_cache: true,
        fua: writes,
        discard: writes && !options.keep_room,
        write_zeroes: writes,
        capacity: None,
    };
    match target.kind {
        Kind::Regular => Ok(limits),
        Kind::Block => block_limits(path, target, stat, limits),
    }
}

/// Narrows `limits` to what the kernel says of a block device's queue.
fn block_limits(
    path: &Path,
    target: &Target,
    stat: &Stat,
    limits: Limits,
) -> Result<Limits, OpenError> {
    let capacity =
        seek(&target.fd, SeekFrom::End(0)).map_err(|error| refused(path, "seek", error))?;
    if capacity == 0 {
        return Err(OpenError::ZeroLength { path: path.into() });
    }
    let queue = Queue::of(stat);
    let bytes_max = queue.number("max_sectors_kb").map_or(usize::MAX, |kib| kib << 10);
    let segments_max = queue.number("max_segments").unwrap_or(usize::MAX);
    let written_through = queue.word("write_cache").is_some_and(|cache| cache == "write through");
    Ok(Limits {
        bytes_max: limits.bytes_max.min(bytes_max).max(ALIGNMENT_MAX),
        segments_max: limits.segments_max.min(segments_max).max(1),
        volatile_cache: !(target.direct && written_through),
        discard: limits.discard && queue.number("discard_max_bytes") != Some(0),
        capacity: Some(capacity - capacity % limits.alignment as u64),
        ..limits
    })
}

/// The folder in which the kernel describes a block device's queue.
struct Queue(PathBuf);

impl Queue {
    fn of(stat: &Stat) -> Queue {
        let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        let own = device.join("queue");
        // A partition has its disk's.
        Queue(if own.exists() { own } else { device.join("../queue") })
    }

    /// What the kernel says under `name`; nothing where sysfs is not to be had.
    fn word(&self, name: &str) -> Option<String> {
        match std::fs::read_to_string(self.0.join(name)) {
            Ok(text) => Some(text.trim().to_owned()),
            Err(_) => None,
        }
    }

    fn number(&self, name: &str) -> Option<usize> {
        let word = self.word(name)?;
        // What is no number says nothing.
        let Ok(number) = word.parse() else { return None };
        Some(number)
    }
}

/// What offsets and lengths have to be multiples of, in bytes.
fn alignment(path: &Path, target: &Target, stat: &Stat) -> Result<usize, OpenError> {
    if !target.direct {
        return Ok(SECTOR_SIZE);
    }
    let told = match told_alignment(path, target)? {
        Some(told) => told,
        None if target.kind == Kind::Block => {
            ioctl_blksszget(&target.fd).map_err(|error| refused(path, "BLKSSZGET", error))?
        }
        None => return Ok(found_alignment(target, stat)),
    };
    let alignment = usize::try_from(told).unwrap_or(usize::MAX).max(SECTOR_SIZE);
    if alignment.is_power_of_two() && alignment <= ALIGNMENT_MAX {
        Ok(alignment)
    } else {
        Err(OpenError::Alignment { path: path.into(), bytes: told })
    }
}

/// The alignment as the kernel tells it; `None` when it does not, as before Linux 6.1.
fn told_alignment(path: &Path, target: &Target) -> Result<Option<u32>, OpenError> {
    let told = match statx(&target.fd, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) {
        Ok(told) => told,
        Err(Errno::NOSYS | Errno::INVAL) => return Ok(None),
        Err(error) => return Err(refused(path, "statx", error)),
    };
    if told.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Ok(None);
    }
    if told.stx_dio_offset_align == 0 {
        return Err(OpenError::NotDirect { path: path.into() });
    }
    Ok(Some(told.stx_dio_offset_align.max(told.stx_dio_mem_align)))
}

/// The smallest alignment in which the start of the file can be read; the largest where the file
/// is too short to tell.
fn found_alignment(target: &Target, stat: &Stat) -> usize {
    #[repr(align(4096))]
    struct Page([u8; ALIGNMENT_MAX]);
    let long_enough = u64::try_from(stat.st_size).is_ok_and(|size| size > ALIGNMENT_MAX as u64);
    let mut page = Page([0; ALIGNMENT_MAX]);
    let mut works = |alignment: &usize| {
        let alignment = *alignment;
        let offset = alignment as u64 % ALIGNMENT_MAX as u64;
        pread(&target.fd, &mut page.0[..alignment], offset).is_ok()
    };
    let smaller = [512, 1024, 2048].into_iter().find(|alignment| long_enough && works(alignment));
    smaller.unwrap_or(ALIGNMENT_MAX)
}
