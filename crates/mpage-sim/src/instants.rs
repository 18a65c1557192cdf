//! The count that moves with everything that happens in a run.

use mpage_locks::atomic::{AtomicU64, Ordering};

/// Numbers what happens: a later event has a greater number. The first is 10, so that what was
/// there at the start has numbers too.
#[derive(Debug)]
pub struct Instants(AtomicU64);

impl Default for Instants {
    fn default() -> Instants {
        Instants(AtomicU64::new(10))
    }
}

impl Instants {
    /// The number of what happens now.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}
