//! Why something could not be done, in the words that are printed.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

/// A result of what may fail for reasons outside.
pub type Result<T> = std::result::Result<T, Failure>;

/// Why something could not be done.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    /// A failure that `message` tells.
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure(message.into())
    }

    /// Makes a failure of an error of the operating system's at `place`.
    pub fn at<P: AsRef<Path> + ?Sized>(place: &P) -> impl Fn(std::io::Error) -> Failure + use<P> {
        let place = place.as_ref().display().to_string();
        move |error| Failure(format!("{place}: {error}"))
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}
