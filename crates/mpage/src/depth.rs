//! How many writes of walks a device is given at once.
//!
//! A device that takes its writes one after the other makes a small durable write wait for every
//! large one it was given before. So it is given few, and more only while that costs nothing:
//! - It begins with one.
//! - A write that ended quickly was not kept waiting by the others: one more is allowed, if all
//!   places were taken when it was submitted.
//! - So it is for one that ended in about the time the fastest takes; but at a device that is not
//!   quick that is tried only now and then, since it may be the write that is urgent which pays.
//! - A write that took much longer than the fastest waited for others: so many fewer are allowed
//!   that it would not have.
//!
//! The fastest is that of the last few hundred writes of about the same length. So a device that
//! works on many at once gets many, however long each takes.
//!
//! The idea is that of TCP Vegas (Brakmo, O'Malley, Peterson: SIGCOMM 1994). Linux: what
//! block/blk-wbt.c is for; it goes by the latency of reads.

use mpage_locks::Mutex;

/// Writes at first, at a device of which nothing is known.
const FIRST: usize = 1;
/// A write that ends within this time, in nanoseconds, ended quickly.
const QUICK_NS: u64 = 5_000_000;
/// Writes that end at a device that is not quick before one may be added: at first, and after some
/// were taken away.
const CALM: (u32, u32) = (16, 64);
/// Writes from which the fastest is taken, twice.
const EPOCH: u32 = 256;
/// From this length on, in bytes, a write is a long one.
const LONG: u64 = 256 << 10;

/// How many at once, for one device.
#[derive(Debug)]
pub(crate) struct Depth {
    most: usize,
    /// The device has said how many it works on: nothing is found out.
    known: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    now: usize,
    /// Writes to end before one may be added.
    calm: u32,
    /// A write submitted before this many had been submitted says nothing about `now`.
    submitted: u64,
    changed_at: u64,
    /// Of short writes, and of long ones.
    fastest: [Fastest; 2],
}

/// The fastest write, in nanoseconds, of this epoch and of the one before.
#[derive(Clone, Copy, Debug)]
struct Fastest {
    ended: u32,
    this_ns: u64,
    last_ns: u64,
}

/// What is to be known of a write when it has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Submitted {
    number: u64,
    was_full: bool,
}

impl Depth {
    /// For a device that wants at most `most` at once, which are as many as it works on if that is
    /// `known`.
    pub(crate) fn new(most: usize, known: bool) -> Depth {
        let most = most.max(2);
        let first = if known { most } else { FIRST };
        let fastest = [Fastest { ended: 0, this_ns: u64::MAX, last_ns: u64::MAX }; 2];
        let state = State { now: first, calm: CALM.0, submitted: 0, changed_at: 0, fastest };
        Depth { most, known, state: Mutex::new(state) }
    }

    /// How many may be at the device now; at least one.
    pub(crate) fn now(&self) -> usize {
        self.state.lock().now
    }

    /// A write is submitted, which makes it `in_flight` of them.
    pub(crate) fn submitted(&self, in_flight: usize) -> Submitted {
        let mut state = self.state.lock();
        state.submitted += 1;
        Submitted { number: state.submitted, was_full: in_flight >= state.now }
    }

    /// A write of `bytes` bytes ended `took_ns` after it was submitted.
    pub(crate) fn ended(&self, write: Submitted, bytes: u64, took_ns: u64) {
        if self.known {
            return;
        }
        let mut state = self.state.lock();
        let fastest_ns = state.fastest[usize::from(bytes >= LONG)].note(took_ns);
        state.calm = state.calm.saturating_sub(1);
        let quick = took_ns <= QUICK_NS;
        let waited = !quick && took_ns > fastest_ns / 4 * 7;
        if !waited {
            if write.was_full && (quick || state.calm == 0) {
                state.now = (state.now + 1).min(self.most);
            }
        } else if write.number > state.changed_at {
            let alone = state.now as u128 * u128::from(fastest_ns) / u128::from(took_ns);
            state.now = usize::try_from(alone).expect("fewer than before").max(1);
            state.calm = CALM.1;
            state.changed_at = state.submitted;
        }
    }
}

impl Fastest {
    fn note(&mut self, took_ns: u64) -> u64 {
        self.ended += 1;
        if self.ended > EPOCH {
            *self = Fastest { ended: 1, this_ns: took_ns, last_ns: self.this_ns };
        }
        self.this_ns = self.this_ns.min(took_ns);
        self.this_ns.min(self.last_ns)
    }
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
