//! The thread that writes dirty pages of one device while nobody asks for it.
//!
//! It sleeps until told: by a writer when enough is dirty, by reclaim when it found nothing to
//! drop. It writes the files dirty for longest first, in slices, so that one huge file does not
//! keep the others waiting. When what is left is in use it waits for a write to end; after an error
//! it lets some time pass, more each time.
//!
//! Linux: `wb_workfn()`, fs/fs-writeback.c.

use std::sync::Arc;
use std::time::Duration;

use mpage_locks::atomic::{AtomicBool, Ordering};
use mpage_locks::thread::{self, JoinHandle};

use crate::address_space::{AddressSpace, SyncMode};
use crate::backing_dev::BackingDev;
use crate::core::Core;
use crate::flush::flush_device;
use crate::mpage::mpage_writepages;
use crate::units::FILE_SIZE_MAX;
use crate::writeback::WritebackControl;

/// Pages of one file written before the next file's turn. Linux: `MAX_WRITEBACK_PAGES`.
const SLICE_PAGES: i64 = 1024;
/// The first pause after an error, and the longest.
const BACKOFF_MS: (u64, u64) = (100, 5_000);

/// How long to leave pages alone into which somebody stores.
const STORES_PAUSE: Duration = Duration::from_millis(10);

/// One device's flusher thread; stops when dropped.
pub(crate) struct Flusher {
    dev: Arc<BackingDev>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flusher {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// The operating system's, when it cannot start a thread.
    pub(crate) fn start(core: &Arc<Core>, dev: &Arc<BackingDev>) -> std::io::Result<Flusher> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut worker = Worker {
            core: Arc::clone(core),
            dev: Arc::clone(dev),
            stop: Arc::clone(&stop),
            errors: 0,
            seen_errors: 0,
        };
        let thread = thread::spawn("mpage-flusher", move || worker.run())?;
        Ok(Flusher { dev: Arc::clone(dev), stop, thread: Some(thread) })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.dev.work.notify();
        // The flusher itself may hold the last reference to a mapping that owns it: then it ends by
        // itself once this returns.
        let thread = self.thread.take().filter(|thread| !thread::is_current(thread));
        if let Some(Err(panic)) = thread.map(JoinHandle::join) {
            std::panic::resume_unwind(panic);
        }
    }
}

struct Worker {
    core: Arc<Core>,
    dev: Arc<BackingDev>,
    stop: Arc<AtomicBool>,
    /// Rounds in a row that met an error.
    errors: u32,
    /// Write errors of the cache when the last round ended.
    seen_errors: u64,
}

/// How a round went.
enum Round {
    /// Pages were written.
    Progress,
    /// All that is left is in use.
    AllInUse,
    /// Writing failed.
    Failed,
    /// Nothing is dirty, or little enough.
    Enough,
}

impl Worker {
    fn run(&mut self) {
        loop {
            let ticket = self.dev.work.ticket();
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            if self.dev.wants_flush.swap(false, Ordering::SeqCst) {
                let upto = self.dev.writes_ended();
                if let Err(errno) = flush_device(&self.core, &self.dev, upto) {
                    tracing::warn!(%errno, "flushing a device to make room failed");
                    self.pause();
                    continue;
                }
            }
            let pressed = self.dev.wants_cleaning.swap(false, Ordering::SeqCst);
            match self.clean(pressed) {
                Round::Progress => self.errors = 0,
                Round::Enough => self.dev.work.wait(ticket),
                Round::AllInUse => {
                    let _since = self.dev.wants_cleaning.fetch_or(pressed, Ordering::SeqCst);
                    self.wait_for_a_bio();
                }
                Round::Failed => {
                    let _since = self.dev.wants_cleaning.fetch_or(pressed, Ordering::SeqCst);
                    self.pause();
                }
            }
        }
    }

    /// One slice of each dirty file of the device. `pressed`: write even below the background
    /// limit.
    fn clean(&mut self, pressed: bool) -> Round {
        let (mut written, mut skipped, mut failed) = (0, 0, false);
        for mapping in self.core.mappings.dirty() {
            let enough = self.core.unwritten_pages() <= self.core.limits.background_pages;
            if self.stop.load(Ordering::SeqCst) || (enough && !pressed) {
                break;
            }
            if mapping.dev().id() != self.dev.id() {
                continue;
            }
            let mut wbc = WritebackControl::cleaning(SLICE_PAGES);
            wbc.range_cyclic = true;
            if let Err(error) = clean_slice(&mapping, &mut wbc) {
                tracing::warn!(?mapping, %error, "writing back failed; the pages stay dirty");
                failed = true;
            }
            written += wbc.pages_written;
            skipped += wbc.pages_skipped;
        }
        match () {
            () if failed || self.failed_since() => Round::Failed,
            () if written > 0 => Round::Progress,
            () if skipped > 0 => Round::AllInUse,
            () => Round::Enough,
        }
    }

    /// True when a write of the device failed since the last round.
    fn failed_since(&mut self) -> bool {
        let now = self.core.stats.write_errors.get();
        std::mem::replace(&mut self.seen_errors, now) != now
    }

    fn wait_for_a_bio(&self) {
        let ticket = self.dev.work.ticket();
        self.dev.flusher_waits.store(true, Ordering::SeqCst);
        if self.stop.load(Ordering::SeqCst) {
            return;
        }
        if self.dev.has_bios() {
            self.dev.work.wait(ticket);
        } else {
            // Stores are in progress: they take as long as their threads like.
            let _notified = self.dev.work.wait_for(ticket, STORES_PAUSE);
        }
    }

    /// Lets time pass after an error; ends early only to stop.
    fn pause(&mut self) {
        let (first, longest) = BACKOFF_MS;
        let limit = Duration::from_millis((first << self.errors.min(6)).min(longest));
        self.errors += 1;
        let until =
            mpage_locks::clock::now_ns() + u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        loop {
            let ticket = self.dev.work.ticket();
            let now = mpage_locks::clock::now_ns();
            if self.stop.load(Ordering::SeqCst) || now >= until {
                return;
            }
            if !self.dev.work.wait_for(ticket, Duration::from_nanos(until - now)) {
                return;
            }
        }
    }
}

/// Writes up to a slice of a file: what an earlier slice left in io, else what is dirty now.
fn clean_slice(mapping: &AddressSpace, wbc: &mut WritebackControl) -> crate::error::Result<()> {
    let Some(_cleaning) = mapping.try_begin_cleaning() else {
        wbc.pages_skipped += 1;
        return Ok(());
    };
    if !mapping.has_leftovers() {
        let _joined = mapping.splice(&(0..FILE_SIZE_MAX), SyncMode::Cleaning);
    }
    let get_block = mapping.ops().get_block.as_deref();
    mpage_writepages(mapping, wbc, get_block)?;
    if wbc.pages_written + wbc.pages_skipped > 0 {
        return Ok(());
    }
    // The cycle ended before the pages at hand: the next one begins at the front.
    mpage_writepages(mapping, wbc, get_block)
}
