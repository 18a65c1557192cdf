//! The threads that wait for the device, so that those that receive requests need not.
//!
//! Three lanes, each with threads of its own: reads, writes, and what has to be durable. So slow
//! reads keep no flush from running, and writers that are held back keep no reader waiting. A
//! thread is started when there is work and none is idle, up to the lane's number.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use mpage_locks::{Condvar, Mutex, thread};

/// Work for a thread.
pub type Job = Box<dyn FnOnce() + Send>;

/// For whom a thread is kept.
#[derive(Clone, Copy, Debug)]
pub enum Lane {
    /// Reads, and questions.
    Read,
    /// Writes into the cache, zeros and trims.
    Write,
    /// Flushes and writes that are durable when they are answered.
    Durable,
}

/// Threads of each lane, at most.
const THREADS: [usize; 3] = [32, 16, 16];

/// The threads.
#[derive(Default)]
pub struct Workers {
    lanes: [Arc<Queue>; 3],
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
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
    /// Has `job` run by a thread of `lane`. Never waits. Where no thread can be started the caller
    /// runs it.
    pub fn run(&self, lane: Lane, job: Job) {
        let queue = &self.lanes[lane as usize];
        let mut state = queue.state.lock();
        if state.idle > state.jobs.len() || state.threads == THREADS[lane as usize] {
            state.jobs.push_back(job);
            drop(state);
            queue.changed.notify_one();
            return;
        }
        state.threads += 1;
        state.jobs.push_back(job);
        drop(state);
        let theirs = Arc::clone(queue);
        if let Err(error) = thread::spawn("mpage-nbd-work", move || theirs.work()) {
            tracing::warn!(%error, "no more threads: requests wait for each other");
            let mut state = queue.state.lock();
            state.threads -= 1;
            let job = if state.threads == 0 { state.jobs.pop_back() } else { None };
            drop(state);
            if let Some(job) = job {
                job();
            }
        }
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
                state = self.changed.wait(state);
                state.idle -= 1;
            }
        }
    }
}
