//! The metadata of an open image: what operations run on.

use crate::error::Result;
use crate::layers::{Attempt, Fetched, Layers, Stop};
use crate::superblock::Superblock;
use crate::view::View;

/// The metadata of an open image.
pub(crate) struct Metadata {
    sb: Superblock,
    layers: Layers,
}

impl Metadata {
    /// Of an image with superblock `sb`.
    pub(crate) fn new(sb: Superblock, layers: Layers) -> Metadata {
        Metadata { sb, layers }
    }

    /// What of the superblock stays as it is.
    pub(crate) fn superblock(&self) -> &Superblock {
        &self.sb
    }

    /// Attempts `operation` until it has all blocks that it needs. Waits for the device, with
    /// nothing held.
    ///
    /// # Errors
    ///
    /// The operation's; those of reading a block it needs.
    pub(crate) fn read<T>(&self, operation: impl Fn(&View<'_>) -> Attempt<T>) -> Result<T> {
        let mut fetched = Fetched::default();
        loop {
            match operation(&View::new(&self.sb, &self.layers, &fetched)) {
                Ok(result) => return Ok(result),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Fetch(number)) => self.layers.fetch(number, &mut fetched)?,
            }
        }
    }

    /// Attempts `operation` once; `None` when it would have to wait for a block.
    ///
    /// # Errors
    ///
    /// The operation's.
    pub(crate) fn try_read<T>(
        &self,
        operation: impl Fn(&View<'_>) -> Attempt<T>,
    ) -> Result<Option<T>> {
        match operation(&View::new(&self.sb, &self.layers, &Fetched::default())) {
            Ok(result) => Ok(Some(result)),
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::Fetch(_)) => Ok(None),
        }
    }
}
