//! A fixed number of threads that take bios from one queue.

use std::io;
use std::sync::Arc;

use mpage_locks::thread::{self, JoinHandle};
use mpage_locks::{Condvar, Mutex};

use super::queue::Queue;
use crate::Bio;

/// What the threads and the owner share.
struct Shared {
    queue: Mutex<Queue>,
    /// Notified for each bio put, and when the queue is closed.
    changed: Condvar,
}

impl Shared {
    /// The next bio; waits for one. `None` when the queue is closed and empty.
    fn next(&self) -> Option<Bio> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(bio) = queue.take(false) {
                return Some(bio);
            }
            if queue.is_closed() {
                return None;
            }
            queue = self.changed.wait(queue);
        }
    }

    fn close(&self) {
        self.queue.lock().close();
        self.changed.notify_all();
    }
}

/// The threads. Dropping it waits until the queue is empty and they have ended.
pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads` threads, at least one, that call `run` with each bio.
    ///
    /// # Errors
    ///
    /// The system's when it cannot start that many; those that were started have ended.
    pub(super) fn start(
        threads: usize,
        run: impl Fn(Bio) + Clone + Send + 'static,
    ) -> io::Result<Pool> {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new() });
        let mut pool = Pool { shared, threads: Vec::new() };
        for index in 0..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let run = run.clone();
            pool.threads.push(thread::spawn(&format!("mpage-io-{index}"), move || {
                while let Some(bio) = shared.next() {
                    run(bio);
                }
            })?);
        }
        Ok(pool)
    }

    /// Queues `bio`. Never waits.
    pub(super) fn submit(&self, bio: Bio) {
        self.shared.queue.lock().put(bio);
        self.shared.changed.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.close();
        join(self.threads.drain(..));
    }
}

/// Waits until `threads`, which have been told to, have ended; goes on with a panic of one.
pub(super) fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        // A completion may hold the last reference to the device, which is then dropped on one of
        // its threads: that one ends by itself once this returns.
        if thread::is_current(&thread) {
            continue;
        }
        let ended = thread.join();
        if let Err(panic) = ended
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

#[cfg(test)]
mod tests;
