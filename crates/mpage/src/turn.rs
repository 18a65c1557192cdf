//! Whose turn it is to build bios for a mapping.
//!
//! One walker builds at a time, so that two of them do not cut each other's runs into pieces. The
//! turn passes with each bio: to an integrity walk before a cleaning one, among equals to the one
//! with fewest pages left, so that a small sync overtakes a large one. Nobody waits for I/O while
//! holding it.

use mpage_locks::{Condvar, Mutex};

/// The turn of one mapping.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    state: Mutex<State>,
    passed: Condvar,
}

/// Who goes first: the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// False goes before true.
    pub(crate) cleaning: bool,
    /// Pages the walk has still to write, as far as it knows.
    pub(crate) pages_left: u64,
}

#[derive(Debug, Default)]
struct State {
    taken: bool,
    arrivals: u64,
    waiting: Vec<(Rank, u64)>,
}

/// Holding the turn; passes it on when dropped.
#[derive(Debug)]
pub(crate) struct TurnGuard<'a>(&'a Turn);

impl Turn {
    /// Waits for the turn.
    pub(crate) fn take(&self, rank: Rank) -> TurnGuard<'_> {
        let mut state = self.state.lock();
        if state.taken || !state.waiting.is_empty() {
            let me = (rank, state.arrivals);
            state.arrivals += 1;
            state.waiting.push(me);
            while state.taken || state.waiting.iter().min() != Some(&me) {
                state = self.passed.wait(state);
            }
            state.waiting.retain(|other| *other != me);
        }
        state.taken = true;
        TurnGuard(self)
    }
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.taken = false;
        let somebody_waits = !state.waiting.is_empty();
        drop(state);
        if somebody_waits {
            self.0.passed.notify_all();
        }
    }
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
