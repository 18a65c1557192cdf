//! From the sectors of a page to runs on the device.

use std::ops::Range;

use mpage_block::Errno;

use crate::address_space::AddressSpace;
use crate::error::{Error, ErrorKind, Result};
use crate::get_block::{Extent, GetBlock, MapRequest, Place, Purpose};
use crate::units::{
    FileBlock, PAGE_BYTES, PAGE_SIZE, PageIndex, SECTORS_PER_PAGE, Sector, SectorMask,
};

/// Part of a page that is one run on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) sector: Sector,
    pub(super) offset: usize,
    pub(super) len: usize,
}

impl Run {
    /// The sectors of the page it holds.
    pub(super) fn sectors(&self) -> SectorMask {
        SectorMask::of_bytes(self.offset..self.offset + self.len)
    }

    fn end(&self) -> Sector {
        Sector(self.sector.0 + self.sectors().0.count_ones() as u64)
    }
}

/// Where the wanted sectors of a page are.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageMap {
    runs: [Run; SECTORS_PER_PAGE],
    len: usize,
    /// What was to be mapped.
    pub(super) wanted: SectorMask,
    /// Wanted sectors that are nowhere on the device.
    pub(super) holes: SectorMask,
    /// Submit right after this page. Linux: `buffer_boundary()`.
    pub(super) boundary: bool,
}

impl PageMap {
    fn empty(wanted: SectorMask) -> PageMap {
        let none = Run { sector: Sector(0), offset: 0, len: 0 };
        PageMap {
            runs: [none; SECTORS_PER_PAGE],
            len: 0,
            wanted,
            holes: SectorMask::NONE,
            boundary: false,
        }
    }

    /// The runs, ascending in the page.
    pub(super) fn runs(&self) -> &[Run] {
        &self.runs[..self.len]
    }

    /// The sectors that have a place on the device.
    pub(super) fn mapped(&self) -> SectorMask {
        self.runs().iter().fold(SectorMask::NONE, |all, run| all.or(run.sectors()))
    }

    fn add(&mut self, run: Run) {
        if let Some(last) = self.runs[..self.len].last_mut()
            && last.end() == run.sector
            && last.offset + last.len == run.offset
        {
            last.len += run.len;
            return;
        }
        self.runs[self.len] = run;
        self.len += 1;
    }
}

/// Asks a block map, and remembers its last answer while the cookie stays the same.
pub(super) struct Mapper<'a> {
    space: &'a AddressSpace,
    get_block: &'a dyn GetBlock,
    purpose: Purpose,
    last: Option<(u64, Extent)>,
    /// Blocks that were just allocated, for the caller to forget in the device's own mapping.
    pub(super) fresh: Vec<Extent>,
}

impl<'a> Mapper<'a> {
    pub(super) fn new(
        space: &'a AddressSpace,
        get_block: &'a dyn GetBlock,
        purpose: Purpose,
    ) -> Mapper<'a> {
        Mapper { space, get_block, purpose, last: None, fresh: Vec::new() }
    }

    /// Maps the `wanted` sectors of page `index`; `run_pages` says how many neighbouring pages the
    /// caller wants after it. With the first error comes what is mapped: of a page to be written
    /// every block that has a place.
    pub(super) fn map(
        &mut self,
        index: PageIndex,
        wanted: SectorMask,
        run_pages: impl Fn() -> u64,
        may_wait: bool,
    ) -> (PageMap, Result<()>) {
        let mut map = PageMap::empty(wanted);
        let mut result = Ok(());
        let size = self.space.block_size();
        for mut part in wanted.runs() {
            while let Err((at, error)) =
                self.map_part(&mut map, index, part.clone(), &run_pages, may_wait)
            {
                if self.purpose == Purpose::Read || error.kind == ErrorKind::WouldBlock {
                    return (map, Err(error));
                }
                result = result.and(Err(error));
                let bad = size.block_of(index.start() + at as u64);
                let next = size.start_of(FileBlock(bad.0 + 1)) - index.start();
                part.start = usize::try_from(next).expect("inside the page").min(part.end);
            }
        }
        (map, result)
    }

    /// Maps `part` of a page; an error comes with the place in the page where it was met.
    fn map_part(
        &mut self,
        map: &mut PageMap,
        index: PageIndex,
        part: Range<usize>,
        run_pages: &impl Fn() -> u64,
        may_wait: bool,
    ) -> std::result::Result<(), (usize, Error)> {
        let size = self.space.block_size();
        let mut at = part.start;
        while at < part.end {
            let block = size.block_of(index.start() + at as u64);
            let blocks_here = size.block_after(index.start() + part.end as u64).0 - block.0;
            let extent = match self.remembered(block) {
                Some(extent) => extent,
                None => {
                    let more = match part.end {
                        PAGE_SIZE => run_pages() * (PAGE_BYTES / size.bytes()),
                        _ => 0,
                    };
                    // The last of the neighbours may lie behind the end in part.
                    let inside = size.block_after(self.space.size()).0.saturating_sub(block.0);
                    let count = (blocks_here + more).min(inside).max(blocks_here);
                    self.ask(MapRequest { first: block, count, purpose: self.purpose, may_wait })
                        .map_err(|error| (at, error))?
                }
            };
            // What was never written must not show what the device has there; nor must what was
            // zeroed, if a failed flush brought its old content back.
            let (zeroed, until) = self.zeroed_at(block);
            let is_zeros = zeroed
                || self.purpose == Purpose::Read && !matches!(extent.place, Place::Mapped(_));
            let blocks = extent.blocks_from(block).min(blocks_here).min(until.0 - block.0);
            let end = size.start_of(FileBlock(block.0 + blocks)) - index.start();
            let end = usize::try_from(end).expect("inside the page").min(part.end);
            match extent.device_block(block).filter(|_| !is_zeros) {
                Some(device) => {
                    map.add(Run { sector: size.sector_of(device), offset: at, len: end - at });
                    let last = extent.first.0 + extent.count == block.0 + blocks;
                    map.boundary |= extent.boundary && last;
                }
                None => map.holes = map.holes.or(SectorMask::of_bytes(at..end)),
            }
            at = end;
        }
        Ok(())
    }

    /// Whether a reader finds `block` among the ranges that removals zeroed, and up to which block
    /// that is so.
    fn zeroed_at(&self, block: FileBlock) -> (bool, FileBlock) {
        let size = self.space.block_size();
        if self.purpose != Purpose::Read {
            return (false, size.block_of(u64::MAX));
        }
        let flushed = self.space.dev().flushed();
        let (zeroed, until) = self.space.zeroed.at(size.start_of(block), flushed);
        (zeroed, size.block_of(until))
    }

    fn remembered(&self, block: FileBlock) -> Option<Extent> {
        let (cookie, extent) = self.last?;
        let usable = self.purpose == Purpose::Read || extent.place != Place::Hole;
        let valid = usable && extent.contains(block) && cookie == self.get_block.cookie();
        valid.then_some(extent)
    }

    fn ask(&mut self, request: MapRequest) -> Result<Extent> {
        let cookie = self.get_block.cookie();
        let extent = self.get_block.get_block(&request)?;
        if !extent.contains(request.first) {
            return Err(Error::new(ErrorKind::Device(Errno::IO), "get_block")
                .because("the block map answered with a run that does not hold the block"));
        }
        if extent.fresh {
            self.fresh.push(extent);
        }
        self.last = Some((cookie, extent));
        Ok(extent)
    }
}
