//! Why a command stopped, in the words that are printed.

use std::fmt::{self, Display, Formatter};

/// Why a command stopped.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl Failure {
    /// A failure that `message` tells.
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure(message.into())
    }

    /// A failure of the operating system's at `place`.
    pub(crate) fn at(place: &str, error: &std::io::Error) -> Failure {
        Failure(format!("{place}: {error}"))
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
