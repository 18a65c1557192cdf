//! A device as the cache sees it: what is in flight, what is not durable yet, and its flushes.
//!
//! Every write that ends well gets the next number. A good flush that began when `n` writes had
//! ended makes those numbered up to `n` durable. So "is this durable?" is one comparison, a flush
//! is elided when nothing was written since the last, and syncs that wait together share one.
//!
//! Linux: `struct backing_dev_info`, mm/backing-dev.c; block/blk-flush.c.

use std::sync::Arc;

use mpage_block::{Bio, BlockDevice, Errno, Limits, submit_and_wait};
use mpage_locks::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use mpage_locks::{Condvar, Mutex};

use crate::depth::{Depth, Submitted};
use crate::errseq::ErrSeq;
use crate::event::Event;
use crate::stats::Stats;

/// A block device and what the cache knows about it.
pub struct BackingDev {
    id: u64,
    block: Arc<dyn BlockDevice>,
    limits: Limits,
    /// The number of the last write that ended well.
    writes_ended: AtomicU64,
    /// Writes up to this number are durable.
    flushed: AtomicU64,
    /// Flushes that failed. Moves before anything is made dirty again for it.
    failed_flushes: AtomicU64,
    flush: Mutex<FlushState>,
    flush_ended: Condvar,
    bios_in_flight: AtomicUsize,
    depth: Depth,
    reads_in_flight: AtomicUsize,
    /// Notified when a bio ended.
    pub(crate) bio_ended: Event,
    /// Wakes the flusher.
    pub(crate) work: Arc<Event>,
    /// Reclaim met pages that wait for a flush.
    pub(crate) wants_flush: AtomicBool,
    /// Somebody waits for dirty pages to be written.
    pub(crate) wants_cleaning: AtomicBool,
    /// Pages dirty since then or longer are to be written, in clock nanoseconds; zero: none.
    asked_ns: AtomicU64,
    /// The flusher wakes by itself once the oldest dirty page may have expired.
    pub(crate) timer_armed: AtomicBool,
    /// The flusher waits for a bio to end before it looks again.
    pub(crate) flusher_waits: AtomicBool,
    /// For whole-device syncs.
    pub(crate) errors: ErrSeq,
}

#[derive(Debug, Default)]
struct FlushState {
    running: bool,
    /// Moves with each flush that ended, and says how.
    generation: u64,
    last: Option<Errno>,
}

/// What became of a request to make writes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// They are durable.
    Durable,
    /// A flush failed; `leader` is true for the one caller that has to make its writes dirty again
    /// before it calls [`BackingDev::end_failed_flush`].
    Failed { errno: Errno, leader: bool },
}

impl BackingDev {
    /// Wraps a device.
    pub(crate) fn new(id: u64, block: Arc<dyn BlockDevice>) -> BackingDev {
        let limits = block.limits();
        BackingDev {
            id,
            limits,
            block,
            writes_ended: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            failed_flushes: AtomicU64::new(0),
            flush: Mutex::default(),
            flush_ended: Condvar::new(),
            bios_in_flight: AtomicUsize::new(0),
            depth: Depth::new(limits.queue_depth, limits.parallel),
            reads_in_flight: AtomicUsize::new(0),
            bio_ended: Event::default(),
            work: Arc::default(),
            wants_flush: AtomicBool::new(false),
            wants_cleaning: AtomicBool::new(false),
            asked_ns: AtomicU64::new(0),
            timer_armed: AtomicBool::new(false),
            flusher_waits: AtomicBool::new(false),
            errors: ErrSeq::new(),
        }
    }

    /// The device's number in its cache.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The device.
    pub fn block(&self) -> &Arc<dyn BlockDevice> {
        &self.block
    }

