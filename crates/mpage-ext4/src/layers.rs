//! The metadata blocks of an image: where the newest content of each is found, and how one that is
//! not in memory gets there.
//!
//! 1. A block is looked for in the running transaction, in the committing one, in the device file
//!    if it is cached, and among the blocks that were fetched past the cache.
//! 2. Looking waits for nothing. What was not found is fetched with no lock held
//!    ([`fetch`](Layers::fetch)), and looked for again.
//! 3. A fetch never waits for memory: it brings the block into the device file if a page is free at
//!    once, else into memory of its own.
//!
//! See docs/ext4-transactions.md, "A change" and "Memory".

use std::collections::HashMap;
use std::sync::Arc;

use mpage::units::BlockSize;
use mpage::{CachedFile, read_past_cache};
use mpage_locks::{Condvar, Mutex};

use crate::error::{Error, Result};

/// A metadata block as some layer has it.
pub(crate) type Block = Arc<[u8]>;

/// Why an attempt at an operation ended.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The block has to be fetched; then the operation begins again.
    Fetch(u64),
    /// It failed.
    Failed(Error),
}

/// A result of a part of an operation.
pub(crate) type Attempt<T> = std::result::Result<T, Stop>;

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

/// Where metadata is.
pub(crate) struct Layers {
    device: CachedFile,
    block: BlockSize,
}

/// Blocks that an operation fetched past the cache; its next attempts find them here.
#[derive(Default)]
pub(crate) struct Fetched(HashMap<u64, Option<Block>>);

impl Layers {
    /// The metadata of the image that `device` is all of.
    pub(crate) fn new(device: CachedFile, block: BlockSize) -> Layers {
        Layers { device, block }
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(&self) -> usize {
        usize::try_from(self.block.bytes()).expect("at most a page")
    }

    /// The newest content of block `number`, which is a block of the image.
    pub(crate) fn look(&self, number: u64, fetched: &Fetched) -> Attempt<Block> {
        let mut bytes = vec![0; self.block_bytes()];
        match self.device.try_read_at(&mut bytes, number * self.block.bytes()) {
            Some(count) if count == bytes.len() => return Ok(bytes.into()),
            Some(_) => {
                return Err(Error::corrupt(format!("block {number} is behind the image")).into());
            }
            None => {}
        }
        match fetched.0.get(&number) {
            Some(Some(block)) => Ok(Arc::clone(block)),
            _ => Err(Stop::Fetch(number)),
        }
    }

    /// Brings block `number` where [`look`](Self::look) finds it. Waits for the device, for nothing
    /// else.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn fetch(&self, number: u64, fetched: &mut Fetched) -> Result<()> {
        let start = number * self.block.bytes();
        // One that was fetched into the cache and is not there was dropped again, or failed.
        let is_new = fetched.0.insert(number, None).is_none();
        if is_new {
            let ended = Arc::<Ended>::default();
            let told = Arc::clone(&ended);
            let range = start..start + self.block.bytes();
            if self.device.start_fetch(range, move || told.tell()) {
                ended.wait();
                return Ok(());
            }
        }
        let mut bytes = vec![0; self.block_bytes()];
        read_past_cache(self.device.mapping().dev(), start, &mut bytes).map_err(|errno| {
            Error::errno(errno, format!("block {number} of the image cannot be read"))
        })?;
        let _before = fetched.0.insert(number, Some(bytes.into()));
        Ok(())
    }
}

/// Tells one thread that a read has ended.
#[derive(Default)]
struct Ended {
    yes: Mutex<bool>,
    changed: Condvar,
}

impl Ended {
    fn tell(&self) {
        *self.yes.lock() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut yes = self.yes.lock();
        while !*yes {
            yes = self.changed.wait(yes);
        }
    }
}
