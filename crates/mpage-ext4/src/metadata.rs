//! The metadata of an open image: what operations run on.
//!
//! The lock around the transactions is the metadata lock. Who holds it waits for nothing: not for
//! I/O, memory, a page, or another operation.
//!
//! See docs/ext4-transactions.md, "A change" and "Locks".

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};

use mpage_block::Errno;
use mpage_locks::atomic::{AtomicUsize, Ordering};
use mpage_locks::{Mutex, RwLock};

use crate::balloc::Zone;
use crate::change::Change;
use crate::commit::Commits;
use crate::emptiness::Watches;
use crate::error::{Error, ErrorKind, Result};
use crate::hold::Holds;
use crate::inode::InodeNumber;
use crate::journal;
use crate::layers::{Attempt, Layers, Stop};
use crate::open_inode::OpenInode;
use crate::orphan::Orphans;
use crate::space::Space;
use crate::superblock::Superblock;
use crate::transaction::{Changed, Transactions};
use crate::view::View;
use crate::writers::{Writer, Writers};

/// Blocks that one change may write: what is longer is cut into steps.
pub(crate) const CHANGE_BLOCKS_MAX: usize = 256;

/// The metadata of an open image.
pub(crate) struct Metadata {
    sb: Superblock,
    zone: OnceLock<Zone>,
    pub(crate) layers: Layers,
    pub(crate) transactions: RwLock<Transactions>,
    pub(crate) space: Mutex<Space>,
    pub(crate) commits: Commits,
    /// The files that are in memory. Its lock comes behind the metadata lock.
    pub(crate) open: Mutex<BTreeMap<InodeNumber, Arc<OpenInode>>>,
    pub(crate) orphans: Orphans,
    pub(crate) holds: Holds,
    pub(crate) watches: Watches,
    pub(crate) writers: Writers,
    /// Blocks that the running transaction may have.
    blocks_max: AtomicUsize,
    /// The log, from when the image begins to be written to when it is closed.
    pub(crate) journal: RwLock<Option<Arc<journal::Writer>>>,
    /// Why nothing may be written.
    read_only: OnceLock<String>,
}

impl Metadata {
    /// Of an image with superblock `sb`; transactions have at most `blocks_max` blocks.
    pub(crate) fn new(sb: Superblock, layers: Layers, blocks_max: usize) -> Metadata {
        Metadata {
            sb,
            zone: OnceLock::new(),
            layers,
            transactions: RwLock::default(),
            space: Mutex::default(),
            commits: Commits::default(),
            open: Mutex::default(),
            orphans: Orphans::default(),
            holds: Holds::default(),
            watches: Watches::default(),
            blocks_max: AtomicUsize::new(blocks_max.max(2 * CHANGE_BLOCKS_MAX)),
            journal: RwLock::default(),
            writers: Writers::default(),
            read_only: OnceLock::new(),
        }
    }

    /// What of the superblock stays as it is.
    pub(crate) fn superblock(&self) -> &Superblock {
        &self.sb
    }

    /// Nothing may be written from now on: `why` says the first reason.
    pub(crate) fn set_read_only(&self, why: String) {
        let _first = self.read_only.set(why);
    }

    /// Why nothing may be written; `None` if it may.
    pub(crate) fn read_only(&self) -> Option<&str> {
        self.read_only.get().map(String::as_str)
    }

    /// Nothing, if the image may be written.
    ///
    /// # Errors
    ///
    /// `EROFS`, with the reason.
    pub(crate) fn check_writable(&self) -> Result<()> {
        match self.read_only.get() {
            None => Ok(()),
            Some(why) => Err(Error::errno(Errno::ROFS, why.clone())),
        }
    }

    /// The log, if it is written now.
    pub(crate) fn journal(&self) -> Option<Arc<journal::Writer>> {
        self.journal.read().clone()
    }

    /// From now on transactions go through `journal`, in which they have to fit; or through none.
    pub(crate) fn set_journal(&self, journal: Option<journal::Writer>) {
        let journal = journal.map(Arc::new);
        if let Some(journal) = &journal {
            let fits = journal.blocks_max();
            let _before = self.blocks_max.fetch_min(fits, Ordering::Relaxed);
        }
        *self.journal.write() = journal;
    }

    /// The log cannot be written, for `error`: nothing is, from now on.
    pub(crate) fn abort(&self, error: &Error) {
        self.set_read_only(format!("{error}: the image can only be read now"));
    }

