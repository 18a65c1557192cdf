//! What a caller of a writeback walk wants, and what it learns.
//!
//! Linux: `struct writeback_control`, include/linux/writeback.h.

use std::ops::Range;

use crate::address_space::SyncMode;
use crate::units::FILE_SIZE_MAX;

/// The order for one walk, and its result.
#[derive(Clone, Debug)]
pub struct WritebackControl {
    /// Cleaning or integrity.
    pub sync_mode: SyncMode,
    /// Pages a cleaning walk may still submit; it stops at zero. An integrity walk counts it down,
    /// below zero too, and never stops for it.
    pub nr_to_write: i64,
    /// The bytes of the file the walk is about.
    pub range: Range<u64>,
    /// Begin where the last cyclic walk ended, and note where this one ends. Cleaning only.
    pub range_cyclic: bool,
    /// Pages the caller expects the walk to write: among walks of one kind the smallest goes first.
    pub pages_expected: u64,
    /// Result: pages submitted.
    pub pages_written: u64,
    /// Result: pages passed over because they were in use, or declined.
    pub pages_skipped: u64,
}

impl WritebackControl {
    /// Memory cleaning of the whole file, at most `nr_to_write` pages of it. Linux: `WB_SYNC_NONE`.
    pub fn cleaning(nr_to_write: i64) -> WritebackControl {
        WritebackControl {
            sync_mode: SyncMode::Cleaning,
            nr_to_write,
            range: 0..FILE_SIZE_MAX,
            range_cyclic: false,
            pages_expected: nr_to_write.unsigned_abs(),
            pages_written: 0,
            pages_skipped: 0,
        }
    }

    /// Data integrity for byte `range`. Linux: `WB_SYNC_ALL`.
    pub fn integrity(range: Range<u64>) -> WritebackControl {
        WritebackControl {
            sync_mode: SyncMode::DataIntegrity,
            range,
            ..WritebackControl::cleaning(i64::MAX)
        }
    }

    /// True for a cleaning walk.
    pub fn is_cleaning(&self) -> bool {
        self.sync_mode == SyncMode::Cleaning
    }
}
