//! A page cache: its memory, its devices and their flushers, its files.

use std::sync::Arc;
use std::time::Duration;

use mpage_block::BlockDevice;
use mpage_locks::Mutex;
use mpage_mem::{Arena, ArenaOptions};

use crate::address_space::{AddressSpace, Keeps, Operations};
use crate::backing_dev::BackingDev;
use crate::clock::{Clock, nanos};
use crate::core::{Core, DirtyLimits};
use crate::device_flush::DeviceFlush;
use crate::device_sync::DeviceSync;
use crate::error::{Error, ErrorKind, Result};
use crate::flusher::Flusher;
use crate::fsync::sync_all;
use crate::page::Page;
use crate::page_pool::PagePool;
use crate::page_tree::{NODE_BYTES, NodePool};
use crate::stats::StatsSnapshot;
use crate::units::{BlockSize, FILE_SIZE_MAX, PAGE_SIZE};

#[cfg(not(any(mpage_loom, mpage_shuttle)))]
mod open;
#[cfg(not(any(mpage_loom, mpage_shuttle)))]
pub use open::OpenOptions;

/// What a cache may use, and when it writes.
#[derive(Clone, Debug)]
pub struct Options {
    /// Bytes the cache may use in all: pages, their books, copies and what is in flight. At least
    /// [`Options::MEMORY_MIN`]. Default: 256 MiB.
    pub memory: usize,
    /// Background writing begins above this share of the memory, in percent. Default: 10, like
    /// Linux's `vm.dirty_background_ratio`.
    pub dirty_background_percent: usize,
    /// Writers wait above this share of the memory, in percent. Default: 20, like Linux's
    /// `vm.dirty_ratio`.
    pub dirty_percent: usize,
    /// For how long a page may be dirty before the flusher writes it, unasked. Default: 30 s, like
    /// Linux's `vm.dirty_expire_centisecs`.
    pub dirty_expire: Duration,
    /// How long the flusher lets pass between two looks for pages dirty for longer than that; zero:
    /// it never looks. Default: 5 s, like Linux's `vm.dirty_writeback_centisecs`.
    pub dirty_interval: Duration,
    /// The clock by which pages grow old. Default: the system's.
    pub clock: Clock,
    /// Touch all memory at the start, so that nothing has to be found later. Default: false.
    pub prefault: bool,
}

impl Options {
    /// The least memory a cache works with, in bytes. A checker of schedules wants few pages.
    pub const MEMORY_MIN: usize =
        if cfg!(any(mpage_loom, mpage_shuttle)) { 32 << 10 } else { 256 << 10 };
}

impl Default for Options {
    fn default() -> Options {
        Options {
            memory: 256 << 20,
            dirty_background_percent: 10,
            dirty_percent: 20,
            dirty_expire: Duration::from_secs(30),
            dirty_interval: Duration::from_secs(5),
            clock: Clock::system(),
            prefault: false,
        }
    }
}

/// Bytes a page costs: its frame and what is known of it, its place in the tree, its frame's pin
/// count, its number and its place among the free, and its entries in a bio.
const PAGE_COST: usize = PAGE_SIZE + size_of::<Page>() + NODE_BYTES + 3 * size_of::<u32>() + 64;

/// Nodes beyond one a page: two paths of a tree of full height.
const SPARE_NODES: u32 = 24;

/// A page cache with a fixed amount of memory, over any number of devices and files. Several may
/// live in one process; nothing is global.
///
/// Dropping it writes what is dirty, as far as the devices let it, and waits until nothing is under
/// way at them, so that they can be opened again. Whoever needs to know how that went calls
/// [`sync`](Self::sync) before. Files still open must be dropped first.
pub struct PageCache {
    core: Arc<Core>,
    flushers: Mutex<Vec<Flusher>>,
    #[cfg(not(any(mpage_loom, mpage_shuttle)))]
    files: open::OpenFiles,
}

impl PageCache {
    /// A cache with `options.memory` bytes.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for too little memory, more than 16 TiB, or percentages above 100; the
    /// operating system's when it has not that much.
    pub fn new(options: &Options) -> Result<PageCache> {
        check(options)?;
        let frames = (options.memory - SPARE_NODES as usize * NODE_BYTES) / PAGE_COST;
        let reserve = (frames / 32).clamp(4, 256);
        let arena_options = ArenaOptions { frames, reserve, prefault: options.prefault };
        let arena = Arena::new(&arena_options).map_err(|error| {
            Error::new(ErrorKind::NoMemory, "new cache").because(error.to_string())
        })?;
        let usable = frames - reserve;
        let pages = |percent: usize| usable / 100 * percent + usable % 100 * percent / 100;
        let limits = DirtyLimits {
            background_pages: pages(options.dirty_background_percent),
            pages: pages(options.dirty_percent).max(1),
            expire_ns: nanos(options.dirty_expire),
            interval_ns: Some(nanos(options.dirty_interval)).filter(|ns| *ns > 0),
        };
        let frames = u32::try_from(frames).expect("check() has bounded the frames");
        let nodes = NodePool::new(frames + SPARE_NODES);
        let core = Core::new(PagePool::new(Arc::new(arena)), nodes, limits, options.clock.clone());
        Ok(PageCache {
            core: Arc::new(core),
            flushers: Mutex::default(),
            #[cfg(not(any(mpage_loom, mpage_shuttle)))]
            files: open::OpenFiles::default(),
        })
    }

