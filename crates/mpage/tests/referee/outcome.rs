//! What an operation gave back.

use std::fmt;

use mpage::Span;
use mpage_block::Errno;

/// A result, in words that both players know.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Wrote(usize),
    Read(Vec<u8>),
    Found(Span),
    Failed(Errno),
    /// The player has no such operation.
    NotAsked,
}

impl Outcome {
    pub(crate) fn of<T, E: Into<Failure>>(
        result: Result<T, E>,
        said: impl FnOnce(T) -> Outcome,
    ) -> Outcome {
        match result {
            Ok(value) => said(value),
            Err(error) => Outcome::Failed(error.into().0),
        }
    }

    pub(crate) fn is(&self, errno: Errno) -> bool {
        *self == Outcome::Failed(errno)
    }
}

/// The number of either player's error.
pub(crate) struct Failure(Errno);

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Failure {
        Failure(errno)
    }
}

impl From<mpage::Error> for Failure {
    fn from(error: mpage::Error) -> Failure {
        Failure(error.kind.errno())
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done => f.write_str("done"),
            Outcome::Wrote(count) => write!(f, "wrote {count}"),
            Outcome::Read(bytes) => write!(f, "read {}", bytes.len()),
            Outcome::Found(Span { bytes, hole: true }) => write!(f, "a hole {bytes:?}"),
            Outcome::Found(Span { bytes, hole: false }) => write!(f, "data {bytes:?}"),
            Outcome::Failed(errno) => write!(f, "failed: {errno:?}"),
            Outcome::NotAsked => f.write_str("not asked"),
        }
    }
}
