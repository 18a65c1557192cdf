//! Syncing all files of one device, with a record of its own of which errors were told.

use std::sync::Arc;

use crate::backing_dev::BackingDev;
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::errseq::Cursor;
use crate::fsync::sync_all;

/// Makes all files of a device durable together. Each handle is told of each write error on the
/// device once, apart from what the files' opens are told. Linux: `syncfs(2)`.
pub struct DeviceSync {
    core: Arc<Core>,
    dev: Arc<BackingDev>,
    cursor: Cursor,
}

impl DeviceSync {
    /// A handle that is told of errors nobody was told of yet, and of later ones.
    pub(crate) fn new(core: &Arc<Core>, dev: &Arc<BackingDev>) -> DeviceSync {
        let cursor = dev.errors.sample();
        DeviceSync { core: Arc::clone(core), dev: Arc::clone(dev), cursor }
    }

    /// Makes everything dirty at the call, in all files of the device, durable.
    ///
    /// # Errors
    ///
    /// Errors on the device this handle was not told of, once; and whatever keeps a byte from being
    /// durable now.
    pub fn sync(&self) -> Result<()> {
        let mut spaces = self.core.mappings.all();
        spaces.retain(|space| space.dev().id() == self.dev.id());
        let synced = sync_all(&self.core, &spaces);
        let told = self.dev.errors.check_and_advance(&self.cursor);
        synced.and(match told {
            Some(errno) => Err(Error::new(ErrorKind::Device(errno), "sync device")),
            None => Ok(()),
        })
    }
}

impl std::fmt::Debug for DeviceSync {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceSync").field("dev", &self.dev).finish_non_exhaustive()
    }
}
