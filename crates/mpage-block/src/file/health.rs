//! Whether writes to a file work, told once each time that changes.
//!
//! Whoever reads the log learns which file it is and what to do; who caches it learns of each error
//! by the bio.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mpage_locks::atomic::{AtomicBool, Ordering};

use crate::{Bio, BioOp, Errno};

/// What is known of one open file.
pub(super) struct Health {
    path: PathBuf,
    failing: AtomicBool,
}

impl Health {
    /// Nothing failed yet.
    pub(super) fn new(path: &Path) -> Arc<Health> {
        Arc::new(Health { path: path.into(), failing: AtomicBool::new(false) })
    }

    /// Looks at the result of `bio`, if it changes the file.
    pub(super) fn watch(self: &Arc<Health>, bio: &mut Bio) {
        if bio.op() == BioOp::Read {
            return;
        }
        let health = Arc::clone(self);
        let op = bio.op();
        bio.intercept(move |result| {
            health.note(op, result);
            result
        });
    }

    fn note(&self, op: BioOp, result: Result<(), Errno>) {
        let path = self.path.display();
        match result {
            Err(errno) if !self.failing.swap(true, Ordering::Relaxed) => match errno {
                Errno::NOSPC | Errno::DQUOT => tracing::error!(
                    %path, %errno,
                    "the file system of the image is full: free some room there, and writing goes \
                     on; until then what was written stays in memory and writers wait"
                ),
                _ => tracing::error!(%path, ?op, %errno, "the image cannot be written"),
            },
            Ok(()) if op == BioOp::Write && self.failing.load(Ordering::Relaxed) => {
                self.failing.store(false, Ordering::Relaxed);
                tracing::warn!(%path, "the image can be written again");
            }
            _ => {}
        }
    }
}
