//! A page cache: its memory, its devices and their flushers, its files.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use mpage_block::{BlockDevice, Errno, FileDevice, FileOptions};
use mpage_locks::Mutex;
use mpage_mem::{Arena, ArenaOptions};

use crate::address_space::{AddressSpace, Keeps, Operations};
use crate::backing_dev::BackingDev;
use crate::core::{Core, DirtyLimits};
use crate::device_sync::DeviceSync;
use crate::error::{Error, ErrorKind, Result};
use crate::file::CachedFile;
use crate::flusher::Flusher;
use crate::fsync::sync_all;
use crate::identity::Identity;
use crate::page::Page;
use crate::page_pool::PagePool;
use crate::page_tree::{NODE_BYTES, NodePool};
use crate::stats::StatsSnapshot;
use crate::units::{BlockSize, FILE_SIZE_MAX, PAGE_SIZE};

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
    /// Touch all memory at the start, so that nothing has to be found later. Default: false.
    pub prefault: bool,
}

impl Options {
    /// The least memory a cache works with, in bytes.
    pub const MEMORY_MIN: usize = 256 << 10;
}

impl Default for Options {
    fn default() -> Options {
        Options {
            memory: 256 << 20,
            dirty_background_percent: 10,
            dirty_percent: 20,
            prefault: false,
        }
    }
}

/// Bytes a page costs: its frame and what is known of it, its place in the tree, its frame's pin
/// count, and its entries in a bio.
const PAGE_COST: usize = PAGE_SIZE + size_of::<Page>() + NODE_BYTES + 2 * size_of::<u32>() + 64;

/// Nodes beyond one a page: two paths of a tree of full height.
const SPARE_NODES: u32 = 24;

/// How to open a file.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// For writing too. Default: true.
    pub write: bool,
    /// Make it if it does not exist. Default: true.
    pub create: bool,
    /// Direct I/O below the cache. Without it the kernel caches the file a second time, and its
    /// write errors may be told to somebody else. Default: true.
    pub direct: bool,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions { write: true, create: true, direct: true }
    }
}

/// A page cache with a fixed amount of memory, over any number of devices and files. Several may
/// live in one process; nothing is global.
///
/// Dropping it writes what is dirty, as far as the devices let it. Whoever needs to know calls
/// [`sync`](Self::sync) before. Files still open must be dropped first.
pub struct PageCache {
    core: Arc<Core>,
    flushers: Mutex<Vec<Flusher>>,
    files: Mutex<HashMap<(u64, u64), Weak<AddressSpace>>>,
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
        };
        let frames = u32::try_from(frames).expect("check() has bounded the frames");
        let nodes = NodePool::new(frames + SPARE_NODES);
        let core = Core::new(PagePool::new(Arc::new(arena)), nodes, limits);
        Ok(PageCache { core: Arc::new(core), flushers: Mutex::default(), files: Mutex::default() })
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
        if size > FILE_SIZE_MAX {
            return Err(Error::new(ErrorKind::TooLarge, "add mapping"));
        }
        Ok(AddressSpace::new(&self.core, dev, block_size, size, ops, keeps))
    }

    /// Opens a regular file or block device through the cache. Opens of one file share its pages.
    ///
    /// # Errors
    ///
    /// What keeps the file from being opened: missing, in use by somebody else, mounted, without
    /// direct I/O. The message names the path and the remedy.
    pub fn open(&self, path: impl AsRef<Path>, options: &OpenOptions) -> Result<CachedFile> {
        let path = path.as_ref();
        let mut files = self.files.lock();
        let known = identity_of(path).and_then(|key| files.get(&key)?.upgrade());
        if let Some(space) = known {
            return Ok(CachedFile::new(space, options.write));
        }
        let file_options = FileOptions {
            read_only: !options.write,
            create: options.create && options.write,
            direct: options.direct,
            ..FileOptions::default()
        };
        let opened = FileDevice::open(path, &file_options).map_err(open_error)?;
        let size = opened.len().map_err(|errno| Error::new(ErrorKind::Device(errno), "open"))?;
        let fixed = opened.limits().capacity.is_some();
        let failed = |errno| Error::new(ErrorKind::Device(errno), "open");
        let key = opened.identity().map_err(failed)?;
        let device: Arc<dyn BlockDevice> = Arc::new(opened);
        let block_size = BlockSize::new(device.limits().alignment).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "open")
                .because("the device's sectors are larger than a page")
        })?;
        let map = match fixed {
            true => Identity::new(Arc::clone(&device), block_size),
            false => Identity::resizable(Arc::clone(&device), block_size, size),
        };
        let ops = Operations { get_block: Some(Arc::new(map)), ..Operations::default() };
        let (dev, flusher) = self.start_flusher(device)?;
        let space = self.new_mapping(&dev, block_size, size, ops, Some(Box::new(flusher)))?;
        files.retain(|_, space| space.strong_count() > 0);
        let _closed = files.insert(key, Arc::downgrade(&space));
        drop(files);
        Ok(CachedFile::new(space, options.write))
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

    /// A handle that syncs all files of a device and is told of each error on it once.
    pub fn device_sync(&self, dev: &Arc<BackingDev>) -> DeviceSync {
        DeviceSync::new(&self.core, dev)
    }

    /// The counters now.
    pub fn stats(&self) -> StatsSnapshot {
        self.core.stats.snapshot()
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

fn identity_of(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    // A path that cannot be looked at is reported by opening it.
    let metadata = std::fs::metadata(path);
    metadata.map_or(None, |metadata| Some((metadata.dev(), metadata.ino())))
}

fn open_error(error: mpage_block::OpenError) -> Error {
    use mpage_block::OpenError as E;
    let errno = match &error {
        E::EmptyPath | E::Missing { .. } => Errno::NOENT,
        E::Permission { .. } => Errno::ACCESS,
        E::ReadOnly { .. } => Errno::ROFS,
        E::Directory { .. } => Errno::ISDIR,
        E::Held { .. } | E::Busy { .. } => Errno::BUSY,
        _ => Errno::INVAL,
    };
    Error::new(ErrorKind::Device(errno), "open").because(error.to_string())
}

impl Drop for PageCache {
    fn drop(&mut self) {
        if let Err(error) = self.sync() {
            tracing::error!(%error, "the cache is dropped with data that could not be written");
        }
        self.flushers.lock().clear();
        for mapping in self.core.mappings.release_all() {
            mapping.abandon();
        }
    }
}

impl std::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageCache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}
