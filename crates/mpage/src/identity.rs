//! The block map of a file that is its own device: file block n is device block n.
//!
//! A disk image, a block device, or a regular file over itself. A regular file's last block is
//! written whole; its exact size is set before a sync returns, and when the mapping goes away. A
//! crash in between leaves zeros beyond the end.

use std::ops::Range;
use std::sync::Arc;

use mpage_block::{BlockDevice, Errno};
use mpage_locks::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};
use crate::get_block::{Extent, GetBlock, MapRequest, Purpose};
use crate::mpage::{discard, write_zeroes};
use crate::units::{BlockSize, DeviceBlock, FILE_SIZE_MAX, FileBlock};
use crate::zeroed::Room;

/// File block n is device block n.
pub struct Identity {
    device: Arc<dyn BlockDevice>,
    block_size: BlockSize,
    /// Where the device ends, as far as we know: written blocks included. Bytes, or [`UNKNOWN`].
    device_end: AtomicU64,
    /// Where it may end at most: with the blocks of writes that failed, or are not over. Bytes.
    may_end: AtomicU64,
    /// Where it has ended at most, so far: where it may end again when a flush fails. Bytes.
    longest: AtomicU64,
    size: Size,
    size_max: u64,
}

/// An end of the device that no size of a file is.
const UNKNOWN: u64 = u64::MAX;

/// What becomes of the device's size.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    /// It stays: nothing is written behind it.
    Fixed,
    /// The device is a regular file, whose size follows the mapping's.
    Follows,
}

impl Identity {
    /// The map of a device of fixed size.
    pub fn new(device: Arc<dyn BlockDevice>, block_size: BlockSize) -> Identity {
        let end = device.limits().capacity.unwrap_or(u64::MAX);
        Identity::image(device, block_size, end)
    }

    /// The map of a disk image: of `size` bytes, now and for ever.
    pub fn image(device: Arc<dyn BlockDevice>, block_size: BlockSize, size: u64) -> Identity {
        Identity::of_size(device, block_size, size, Size::Fixed)
    }

    /// The map of a regular file that is `size` bytes long now.
    pub fn resizable(device: Arc<dyn BlockDevice>, block_size: BlockSize, size: u64) -> Identity {
        Identity::of_size(device, block_size, size, Size::Follows)
    }

    fn of_size(
        device: Arc<dyn BlockDevice>,
        block_size: BlockSize,
        bytes: u64,
        size: Size,
    ) -> Identity {
        let [device_end, may_end, longest] = [(); 3].map(|()| AtomicU64::new(bytes));
        let size_max = FILE_SIZE_MAX;
        Identity { device, block_size, device_end, may_end, longest, size, size_max }
    }

    /// The same map, of a file that has `bytes` at most: else what is behind them is refused by
    /// the device only when it is written back.
    #[must_use]
    pub fn up_to(mut self, bytes: u64) -> Identity {
        // The last block is written whole.
        self.size_max = self.block_size.start_of(self.block_size.block_of(bytes));
        self
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        if let Err(errno) = self.device.set_len(bytes) {
            // It may have been set all the same.
            let _before = self.may_end.fetch_max(bytes, Ordering::SeqCst);
            self.device_end.store(UNKNOWN, Ordering::SeqCst);
            return Err(failed("set size", errno));
        }
        self.device_end.store(bytes, Ordering::SeqCst);
        let before = self.may_end.swap(bytes, Ordering::SeqCst);
        let _before = self.longest.fetch_max(before.max(bytes), Ordering::SeqCst);
        Ok(())
    }

    /// The device has bytes up to `end` now.
    fn reaches(&self, end: u64) {
        if self.size == Size::Follows {
            let _before = self.may_end.fetch_max(end, Ordering::SeqCst);
            let _before = self.device_end.fetch_max(end, Ordering::SeqCst);
        }
    }

    fn write_zeroes(&self, bytes: &Range<u64>, room: Room) -> Result<()> {
        if self.size == Size::Follows {
            // Some devices become longer by zeros, also by those that fail; others do not.
            let _before = self.may_end.fetch_max(bytes.end, Ordering::SeqCst);
        }
        write_zeroes(&*self.device, bytes, room).map_err(|errno| failed("write zeroes", errno))
    }

