//! The threads that wait for the device, so that those that receive requests need not.
//!
//! Lanes with threads of their own: for metadata, reads, writes, and what has to be durable. So
//! slow reads keep no flush from running, and writers that are held back keep no reader waiting. A
//! thread is started when there is work and none is idle, up to the lane's number.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use mpage_locks::{Condvar, Mutex, thread};

/// Work for a thread.
pub type Job = Box<dyn FnOnce() + Send>;

/// For whom a thread is kept.
#[derive(Clone, Copy, Debug)]
pub enum Lane {
    /// Names and attributes.
    Metadata,
    /// Reads, and questions.
    Read,
    /// Writes into the cache, zeros and trims.
    Write,
    /// Flushes and writes that are durable when they are answered.
    Durable,
}

/// Threads of each lane, at most.
const THREADS: [usize; 4] = [8, 32, 16, 16];

/// The threads.
pub struct Workers {
    lanes: [Arc<Queue>; 4],
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// All threads have become idle.
    quiet: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
    /// No more jobs come.
    closed: bool,
}

impl Workers {
    /// One thread for each lane: from then on every job is done, also where no more threads can be
    /// had.
    ///
    /// # Errors
    ///
    /// The system's, when it has no thread for us.
    pub fn start() -> io::Result<Workers> {
        let workers = Workers { lanes: Default::default() };
        for queue in &workers.lanes {
            queue.state.lock().threads = 1;
            queue.start_thread()?;
        }
        Ok(workers)
    }

    /// Has `job` run by a thread of `lane`. Never waits.
    pub fn run(&self, lane: Lane, job: Job) {
        let queue = &self.lanes[lane as usize];
        let mut state = queue.state.lock();
        state.jobs.push_back(job);
        let enough = state.idle >= state.jobs.len() || state.threads == THREADS[lane as usize];
        if enough {
            drop(state);
            queue.changed.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        if let Err(error) = queue.start_thread() {
            tracing::warn!(%error, "no more threads: requests wait for each other");
            queue.state.lock().threads -= 1;
        }
    }
}

impl Workers {
    /// Waits until nothing is left to be done, for `limit` at most in each lane; false when
    /// something is.
    pub fn wait_until_idle(&self, limit: Duration) -> bool {
        self.lanes.iter().all(|queue| {
            let mut state = queue.state.lock();
            let mut in_time = true;
            while in_time && !state.is_quiet() {
                (state, in_time) = queue.quiet.wait_for(&queue.state, state, limit);
            }
            state.is_quiet()
        })
    }
}

impl State {
    fn is_quiet(&self) -> bool {
        self.jobs.is_empty() && self.idle == self.threads
    }
}

impl Drop for Workers {
    /// Lets the threads end once they have nothing to do.
    fn drop(&mut self) {
        for queue in &self.lanes {
            queue.state.lock().closed = true;
            queue.changed.notify_all();
        }
    }
}

impl Queue {
    fn start_thread(self: &Arc<Queue>) -> io::Result<()> {
        let queue = Arc::clone(self);
        thread::spawn("mpage-work", move || queue.work()).map(drop)
    }

    fn work(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A request that panicked is answered by what it dropped; the others go on.
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!(
                        "a request failed by a panic, which is a bug: please report it"
                    );
                }
                state = self.state.lock();
            } else if state.closed {
                return;
            } else {
                state.idle += 1;
                if state.is_quiet() {
                    self.quiet.notify_all();
                }
                state = self.changed.wait(state);
                state.idle -= 1;
            }
        }
    }
}
