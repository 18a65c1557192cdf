//! A device that is a regular file or a block device of the host.
//!
//! ```text
//!   submit --> queue: sync > ordinary > background --+--> ring: io_uring --------+--> complete
//!                                                    +--> pool: preadv, ... -----+
//!   transfer: which call comes next, whoever makes it
//! ```
//!
//! Opened `O_DIRECT`: a buffered file underneath would be a second cache of the same bytes, and
//! would report its write errors once, to whoever asks first.

mod backend;
mod blocking;
mod health;
mod iovecs;
mod mounts;
mod open;
mod owner;
mod pool;
mod queue;
mod ring;
mod transfer;

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{SeekFrom, fstat, ftruncate, seek};

pub use self::backend::Backend;
use self::backend::Service;
use self::health::Health;
pub use self::mounts::{Mount, mounts};
pub use self::open::{FileOptions, OpenError};
use crate::{Bio, BioOp, BlockDevice, Errno, Limits, Span, SubmitError};

/// A regular file or a block device, served by io_uring or by a fixed pool of threads.
///
/// A regular file grows when it is written behind its end, and reads as zeros there. Sync bios go
/// before ordinary ones, ordinary before background ones; none waits forever. Reads and flushes
/// count as sync unless they are background.
///
/// Any error of a flush is told as the kernel told it, each time; whether a later flush that
/// succeeds says anything about the writes before the failed one is for the caller to know: it
/// does not.
///
/// Dropping the device waits until every bio it took is done.
pub struct FileDevice {
    service: Service,
    target: Arc<Target>,
    health: Arc<Health>,
}

/// The open file: what the threads share.
pub(crate) struct Target {
    fd: OwnedFd,
    kind: Kind,
    read_only: bool,
    direct: bool,
    keep_room: bool,
    limits: Limits,
}

/// What was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Regular,
    Block,
}

impl FileDevice {
    /// Opens the file or block device at `path`, takes it for this process, and starts the
    /// back end.
    ///
    /// # Errors
    ///
    /// What is wrong with the path, or who else has it: see [`OpenError`].
    pub fn open(path: impl AsRef<Path>, options: &FileOptions) -> Result<FileDevice, OpenError> {
        let path = path.as_ref();
        let target = Arc::new(open::open(path, options)?);
        let service = Service::start(path, &target, options)?;
        tracing::info!(
            path = %path.display(),
            direct = target.direct,
            alignment = target.limits.alignment,
            segments_max = target.limits.segments_max,
            "opened a device served by {}",
            service.name()
        );
        Ok(FileDevice { service, target, health: Health::new(path) })
    }

    /// The size in bytes: a regular file's now, a block device's when it was opened.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn len(&self) -> Result<u64, Errno> {
        self.target.len()
    }

    /// The largest size the file can have, in bytes: its file system's word.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn len_max(&self) -> Result<u64, Errno> {
        self.target.len_max()
    }

    /// Whether it has no bytes.
    ///
    /// # Errors
    ///
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> Result<bool, Errno> {
        Ok(self.len()? == 0)
    }

    /// The file system's device number and the inode number: the same for every path to the file.
    ///
    /// # Errors
    ///
    /// The file system's.
    pub fn identity(&self) -> Result<(u64, u64), Errno> {
        let stat = fstat(&self.target.fd)?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

impl BlockDevice for FileDevice {
    fn limits(&self) -> Limits {
        self.target.limits
    }

    fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
        let writes = !matches!(bio.op(), BioOp::Read | BioOp::Flush);
        if writes && self.target.read_only {
            return Err(SubmitError { bio, error: Errno::ROFS });
        }
        let mut bio = SubmitError::unless_allowed(bio, &self.target.limits)?;
        self.health.watch(&mut bio);
        self.service.submit(bio);
        Ok(())
    }

    fn span_at(&self, offset: u64) -> Result<Span, Errno> {
        self.target.span_at(offset)
    }

    fn set_len(&self, bytes: u64) -> Result<(), Errno> {
        match self.target.kind {
            Kind::Block => Err(Errno::OPNOTSUPP),
            Kind::Regular if self.target.read_only => Err(Errno::ROFS),
            Kind::Regular => ftruncate(&self.target.fd, bytes),
        }
    }
}

impl fmt::Debug for FileDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileDevice")
            .field("fd", &self.target.fd)
            .field("kind", &self.target.kind)
            .field("limits", &self.target.limits)
            .finish_non_exhaustive()
    }
}

impl Target {
    fn len(&self) -> Result<u64, Errno> {
        match self.limits.capacity {
            Some(capacity) => Ok(capacity),
            None => Ok(u64::try_from(fstat(&self.fd)?.st_size).expect("a size is not negative")),
        }
    }

    /// A file system says what it has no offset for to a seek, and to nothing else. The place in
    /// the file that a seek moves is used by nobody.
    fn len_max(&self) -> Result<u64, Errno> {
        if let Some(capacity) = self.limits.capacity {
            return Ok(capacity);
        }
        let (mut fits, mut refused) = (0, 1 << 63);
        while refused - fits > 1 {
            let middle = fits + (refused - fits) / 2;
            match seek(&self.fd, SeekFrom::Start(middle)) {
                Ok(_) => fits = middle,
                Err(Errno::INVAL | Errno::FBIG | Errno::OVERFLOW) => refused = middle,
                Err(error) => return Err(error),
            }
        }
        Ok(fits)
    }

    fn span_at(&self, offset: u64) -> Result<Span, Errno> {
        let end = self.len()?.max(offset.saturating_add(1));
        if self.kind == Kind::Block {
            return Ok(Span { bytes: offset..end, hole: false });
        }
        // The place in the file that a seek moves is used by nobody.
        let found = |from: SeekFrom| match seek(&self.fd, from) {
            Ok(found) => Ok(Some(found)),
            // No data from there on; or the end was cut off meanwhile.
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error),
        };
        match found(SeekFrom::Data(offset))? {
            Some(data) if data <= offset => {
                let hole = found(SeekFrom::Hole(offset))?.unwrap_or(end);
                Ok(Span { bytes: offset..hole.max(offset.saturating_add(1)), hole: false })
            }
            data => Ok(Span { bytes: offset..data.unwrap_or(end), hole: true }),
        }
    }
}

#[cfg(test)]
mod tests;