    /// The bytes of `blocks` that the device has, in whole blocks.
    fn bytes_inside(&self, blocks: &Range<FileBlock>) -> Option<Range<u64>> {
        let end = self.may_end.load(Ordering::SeqCst);
        let start = self.block_size.start_of(blocks.start);
        let stop = self.block_size.start_of(blocks.end).min(end);
        (start < stop).then(|| start..stop.next_multiple_of(self.block_size.bytes()))
    }
}

fn failed(op: &'static str, errno: Errno) -> Error {
    Error::new(ErrorKind::Device(errno), op)
}

impl GetBlock for Identity {
    fn get_block(&self, request: &MapRequest) -> Result<Extent> {
        let all = u64::MAX / self.block_size.bytes();
        let mut count = all.saturating_sub(request.first.0).max(1);
        if self.size == Size::Follows && request.purpose == Purpose::Write {
            // A write that fails may have made the device longer all the same.
            count = request.count;
            let end = self.block_size.start_of(FileBlock(request.first.0 + count));
            let _before = self.may_end.fetch_max(end, Ordering::SeqCst);
        }
        Ok(Extent::mapped(request.first, DeviceBlock(request.first.0), count))
    }

    fn reserve(&self, blocks: Range<FileBlock>) -> Result<()> {
        let end = self.block_size.start_of(blocks.end);
        if self.size == Size::Fixed && end > self.device_end.load(Ordering::SeqCst) {
            return Err(failed("write", Errno::NOSPC).because("beyond the end of the device"));
        }
        Ok(())
    }

    fn remove(&self, blocks: Range<FileBlock>) -> Result<()> {
        let Some(bytes) = self.bytes_inside(&blocks) else { return Ok(()) };
        // Only what goes to the end of all files is cut off: a hole leaves the size.
        if self.size == Size::Follows && blocks.end >= self.block_size.block_of(FILE_SIZE_MAX) {
            return self.set_len(bytes.start);
        }
        self.write_zeroes(&bytes, Room::Freed)
    }

    fn removes_by_writing(&self) -> bool {
        true
    }

    fn zero(&self, blocks: Range<FileBlock>) -> Result<()> {
        let Some(bytes) = self.bytes_inside(&blocks) else { return Ok(()) };
        self.write_zeroes(&bytes, Room::Kept)
    }

    fn discard(&self, blocks: Range<FileBlock>) -> Result<()> {
        let Some(bytes) = self.bytes_inside(&blocks) else { return Ok(()) };
        if !self.device.limits().discard {
            return Ok(());
        }
        discard(&*self.device, &bytes).map_err(|errno| failed("discard", errno))
    }

    fn span_at(&self, first: FileBlock) -> Result<(Range<FileBlock>, bool)> {
        let size = self.block_size;
        if self.size == Size::Follows
            && size.start_of(first) >= self.device_end.load(Ordering::SeqCst)
        {
            // The device knows nothing of what the file was grown by since the last sync.
            return Ok((first..size.block_of(FILE_SIZE_MAX), true));
        }
        let span = self.device.span_at(size.start_of(first));
        let span = span.map_err(|errno| failed("find data", errno))?;
        // A block with data in a part of it has data.
        let end = match span.hole {
            true => size.block_of(span.bytes.end),
            false => size.block_after(span.bytes.end),
        };
        Ok(match end > first {
            true => (first..end, span.hole),
            false => (first..FileBlock(first.0 + 1), false),
        })
    }

    fn written(&self, blocks: Range<FileBlock>) {
        self.reaches(self.block_size.start_of(blocks.end));
    }

    fn size_differs(&self, size_bytes: u64) -> bool {
        let is_other = |end: &AtomicU64| end.load(Ordering::SeqCst) != size_bytes;
        self.size == Size::Follows && (is_other(&self.device_end) || is_other(&self.may_end))
    }

    fn set_size(&self, size_bytes: u64) -> Result<()> {
        self.set_len(size_bytes)
    }

    fn flush_failed(&self) {
        if self.size == Size::Follows {
            let longest = self.longest.load(Ordering::SeqCst);
            let _before = self.may_end.fetch_max(longest, Ordering::SeqCst);
            self.device_end.store(UNKNOWN, Ordering::SeqCst);
        }
    }

    fn size_max(&self) -> u64 {
        self.size_max
    }
}
