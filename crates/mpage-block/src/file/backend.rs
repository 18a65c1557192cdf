//! Who does a device's I/O.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::open::{FileOptions, OpenError};
use super::pool::Pool;
use super::ring::Ring;
use super::{Kind, Target};
use crate::{Bio, BioOp, Errno};

/// Who does a device's I/O.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Backend {
    /// io_uring where it is to be had, else threads; a log line says which, and why.
    #[default]
    Auto,
    /// io_uring and one thread. Wants Linux 6.1. Linux: io_uring(7).
    Uring,
    /// A fixed pool of threads that wait for the device.
    Threads,
}

/// A back end that runs. Dropping it waits until every bio it took is done.
pub(super) enum Service {
    Threads(Pool),
    /// `discards`: a thread for what no io_uring does on a block device.
    Uring {
        ring: Ring,
        discards: Option<Pool>,
    },
}

impl Service {
    /// Starts what `options` ask for.
    ///
    /// # Errors
    ///
    /// `Uring` when that alone would do and is denied, `Threads` when they cannot be started.
    pub(super) fn start(
        path: &Path,
        target: &Arc<Target>,
        options: &FileOptions,
    ) -> Result<Service, OpenError> {
        let pool = |threads| {
            let shared = Arc::clone(target);
            Pool::start(threads, move |bio| shared.run(bio))
                .map_err(|source| OpenError::Threads { path: path.into(), source })
        };
        if options.backend != Backend::Threads {
            match Ring::start(target) {
                Ok(ring) => {
                    let apart = target.kind == Kind::Block && target.limits.discard;
                    let discards = if apart { Some(pool(1)?) } else { None };
                    return Ok(Service::Uring { ring, discards });
                }
                Err(source) if options.backend == Backend::Uring => {
                    return Err(OpenError::Uring {
                        path: path.into(),
                        why: why_denied(&source),
                        source,
                    });
                }
                Err(error) => {
                    let why = why_denied(&error);
                    tracing::warn!(path = %path.display(), %error, why, "no io_uring: threads");
                }
            }
        }
        pool(options.threads).map(Service::Threads)
    }

    /// Queues `bio`. Never waits.
    pub(super) fn submit(&self, bio: Bio) {
        match self {
            Service::Uring { discards: Some(pool), .. } if bio.op() == BioOp::Discard => {
                pool.submit(bio);
            }
            Service::Uring { ring, .. } => ring.submit(bio),
            Service::Threads(pool) => pool.submit(bio),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Service::Threads(_) => "a pool of threads",
            Service::Uring { .. } => "io_uring",
        }
    }
}

/// Why the kernel set up no ring, and the remedy. Linux: io_uring_setup(2).
fn why_denied(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::NOSYS | Errno::INVAL) => "it needs Linux 6.1 or later",
        Some(Errno::PERM | Errno::ACCESS) => {
            "the setting kernel.io_uring_disabled or a filter of system calls forbids it"
        }
        Some(Errno::NOMEM) => "memory is short, or `ulimit -l` too low",
        Some(Errno::MFILE | Errno::NFILE) => "too many files are open: raise `ulimit -n`",
        _ => "the kernel refuses it",
    }
}

#[cfg(test)]
mod tests;