    /// Announces what is going to change something, until the answer is dropped.
    ///
    /// # Errors
    ///
    /// `EROFS`.
    pub(crate) fn begin_writing(&self) -> Result<Writer<'_>> {
        self.check_writable()?;
        self.writers.begin()
    }

    /// Notes `error`: behind damage nothing is written any more.
    pub(crate) fn note(&self, error: Error) -> Error {
        if error.kind == ErrorKind::Corrupt {
            self.set_read_only(error.to_string());
        }
        error
    }

    /// Attempts `operation` until it has all blocks that it needs. Waits for the device, with
    /// nothing held.
    ///
    /// # Errors
    ///
    /// The operation's; those of reading a block it needs.
    pub(crate) fn read<T>(&self, operation: impl Fn(&View<'_>) -> Attempt<T>) -> Result<T> {
        self.read_and(operation, |result| result)
    }

    /// As [`read`](Self::read); `then` gets the result before anything can change.
    pub(crate) fn read_and<T, U>(
        &self,
        operation: impl Fn(&View<'_>) -> Attempt<T>,
        then: impl FnOnce(T) -> U,
    ) -> Result<U> {
        let mut fetched = self.layers.fetched();
        loop {
            let transactions = self.transactions.read();
            let stop = match operation(&self.view(&transactions)) {
                Ok(result) => return Ok(then(result)),
                Err(stop) => stop,
            };
            drop(transactions);
            match stop {
                Stop::Failed(error) => return Err(self.note(error)),
                Stop::Fetch(number) => self.layers.fetch(number, &mut fetched)?,
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
        let transactions = self.transactions.read();
        match operation(&self.view(&transactions)) {
            Ok(result) => Ok(Some(result)),
            Err(Stop::Failed(error)) => Err(self.note(error)),
            Err(Stop::Fetch(_)) => Ok(None),
        }
    }

    /// As [`change_and`](Self::change_and), with nothing to do behind it.
    pub(crate) fn change<T>(
        &self,
        operation: impl FnMut(&mut Change<'_>) -> Attempt<T>,
    ) -> Result<T> {
        self.change_and(operation, |result, _| result)
    }

    /// True when something was freed that nobody may have before a commit.
    fn has_freed(&self) -> bool {
        let transactions = self.transactions.read();
        transactions.has_freed_inodes() || self.space.lock().freed > 0
    }

    /// Attempts `operation` until it has all blocks that it needs, and applies what it changed.
    /// `then` gets its result, and the number of the transaction, before anybody sees the change:
    /// it changes what is in memory, and cannot fail. Waits for the device, and for a commit when
    /// the running transaction is full, with nothing held. When there is no room, and some was
    /// freed by what is not durable yet, attempts it again behind a commit.
    ///
    /// # Errors
    ///
    /// The operation's, and then nothing was changed; those of reading a block it needs; `EROFS`.
    pub(crate) fn change_and<T, U>(
        &self,
        mut operation: impl FnMut(&mut Change<'_>) -> Attempt<T>,
        then: impl FnOnce(T, u64) -> U,
    ) -> Result<U> {
        self.check_writable()?;
        let mut fetched = self.layers.fetched();
        let mut may_commit = true;
        loop {
            let mut transactions = self.transactions.write();
            let blocks = transactions.running.changed.blocks.len();
            if blocks + CHANGE_BLOCKS_MAX > self.blocks_max.load(Ordering::Relaxed) {
                let number = transactions.running.number;
                drop(transactions);
                self.commit(number)?;
                continue;
            }
            let view = self.view(&transactions);
            let mut change = Change::new(view, &self.space, &self.orphans);
            match operation(&mut change) {
                Ok(result) => {
                    let (touched, more) = (change.take_touched(), !change.only_times);
                    change.orphan_edits.apply(&self.orphans);
                    change.named_in.into_iter().for_each(|directory| self.watches.tell(directory));
                    let (changed, counts) = change.finish();
                    counts.apply(&mut self.space.lock(), &changed);
                    self.apply(&mut transactions, changed);
                    let number = transactions.running.number;
                    self.note_touched(&touched, number, more);
                    return Ok(then(result, number));
                }
                Err(stop) => {
                    drop(change);
                    drop(transactions);
                    match stop {
                        Stop::Failed(error)
                            if may_commit && error.is_no_space() && self.has_freed() =>
                        {
                            may_commit = false;
                            self.commit(self.running())?;
                        }
                        Stop::Failed(error) => return Err(self.note(error)),
                        Stop::Fetch(number) => self.layers.fetch(number, &mut fetched)?,
                    }
                }
            }
        }
    }

    fn note_touched(&self, touched: &[InodeNumber], number: u64, more: bool) {
        let open = self.open.lock();
        for inode in touched.iter().filter_map(|inode| open.get(inode)) {
            inode.lock().note_changed(number, more);
        }
    }

    fn view<'a>(&'a self, transactions: &'a Transactions) -> View<'a> {
        static NONE: LazyLock<Zone> = LazyLock::new(Zone::new);
        View::new(&self.sb, self.zone.get().unwrap_or(&NONE), &self.layers, transactions)
    }

    /// What belongs to the file system for ever; `None` if nobody said it yet.
    pub(crate) fn zone(&self) -> Option<&Zone> {
        self.zone.get()
    }

    /// Says what belongs to the file system for ever: once, before anything is written.
    pub(crate) fn set_zone(&self, zone: Zone) {
        let _first = self.zone.set(zone);
    }

    fn apply(&self, transactions: &mut Transactions, changed: Changed) {
        debug_assert!(changed.blocks.len() <= CHANGE_BLOCKS_MAX, "{}", changed.blocks.len());
        self.layers.forget(changed.blocks.keys().copied());
        transactions.apply(changed);
    }
}
