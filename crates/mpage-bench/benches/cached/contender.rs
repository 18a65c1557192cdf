//! Who is measured.

use std::error::Error;

use crate::work::Work;

/// Bytes that can be read and written at any place: a file, or memory.
pub(crate) trait Contender: Send + Sync {
    /// Does the work, on the calling thread.
    fn run(&self, work: &Work) -> Result<(), Failed>;

    /// Makes all pages clean.
    fn clean(&self) -> Result<(), Failed>;
}

/// Why a contender could not do its work.
pub(crate) type Failed = Box<dyn Error + Send + Sync>;