    /// Adds a device, and starts its flusher.
    ///
    /// # Errors
    ///
    /// The operating system's, when it cannot start a thread.
    pub fn add_device(&self, device: Arc<dyn BlockDevice>) -> Result<Arc<BackingDev>> {
        let (dev, flusher) = self.start_flusher(device)?;
        self.flushers.lock().push(flusher);
        Ok(dev)
    }

    fn start_flusher(&self, device: Arc<dyn BlockDevice>) -> Result<(Arc<BackingDev>, Flusher)> {
        let dev = Arc::new(BackingDev::new(self.core.next_id(), device));
        let flusher = Flusher::start(&self.core, &dev).map_err(|error| {
            Error::new(ErrorKind::NoMemory, "start flusher").because(error.to_string())
        })?;
        Ok((dev, flusher))
    }

    /// A mapping for a file of `size` bytes on a device of this cache.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when the device's sector is larger than the file's block, or the file too
    /// large.
    pub fn add_mapping(
        &self,
        dev: &Arc<BackingDev>,
        block_size: BlockSize,
        size: u64,
        ops: Operations,
    ) -> Result<Arc<AddressSpace>> {
        self.new_mapping(dev, block_size, size, ops, None)
    }

    fn new_mapping(
        &self,
        dev: &Arc<BackingDev>,
        block_size: BlockSize,
        size: u64,
        ops: Operations,
        keeps: Option<Keeps>,
    ) -> Result<Arc<AddressSpace>> {
        let sector = dev.limits().alignment;
        if sector as u64 > block_size.bytes() {
            return Err(Error::new(ErrorKind::InvalidInput, "add mapping").because(format!(
                "the device writes {sector} bytes at least, more than a block of {}",
                block_size.bytes()
            )));
        }
        if dev.limits().bytes_max < PAGE_SIZE {
            return Err(Error::new(ErrorKind::InvalidInput, "add mapping")
                .because("the device takes less than a page at a time"));
        }
        if size > FILE_SIZE_MAX {
            return Err(Error::new(ErrorKind::TooLarge, "add mapping"));
        }
        Ok(AddressSpace::new(&self.core, dev, block_size, size, ops, keeps))
    }

    /// Makes everything dirty at the call durable, on all devices: starts all, then waits, then
    /// flushes each device. Uses up no open's errors.
    ///
    /// # Errors
    ///
    /// The first failure met; everything was tried.
    pub fn sync(&self) -> Result<()> {
        sync_all(&self.core, &self.core.mappings.all())
    }

    /// Asks the flushers to write what is dirty now, and returns: advice, and no promise. Linux:
    /// `wakeup_flusher_threads()`.
    pub fn start_writing(&self) {
        let now_ns = self.core.clock.now_ns();
        for (_, mapping) in self.core.mappings.dirty() {
            mapping.dev().ask_for_all(now_ns);
        }
    }

    /// A handle that syncs all files of a device and is told of each error on it once.
    pub fn device_sync(&self, dev: &Arc<BackingDev>) -> DeviceSync {
        DeviceSync::new(&self.core, dev)
    }

    /// A handle that flushes a device as the cache does: for block maps that have to, in the middle
    /// of what they write, and must not flush the device itself.
    pub fn device_flush(&self, dev: &Arc<BackingDev>) -> DeviceFlush {
        DeviceFlush::new(&self.core, dev)
    }

    /// The counters now.
    pub fn stats(&self) -> StatsSnapshot {
        self.core.stats.snapshot()
    }

    /// Bytes that are not on their devices: of pages dirty, or on their way.
    pub fn unwritten_bytes(&self) -> u64 {
        self.core.unwritten_pages() as u64 * PAGE_SIZE as u64
    }

    /// Pages the cache has room for.
    pub fn capacity_pages(&self) -> usize {
        self.core.pool.len()
    }

    /// Frames that are free now.
    pub fn free_pages(&self) -> usize {
        self.core.pool.arena().free_frames()
    }
}

fn check(options: &Options) -> Result<()> {
    let wrong =
        |detail: String| Err(Error::new(ErrorKind::InvalidInput, "new cache").because(detail));
    if options.memory < Options::MEMORY_MIN {
        return wrong(format!(
            "{} bytes of memory are too few: give at least {}",
            options.memory,
            Options::MEMORY_MIN
        ));
    }
    if options.memory / PAGE_COST >= u32::MAX as usize - SPARE_NODES as usize - 1 {
        return wrong(format!("{} bytes of memory are more than can be numbered", options.memory));
    }
    if options.dirty_percent > 100 || options.dirty_background_percent > options.dirty_percent {
        return wrong("dirty percentages must rise from background to limit, up to 100".into());
    }
    Ok(())
}

impl Drop for PageCache {
    fn drop(&mut self) {
        if let Err(mut error) = self.sync() {
            // Nobody will try again.
            error.retained = false;
            tracing::error!(%error, "the cache is dropped with data that could not be written");
        }
        self.flushers.lock().clear();
        for mapping in self.core.mappings.release_all() {
            mapping.abandon();
        }
        // What is read ahead for nobody holds its device, which others may want to open now.
        let left = self.core.mappings.all();
        left.iter().for_each(|mapping| mapping.dev().wait_until_idle());
    }
}

impl std::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageCache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
