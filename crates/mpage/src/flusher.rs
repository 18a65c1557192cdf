//! The thread that writes dirty pages of one device while nobody asks for it.
//!
//! Why it writes, the first reason first:
//! - **pressed**: writers wait because too much is dirty, or reclaim found nothing to drop;
//! - **background**: more is dirty than the background limit; it stops when that is no longer so;
//! - **asked**: [`PageCache::start_writing`](crate::PageCache::start_writing) wants what is dirty;
//! - **expired**: pages have been dirty for longer than the expiry.
//!
//! For the first two it takes any dirty page, for the others only pages dirty since then. It goes
//! round the files, those dirty for longest first, and writes a slice of each, so that one huge
//! file does not keep the others waiting. When what is left is in use it waits for a write to end;
//! after an error it lets some time pass, more each time. Zeros that a failed flush lost are
//! written again with their file, which counts as dirty since then.
//!
//! Sleeping:
//! 1. While no file of the device is dirty the thread sleeps without a time limit.
//! 2. While one is, it sleeps until the oldest page may have expired, and at least an interval
//!    after the last pass over expired pages. `timer_armed` says that it does, or is about to.
//! 3. Who makes a clean file dirty wakes it unless `timer_armed`: it adds the file to the dirty
//!    list first and looks at the flag then; the thread clears the flag first and looks at the
//!    list then.
//!
//! Linux: `wb_workfn()`, fs/fs-writeback.c.

use std::sync::Arc;
use std::time::Duration;

use mpage_locks::atomic::{AtomicBool, Ordering};
use mpage_locks::thread::{self, JoinHandle};

use crate::address_space::{AddressSpace, FailurePolicy, SyncMode};
use crate::backing_dev::BackingDev;
use crate::clock::nanos;
use crate::completion;
use crate::core::Core;
use crate::error::{ErrorKind, Result};
use crate::event::Ticket;
use crate::flush::flush_device;
use crate::mpage::mpage_writepages;
use crate::truncate::try_redo_removals;
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
            pass: None,
            last_pass_ns: 0,
        };
        let thread = thread::spawn("mpage-flusher", move || worker.run())?;
        Ok(Flusher { dev: Arc::clone(dev), stop, thread: Some(thread) })
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.dev.work.notify();
        // The flusher itself, or a completion that it waits for, may hold the last reference to a
        // mapping that owns it: then it ends by itself once this returns.
        let waits =
            |thread: &JoinHandle<()>| !thread::is_current(thread) && !completion::is_running();
        let thread = self.thread.take().filter(waits);
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
    /// A pass over old pages that is not at its end.
    pass: Option<Pass>,
    /// When the last one began.
    last_pass_ns: u64,
}

/// A pass over pages that are dirty since `upto_ns` or longer.
#[derive(Clone, Copy)]
struct Pass {
    began_ns: u64,
    upto_ns: u64,
}

/// How a round went.
enum Round {
    /// Pages were written.
    Progress,
    /// All that is left is in use.
    AllInUse,
    /// Writing failed.
    Failed,
    /// Nothing is dirty, or little enough, and young enough.
    Enough,
}

impl Worker {
    fn run(&mut self) {
        loop {
            let ticket = self.dev.work.ticket();
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            self.core.stats.flusher_rounds.add(1);
            if self.dev.wants_flush.swap(false, Ordering::SeqCst) {
                let upto = self.dev.writes_ended();
                if let Err(errno) = flush_device(&self.core, &self.dev, upto) {
                    tracing::warn!(%errno, "flushing a device to make room failed");
                    self.pause();
                    continue;
                }
            }
            let pressed = self.dev.wants_cleaning.swap(false, Ordering::SeqCst);
            let round = self.clean(pressed);
            if let Some(pass) = self.pass.take_if(|_| !matches!(round, Round::Progress)) {
                self.last_pass_ns = pass.began_ns;
            }
            match round {
                Round::Progress => self.errors = 0,
                Round::AllInUse if pressed || self.above_background() => {
                    let _since = self.dev.wants_cleaning.fetch_or(pressed, Ordering::SeqCst);
                    self.wait_for_a_bio();
                }
                Round::Enough | Round::AllInUse => self.sleep(ticket),
                Round::Failed => {
                    let _since = self.dev.wants_cleaning.fetch_or(pressed, Ordering::SeqCst);
                    self.pause();
                }
            }
        }
    }

