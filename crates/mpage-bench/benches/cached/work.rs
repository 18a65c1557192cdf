//! What one thread is to do: so many operations, at random places of its part of the file.

use std::ops::Range;

use mpage::units::PAGE_BYTES;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Writes a page that is dirty.
    Write,
    /// Writes a page that is clean.
    FirstWrite,
    /// Reads a page.
    Read,
    /// Reads a line of 64 bytes of a page.
    ReadLine,
}

impl Operation {
    pub(crate) const ALL: [Operation; 4] =
        [Operation::Write, Operation::FirstWrite, Operation::Read, Operation::ReadLine];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Write => "write 4 KiB",
            Operation::FirstWrite => "write 4 KiB, clean",
            Operation::Read => "read 4 KiB",
            Operation::ReadLine => "read 64 B",
        }
    }

    pub(crate) fn writes(self) -> bool {
        matches!(self, Operation::Write | Operation::FirstWrite)
    }

    /// Bytes one operation moves.
    pub(crate) fn len(self) -> usize {
        match self {
            Operation::ReadLine => LINE,
            _ => PAGE,
        }
    }
}

pub(crate) const PAGE: usize = mpage::units::PAGE_SIZE;

const LINE: usize = 64;

/// The work of one thread in one round.
#[derive(Clone, Debug)]
pub(crate) struct Work {
    pub(crate) operation: Operation,
    /// The part of the file, in bytes; its length is a power of two.
    pub(crate) part: Range<u64>,
    /// Where in the random order of its pages to begin.
    pub(crate) start: u64,
    /// How many operations.
    pub(crate) count: u64,
}

impl Work {
    /// The offsets in the file. Each page of the part comes once before any comes again.
    pub(crate) fn offsets(&self) -> impl Iterator<Item = u64> {
        let pages = (self.part.end - self.part.start) / PAGE_BYTES;
        let lines = match self.operation {
            Operation::ReadLine => PAGE_BYTES / LINE as u64,
            _ => 1,
        };
        let (first, start) = (self.part.start, self.start);
        (start..start + self.count).map(move |n| {
            let line = (n % lines) * LINE as u64;
            first + shuffled(n, pages) * PAGE_BYTES + line
        })
    }
}

/// The place of `n` in a random order of 0..`count`, a power of two.
#[inline]
fn shuffled(n: u64, count: u64) -> u64 {
    let mask = count - 1;
    let half = count.trailing_zeros() / 2;
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) & mask;
    let mixed = (mixed ^ (mixed >> half)).wrapping_mul(0xff51_afd7_ed55_8ccd) & mask;
    mixed ^ (mixed >> half)
}
