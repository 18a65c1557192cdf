//! A device whose I/O ends later, on a thread of its own, in any order.

use std::collections::VecDeque;
use std::sync::Arc;

use mpage_block::{Bio, BioOp, BlockDevice, Errno, Limits, Sector, SubmitError};
use mpage_locks::thread::{self, JoinHandle};
use mpage_locks::{Condvar, Mutex};

use crate::rig::below;

/// A write or a removal that was carried out.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) op: BioOp,
    pub(crate) sector: Sector,
    /// What was written.
    pub(crate) bytes: Vec<u8>,
}

/// Takes bios at once and carries them out on its own thread, each time one of those it holds. Has
/// a volatile cache if told so: what no flush covered is lost when a flush fails.
pub(crate) struct Later {
    shared: Arc<Shared>,
    limits: Limits,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    held: Vec<Held>,
    stop: bool,
    /// What a reader of the device gets.
    written: Vec<u8>,
    /// What stays when the power goes.
    durable: Vec<u8>,
    fail_writes: VecDeque<Errno>,
    fail_flushes: u32,
    log: Vec<Done>,
}

struct Held {
    bio: Bio,
    /// What a flush makes durable: what had been written when it was submitted.
    covered: Vec<u8>,
}

impl Later {
    /// A device that holds `content`; its thread runs until [`stop`](Self::stop).
    pub(crate) fn new(content: Vec<u8>, bytes_max: usize, volatile_cache: bool) -> Arc<Later> {
        let limits = Limits {
            bytes_max,
            segments_max: 16,
            alignment: 512,
            queue_depth: 8,
            parallel: true,
            volatile_cache,
            fua: true,
            write_zeroes: true,
            capacity: Some(content.len() as u64),
            ..Limits::default()
        };
        let state = State {
            held: Vec::new(),
            stop: false,
            durable: content.clone(),
            written: content,
            fail_writes: VecDeque::new(),
            fail_flushes: 0,
            log: Vec::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let worker = Arc::clone(&shared);
        let thread = thread::spawn("device", move || worker.run()).unwrap();
        Arc::new(Later { shared, limits, thread: Mutex::new(Some(thread)) })
    }

    /// Carries out what it holds and ends the thread.
    pub(crate) fn stop(&self) {
        self.shared.state.lock().stop = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().take();
        thread.unwrap().join().unwrap();
    }

    /// The next writes fail with `errors`.
    pub(crate) fn fail_writes(&self, errors: &[Errno]) {
        self.shared.state.lock().fail_writes.extend(errors);
    }

    /// The next `count` flushes fail, and each loses what no good flush covered.
    pub(crate) fn fail_flushes(&self, count: u32) {
        self.shared.state.lock().fail_flushes = count;
    }

    /// What a reader of the device gets now.
    pub(crate) fn written(&self) -> Vec<u8> {
        self.shared.state.lock().written.clone()
    }

    /// What would be there after a power cut now.
    pub(crate) fn durable(&self) -> Vec<u8> {
        let state = self.shared.state.lock();
        if self.limits.volatile_cache { state.durable.clone() } else { state.written.clone() }
    }

    /// What was carried out so far.
    pub(crate) fn log(&self) -> Vec<Done> {
        self.shared.state.lock().log.clone()
    }
}

impl BlockDevice for Later {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
        let bio = SubmitError::unless_allowed(bio, &self.limits)?;
        let mut state = self.shared.state.lock();
        assert!(!state.stop, "no I/O after the cache is gone");
        let covered = if bio.op() == BioOp::Flush { state.written.clone() } else { Vec::new() };
        state.held.push(Held { bio, covered });
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }
}

impl Shared {
    fn run(&self) {
        while let Some(held) = self.next() {
            let result = self.carry_out(&held);
            held.bio.complete(result);
        }
    }

    /// One of those held; `None` when it is over.
    fn next(&self) -> Option<Held> {
        let mut state = self.state.lock();
        loop {
            if !state.held.is_empty() {
                let at = below(state.held.len());
                return Some(state.held.swap_remove(at));
            }
            if state.stop {
                return None;
            }
            state = self.changed.wait(state);
        }
    }

    fn carry_out(&self, held: &Held) -> Result<(), Errno> {
        let bio = &held.bio;
        let at = usize::try_from(bio.sector().0 * 512).unwrap();
        let end = at + usize::try_from(bio.bytes()).unwrap();
        let mut bytes = vec![0; end - at];
        if bio.op() == BioOp::Write {
            // Takes several steps: whoever stores into the frame meanwhile is found out.
            bio.copy_out(0, &mut bytes);
        }
        let mut state = self.state.lock();
        match bio.op() {
            BioOp::Read => bytes.copy_from_slice(&state.written[at..end]),
            BioOp::Flush if state.fail_flushes > 0 => {
                state.fail_flushes -= 1;
                state.written = state.durable.clone();
                return Err(Errno::IO);
            }
            BioOp::Flush => state.durable.copy_from_slice(&held.covered),
            BioOp::Write if !state.fail_writes.is_empty() => {
                return state.fail_writes.pop_front().map_or(Ok(()), Err);
            }
            BioOp::Write | BioOp::WriteZeroes | BioOp::Discard => {
                state.written[at..end].copy_from_slice(&bytes);
                if bio.flags().fua {
                    state.durable[at..end].copy_from_slice(&bytes);
                    // A flush that was submitted before takes nothing back.
                    for flush in state.held.iter_mut().filter(|held| held.bio.op() == BioOp::Flush)
                    {
                        flush.covered[at..end].copy_from_slice(&bytes);
                    }
                }
                let (op, sector) = (bio.op(), bio.sector());
                state.log.push(Done { op, sector, bytes: bytes.clone() });
            }
        }
        drop(state);
        if bio.op() == BioOp::Read {
            bio.copy_in(0, &bytes);
        }
        Ok(())
    }
}
