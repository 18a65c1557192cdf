//! What programs have open.

use std::collections::HashMap;
use std::sync::Arc;

use fuser::FileHandle;
use mpage_block::Errno;
use mpage_ext4::{Error, File, Result};
use mpage_locks::atomic::{AtomicU64, Ordering};
use mpage_locks::{Mutex, RwLock};

use super::listing::Position;

/// One open file or directory.
pub(super) enum Handle {
    File(OpenFile),
    Directory(Mutex<Position>),
}

/// One open of a regular file.
pub(super) struct OpenFile {
    pub(super) file: File,
    /// It goes past the cache. Linux: `O_DIRECT`.
    pub(super) is_direct: bool,
    /// The state of all privileges in which this file was seen to have none.
    pub(super) unprivileged_at: AtomicU64,
}

impl OpenFile {
    pub(super) fn new(file: File, is_direct: bool) -> OpenFile {
        OpenFile { file, is_direct, unprivileged_at: AtomicU64::new(0) }
    }
}

/// All that is open. Its lock is held for a moment.
#[derive(Default)]
pub(super) struct Handles {
    opened: AtomicU64,
    open: RwLock<HashMap<u64, Arc<Handle>>>,
}

impl Handles {
    /// A number for `handle`, which is open from now on.
    pub(super) fn add(&self, handle: Handle) -> FileHandle {
        let number = 1 + self.opened.fetch_add(1, Ordering::Relaxed);
        let _none = self.open.write().insert(number, Arc::new(handle));
        FileHandle(number)
    }

    /// What has the number `handle`.
    ///
    /// # Errors
    ///
    /// `EBADF`.
    pub(super) fn get(&self, handle: FileHandle) -> Result<Arc<Handle>> {
        self.open.read().get(&handle.0).cloned().ok_or_else(|| error(Errno::BADF, handle))
    }

    /// What had the number `handle`, which is open no more. Closing it, which is dropping it, may
    /// wait for the device.
    pub(super) fn remove(&self, handle: FileHandle) -> Option<Arc<Handle>> {
        self.open.write().remove(&handle.0)
    }

    /// All that is open still is so no more.
    pub(super) fn close_all(&self) {
        let all = std::mem::take(&mut *self.open.write());
        drop(all);
    }
}

impl Handle {
    /// The open file that it is.
    ///
    /// # Errors
    ///
    /// `EISDIR`.
    pub(super) fn file(&self) -> Result<&OpenFile> {
        match self {
            Handle::File(file) => Ok(file),
            Handle::Directory(_) => Err(error(Errno::ISDIR, FileHandle(0))),
        }
    }

    /// The position in the open directory that it is.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`.
    pub(super) fn directory(&self) -> Result<&Mutex<Position>> {
        match self {
            Handle::Directory(position) => Ok(position),
            Handle::File(_) => Err(error(Errno::NOTDIR, FileHandle(0))),
        }
    }
}

fn error(errno: Errno, handle: FileHandle) -> Error {
    Error { kind: mpage_ext4::ErrorKind::Errno(errno), detail: format!("handle {}", handle.0) }
}