    /// What the device takes.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes one of the device's places for a bio; false when all are taken. An `urgent` one is not
    /// held back by how many the device likes. Given up by [`bio_done`](Self::bio_done).
    pub(crate) fn try_begin_bio(&self, urgent: bool) -> bool {
        let room = if urgent { self.limits.queue_depth.max(2) } else { self.depth.now() };
        let mut now = self.bios_in_flight.load(Ordering::SeqCst);
        while now < room {
            let next = now + 1;
            match self.bios_in_flight.compare_exchange_weak(
                now,
                next,
                Ordering::SeqCst,
                Ordering::SeqCst,
            ) {
                Ok(_) => return true,
                Err(other) => now = other,
            }
        }
        false
    }

    /// A write is about to be submitted.
    pub(crate) fn write_submitted(&self) -> Submitted {
        self.depth.submitted(self.bios_in_flight.load(Ordering::SeqCst))
    }

    /// A write of `bytes` bytes ended `took_ns` after it was submitted.
    pub(crate) fn write_ended(&self, write: Submitted, bytes: u64, took_ns: u64) {
        self.depth.ended(write, bytes, took_ns);
    }

    /// Gives up a bio's place.
    pub(crate) fn bio_done(&self) {
        let before = self.bios_in_flight.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "a bio that ended had begun");
        self.bio_ended.notify();
        if self.flusher_waits.swap(false, Ordering::SeqCst) {
            self.work.notify();
        }
    }

    /// A read bio goes to the device.
    pub(crate) fn begin_read(&self) {
        let _before = self.reads_in_flight.fetch_add(1, Ordering::SeqCst);
    }

    /// A read bio ended.
    pub(crate) fn end_read(&self) {
        let before = self.reads_in_flight.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "a read that ended had begun");
        if before == 1 {
            self.bio_ended.notify();
        }
    }

    /// Waits until nothing is at the device, or being made for it.
    pub(crate) fn wait_until_idle(&self) {
        loop {
            let ticket = self.bio_ended.ticket();
            if !self.has_bios() && self.reads_in_flight.load(Ordering::SeqCst) == 0 {
                return;
            }
            self.bio_ended.wait(ticket);
        }
    }

    /// True while the device has as many reads as it has use for: those that nobody waits for stay
    /// away. Writes do not count: readers would be slowest while the cache is cleaned.
    pub(crate) fn has_enough_reads(&self) -> bool {
        self.reads_in_flight.load(Ordering::SeqCst) >= self.limits.queue_depth.max(2)
    }

    /// Asks the flusher to write dirty pages. One that was asked already, and waits for a write to
    /// end because all is in use, is left to wait: its looking wakes those who ask.
    pub(crate) fn want_cleaning(&self) {
        if !self.wants_cleaning.swap(true, Ordering::SeqCst) {
            self.work.notify();
        }
    }

    /// Asks the flusher to write what is dirty now, at `now_ns`. Joins what was asked before.
    pub(crate) fn ask_for_all(&self, now_ns: u64) {
        let _before = self.asked_ns.fetch_max(now_ns.max(1), Ordering::SeqCst);
        self.work.notify();
    }

    /// Takes what was asked for: pages dirty since then or longer.
    pub(crate) fn take_asked(&self) -> Option<u64> {
        Some(self.asked_ns.swap(0, Ordering::SeqCst)).filter(|ns| *ns > 0)
    }

    /// A file of the device became dirty: wakes the flusher if it sleeps without a time limit.
    pub(crate) fn arm_timer(&self) {
        if !self.timer_armed.swap(true, Ordering::SeqCst) {
            self.work.notify();
        }
    }

    /// True while bios are at the device, or being made for it.
    pub(crate) fn has_bios(&self) -> bool {
        self.bios_in_flight.load(Ordering::SeqCst) > 0
    }

    /// Asks the flusher to flush the device's cache.
    pub(crate) fn want_flush(&self) {
        self.wants_flush.store(true, Ordering::SeqCst);
        self.work.notify();
    }

    /// Numbers a write that ended well. On a device without a volatile cache, or for a write past
    /// it (`durable`), the number is 0: durable already.
    pub(crate) fn number_write(&self, durable: bool) -> u64 {
        if durable || !self.limits.volatile_cache {
            return 0;
        }
        self.writes_ended.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The number of the last write that ended well.
    pub(crate) fn writes_ended(&self) -> u64 {
        self.writes_ended.load(Ordering::SeqCst)
    }

    /// The last write number a good flush covered.
    pub(crate) fn flushed(&self) -> u64 {
        self.flushed.load(Ordering::SeqCst)
    }

    /// How many flushes failed. A write during which this moved may be lost with what that flush
    /// had to make durable, though it ended well.
    pub(crate) fn failed_flushes(&self) -> u64 {
        self.failed_flushes.load(Ordering::SeqCst)
    }

    /// Returns once writes up to number `upto` are durable, flushing the device if they are not.
    /// Waits for a flush that is under way, and shares the next one with everybody who waits too.
    pub(crate) fn flush_upto(&self, upto: u64, stats: &Stats) -> Flushed {
        let mut state = self.flush.lock();
        loop {
            if self.flushed() >= upto {
                return Flushed::Durable;
            }
            if !state.running {
                break;
            }
            let began = state.generation;
            while state.generation == began {
                state = self.flush_ended.wait(state);
            }
            // A flush that failed while we waited failed for us too: what it had to make
            // durable, ours included, is dirty again.
            if let Some(errno) = state.last {
                return Flushed::Failed { errno, leader: false };
            }
        }
        state.running = true;
        drop(state);
        let covered = self.writes_ended.load(Ordering::SeqCst);
        stats.device_flushes.add(1);
        match submit_and_wait(&*self.block, Bio::flush()) {
            Ok(()) => {
                let _before: u64 = self.flushed.fetch_max(covered, Ordering::SeqCst);
                self.end_flush(None);
                Flushed::Durable
            }
            Err(errno) => {
                let _before: u64 = self.failed_flushes.fetch_add(1, Ordering::SeqCst);
                Flushed::Failed { errno, leader: true }
            }
        }
    }

    /// Waits for the flush that is under way, if there is one, and until what it lost is dirty
    /// again if it fails.
    pub(crate) fn wait_for_flush(&self) {
        let mut state = self.flush.lock();
        let began = state.generation;
        while state.running && state.generation == began {
            state = self.flush_ended.wait(state);
        }
    }

    /// The leader of a failed flush has made everything dirty again: wakes those who waited.
    pub(crate) fn end_failed_flush(&self, errno: Errno) {
        self.end_flush(Some(errno));
    }

    fn end_flush(&self, last: Option<Errno>) {
        let mut state = self.flush.lock();
        state.running = false;
        state.generation += 1;
        state.last = last;
        drop(state);
        self.flush_ended.notify_all();
    }
}

impl std::fmt::Debug for BackingDev {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackingDev").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests {
    use mpage_block::{MemoryDevice, MemoryOptions, SubmitError};

    use super::*;

    /// A device that does not say how many writes it works on.
    struct Unknown(MemoryDevice);

    impl BlockDevice for Unknown {
        fn limits(&self) -> Limits {
            Limits { parallel: false, ..self.0.limits() }
        }

        fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
            self.0.submit(bio)
        }
    }

    #[test]
    fn an_urgent_write_has_a_place_beside_those_that_wait_for_theirs() {
        let dev = BackingDev::new(
            0,
            Arc::new(Unknown(MemoryDevice::new(1 << 20, MemoryOptions::default()))),
        );
        assert!(dev.try_begin_bio(false));
        assert!(!dev.try_begin_bio(false), "nothing is known of the device: one at a time");
        assert!(dev.try_begin_bio(true));
        dev.bio_done();
        dev.bio_done();
        assert!(dev.try_begin_bio(false));
    }
}
