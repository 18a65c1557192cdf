//! The thread that commits what nobody syncs.

use std::sync::{Arc, Weak};
use std::time::Duration;

use mpage_locks::{Condvar, Mutex, thread};

use crate::error::{Error, Result};
use crate::file_system::FileSystem;

/// Commits now and then, until it is dropped.
pub(crate) struct Committer {
    stop: Arc<Stop>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    yes: Mutex<bool>,
    changed: Condvar,
}

impl Committer {
    /// Commits what `fs` has every `interval`.
    ///
    /// # Errors
    ///
    /// The operating system's when it has no thread.
    pub(crate) fn start(fs: Weak<FileSystem>, interval: Duration) -> Result<Committer> {
        let stop = Arc::<Stop>::default();
        let told = Arc::clone(&stop);
        let thread = thread::spawn("mpage-commit", move || {
            while told.wait(interval) {
                let Some(fs) = fs.upgrade() else { return };
                fs.commit_now_and_then();
            }
        });
        let thread = thread.map_err(|error| {
            Error::errno(mpage_block::Errno::AGAIN, format!("a thread that commits: {error}"))
        })?;
        Ok(Committer { stop, thread: Some(thread) })
    }
}

impl Stop {
    /// Waits for `interval`; false when it is to stop.
    fn wait(&self, interval: Duration) -> bool {
        let mut yes = self.yes.lock();
        while !*yes {
            let (guard, woken) = self.changed.wait_for(&self.yes, yes, interval);
            yes = guard;
            if !woken {
                return !*yes;
            }
        }
        false
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        *self.stop.yes.lock() = true;
        self.stop.changed.notify_all();
        let Some(thread) = self.thread.take() else { return };
        // The last owner of the file system may be the thread itself.
        if !thread::is_current(&thread) {
            let _ended = thread.join();
        }
    }
}

impl FileSystem {
    /// Commits what was changed. An error is met again by whoever syncs: nothing is lost by it.
    fn commit_now_and_then(&self) {
        let begun = self.metadata.begin_writing();
        let _tried_again = begun.and_then(|_writer| self.release_all());
        let _met_again = self.bring_up_to_date();
        let running = {
            let transactions = self.metadata.transactions.read();
            let running = &transactions.running;
            (!running.changed.is_empty()).then_some(running.number)
        };
        if let Some(number) = running {
            let _met_again = self.metadata.commit(number);
        }
        let _tried_again = self.metadata.checkpoint_if_wanted();
    }
}
