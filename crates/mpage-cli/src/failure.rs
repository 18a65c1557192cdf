//! What goes to stderr when a command cannot do its work.

use std::fmt;
use std::io;

/// One clear line for a person, with what to do about it.
#[derive(Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<mpage::Error> for Failure {
    /// An error with an explanation of its own needs no more.
    fn from(error: mpage::Error) -> Failure {
        Failure(if error.detail.is_empty() { error.to_string() } else { error.detail })
    }
}

/// What a failure of the system, while `what` was done, means.
pub fn system(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure(format!("{what}: {error}"))
}
