//! The block map of a file that is its own device: file block n is device block n.
//!
//! A disk image, a block device, or a regular file over itself. A regular file's last block is
//! written whole; its exact size is set before a sync returns. A crash in between leaves zeros
//! beyond the end.

use std::ops::Range;
use std::sync::Arc;

use mpage_block::{BlockDevice, Errno};
use mpage_locks::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::get_block::{Extent, GetBlock, MapRequest, SyncKind};
use crate::mpage::write_zeroes;
use crate::units::{BlockSize, DeviceBlock, FileBlock, Sector};

/// File block n is device block n.
pub struct Identity {
    device: Arc<dyn BlockDevice>,
    block_size: BlockSize,
    /// Where the device ends, as far as we know: written blocks included. Bytes.
    device_end: AtomicU64,
    /// The device is a regular file, whose size follows the mapping's.
    resizable: bool,
}

impl Identity {
    /// The map of a device of fixed size.
    pub fn new(device: Arc<dyn BlockDevice>, block_size: BlockSize) -> Identity {
        let end = device.limits().capacity.unwrap_or(u64::MAX);
        Identity { device, block_size, device_end: AtomicU64::new(end), resizable: false }
    }

    /// The map of a regular file that is `size` bytes long now.
    pub fn resizable(device: Arc<dyn BlockDevice>, block_size: BlockSize, size: u64) -> Identity {
        Identity { device, block_size, device_end: AtomicU64::new(size), resizable: true }
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        self.device.set_len(bytes).map_err(|errno| failed("set size", errno))?;
        self.device_end.store(bytes, Ordering::SeqCst);
        Ok(())
    }
}

fn failed(op: &'static str, errno: Errno) -> Error {
    Error::new(ErrorKind::Device(errno), op)
}

impl GetBlock for Identity {
    fn get_block(&self, request: &MapRequest) -> Result<Extent> {
        let all = u64::MAX / self.block_size.bytes();
        let count = all.saturating_sub(request.first.0).max(1);
        Ok(Extent::mapped(request.first, DeviceBlock(request.first.0), count))
    }

    fn reserve(&self, blocks: Range<FileBlock>) -> Result<()> {
        let end = self.block_size.start_of(blocks.end);
        match self.device.limits().capacity {
            Some(capacity) if !self.resizable && end > capacity => {
                Err(failed("write", Errno::NOSPC).because("beyond the end of the device"))
            }
            _ => Ok(()),
        }
    }

    fn remove(&self, blocks: Range<FileBlock>) -> Result<()> {
        let end = self.device_end.load(Ordering::SeqCst);
        let start = self.block_size.start_of(blocks.start);
        let stop = self.block_size.start_of(blocks.end).min(end);
        if start >= stop {
            return Ok(());
        }
        if self.resizable && stop == end {
            return self.set_len(start);
        }
        let stop = stop.next_multiple_of(self.block_size.bytes());
        let sector = self.block_size.sector_of(DeviceBlock(blocks.start.0));
        write_zeroes(&*self.device, Sector(sector.0), stop - start)
            .map_err(|errno| failed("write zeroes", errno))
    }

    fn removes_by_writing(&self) -> bool {
        true
    }

    fn written(&self, blocks: Range<FileBlock>) {
        let end = self.block_size.start_of(blocks.end);
        let _before = self.device_end.fetch_max(end, Ordering::SeqCst);
    }

    fn sync(&self, _kind: SyncKind, size_bytes: u64) -> Result<()> {
        if self.resizable && self.device_end.load(Ordering::SeqCst) != size_bytes {
            return self.set_len(size_bytes);
        }
        Ok(())
    }
}
