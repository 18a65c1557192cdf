//! Whether writes to a file work, told once each time that changes.
//!
//! Whoever reads the log learns which file it is and what to do; who caches it learns of each error
//! by the bio.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mpage_locks::atomic::{AtomicU64, Ordering};
use mpage_locks::clock;

use crate::{Bio, BioOp, Errno};

/// Writing works again when it has failed for the last time this long ago, in nanoseconds: where a
/// file system is full, some writes go on working.
const CALM_NS: u64 = 10_000_000_000;

/// What is known of one open file.
pub(super) struct Health {
    path: PathBuf,
    /// When something failed last; zero once writing works again.
    failed_ns: AtomicU64,
}

impl Health {
    /// Nothing failed yet.
    pub(super) fn new(path: &Path) -> Arc<Health> {
        Arc::new(Health { path: path.into(), failed_ns: AtomicU64::new(0) })
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
        let now_ns = clock::now_ns().max(1);
        match result {
            Err(errno) if self.failed_ns.swap(now_ns, Ordering::Relaxed) == 0 => match errno {
                Errno::NOSPC | Errno::DQUOT => tracing::error!(
                    %path, %errno,
                    "the file system of the image is full: free some room there, and writing goes \
                     on; until then what was written stays in memory and writers wait"
                ),
                _ => tracing::error!(%path, ?op, %errno, "the image cannot be written"),
            },
            Ok(()) => {
                let failed_ns = self.failed_ns.load(Ordering::Relaxed);
                let calm = failed_ns > 0 && now_ns.saturating_sub(failed_ns) > CALM_NS;
                if calm && self.failed_ns.swap(0, Ordering::Relaxed) > 0 {
                    tracing::warn!(%path, "the image can be written again");
                }
            }
            Err(_) => {}
        }
    }
}
