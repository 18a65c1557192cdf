//! Writes that need no snapshot: of a caller's own range, and past the cache.

use std::ops::Range;
use std::sync::Arc;

use mpage_block::{Bio, BioFlags, Errno, Limits};
use mpage_locks::Mutex;
use mpage_mem::FrameId;

use super::map::{Mapper, Run};
use super::walk::Walk;
use crate::address_space::AddressSpace;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::get_block::{GetBlock, Purpose};
use crate::may_wait::MayWait;
use crate::units::{PAGE_SIZE, PageIndex, SectorMask, pages_touched, part_in_page};
use crate::writeback::WritebackControl;

/// Writes what is dirty in byte `range`, page by page ascending, without looking at any other page;
/// returns when all is submitted. With `fua` past the device's cache, where the device can.
///
/// # Errors
///
/// The first error of mapping or submitting.
pub(crate) fn write_dirty_range(
    space: &AddressSpace,
    range: &Range<u64>,
    get_block: &dyn GetBlock,
    fua: bool,
) -> Result<()> {
    let mut wbc = WritebackControl::integrity(range.clone());
    wbc.pages_expected = pages_touched(range).count() as u64;
    Walk::new(space, &mut wbc, get_block).over_dirty(fua).run()
}

/// One I/O between frames that are in no mapping and the device.
pub(crate) struct DirectIo<'a> {
    space: &'a AddressSpace,
    mapper: Mapper<'a>,
    purpose: Purpose,
    /// Flushes that had failed before it.
    began: u64,
    ended: Arc<Ended>,
    pending: Option<Bio>,
    /// Bytes of the file in its bios, in runs.
    runs: Vec<Range<u64>>,
}

#[derive(Default)]
struct Ended {
    state: Mutex<(u64, Option<Errno>)>,
    event: Event,
}

impl<'a> DirectIo<'a> {
    /// Reads or writes, as `purpose` says.
    pub(crate) fn new(
        space: &'a AddressSpace,
        get_block: &'a dyn GetBlock,
        purpose: Purpose,
    ) -> DirectIo<'a> {
        let mapper = Mapper::new(space, get_block, purpose);
        let began = space.dev().failed_flushes();
        let (ended, runs) = (Arc::default(), Vec::new());
        DirectIo { space, mapper, purpose, began, ended, pending: None, runs }
    }

    /// Adds bytes `range` of the file, which lie in one page and on whole blocks, with their memory
    /// in `frame` at their place in the page. A hole that is read becomes zeros.
    pub(crate) fn add(&mut self, range: &Range<u64>, frame: FrameId) -> Result<()> {
        let index = PageIndex::of(range.start);
        let wanted = SectorMask::of_bytes(part_in_page(range, index));
        let (mut map, mut result) = self.mapper.map(index, wanted, || 0, false);
        if result.as_ref().is_err_and(|error| error.kind == ErrorKind::WouldBlock) {
            self.submit();
            (map, result) = self.mapper.map(index, wanted, || 0, true);
        }
        result?;
        for extent in std::mem::take(&mut self.mapper.fresh) {
            self.submit();
            self.space.forget_alias(&extent, &MayWait::of_empty_hand(self));
        }
        if self.purpose == Purpose::Write && !map.holes.is_empty() {
            return Err(Error::new(ErrorKind::Device(Errno::IO), "write_direct")
                .because("the block map gave no place to a block that is written"));
        }
        for run in map.holes.runs() {
            self.space.core().pool.arena().zero(frame, run.start, run.len());
        }
        let limits = *self.space.dev().limits();
        map.runs().iter().for_each(|run| {
            self.add_run(frame, run, &limits);
            self.note_run(index, run);
        });
        Ok(())
    }

    fn note_run(&mut self, index: PageIndex, run: &Run) {
        let start = index.start() + run.offset as u64;
        let bytes = start..start + run.len as u64;
        match self.runs.last_mut() {
            Some(last) if last.end == bytes.start => last.end = bytes.end,
            _ => self.runs.push(bytes),
        }
    }

    fn add_run(&mut self, frame: FrameId, run: &Run, limits: &Limits) {
        let joined = self.pending.as_mut().is_some_and(|bio| {
            bio.end_sector() == run.sector && bio.push(frame, run.offset, run.len, limits)
        });
        if joined {
            return;
        }
        self.submit();
        let arena = self.space.core().pool.arena();
        let mut bio = match self.purpose {
            Purpose::Read => Bio::read(arena, run.sector),
            Purpose::Write => {
                Bio::write(arena, run.sector, BioFlags { sync: true, ..BioFlags::default() })
            }
        };
        let fits = bio.push(frame, run.offset, run.len, limits);
        assert!(fits, "an empty bio has room for {} bytes of {PAGE_SIZE}", run.len);
        self.pending = Some(bio);
    }

    fn submit(&mut self) {
        let Some(mut bio) = self.pending.take() else { return };
        self.ended.state.lock().0 += 1;
        let ended = Arc::clone(&self.ended);
        bio.on_completion(move |result| {
            let mut state = ended.state.lock();
            state.0 -= 1;
            state.1 = state.1.or(result.err());
            drop(state);
            ended.event.notify();
        });
        if let Err(refused) = bio.submit(&**self.space.dev().block()) {
            refused.bio.complete(Err(refused.error));
        }
    }

    /// Submits, waits for all of it, and tells the block map what was written.
    ///
    /// # Errors
    ///
    /// The first error of the device.
    pub(crate) fn finish(mut self, get_block: &dyn GetBlock) -> Result<()> {
        self.submit();
        loop {
            let ticket = self.ended.event.ticket();
            let (left, error) = *self.ended.state.lock();
            if left == 0 {
                if let Some(errno) = error {
                    return Err(Error::new(ErrorKind::Device(errno), "direct I/O"));
                }
                break;
            }
            self.ended.event.wait(ticket);
        }
        if self.purpose == Purpose::Write {
            let size = self.space.block_size();
            for bytes in std::mem::take(&mut self.runs) {
                let blocks = size.block_of(bytes.start)..size.block_after(bytes.end);
                self.space.note_blocks_written(get_block, blocks);
            }
            let _number = self.space.note_direct_write(self.began);
        }
        Ok(())
    }
}

impl Drop for DirectIo<'_> {
    fn drop(&mut self) {
        self.submit();
    }
}
