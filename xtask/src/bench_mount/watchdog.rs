//! A limit of time for a server: it is killed when it has passed.

use std::sync::Arc;
use std::time::Duration;

use mpage_locks::thread::{self, JoinHandle};
use mpage_locks::{Condvar, Mutex, clock};

use crate::command::{output, program};
use crate::failure::Failure;

/// Kills a process after a time, unless it is called off.
pub(super) struct Watchdog {
    state: Arc<(Mutex<bool>, Condvar)>,
    thread: JoinHandle<Result<bool, Failure>>,
}

impl Watchdog {
    /// Gives process `id` so much time.
    pub(super) fn new(id: u32, limit: Duration) -> Result<Watchdog, Failure> {
        let state = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = Arc::clone(&state);
        let thread = thread::spawn("watchdog", move || watch(&shared, id, limit));
        let thread = thread.map_err(|error| Failure::at("a thread", &error))?;
        Ok(Watchdog { state, thread })
    }

    /// Calls it off; true when the process was killed.
    pub(super) fn call_off(self) -> Result<bool, Failure> {
        *self.state.0.lock() = true;
        self.state.1.notify_all();
        self.thread.join().expect("the watchdog does not panic")
    }
}

fn watch(state: &(Mutex<bool>, Condvar), id: u32, limit: Duration) -> Result<bool, Failure> {
    let (mutex, called_off) = state;
    let start_ns = clock::now_ns();
    let mut done = mutex.lock();
    while !*done {
        let passed = Duration::from_nanos(clock::now_ns() - start_ns);
        let Some(left) = limit.checked_sub(passed).filter(|left| !left.is_zero()) else {
            drop(done);
            return output(&mut program("kill", ["-KILL", &id.to_string()])).map(|_| true);
        };
        let (guard, _woken) = called_off.wait_for(mutex, done, left);
        done = guard;
    }
    Ok(false)
}