    /// One slice of each dirty file of the device that there is a reason to write.
    fn clean(&mut self, pressed: bool) -> Round {
        self.pass = self.pass_now();
        let (mut written, mut skipped, mut failed) = (0, 0, false);
        for (since_ns, mapping) in self.core.mappings.dirty() {
            if self.stop.load(Ordering::SeqCst) {
                break;
            }
            if mapping.dev().id() != self.dev.id() {
                continue;
            }
            let upto_ns = match self.pass {
                _ if pressed || self.above_background() => u64::MAX,
                Some(pass) if since_ns <= pass.upto_ns => pass.upto_ns,
                _ => break,
            };
            let mut wbc = WritebackControl::cleaning(SLICE_PAGES);
            wbc.range_cyclic = true;
            let cleaned = clean_slice(&mapping, upto_ns, &mut wbc);
            if let Err(error) = cleaned.and(write_lost_zeros(&mapping)) {
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

    fn above_background(&self) -> bool {
        self.core.unwritten_pages() > self.core.limits.background_pages
    }

    /// The pass over old pages to go on with: what was asked for meanwhile joins the one under way.
    fn pass_now(&self) -> Option<Pass> {
        let now_ns = self.core.clock.now_ns();
        let limits = &self.core.limits;
        let interval_ns = limits.interval_ns.filter(|ns| now_ns >= self.last_pass_ns + ns);
        let expired = interval_ns.and_then(|_| now_ns.checked_sub(limits.expire_ns));
        let asked = self.dev.take_asked();
        let under_way = self.pass.map(|pass| pass.upto_ns);
        let upto_ns = [expired, asked, under_way].into_iter().flatten().max()?;
        Some(Pass { began_ns: self.pass.map_or(now_ns, |pass| pass.began_ns), upto_ns })
    }

    /// True when a write of the device failed since the last round.
    fn failed_since(&mut self) -> bool {
        let now = self.core.stats.write_errors.get();
        std::mem::replace(&mut self.seen_errors, now) != now
    }

    /// Sleeps until there may be something to do (Sleeping, 1 to 3).
    fn sleep(&self, ticket: Ticket) {
        let limits = &self.core.limits;
        let Some(interval_ns) = limits.interval_ns else { return self.dev.work.wait(ticket) };
        self.dev.timer_armed.store(false, Ordering::SeqCst);
        let Some(oldest_ns) = self.core.mappings.dirty_since(self.dev.id()) else {
            return self.dev.work.wait(ticket);
        };
        self.dev.timer_armed.store(true, Ordering::SeqCst);
        let expires_ns = oldest_ns.saturating_add(limits.expire_ns);
        let until_ns = expires_ns.max(self.last_pass_ns.saturating_add(interval_ns));
        let _notified = self.core.clock.wait_until(&self.dev.work, ticket, until_ns);
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
        let clock = &self.core.clock;
        let until_ns = clock.now_ns().saturating_add(nanos(limit));
        loop {
            let ticket = self.dev.work.ticket();
            if self.stop.load(Ordering::SeqCst)
                || !clock.wait_until(&self.dev.work, ticket, until_ns)
            {
                return;
            }
        }
    }
}

/// Writes zeros of a file again that a failed flush lost. Those of pages in use are left.
fn write_lost_zeros(mapping: &AddressSpace) -> Result<()> {
    if mapping.failure_policy() == FailurePolicy::Quarantine || !mapping.zeroed.has_lost() {
        return Ok(());
    }
    match try_redo_removals(mapping) {
        Err(error) if error.kind == ErrorKind::Busy => Ok(()),
        result => result,
    }
}

/// Writes up to a slice of a file: what an earlier slice left in io, else what is dirty since
/// `upto_ns` or longer.
fn clean_slice(mapping: &AddressSpace, upto_ns: u64, wbc: &mut WritebackControl) -> Result<()> {
    let Some(_cleaning) = mapping.try_begin_cleaning() else {
        wbc.pages_skipped += 1;
        return Ok(());
    };
    if !mapping.has_leftovers() {
        match upto_ns {
            u64::MAX => {
                let _joined = mapping.splice(&(0..FILE_SIZE_MAX), SyncMode::Cleaning);
            }
            upto_ns if mapping.splice_dirty_since(upto_ns) == 0 => return Ok(()),
            _ => {}
        }
    }
    let get_block = mapping.ops().get_block.as_deref();
    mpage_writepages(mapping, wbc, get_block)?;
    if wbc.pages_written + wbc.pages_skipped > 0 {
        return Ok(());
    }
    // The cycle ended before the pages at hand: the next one begins at the front.
    mpage_writepages(mapping, wbc, get_block)
}
