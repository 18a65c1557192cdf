//! The cache of a command.

use mpage::{Options, PageCache};

use crate::failure::Failure;
use crate::size::{self, Size};

/// A cache of so much memory in all, which otherwise is as `options` say.
///
/// # Errors
///
/// Too little memory, and the system's when it has not that much.
pub fn new(Size(bytes): Size, options: &Options) -> Result<PageCache, Failure> {
    let least = Options::MEMORY_MIN as u64;
    if bytes < least {
        return Err(Failure(format!(
            "--memory of {} is too small: give at least {}",
            size::words(bytes),
            size::words(least)
        )));
    }
    let memory = usize::try_from(bytes).expect("64-bit machines only");
    Ok(PageCache::new(&Options { memory, ..options.clone() })?)
}
