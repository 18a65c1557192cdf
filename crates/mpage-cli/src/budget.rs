//! The memory that requests need while they are worked on, apart from the cache's.
//!
//! Each connection has [`OWN_BYTES`] to itself; what it needs beyond that it takes out of
//! [`SHARED_BYTES`], which all have together, in turn. So small requests wait for nobody else's.
//! Who holds shared memory without moving while others wait for some loses its connection.

use std::collections::VecDeque;
use std::time::Duration;

use mpage_locks::atomic::{AtomicBool, Ordering};
use mpage_locks::{Condvar, Mutex};

/// What each connection has to itself.
pub const OWN_BYTES: usize = 512 << 10;
/// What all connections have together.
pub const SHARED_BYTES: usize = 96 << 20;
/// How long a client may take for its next byte while it holds memory that others wait for.
pub const STALL_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at whether who waits is still wanted.
const LOOK: Duration = Duration::from_secs(1);

/// The shared memory.
#[derive(Debug)]
pub struct Budget {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Who waits, in the order they came.
    turns: VecDeque<u64>,
    came: u64,
}

impl Default for Budget {
    fn default() -> Budget {
        Budget::new(SHARED_BYTES)
    }
}

impl Budget {
    /// A budget of `bytes`, all free.
    pub fn new(bytes: usize) -> Budget {
        let state = State { free: bytes, turns: VecDeque::new(), came: 0 };
        Budget { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits until `bytes` are free and takes them; false when `gone` became true meanwhile.
    pub fn take(&self, bytes: usize, gone: &AtomicBool) -> bool {
        let mut state = self.state.lock();
        let turn = state.came;
        state.came += 1;
        state.turns.push_back(turn);
        let mine = |state: &State| state.turns.front() == Some(&turn) && state.free >= bytes;
        while !mine(&state) && !gone.load(Ordering::Relaxed) {
            (state, _) = self.changed.wait_for(&self.state, state, LOOK);
        }
        let taken = mine(&state);
        if taken {
            state.free -= bytes;
        }
        state.turns.retain(|waiting| *waiting != turn);
        drop(state);
        self.changed.notify_all();
        taken
    }

    /// Gives `bytes` back.
    pub fn give(&self, bytes: usize) {
        self.state.lock().free += bytes;
        self.changed.notify_all();
    }

    /// True while somebody waits.
    pub fn is_wanted(&self) -> bool {
        !self.state.lock().turns.is_empty()
    }

    /// How much is free.
    pub fn free(&self) -> usize {
        self.state.lock().free
    }
}

/// How much of `bytes` a connection has to take out of the shared memory.
pub fn beyond_own(bytes: usize) -> usize {
    bytes.saturating_sub(OWN_BYTES)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mpage_locks::thread;

    use super::*;

    static HERE: AtomicBool = AtomicBool::new(false);

    #[test]
    fn who_came_first_is_served_first() {
        let budget = Arc::new(Budget::new(10));
        assert!(budget.take(8, &HERE));
        let large = Arc::clone(&budget);
        let large = thread::spawn("large", move || large.take(9, &HERE)).unwrap();
        while !budget.is_wanted() {
            thread::yield_now();
        }
        let small = Arc::clone(&budget);
        let small = thread::spawn("small", move || {
            let taken = small.take(2, &HERE);
            (taken, small.free())
        });
        while budget.state.lock().turns.len() < 2 {
            thread::yield_now();
        }
        budget.give(8);
        assert!(large.join().unwrap());
        assert_eq!(budget.free(), 1, "the small one, for which there was room, waits its turn");
        budget.give(9);
        assert_eq!(small.unwrap().join().unwrap(), (true, 8));
    }

    #[test]
    fn who_is_gone_waits_no_longer_and_keeps_nothing() {
        let budget = Budget::new(1);
        assert!(!budget.take(2, &AtomicBool::new(true)));
        assert!(!budget.is_wanted());
        assert!(budget.take(1, &HERE));
    }
}
