//! Flushing a device for a block map, by the cache's own means.
//!
//! A file system with a journal flushes in the middle of a commit: the journal's blocks, a flush,
//! the block that makes them count. A flush that it submits to the device itself is none of the
//! cache's: when it fails, what other files wrote since the last good one may be lost, and nobody
//! writes it again; when it succeeds, the next sync flushes once more. One that is made here joins
//! those of syncs, counts for them, and is followed by what follows theirs when it fails.

use std::sync::Arc;

use mpage_block::Errno;

use crate::backing_dev::BackingDev;
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::flush::flush_device;

/// Flushes a device of a cache. Clones flush the same device.
///
/// # Locks
///
/// When a flush fails, [`GetBlock::flush_failed`](crate::GetBlock::flush_failed) of every file with
/// something to lose is called, on the thread of one of those who wait for that flush. So nobody
/// flushes with a lock held that it takes. Nothing of the cache is needed: a block map may flush
/// in [`sync`](crate::GetBlock::sync), [`remove`](crate::GetBlock::remove) and
/// [`zero`](crate::GetBlock::zero), and in [`get_block`](crate::GetBlock::get_block) where that may
/// wait; not where it must not wait for I/O.
#[derive(Clone)]
pub struct DeviceFlush {
    core: Arc<Core>,
    dev: Arc<BackingDev>,
}

/// Writes that somebody makes on a device itself, past the cache: made from
/// [`DeviceFlush::begin_writes`] on.
#[derive(Clone, Copy, Debug)]
pub struct OwnWrites {
    /// Flushes of the device that had failed before.
    began: u64,
}

impl DeviceFlush {
    /// Flushes `dev` for the cache of `core`.
    pub(crate) fn new(core: &Arc<Core>, dev: &Arc<BackingDev>) -> DeviceFlush {
        DeviceFlush { core: Arc::clone(core), dev: Arc::clone(dev) }
    }

    /// Makes durable what the cache has written to the device so far, and nothing else for certain.
    /// Left out when it is durable; shared with others who wait for a flush.
    ///
    /// # Errors
    ///
    /// The flush's: each file of the device with something written since the last good one has
    /// recorded it, and what is cached of that is dirty again.
    pub fn flush(&self) -> Result<()> {
        flush_device(&self.core, &self.dev, self.dev.writes_ended()).map_err(failed)
    }

    /// To be called before the first of some writes past the cache is submitted that
    /// [`flush_writes`](Self::flush_writes) is to make durable.
    pub fn begin_writes(&self) -> OwnWrites {
        OwnWrites { began: self.dev.failed_flushes() }
    }

    /// Makes durable what was written past the cache since `writes` began, and has ended well, with
    /// what the cache has written so far. Left out only where the device has no volatile cache;
    /// shared with others who wait for a flush.
    ///
    /// # Errors
    ///
    /// As [`flush`](Self::flush). Also when another flush of the device failed since they began: it
    /// may have lost them, whatever the next ones do. They are to be made again then, from
    /// [`begin_writes`](Self::begin_writes) on.
    pub fn flush_writes(&self, writes: &OwnWrites) -> Result<()> {
        let _number = self.dev.number_write(false);
        self.flush()?;
        match self.dev.limits().volatile_cache && self.dev.failed_flushes() != writes.began {
            true => Err(failed(self.dev.errors.last().unwrap_or(Errno::IO))),
            false => Ok(()),
        }
    }
}

fn failed(errno: Errno) -> Error {
    Error::new(ErrorKind::Device(errno), "flush device")
}

impl std::fmt::Debug for DeviceFlush {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceFlush").field("dev", &self.dev).finish_non_exhaustive()
    }
}
