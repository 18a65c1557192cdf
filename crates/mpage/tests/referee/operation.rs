//! One operation on an open file.

use std::ops::Range;

use mpage::{Advice, Backend, RangeSteps, SyncKind};

/// What a program does, in words that both players know.
#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Write {
        at: u64,
        content: Content,
        manner: Manner,
    },
    Read {
        at: u64,
        len: usize,
        manner: Manner,
    },
    WriteDirect {
        at: u64,
        content: Content,
    },
    ReadDirect {
        at: u64,
        len: usize,
    },
    SetLen {
        size: u64,
    },
    Punch(Range<u64>),
    Zero(Range<u64>),
    Collapse(Range<u64>),
    Sync(SyncKind),
    SyncRange(Range<u64>, SyncKind),
    SyncSteps(Range<u64>, RangeSteps),
    StartWriting(Range<u64>),
    Invalidate(Range<u64>),
    InvalidateStrict(Range<u64>),
    Advise(Range<u64>, Advice),
    Span {
        at: u64,
    },
    /// Close this open.
    Close,
    /// Close this open if there is one, and open again.
    Open {
        writable: bool,
    },
    /// Close all opens, forget all that is cached, and open this one again.
    Restart {
        writable: bool,
        backend: Backend,
    },
    /// Compare every byte of the file.
    LookAtAll,
}

/// How bytes are read or written where there is more than one way to the same result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Plain,
    /// As far as nothing has to be waited for; the rest plainly.
    Try,
    /// To the device at once; a read does it plainly.
    Through,
}

/// Bytes to write, which a seed makes.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pub(crate) seed: u64,
    pub(crate) len: usize,
}

impl Content {
    /// The bytes: one in four contents is all zeros.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len];
        if !self.seed.is_multiple_of(4) {
            fastrand::Rng::with_seed(self.seed).fill(&mut bytes);
        }
        bytes
    }
}
