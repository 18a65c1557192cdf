//! Syncing all files of an image together.
//!
//! 1. Data reaches the device before the maps, and the inodes, know of it.
//! 2. The size that an inode gets is at most what the file had when its writing began: what was
//!    stored since may have no place yet. It is less if the file was cut meanwhile.
//! 3. All files share one commit, and one flush.
//!
//! See docs/ext4-transactions.md, "Data and its blocks" and "A commit".

use mpage::{CachedFile, RangeSteps};

use crate::error::{Error, Result};
use crate::file_map::FileMap;
use crate::file_system::FileSystem;

/// All of a file.
const WHOLE: std::ops::Range<u64> = 0..u64::MAX >> 1;

impl FileSystem {
    /// Makes durable what was changed of names and attributes before the call: what is synced of a
    /// directory. Linux: `ext4_sync_file()` of a directory, fs/ext4/fsync.c.
    ///
    /// # Errors
    ///
    /// The device's: nothing is lost, and the next commit tries it again.
    pub fn sync_names(&self) -> Result<()> {
        self.metadata.commit(self.metadata.running())
    }

    /// Makes everything durable that was changed before the call, in all files.
    ///
    /// # Errors
    ///
    /// The first met; everything was tried.
    pub fn sync(&self) -> Result<()> {
        let open: Vec<_> = self.metadata.open.lock().values().cloned().collect();
        let files = open.into_iter().filter_map(|open| Some((open.file()?, open)));
        let files: Vec<_> = files.map(|(file, open)| (file.size(), file, open)).collect();
        let mut result = Ok(());
        let mut note = |outcome: Result<()>| {
            let is_well = outcome.is_ok();
            if result.is_ok() {
                result = outcome;
            }
            is_well
        };
        // All are on their way before one is waited for; then what the first pass passed over.
        for (_, file, _) in &files {
            let _is_well = note(steps(file, (false, true, false)));
        }
        for (size, file, open) in &files {
            let is_written = note(steps(file, (true, true, true)));
            let map = FileMap::new(&self.metadata, open);
            let _is_well = note(match is_written {
                true => map.bring_up_to_date(&|| file.size().min(*size)),
                false => map.bring_up_to_date(&|| 0),
            });
        }
        let _is_well = note(self.metadata.commit(self.metadata.running()));
        // A commit without changes flushes nothing.
        let _is_well = note(self.cache.device_flush(&self.dev).flush().map_err(Error::from));
        // What a flush of somebody else's lost meanwhile is not durable.
        for (_, file, _) in &files {
            let _is_well = note(steps(file, (false, false, true)));
        }
        result
    }

    /// Puts what was written into the maps of the files in use, and brings their inodes up to date.
    ///
    /// # Errors
    ///
    /// The first met; all were tried.
    pub(crate) fn bring_up_to_date(&self) -> Result<()> {
        let mut result = Ok(());
        let open: Vec<_> = self.metadata.open.lock().values().cloned().collect();
        for open in open {
            let Some(file) = open.file() else { continue };
            let size = file.size();
            // What is written is known of by its claims, or in the map already.
            let is_written = file.mapping().is_written() && open.lock().claims.is_settled();
            let map = FileMap::new(&self.metadata, &open);
            let outcome = match is_written {
                true => map.bring_up_to_date(&|| file.size().min(size)),
                false => map.bring_up_to_date(&|| 0),
            };
            result = result.and(outcome);
        }
        result
    }
}

/// Waits for writes of `file` before, writes it, waits for writes then, each as it is said.
fn steps(file: &CachedFile, (wait_before, write, wait_after): (bool, bool, bool)) -> Result<()> {
    Ok(file.sync_file_range(WHOLE, RangeSteps { wait_before, write, wait_after })?)
}
