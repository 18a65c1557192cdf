//! What the tests stand on: a cache over a device in memory.

use std::sync::Arc;

use mpage::units::BlockSize;
use mpage::{AddressSpace, BackingDev, CachedFile, Identity, Operations, Options, PageCache};
use mpage_block::{BlockDevice, MemoryDevice, MemoryOptions};

/// Bytes of the device most tests use.
pub(crate) const DEVICE_BYTES: u64 = 64 << 20;

/// The memory of the tests' caches: 16 MiB, or the least a cache works with when the environment
/// says `MPAGE_TEST_MEMORY=min`.
pub(crate) fn options() -> Options {
    let least = std::env::var_os("MPAGE_TEST_MEMORY").is_some_and(|value| value == "min");
    let memory = if least { Options::MEMORY_MIN } else { 16 << 20 };
    Options { memory, dirty_background_percent: 50, dirty_percent: 80, ..Options::default() }
}

/// A device in memory with a volatile cache.
pub(crate) fn memory_device(bytes: u64) -> Arc<MemoryDevice> {
    let options = MemoryOptions { volatile_cache: true, ..MemoryOptions::default() };
    Arc::new(MemoryDevice::new(bytes, options))
}

/// A cache with one device and one file that is the device.
pub(crate) struct Rig {
    pub(crate) file: CachedFile,
    pub(crate) dev: Arc<BackingDev>,
    pub(crate) cache: PageCache,
}

impl Rig {
    /// A file of `size` bytes in blocks of `block` bytes over `device`.
    pub(crate) fn over(device: Arc<dyn BlockDevice>, block: usize, size: u64) -> Rig {
        let cache = PageCache::new(&options()).unwrap();
        let dev = cache.add_device(Arc::clone(&device)).unwrap();
        let block = BlockSize::new(block).unwrap();
        let map = Arc::new(Identity::new(device, block));
        let ops = Operations { get_block: Some(map), ..Operations::default() };
        let mapping = cache.add_mapping(&dev, block, size, ops).unwrap();
        Rig { file: CachedFile::new(mapping, true), dev, cache }
    }

    /// Another open of the same file.
    pub(crate) fn open(&self) -> CachedFile {
        CachedFile::new(Arc::clone(self.file.mapping()), true)
    }

    pub(crate) fn mapping(&self) -> &AddressSpace {
        self.file.mapping()
    }
}

/// Bytes that tell where they belong: different for each offset and seed.
pub(crate) fn pattern(seed: u64, offset: u64, len: usize) -> Vec<u8> {
    let byte = |n: u64| {
        let mixed =
            (n ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed.to_le_bytes()[7] | 1
    };
    (offset..offset + len as u64).map(byte).collect()
}
