//! Ranges that a removal zeroed on the device itself, and that no flush covers yet.
//!
//! A page remembers what it wrote until a flush covers it, so that a failed flush can make it dirty
//! again. Zeros that a removal had the block map write are in no page. They are remembered here,
//! less what was written over them since, and written again by the sync after the failed flush.
//! Each range is lost or not by itself: what was written again is not, when its neighbour still is.

use std::collections::BTreeMap;
use std::ops::Range;

use mpage_locks::Mutex;
use mpage_locks::atomic::{AtomicBool, Ordering};

/// Ranges remembered; a removal that would make it more flushes the device first.
const RANGES_MAX: usize = 1024;

/// What becomes of the room of bytes that are made zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// The device, or the block map, may let it go.
    Freed,
    /// It stays.
    Kept,
}

/// The zeroed ranges of one mapping, in bytes.
#[derive(Default)]
pub(crate) struct Zeroed {
    /// False when nothing is remembered: what every write that ends asks first.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By their start; those that touch differ.
    ranges: BTreeMap<u64, Zeros>,
    /// The number of the last removal's write on the device.
    upto: u64,
}

/// Zeros from the byte that is their key on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Zeros {
    end: u64,
    room: Room,
    /// A flush failed: they may be lost.
    lost: bool,
}

impl Zeros {
    /// True when the two are one where they touch.
    fn is_like(self, other: Zeros) -> bool {
        (self.room, self.lost) == (other.room, other.lost)
    }
}

impl Zeroed {
    /// `range` was zeroed, with its `room` freed or kept, by the device write with number `at`, and
    /// is `lost` if a flush failed meanwhile; a good one has covered all up to `flushed`. False
    /// when too many ranges are remembered to go on without a flush.
    pub(crate) fn note(
        &self,
        range: &Range<u64>,
        room: Room,
        (at, lost): (u64, bool),
        flushed: u64,
    ) -> bool {
        let mut state = self.state.lock();
        self.forget_flushed(&mut state, flushed);
        state.add(range, Zeros { end: range.end, room, lost });
        state.upto = state.upto.max(at);
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
            Some((_, zeros)) if at < zeros.end => (true, zeros.end),
            _ => (false, state.ranges.range(at..).next().map_or(u64::MAX, |(start, _)| *start)),
        }
    }

    /// Whether a byte of `range` is remembered.
    pub(crate) fn meets(&self, range: &Range<u64>, flushed: u64) -> bool {
        let (is_remembered, until) = self.at(range.start, flushed);
        is_remembered || until < range.end
    }

    /// `range` was written: it is zeros no longer. Called before the write counts as ended. True
    /// when something of it was lost.
    pub(crate) fn overwritten(&self, range: &Range<u64>) -> bool {
        if !self.any.load(Ordering::SeqCst) {
            return false;
        }
        let cut = self.state.lock().subtract(range);
        cut.iter().any(|(_, zeros)| zeros.lost)
    }

    /// Whether anything may be lost.
    pub(crate) fn has_lost(&self) -> bool {
        self.any.load(Ordering::SeqCst) && self.state.lock().ranges.values().any(|zeros| zeros.lost)
    }

    /// A flush failed; an earlier one covered all up to `flushed`.
    pub(crate) fn flush_failed(&self, flushed: u64) {
        if self.any.load(Ordering::SeqCst) {
            let mut state = self.state.lock();
            self.forget_flushed(&mut state, flushed);
            let all = std::mem::take(&mut state.ranges);
            all.into_iter().for_each(|(start, zeros)| {
                state.add(&(start..zeros.end), Zeros { lost: true, ..zeros });
            });
        }
    }

    /// What of `range` may be lost, in ascending order, and what became of its room. A good flush
    /// has covered all up to `flushed`.
    pub(crate) fn lost(&self, range: &Range<u64>, flushed: u64) -> Vec<(Range<u64>, Room)> {
        if !self.any.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let mut state = self.state.lock();
        self.forget_flushed(&mut state, flushed);
        let lost = state.ranges.iter().filter(|(_, zeros)| zeros.lost);
        let inside = lost.map(|(start, zeros)| {
            ((*start).max(range.start)..zeros.end.min(range.end), zeros.room)
        });
        inside.filter(|(part, _)| part.start < part.end).collect()
    }

    fn forget_flushed(&self, state: &mut State, flushed: u64) {
        if state.upto <= flushed {
            state.ranges.retain(|_, zeros| zeros.lost);
        }
        if state.ranges.is_empty() {
            self.any.store(false, Ordering::SeqCst);
        }
    }
}

impl State {
    /// `range` is `zeros` now, whatever was remembered of it.
    fn add(&mut self, range: &Range<u64>, zeros: Zeros) {
        let _replaced = self.subtract(range);
        let (mut start, mut end) = (range.start, zeros.end);
        let before = self.ranges.range(..start).next_back().map(|(start, zeros)| (*start, *zeros));
        if let Some((first, before)) = before
            && before.end == start
            && before.is_like(zeros)
        {
            start = first;
        }
        if let Some(behind) = self.ranges.get(&end).copied()
            && behind.is_like(zeros)
        {
            let _joined = self.ranges.remove(&end);
            end = behind.end;
        }
        let _before = self.ranges.insert(start, Zeros { end, ..zeros });
    }

    /// Takes `range` out; returns what met it.
    fn subtract(&mut self, range: &Range<u64>) -> Vec<(u64, Zeros)> {
        let cut: Vec<(u64, Zeros)> = self
            .ranges
            .range(..range.end)
            .rev()
            .take_while(|(_, zeros)| zeros.end > range.start)
            .map(|(start, zeros)| (*start, *zeros))
            .collect();
        for (start, zeros) in cut.iter().copied() {
            let _whole = self.ranges.remove(&start);
            if start < range.start {
                let _head = self.ranges.insert(start, Zeros { end: range.start, ..zeros });
            }
            if zeros.end > range.end {
                let _tail = self.ranges.insert(range.end, zeros);
            }
        }
        cut
    }
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
