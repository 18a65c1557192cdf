//! Holding bios for a time: one thread, which waits for the next one that is due.

use std::sync::Arc;
use std::time::Duration;

use mpage_locks::clock::now_ns;
use mpage_locks::thread::{self, JoinHandle};

use super::{Delay, Shared};
use crate::{BioOp, BlockDevice};

/// How long each operation is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Latency {
    /// A read.
    pub read: Duration,
    /// A write.
    pub write: Duration,
    /// A flush.
    pub flush: Duration,
    /// A discard, or zeros.
    pub discard: Duration,
    /// Whether the times of operations that are held together overlap. Without, each begins when
    /// the one before ends, as on a disk with one head.
    pub parallel: bool,
}

/// When the operations that are held one after another end.
#[derive(Default)]
pub(super) struct Line {
    busy_until_ns: u64,
    /// Whether the thread is to end.
    stopped: bool,
}

/// The thread that releases bios when they are due.
pub(super) struct Timer {
    latency: Latency,
    thread: JoinHandle<()>,
}

impl Delay {
    /// Holds every bio for the time that `latency` says. Starts a thread, which ends with the
    /// device. Not to be had under a schedule checker, where no time passes.
    ///
    /// # Errors
    ///
    /// The system's when it cannot start the thread.
    pub fn timed(device: Arc<dyn BlockDevice>, latency: Latency) -> std::io::Result<Delay> {
        let shared = Shared::new(device);
        let own = Arc::clone(&shared);
        let thread = thread::spawn("mpage-delay", move || own.release_when_due())?;
        Ok(Delay { shared, timer: Some(Timer { latency, thread }) })
    }
}

impl Timer {
    /// When an operation that comes now is due.
    pub(super) fn due(&self, line: &mut Line, op: BioOp) -> u64 {
        let delay = match op {
            BioOp::Read => self.latency.read,
            BioOp::Write => self.latency.write,
            BioOp::Flush => self.latency.flush,
            BioOp::Discard | BioOp::WriteZeroes => self.latency.discard,
        };
        let delay_ns = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        let now_ns = now_ns();
        if self.latency.parallel {
            return now_ns.saturating_add(delay_ns);
        }
        line.busy_until_ns = line.busy_until_ns.max(now_ns).saturating_add(delay_ns);
        line.busy_until_ns
    }

    /// Ends the thread; what is held stays.
    pub(super) fn stop(self, shared: &Shared) {
        shared.state.lock().line.stopped = true;
        shared.changed.notify_all();
        // A completion may hold the last reference to the device: then the thread ends by itself
        // once this returns.
        if self.thread.thread().id() == std::thread::current().id() {
            return;
        }
        let ended = self.thread.join();
        if let Err(panic) = ended
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Shared {
    fn release_when_due(&self) {
        let mut state = self.state.lock();
        while !state.line.stopped {
            let Some(&(due_ns, number)) = state.held.keys().next() else {
                state = self.changed.wait(state);
                continue;
            };
            let now_ns = now_ns();
            if now_ns < due_ns {
                let left = Duration::from_nanos(due_ns - now_ns);
                (state, _) = self.changed.wait_for(&self.state, state, left);
                continue;
            }
            let bio = state.held.remove(&(due_ns, number));
            drop(state);
            self.pass_on(bio.into_iter());
            state = self.state.lock();
        }
    }
}
