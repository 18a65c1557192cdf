//! Waiting for "something changed" without missing it: take a ticket, look, then wait with the
//! ticket.

use std::time::Duration;

use mpage_locks::atomic::{AtomicU64, Ordering};
use mpage_locks::{Condvar, Mutex};

/// Says that somebody may sleep; the rest of the word counts.
const SLEEPERS: u64 = 1;
const ONE: u64 = 2;

/// Counts notifications; a waiter sleeps until the count differs from its ticket.
///
/// The count and whether anybody sleeps are one word: whoever counts sees who sleeps, and whoever
/// goes to sleep sees the count, in the same exchange. So notifying costs one atomic addition while
/// nobody waits.
#[derive(Debug, Default)]
pub(crate) struct Event {
    word: AtomicU64,
    lock: Mutex<()>,
    changed: Condvar,
}

/// The count at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket(u64);

impl Event {
    /// The ticket to take before looking at what one would wait for.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.word.load(Ordering::SeqCst) & !SLEEPERS)
    }

    /// Wakes everybody who took a ticket before.
    pub(crate) fn notify(&self) {
        if self.word.fetch_add(ONE, Ordering::SeqCst) & SLEEPERS != 0 {
            let guard = self.lock.lock();
            let _before: u64 = self.word.fetch_and(!SLEEPERS, Ordering::SeqCst);
            self.changed.notify_all();
            drop(guard);
        }
    }

    /// Sleeps until a notification after `ticket` was taken.
    pub(crate) fn wait(&self, ticket: Ticket) {
        let mut guard = self.lock.lock();
        while self.must_sleep(ticket) {
            guard = self.changed.wait(guard);
        }
        drop(guard);
    }

    /// As [`wait`](Self::wait), for at most `limit`; false when the time ran out.
    pub(crate) fn wait_for(&self, ticket: Ticket, limit: Duration) -> bool {
        let mut guard = self.lock.lock();
        let mut in_time = true;
        while in_time && self.must_sleep(ticket) {
            (guard, in_time) = self.changed.wait_for(&self.lock, guard, limit);
        }
        drop(guard);
        in_time
    }

    /// True, and the next notification will wake, when there was none since `ticket` was taken. The
    /// caller holds the lock.
    fn must_sleep(&self, ticket: Ticket) -> bool {
        self.word.fetch_or(SLEEPERS, Ordering::SeqCst) & !SLEEPERS == ticket.0
    }
}

#[cfg(all(test, mpage_loom))]
mod loom_tests;
