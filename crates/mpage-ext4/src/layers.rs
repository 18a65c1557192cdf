//! The metadata blocks of an image: where the newest content of each is found, and how one that is
//! not in memory gets there.
//!
//! 1. A block is looked for in an operation's own change, in the running transaction, in the
//!    committing one ([`View`](crate::view::View)), then here: in the device file if it is cached,
//!    and among the guests, which are blocks that were fetched past the cache.
//! 2. Looking waits for nothing. What was not found is fetched with no lock held
//!    ([`fetch`](Layers::fetch)), and looked for again.
//! 3. A fetch never waits for memory: it brings the block into the device file if a page is free at
//!    once, else it makes it a guest, for as long as operations need it that fetched it.
//! 4. A guest is never older than the last change of its block: applying a change
//!    [forgets](Layers::forget) the guests among its blocks, and a read that was under way
//!    meanwhile does not make one.
//!
//! See docs/ext4-transactions.md, "A change" and "Memory".

use std::collections::HashMap;
use std::iter;
use std::sync::Arc;

use mpage::units::BlockSize;
use mpage::{CachedFile, read_past_cache};
use mpage_locks::{Condvar, Mutex};

use crate::error::{Error, Result};
use crate::patience;

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

/// Where metadata is that no transaction has.
pub(crate) struct Layers {
    device: CachedFile,
    block: BlockSize,
    guests: Mutex<HashMap<u64, Guest>>,
}

/// A block that was fetched past the cache, or is going to be.
#[derive(Default)]
struct Guest {
    /// Operations that need it.
    users: usize,
    /// Changes of the block that were applied since it is a guest.
    changes: u64,
    content: Option<Block>,
}

/// The blocks that an operation fetched; its next attempts find them.
pub(crate) struct Fetched<'a> {
    layers: &'a Layers,
    numbers: Vec<u64>,
}

impl Drop for Fetched<'_> {
    fn drop(&mut self) {
        let mut guests = self.layers.guests.lock();
        for number in &self.numbers {
            let guest = guests.get_mut(number).expect("it has a user");
            guest.users -= 1;
            if guest.users == 0 {
                let _content = guests.remove(number);
            }
        }
    }
}

impl Layers {
    /// The metadata of the image that `device` is all of.
    pub(crate) fn new(device: CachedFile, block: BlockSize) -> Layers {
        Layers { device, block, guests: Mutex::default() }
    }

    /// The device file.
    pub(crate) fn device(&self) -> &CachedFile {
        &self.device
    }

    /// Bytes of a block.
    pub(crate) fn block_bytes(&self) -> usize {
        usize::try_from(self.block.bytes()).expect("at most a page")
    }

    /// Nothing fetched yet, for a new operation.
    pub(crate) fn fetched(&self) -> Fetched<'_> {
        Fetched { layers: self, numbers: Vec::new() }
    }

    /// The content of block `number`, which is a block of the image that no transaction has.
    pub(crate) fn look(&self, number: u64) -> Attempt<Block> {
        let mut block: Block = iter::repeat_n(0, self.block_bytes()).collect();
        let bytes = Arc::get_mut(&mut block).expect("nobody else has it");
        match self.device.try_read_at(bytes, number * self.block.bytes()) {
            Some(count) if count == bytes.len() => return Ok(block),
            Some(_) => {
                return Err(Error::corrupt(format!("block {number} is behind the image")).into());
            }
            None => {}
        }
        let guests = self.guests.lock();
        let content = guests.get(&number).and_then(|guest| guest.content.as_ref());
        content.cloned().ok_or(Stop::Fetch(number))
    }

    /// Brings block `number` where [`look`](Self::look) finds it. Waits for the device, for nothing
    /// else.
    ///
    /// # Errors
    ///
    /// The device's.
    pub(crate) fn fetch(&self, number: u64, fetched: &mut Fetched<'_>) -> Result<()> {
        patience::check()?;
        let start = number * self.block.bytes();
        // One that was fetched into the cache and is not there was dropped again, or failed.
        if !fetched.numbers.contains(&number) {
            fetched.numbers.push(number);
            self.guests.lock().entry(number).or_default().users += 1;
            let ended = Arc::<Ended>::default();
            let told = Arc::clone(&ended);
            let range = start..start + self.block.bytes();
            if self.device.start_fetch(range, move || told.tell()) {
                ended.wait();
                return Ok(());
            }
        }
        let changes = |guests: &HashMap<u64, Guest>| guests.get(&number).map(|it| it.changes);
        let before = changes(&self.guests.lock());
        let mut bytes = vec![0; self.block_bytes()];
        read_past_cache(self.device.mapping().dev(), start, &mut bytes).map_err(|errno| {
            Error::errno(errno, format!("block {number} of the image cannot be read"))
        })?;
        let mut guests = self.guests.lock();
        if changes(&guests) == before {
            let guest = guests.get_mut(&number).expect("it has a user");
            guest.content = Some(bytes.into());
        }
        Ok(())
    }

    /// Forgets the guests among `numbers`, of which a transaction has a newer content now.
    pub(crate) fn forget(&self, numbers: impl Iterator<Item = u64>) {
        let mut guests = self.guests.lock();
        if guests.is_empty() {
            return;
        }
        for number in numbers {
            if let Some(guest) = guests.get_mut(&number) {
                guest.changes += 1;
                guest.content = None;
            }
        }
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
