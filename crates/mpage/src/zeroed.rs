//! Ranges that a removal zeroed on the device itself, and that no flush covers yet.
//!
//! A page remembers what it wrote until a flush covers it, so that a failed flush can make it dirty
//! again. Zeros that a removal had the block map write are in no page. They are remembered here,
//! less what was written over them since, and written again by the sync after the failed flush.

use std::collections::BTreeMap;
use std::ops::Range;

use mpage_locks::Mutex;
use mpage_locks::atomic::{AtomicBool, Ordering};

/// Ranges remembered; a removal that would make it more flushes the device first.
const RANGES_MAX: usize = 1024;

/// The zeroed ranges of one mapping, in bytes.
#[derive(Default)]
pub(crate) struct Zeroed {
    /// False when nothing is remembered: what every write that ends asks first.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Start to end; apart from each other.
    ranges: BTreeMap<u64, u64>,
    /// The number of the last removal's write on the device.
    upto: u64,
    /// A flush failed: the zeros may be lost.
    lost: bool,
}

impl Zeroed {
    /// `range` was zeroed by the device write with number `at`, and is `lost` if a flush failed
    /// meanwhile; a good one has covered all up to `flushed`. False when too many ranges are
    /// remembered to go on without a flush.
    pub(crate) fn note(&self, range: &Range<u64>, (at, lost): (u64, bool), flushed: u64) -> bool {
        let mut state = self.state.lock();
        self.forget_flushed(&mut state, flushed);
        state.add(range.clone());
        state.upto = state.upto.max(at);
        state.lost |= lost;
        self.any.store(true, Ordering::SeqCst);
        state.ranges.len() <= RANGES_MAX
    }

    /// Whether the byte at `at` is remembered, and up to where that is so. What is remembered reads
    /// as zeros, whatever the device has there after a failed flush. Takes no lock while there is
    /// nothing to forget.
    pub(crate) fn at(&self, at: u64, flushed: u64) -> (bool, u64) {
        if !self.any.load(Ordering::SeqCst) {
            return (false, u64::MAX);
        }
        let mut state = self.state.lock();
        self.forget_flushed(&mut state, flushed);
        match state.ranges.range(..=at).next_back() {
            Some((_, end)) if at < *end => (true, *end),
            _ => (false, state.ranges.range(at..).next().map_or(u64::MAX, |(start, _)| *start)),
        }
    }

    /// Whether a byte of `range` is remembered.
    pub(crate) fn meets(&self, range: &Range<u64>, flushed: u64) -> bool {
        let (is_remembered, until) = self.at(range.start, flushed);
        is_remembered || until < range.end
    }

    /// `range` was written: it is zeros no longer. Called before the write counts as ended.
    pub(crate) fn overwritten(&self, range: &Range<u64>) {
        if self.any.load(Ordering::SeqCst) {
            self.state.lock().subtract(range);
        }
    }

    /// A flush failed; an earlier one covered all up to `flushed`.
    pub(crate) fn flush_failed(&self, flushed: u64) {
        if self.any.load(Ordering::SeqCst) {
            let mut state = self.state.lock();
            self.forget_flushed(&mut state, flushed);
            state.lost = !state.ranges.is_empty();
        }
    }

    /// What may be lost, from the first byte to the last; `None` when nothing is. A good flush has
    /// covered all up to `flushed`.
    pub(crate) fn lost(&self, flushed: u64) -> Option<Range<u64>> {
        if !self.any.load(Ordering::SeqCst) {
            return None;
        }
        let mut state = self.state.lock();
        self.forget_flushed(&mut state, flushed);
        let (first, last) = (state.ranges.first_key_value()?, state.ranges.last_key_value()?);
        state.lost.then_some(*first.0..*last.1)
    }

    /// Takes what is lost of `range`, to zero it again: removals elsewhere may have been noted
    /// since the caller kept others away from there. Who cannot gives it back by
    /// [`lost_again`](Self::lost_again).
    pub(crate) fn take_lost(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut state = self.state.lock();
        let inside = |(start, end): (&u64, &u64)| {
            let part = (*start).max(range.start)..(*end).min(range.end);
            (part.start < part.end).then_some(part)
        };
        let taken = state.ranges.iter().filter_map(inside).collect();
        state.subtract(range);
        state.lost = !state.ranges.is_empty();
        taken
    }

    /// `range` could not be zeroed again.
    pub(crate) fn lost_again(&self, range: &Range<u64>) {
        let mut state = self.state.lock();
        state.add(range.clone());
        state.lost = true;
        self.any.store(true, Ordering::SeqCst);
    }

    fn forget_flushed(&self, state: &mut State, flushed: u64) {
        if state.ranges.is_empty() || !state.lost && state.upto <= flushed {
            state.ranges.clear();
            state.lost = false;
            self.any.store(false, Ordering::SeqCst);
        }
    }
}

impl State {
    fn add(&mut self, mut range: Range<u64>) {
        let touching: Vec<u64> = self
            .ranges
            .range(..=range.end)
            .rev()
            .take_while(|(_, end)| **end >= range.start)
            .map(|(start, _)| *start)
            .collect();
        for start in touching {
            let end = self.ranges.remove(&start).expect("just found");
            range = range.start.min(start)..range.end.max(end);
        }
        let _new = self.ranges.insert(range.start, range.end);
    }

    fn subtract(&mut self, range: &Range<u64>) {
        let cut: Vec<(u64, u64)> = self
            .ranges
            .range(..range.end)
            .rev()
            .take_while(|(_, end)| **end > range.start)
            .map(|(start, end)| (*start, *end))
            .collect();
        for (start, end) in cut {
            let _whole = self.ranges.remove(&start);
            if start < range.start {
                let _head = self.ranges.insert(start, range.start);
            }
            if end > range.end {
                let _tail = self.ranges.insert(range.end, end);
            }
        }
    }
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
