//! Locks, atomics, threads and time for mpage: the only crate that names the standard ones.
//!
//! The same engine runs in three worlds, chosen when it is compiled:
//!
//! | built with | locks and threads | used for |
//! |---|---|---|
//! | nothing | `parking_lot`, `std` | everyone |
//! | `--cfg mpage_shuttle` | `shuttle` | random schedules of the whole engine |
//! | `--cfg mpage_loom` | `loom` | every schedule, and weak memory, of its small parts |
//!
//! There is no poisoning: a panic while a lock is held releases it, as in `parking_lot`.

#![forbid(unsafe_code)]

pub mod atomic;
pub mod clock;
mod locks;
pub mod thread;

pub use locks::{Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
