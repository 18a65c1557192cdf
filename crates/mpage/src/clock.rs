//! What time it is for a cache, and waiting for a time to come.
//!
//! Everything a cache does at a time it does by its clock. A clock moved by hand makes that exact:
//! no time passes but what the test, or the simulation, lets pass.

use std::panic::RefUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mpage_locks::Mutex;
use mpage_locks::atomic::{AtomicU64, Ordering};

use crate::event::{Event, Ticket};

/// The clock of a cache: the system's monotonic one, or one moved by hand.
#[derive(Clone, Default)]
pub struct Clock(Option<Arc<Hand>>);

/// Moves a clock that stands still otherwise.
pub struct ManualClock(Arc<Hand>);

#[derive(Default)]
struct Hand {
    now_ns: AtomicU64,
    /// Who waits for which time.
    sleepers: Mutex<Vec<(u64, Weak<Event>)>>,
}

/// A panic elsewhere leaves the list of sleepers whole.
impl RefUnwindSafe for Hand {}

impl Clock {
    /// The system's monotonic clock.
    pub fn system() -> Clock {
        Clock::default()
    }

    /// A clock that stands at `start`, and what moves it.
    pub fn manual(start: Duration) -> (Clock, ManualClock) {
        let hand = Arc::new(Hand::default());
        hand.now_ns.store(nanos(start), Ordering::SeqCst);
        (Clock(Some(Arc::clone(&hand))), ManualClock(hand))
    }

    /// Nanoseconds since a moment before the cache was made. Never goes back.
    pub(crate) fn now_ns(&self) -> u64 {
        match &self.0 {
            None => mpage_locks::clock::now_ns(),
            Some(hand) => hand.now_ns.load(Ordering::SeqCst),
        }
    }

    /// Sleeps until `event` is notified after `ticket` was taken, or the clock shows `until_ns`;
    /// false in the second case.
    pub(crate) fn wait_until(&self, event: &Arc<Event>, ticket: Ticket, until_ns: u64) -> bool {
        let Some(hand) = &self.0 else {
            let left = until_ns.saturating_sub(self.now_ns());
            return left > 0 && event.wait_for(ticket, Duration::from_nanos(left));
        };
        hand.sleepers.lock().push((until_ns, Arc::downgrade(event)));
        let early = hand.now_ns.load(Ordering::SeqCst) < until_ns;
        if early {
            event.wait(ticket);
        }
        let me = Arc::downgrade(event);
        hand.sleepers.lock().retain(|(until, other)| *until != until_ns || !other.ptr_eq(&me));
        hand.now_ns.load(Ordering::SeqCst) < until_ns
    }
}

impl ManualClock {
    /// Lets time pass, and wakes who waited for it.
    pub fn advance(&self, time: Duration) {
        let now_ns = self.0.now_ns.fetch_add(nanos(time), Ordering::SeqCst) + nanos(time);
        let mut due = Vec::new();
        self.0.sleepers.lock().retain(|(until_ns, event)| {
            let later = *until_ns > now_ns;
            if !later {
                due.extend(event.upgrade());
            }
            later
        });
        due.iter().for_each(|event| event.notify());
    }

    /// What the clock shows, since its beginning.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.0.now_ns.load(Ordering::SeqCst))
    }

    /// When the first of those who wait wants to be woken, since the clock's beginning; `None` when
    /// nobody waits for a time.
    pub fn next_alarm(&self) -> Option<Duration> {
        self.0.sleepers.lock().iter().map(|(until_ns, _)| Duration::from_nanos(*until_ns)).min()
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_none() { "Clock::system" } else { "Clock::manual" })
    }
}

/// `time` in nanoseconds; the longest time that fits if it does not.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
