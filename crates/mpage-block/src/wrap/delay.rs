//! A device that holds operations back.

use std::collections::BTreeMap;
use std::sync::Arc;

use mpage_locks::{Condvar, Mutex};

use crate::{Bio, BioFlags, BioOp, BlockDevice, Errno, Limits, Sector, Span, SubmitError};

#[cfg(not(any(mpage_loom, mpage_shuttle)))]
mod timed;
#[cfg(not(any(mpage_loom, mpage_shuttle)))]
pub use timed::Latency;
#[cfg(not(any(mpage_loom, mpage_shuttle)))]
use timed::Timer;

/// When a bio that only waits for its release is due.
const NEVER: u64 = u64::MAX;

/// A device that holds bios before the device inside sees them.
///
/// Made by [`manual`](Self::manual), it holds each until it is released and starts no thread. Made
/// by `timed`, it holds each for a time that depends on the operation; releasing works, too.
///
/// A bio is checked against the limits before it is held. New sizes are passed on at once. Dropping
/// the device gives what is held to the device inside.
pub struct Delay {
    shared: Arc<Shared>,
    #[cfg(not(any(mpage_loom, mpage_shuttle)))]
    timer: Option<Timer>,
}

/// What can be seen of a bio that is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldBio {
    /// What it asks.
    pub op: BioOp,
    /// Its first sector.
    pub sector: Sector,
    /// Its bytes.
    pub bytes: u64,
    /// Its flags.
    pub flags: BioFlags,
}

type Filter = Box<dyn Fn(&Bio) -> bool + Send>;

struct Shared {
    device: Arc<dyn BlockDevice>,
    state: Mutex<State>,
    /// Notified when a bio was held or released, and when the device is dropped.
    changed: Condvar,
}

struct State {
    /// By when they are due, then by when they came.
    held: BTreeMap<(u64, u64), Bio>,
    came: u64,
    filter: Option<Filter>,
    #[cfg(not(any(mpage_loom, mpage_shuttle)))]
    line: timed::Line,
}

impl Delay {
    /// Holds every bio until it is released.
    pub fn manual(device: Arc<dyn BlockDevice>) -> Delay {
        Delay {
            shared: Shared::new(device),
            #[cfg(not(any(mpage_loom, mpage_shuttle)))]
            timer: None,
        }
    }

    /// From now on holds only what `filter` is true of, and passes the rest on at once.
    ///
    /// What is held stays held. `filter` is called with the device's own lock held: it looks at the
    /// bio and nothing else.
    pub fn hold_only(&self, filter: impl Fn(&Bio) -> bool + Send + 'static) {
        self.shared.state.lock().filter = Some(Box::new(filter));
    }

    /// What is held, in the order in which it will be released.
    pub fn held(&self) -> Vec<HeldBio> {
        self.shared.state.lock().held.values().map(HeldBio::of).collect()
    }

    /// Waits until at least `count` bios are held.
    pub fn wait_for_held(&self, count: usize) {
        let mut state = self.shared.state.lock();
        while state.held.len() < count {
            state = self.shared.changed.wait(state);
        }
    }

    /// Gives the first bio held to the device inside; false when none is held.
    pub fn release_next(&self) -> bool {
        self.release_nth(0)
    }

    /// Gives the bio at `index` of [`held`](Self::held) to the device inside; false when it is not
    /// there.
    pub fn release_nth(&self, index: usize) -> bool {
        let bio = {
            let mut state = self.shared.state.lock();
            let Some(&key) = state.held.keys().nth(index) else { return false };
            state.held.remove(&key)
        };
        self.shared.pass_on(bio.into_iter());
        true
    }

    /// Gives all that is held to the device inside, in order, and says how many it was. What comes
    /// meanwhile is held.
    pub fn release_all(&self) -> usize {
        let held = std::mem::take(&mut self.shared.state.lock().held);
        let count = held.len();
        self.shared.pass_on(held.into_values());
        count
    }

    /// When a bio that comes now is due.
    #[cfg(not(any(mpage_loom, mpage_shuttle)))]
    fn due(&self, state: &mut State, op: BioOp) -> u64 {
        self.timer.as_ref().map_or(NEVER, |timer| timer.due(&mut state.line, op))
    }

    #[cfg(any(mpage_loom, mpage_shuttle))]
    fn due(&self, _state: &mut State, _op: BioOp) -> u64 {
        NEVER
    }
}

impl BlockDevice for Delay {
    fn limits(&self) -> Limits {
        self.shared.device.limits()
    }

    fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
        let bio = SubmitError::unless_allowed(bio, &self.limits())?;
        let mut state = self.shared.state.lock();
        if state.filter.as_ref().is_some_and(|filter| !filter(&bio)) {
            drop(state);
            return self.shared.device.submit(bio);
        }
        let due = self.due(&mut state, bio.op());
        state.came += 1;
        let key = (due, state.came);
        let before = state.held.insert(key, bio);
        assert!(before.is_none(), "each bio has a number of its own");
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }

    fn span_at(&self, offset: u64) -> Result<Span, Errno> {
        self.shared.device.span_at(offset)
    }

    fn set_len(&self, bytes: u64) -> Result<(), Errno> {
        self.shared.device.set_len(bytes)
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        #[cfg(not(any(mpage_loom, mpage_shuttle)))]
        if let Some(timer) = self.timer.take() {
            timer.stop(&self.shared);
        }
        let _released: usize = self.release_all();
    }
}

impl HeldBio {
    fn of(bio: &Bio) -> HeldBio {
        HeldBio { op: bio.op(), sector: bio.sector(), bytes: bio.bytes(), flags: bio.flags() }
    }
}

impl Shared {
    fn new(device: Arc<dyn BlockDevice>) -> Arc<Shared> {
        let state = State {
            held: BTreeMap::new(),
            came: 0,
            filter: None,
            #[cfg(not(any(mpage_loom, mpage_shuttle)))]
            line: timed::Line::default(),
        };
        Arc::new(Shared { device, state: Mutex::new(state), changed: Condvar::new() })
    }

    /// Gives bios that were held to the device inside. One that it refuses was taken long ago and
    /// completes with the error.
    fn pass_on(&self, bios: impl Iterator<Item = Bio>) {
        self.changed.notify_all();
        for bio in bios {
            if let Err(SubmitError { bio, error }) = self.device.submit(bio) {
                bio.complete(Err(error));
            }
        }
    }
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
