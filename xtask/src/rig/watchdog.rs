//! Ends a program that others wait for, and wait for without end if it hangs.

use std::sync::Arc;
use std::time::Duration;

use mpage_locks::thread::{self, JoinHandle};
use mpage_locks::{Condvar, Mutex, clock};

use crate::command::{output, program};
use crate::failure::Failure;

/// Kills a process when a time has passed. Dropped before, it leaves the process alone.
pub(crate) struct Watchdog {
    over: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Kills process `id`, which is no other's as long as this is there, once `limit` has passed.
    ///
    /// `what` says in the report what did not end by itself.
    pub(crate) fn new(id: u32, limit: Duration, what: String) -> Result<Watchdog, Failure> {
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let shared = Arc::clone(&over);
        let watch = move || {
            if is_over_within(&shared, limit) {
                return;
            }
            eprintln!("xtask: {what}: not within {limit:?}, killed");
            let words = ["-KILL".to_owned(), id.to_string()];
            if let Err(failure) = output(&mut program("kill", words)) {
                eprintln!("xtask: {failure}");
            }
        };
        let thread = thread::spawn("watchdog", watch);
        let thread = thread.map_err(|error| Failure::at("a thread", &error))?;
        Ok(Watchdog { over, thread: Some(thread) })
    }
}

fn is_over_within(over: &(Mutex<bool>, Condvar), limit: Duration) -> bool {
    let start_ns = clock::now_ns();
    let mut guard = over.0.lock();
    while !*guard {
        let passed = Duration::from_nanos(clock::now_ns() - start_ns);
        let Some(left) = limit.checked_sub(passed) else { return false };
        (guard, _) = over.1.wait_for(&over.0, guard, left);
    }
    true
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        *self.over.0.lock() = true;
        self.over.1.notify_all();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a thread that waits does not panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_process_is_killed_when_its_time_has_passed() {
        let mut child = Command::new("sleep").arg("600").spawn().expect("sleep runs");
        let watchdog = Watchdog::new(child.id(), Duration::ZERO, "a nap".to_owned());
        let status = child.wait().expect("it is our child");
        assert!(!status.success());
        drop(watchdog.expect("a thread starts"));
    }

    #[test]
    fn a_watchdog_that_is_dropped_kills_nobody() {
        let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn();
        let child = child.as_mut().expect("cat runs");
        let limit = Duration::from_secs(600);
        drop(Watchdog::new(child.id(), limit, "a cat".to_owned()).expect("a thread starts"));
        drop(child.stdin.take());
        assert!(child.wait().expect("it is our child").success());
    }
}
