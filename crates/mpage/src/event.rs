//! Waiting for "something changed" without missing it: take a ticket, look, then wait with the
//! ticket.

use std::time::Duration;

use mpage_locks::atomic::{AtomicU64, Ordering};
use mpage_locks::{Condvar, Mutex};

/// Counts notifications; a waiter sleeps until the count differs from its ticket.
///
/// Notifying costs one atomic addition while nobody waits.
#[derive(Debug, Default)]
pub(crate) struct Event {
    count: AtomicU64,
    waiters: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
}

/// The count at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket(u64);

impl Event {
    /// The ticket to take before looking at what one would wait for.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.count.load(Ordering::SeqCst))
    }

    /// Wakes everybody who took a ticket before.
    pub(crate) fn notify(&self) {
        let _before: u64 = self.count.fetch_add(1, Ordering::SeqCst);
        if self.waiters.load(Ordering::SeqCst) > 0 {
            drop(self.lock.lock());
            self.changed.notify_all();
        }
    }

    /// Sleeps until a notification after `ticket` was taken.
    pub(crate) fn wait(&self, ticket: Ticket) {
        let mut guard = self.lock.lock();
        let _before: u64 = self.waiters.fetch_add(1, Ordering::SeqCst);
        while self.ticket().0 == ticket.0 {
            guard = self.changed.wait(guard);
        }
        let _before: u64 = self.waiters.fetch_sub(1, Ordering::SeqCst);
        drop(guard);
    }

    /// As [`wait`](Self::wait), for at most `limit`; false when the time ran out.
    pub(crate) fn wait_for(&self, ticket: Ticket, limit: Duration) -> bool {
        let mut guard = self.lock.lock();
        let _before: u64 = self.waiters.fetch_add(1, Ordering::SeqCst);
        let mut in_time = true;
        while in_time && self.ticket().0 == ticket.0 {
            (guard, in_time) = self.changed.wait_for(&self.lock, guard, limit);
        }
        let _before: u64 = self.waiters.fetch_sub(1, Ordering::SeqCst);
        drop(guard);
        in_time
    }
}
