//! Whether the thread that runs an operation may wait.
//!
//! A thread that takes the requests of others must not wait for a device. It tries what it was
//! asked for with [`without_waiting`], and hands what would have waited to a thread that may.
//!
//! 1. Whatever waits for the device, or for a commit, asks [`check`] before.
//! 2. An operation that ends so has changed nothing: a change that needs a block ends before it is
//!    applied, and what is freed behind it is freed by who may wait.

use std::cell::Cell;

use mpage_block::Errno;

use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    Waits,
    MustNotWait,
    /// It must not, and would have.
    WouldHaveWaited,
}

thread_local! {
    static PATIENCE: Cell<Patience> = const { Cell::new(Patience::Waits) };
}

/// Runs `operation`, one on names, attributes or extended attributes of a
/// [`FileSystem`](crate::FileSystem), unless it has to wait for the device or for a commit: then
/// `None`, and it has changed nothing. It may wait for another thread that computes.
///
/// # Panics
///
/// When `operation` calls it again.
pub fn without_waiting<T>(operation: impl FnOnce() -> Result<T>) -> Option<Result<T>> {
    let attempt = Attempt::begin();
    let result = operation();
    (!attempt.would_have_waited()).then_some(result)
}

/// Nothing, if this thread may wait.
///
/// # Errors
///
/// `EAGAIN`, which [`without_waiting`] turns into `None`.
pub(crate) fn check() -> Result<()> {
    if PATIENCE.get() == Patience::Waits {
        return Ok(());
    }
    PATIENCE.set(Patience::WouldHaveWaited);
    Err(Error::errno(Errno::AGAIN, "it would have to wait"))
}

/// True when this thread may wait.
pub(crate) fn may_wait() -> bool {
    PATIENCE.get() == Patience::Waits
}

/// The time during which a thread must not wait.
struct Attempt;

impl Attempt {
    fn begin() -> Attempt {
        assert!(PATIENCE.get() == Patience::Waits, "an attempt within an attempt");
        PATIENCE.set(Patience::MustNotWait);
        Attempt
    }

    fn would_have_waited(&self) -> bool {
        PATIENCE.get() == Patience::WouldHaveWaited
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        PATIENCE.set(Patience::Waits);
    }
}
