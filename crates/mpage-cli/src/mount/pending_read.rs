//! Reads that may have to wait for the device.
//!
//! A short one that misses the cache is started at once, and answered by the thread of the device
//! that ends it: no worker has to be woken for it. Any other is a worker's.

use std::sync::Arc;

use fuser::ReplyData;
use mpage_locks::Mutex;

use super::content::with_buffer;
use super::convert::errno;
use super::handles::Handle;
use crate::workers::{Lane, Workers};

/// The longest read that a thread of the device answers, in bytes.
const SHORT_BYTES: usize = 128 << 10;

/// A read, until it is answered.
#[derive(Clone)]
pub(super) struct PendingRead {
    handle: Arc<Handle>,
    offset: u64,
    len: usize,
    /// Taken by who answers.
    reply: Arc<Mutex<Option<ReplyData>>>,
}

impl PendingRead {
    /// Of `len` bytes from `offset` on.
    pub(super) fn new(
        handle: Arc<Handle>,
        (offset, len): (u64, usize),
        reply: ReplyData,
    ) -> PendingRead {
        PendingRead { handle, offset, len, reply: Arc::new(Mutex::new(Some(reply))) }
    }

    /// Answers it if all of it is cached; true when it is answered.
    pub(super) fn try_answer(&self) -> bool {
        let Ok(open) = self.handle.file() else { return false };
        if open.is_direct {
            return false;
        }
        with_buffer(self.len, |buffer| {
            let Some(read) = open.file.cached().try_read_at(buffer, self.offset) else {
                return false;
            };
            if let Some(reply) = self.reply.lock().take() {
                reply.data(&buffer[..read]);
            }
            true
        })
    }

    /// Has it answered by who waits for the device.
    pub(super) fn answer_later(self, workers: &Arc<Workers>) {
        let (read, on) = (self.clone(), Arc::clone(workers));
        let ended = move || {
            if !read.try_answer() {
                read.answer_by_worker(&on);
            }
        };
        let is_started = self.len <= SHORT_BYTES
            && self.handle.file().is_ok_and(|open| {
                let range = self.offset..self.offset + self.len as u64;
                !open.is_direct && open.file.cached().start_fetch(range, ended)
            });
        if !is_started {
            self.answer_by_worker(workers);
        }
    }

    fn answer_by_worker(self, workers: &Workers) {
        workers.run(Lane::Read, Box::new(move || self.answer()));
    }

    /// Answers it, as long as that takes.
    fn answer(self) {
        let Some(reply) = self.reply.lock().take() else { return };
        with_buffer(self.len, |buffer| {
            match self.handle.file().and_then(|open| open.read(buffer, self.offset)) {
                Ok(read) => reply.data(&buffer[..read]),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }
}
