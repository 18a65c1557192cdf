//! Who changes the image now: nobody begins to, and nobody does, once it is closed.
//!
//! An operation that changes something is announced for as long as it takes, all its changes and
//! the commits it waits for. Who closes the image lets no more begin, and waits for those that have
//! begun. An operation is announced once: one inside another would be refused in the midst.
//!
//! Linux: `sb_start_write()`, include/linux/fs.h; `freeze_super()`, fs/super.c. Differs: no way
//! back.

use mpage_block::Errno;
use mpage_locks::{Condvar, Mutex};

use crate::error::{Error, Result};

/// Who changes the image.
#[derive(Default)]
pub(crate) struct Writers {
    state: Mutex<State>,
    none_left: Condvar,
}

#[derive(Default)]
struct State {
    count: usize,
    closed: bool,
}

impl Writers {
    /// Announces an operation, which goes on until the answer is dropped.
    ///
    /// # Errors
    ///
    /// `EROFS` when the image is closed.
    pub(crate) fn begin(&self) -> Result<Writer<'_>> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::errno(Errno::ROFS, "the image is closed"));
        }
        state.count += 1;
        Ok(Writer { writers: self })
    }

    /// Lets no operation begin any more, and waits for those that have.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        while state.count > 0 {
            state = self.none_left.wait(state);
        }
    }
}

/// An operation that is under way.
pub(crate) struct Writer<'a> {
    writers: &'a Writers,
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        let mut state = self.writers.state.lock();
        state.count -= 1;
        if state.count == 0 && state.closed {
            self.writers.none_left.notify_all();
        }
    }
}
