//! Frames and how they are counted.

/// Bytes of a frame.
pub const PAGE_SIZE: usize = 4096;

/// Frames of a run of neighbours: 16 KiB, aligned to its size.
pub const RUN: usize = 4;

/// The number of a frame in its arena.
///
/// Frames with consecutive numbers are consecutive in memory. A number alone keeps nothing: see
/// [`Arena::pin`](crate::Arena::pin).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct FrameId(u32);

impl FrameId {
    /// The frame with number `number`.
    #[inline]
    pub const fn new(number: u32) -> FrameId {
        FrameId(number)
    }

    /// The frame's number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The frame with number `index`, which is below the limit on an arena's frames.
    pub(crate) fn from_index(index: usize) -> FrameId {
        FrameId(u32::try_from(index).expect("an arena has fewer frames than a u32 counts"))
    }

    /// The frame's number, to index with.
    #[inline]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}
