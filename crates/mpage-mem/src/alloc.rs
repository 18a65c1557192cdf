//! Which frames are free, and which of them to give out.
//!
//! Neighbouring pages of a file want neighbouring frames, so that a bio of them has few segments.
//! The caller says in which slot of a run its page belongs, and names a frame of a page next to
//! it. In order of preference the page gets
//!
//! 1. the slot in the run of that frame;
//! 2. the slot in a wholly free run: the first one behind the run of that frame or, when none was
//!    named, behind the run opened last; so that the runs of a sequential reader follow each other;
//! 3. any free frame, of the runs that are in pieces.

use crate::bitmap::Bitmap;
use crate::frame::{FrameId, RUN};

const WHOLE_RUN: u64 = (1 << RUN) - 1;

/// The free frames of an arena.
///
/// # Invariants
///
/// 1. `whole` holds exactly the runs all of whose `RUN` frames are in `frames`.
/// 2. `count` is the number of members of `frames`.
#[derive(Debug)]
pub(crate) struct FreeFrames {
    frames: Bitmap,
    whole: Option<Bitmap>,
    count: usize,
    /// Where the search for a wholly free run begins: behind the run opened last.
    next_run: usize,
    /// Where the search for any frame begins: behind the one found last.
    next_frame: usize,
}

impl FreeFrames {
    /// Frames 0 to `count`, all free. There is at least one.
    pub(crate) fn new(count: usize) -> FreeFrames {
        // INVARIANT: 1. A run at the end that lacks frames is never whole.
        let runs = count / RUN;
        FreeFrames {
            frames: Bitmap::full(count),
            whole: (runs > 0).then(|| Bitmap::full(runs)),
            count,
            next_run: 0,
            next_frame: 0,
        }
    }

    /// The number of free frames.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Takes a frame out, by preference slot `slot` of the run of `sibling`. `None` when no frame
    /// is free.
    pub(crate) fn take(&mut self, slot: usize, sibling: Option<FrameId>) -> Option<FrameId> {
        let index = self
            .in_run_of(slot, sibling)
            .or_else(|| self.in_whole_run(slot, sibling))
            .or_else(|| self.anywhere())?;
        self.frames.remove(index);
        if let Some(whole) = &mut self.whole
            && whole.contains(index / RUN)
        {
            whole.remove(index / RUN);
        }
        self.count -= 1;
        Some(FrameId::from_index(index))
    }

    /// Puts `frame` back.
    ///
    /// # Panics
    ///
    /// When it is free already.
    pub(crate) fn put(&mut self, frame: FrameId) {
        let index = frame.index();
        assert!(!self.frames.contains(index), "frame {index} freed twice");
        self.frames.insert(index);
        let first = index / RUN * RUN;
        let run = self.frames.word_of(first) >> (first % u64::BITS as usize) & WHOLE_RUN;
        if run == WHOLE_RUN {
            let whole = self.whole.as_mut().expect("a run that is whole is in an arena of runs");
            whole.insert(index / RUN);
        }
        self.count += 1;
    }

    fn in_run_of(&self, slot: usize, sibling: Option<FrameId>) -> Option<usize> {
        let index = sibling?.index() / RUN * RUN + slot;
        self.frames.contains(index).then_some(index)
    }

    fn in_whole_run(&mut self, slot: usize, sibling: Option<FrameId>) -> Option<usize> {
        let from = sibling.map_or(self.next_run, |sibling| sibling.index() / RUN + 1);
        let run = self.whole.as_ref()?.next_around(from)?;
        self.next_run = run + 1;
        Some(run * RUN + slot)
    }

    fn anywhere(&mut self) -> Option<usize> {
        let index = self.frames.next_around(self.next_frame)?;
        self.next_frame = index + 1;
        Some(index)
    }
}
