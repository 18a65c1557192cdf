//! Atomic integers and fences: `std`'s, or the schedule checker's.

#[cfg(mpage_loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(mpage_shuttle)]
pub use shuttle::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(not(any(mpage_loom, mpage_shuttle)))]
pub use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// Tells the processor, or the schedule checker, that the caller spins.
#[inline]
pub fn spin_loop() {
    #[cfg(not(any(mpage_loom, mpage_shuttle)))]
    std::hint::spin_loop();
    #[cfg(mpage_loom)]
    loom::thread::yield_now();
    #[cfg(mpage_shuttle)]
    shuttle::thread::yield_now();
}
