//! What a call gave back.

use std::collections::BTreeSet;
use std::fmt;

use rustix::io::Errno;

use crate::seen::Seen;

/// A result.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Number(u64),
    Bytes(Vec<u8>),
    Names(BTreeSet<String>),
    Saw(Seen),
    Failed(Errno),
    /// There is no such open file.
    Skipped,
    /// The kernel was not asked, as mpage does not do it.
    NotAsked,
}

impl Outcome {
    pub(crate) fn of<T>(result: Result<T, Errno>, said: impl FnOnce(T) -> Outcome) -> Outcome {
        match result {
            Ok(value) => said(value),
            Err(errno) => Outcome::Failed(errno),
        }
    }

    pub(crate) fn done(result: Result<(), Errno>) -> Outcome {
        Outcome::of(result, |()| Outcome::Done)
    }

    pub(crate) fn number(result: Result<usize, Errno>) -> Outcome {
        Outcome::of(result, |number| Outcome::Number(number as u64))
    }

    pub(crate) fn is(&self, errno: Errno) -> bool {
        *self == Outcome::Failed(errno)
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done => f.write_str("done"),
            Outcome::Number(number) => write!(f, "{number}"),
            Outcome::Bytes(bytes) if bytes.len() <= 48 => write!(f, "{:02x?}", bytes),
            Outcome::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Outcome::Names(names) if names.len() <= 12 => write!(f, "{names:?}"),
            Outcome::Names(names) => write!(f, "{} names", names.len()),
            Outcome::Saw(seen) => write!(f, "{seen:?}"),
            Outcome::Failed(errno) => write!(f, "failed: {errno}"),
            Outcome::Skipped => f.write_str("no such open file"),
            Outcome::NotAsked => f.write_str("not asked"),
        }
    }
}
