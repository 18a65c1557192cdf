//! A fixed number of threads and the queue they take bios from.
//!
//! A thread takes the oldest bio of the most urgent class, except that a class which was passed
//! over [`PASSED_MAX`] times is served next. So urgent bios overtake, and none waits forever.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use mpage_locks::thread::{self, JoinHandle};
use mpage_locks::{Condvar, Mutex};

use crate::{Bio, BioOp};

/// How often a class with bios may be passed over for a more urgent one.
pub(super) const PASSED_MAX: u32 = 16;

/// How urgent a bio is: the index of its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Sync = 0,
    Ordinary = 1,
    Background = 2,
}

const CLASSES: usize = 3;

impl Class {
    fn of(bio: &Bio) -> Class {
        let flags = bio.flags();
        if flags.background && !flags.sync {
            Class::Background
        } else if flags.sync || matches!(bio.op(), BioOp::Read | BioOp::Flush) {
            Class::Sync
        } else {
            Class::Ordinary
        }
    }
}

/// The bios that wait for a thread.
#[derive(Default)]
struct Queue {
    classes: [VecDeque<Bio>; CLASSES],
    /// How often each class was passed over since it was served last.
    passed: [u32; CLASSES],
    closed: bool,
}

impl Queue {
    fn put(&mut self, bio: Bio) {
        self.classes[Class::of(&bio) as usize].push_back(bio);
    }

    fn take(&mut self) -> Option<Bio> {
        let waits = |class: &usize| !self.classes[*class].is_empty();
        let starved = |class: &usize| self.passed[*class] >= PASSED_MAX;
        let first = (0..CLASSES).find(waits)?;
        let class = (0..CLASSES).rev().filter(waits).find(starved).unwrap_or(first);
        for other in (0..CLASSES).filter(|other| *other > class) {
            if !self.classes[other].is_empty() {
                self.passed[other] += 1;
            }
        }
        self.passed[class] = 0;
        self.classes[class].pop_front()
    }
}

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
            if let Some(bio) = queue.take() {
                return Some(bio);
            }
            if queue.closed {
                return None;
            }
            queue = self.changed.wait(queue);
        }
    }

    fn close(&self) {
        self.queue.lock().closed = true;
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
        let own = std::thread::current().id();
        for thread in self.threads.drain(..) {
            // A completion may hold the last reference to the device: then the pool is dropped on
            // one of its threads, which ends by itself once this returns.
            if thread.thread().id() == own {
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
}

#[cfg(test)]
mod tests;
