//! Telling the device which blocks are free.
//!
//! Linux: `ext4_trim_fs()`, fs/ext4/mballoc.c; `FITRIM`.

use std::ops::Range;

use crate::balloc;
use crate::error::Result;
use crate::file_system::FileSystem;
use crate::layers::Attempt;
use crate::view::View;

impl FileSystem {
    /// Discards the free blocks in byte `range` of the image, as far as they follow each other for
    /// `bytes_min` bytes; returns how many bytes. What a transaction freed that is not durable is
    /// left. Meanwhile the blocks being discarded, at most a group, are given to nobody.
    ///
    /// # Errors
    ///
    /// `EROFS`; `EOPNOTSUPP` of a device that cannot; the device's; `Corrupt`.
    pub fn trim(&self, range: Range<u64>, bytes_min: u64) -> Result<u64> {
        let _writer = self.metadata.begin_writing()?;
        let sb = self.metadata.superblock();
        let block_bytes = sb.block_bytes;
        let first = range.start.div_ceil(block_bytes).max(sb.first_data_block);
        let blocks = first..(range.end / block_bytes).min(sb.blocks);
        let count_min = bytes_min.div_ceil(block_bytes).max(1);
        let mut trimmed = 0;
        let mut at = blocks.start;
        while at < blocks.end {
            let end = sb.first_block_of(sb.group_of(at) + 1).min(blocks.end);
            trimmed += self.trim_in(at..end, count_min)?;
            at = end;
        }
        Ok(trimmed * block_bytes)
    }

    /// Discards free runs of `blocks`, which lie in one group; returns how many blocks.
    fn trim_in(&self, blocks: Range<u64>, count_min: u64) -> Result<u64> {
        let runs = self.metadata.read(|view| self.claim_free(view, &blocks, count_min))?;
        let block_bytes = self.metadata.superblock().block_bytes;
        let file = self.metadata.layers.device();
        let mut result = Ok(0);
        for run in runs {
            if let Ok(count) = &mut result {
                match file.discard(run.start * block_bytes..run.end * block_bytes) {
                    Ok(()) => *count += run.end - run.start,
                    Err(error) => result = Err(error.into()),
                }
            }
            self.metadata.space.lock().unclaim(run);
        }
        result
    }

    /// Claims the free runs of `blocks`, so that nobody else does.
    fn claim_free(
        &self,
        view: &View<'_>,
        blocks: &Range<u64>,
        count_min: u64,
    ) -> Attempt<Vec<Range<u64>>> {
        let runs = balloc::free_runs(view, blocks)?;
        let mut space = self.metadata.space.lock();
        let mut claimed = Vec::new();
        for run in runs.into_iter().filter(|run| run.end - run.start >= count_min) {
            let taken = view.transactions.freed_in(&run).or_else(|| space.claimed_in(&run));
            // What is reserved has to be found by who reserved it.
            if taken.is_none() && run.end - run.start <= space.available() {
                space.claim(run.clone());
                claimed.push(run);
            }
        }
        Ok(claimed)
    }
}
