//! Counters: what the cache did. Exact, and never reset.

use mpage_locks::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The counters of one cache.
        #[derive(Debug, Default)]
        pub(crate) struct Stats { $(pub(crate) $name: Counter,)* }

        /// The counters of one cache at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct StatsSnapshot { $($(#[$doc])* pub $name: u64,)* }

        impl Stats {
            /// The counters now.
            pub(crate) fn snapshot(&self) -> StatsSnapshot {
                StatsSnapshot { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Pages handed to the device.
    pages_written,
    /// Bytes handed to the device.
    bytes_written,
    /// Write bios submitted.
    write_bios,
    /// Read bios submitted.
    read_bios,
    /// Bytes read from the device.
    bytes_read,
    /// Windows of readahead started.
    readahead_windows,
    /// Pages whose reading began in a window, those asked for among them.
    readahead_pages,
    /// Markers met: windows started before somebody missed a page.
    readahead_markers,
    /// Times a reader had to wait for a page of a window in flight.
    readahead_waits,
    /// Flushes of a device's volatile cache.
    device_flushes,
    /// Pages given a fresh frame because their write was in flight when somebody stored into them.
    copies_on_write,
    /// Pages written from a sample because a store was in progress.
    pages_sampled,
    /// Pages a cleaning walk passed over because they were in use.
    pages_skipped,
    /// Writes of a page that failed.
    write_errors,
    /// Clean pages dropped to make room.
    evictions,
    /// Times a flusher looked for something to do.
    flusher_rounds,
    /// Times somebody had to wait for a free frame.
    waits_for_memory,
    /// Times a writer had to wait because too much was dirty.
    waits_for_cleaning,
}

/// A count of events.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Counts `n` more.
    pub(crate) fn add(&self, n: u64) {
        let _before: u64 = self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
