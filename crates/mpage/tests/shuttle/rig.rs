//! What the tests stand on: a tiny cache over a tiny device, and bytes that tell where they belong.

use std::sync::Arc;
use std::time::Duration;

use mpage::units::BlockSize;
use mpage::{AddressSpace, BackingDev, CachedFile, Identity, Operations, Options, PageCache};
use mpage_locks::thread::{self, JoinHandle};
use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use crate::later::Later;

pub(crate) const PAGE: u64 = 4096;

/// Pages of the device, and of the largest file.
pub(crate) const DEVICE_PAGES: u64 = 16;

/// Memory of most caches: nine frames, of which four are for writeback alone.
pub(crate) const MEMORY: usize = 64 << 10;

/// How many schedules each test tries.
fn schedules() -> usize {
    let asked = std::env::var("MPAGE_SCHEDULES");
    asked.map_or(2000, |count| count.parse().expect("MPAGE_SCHEDULES is a number"))
}

/// Runs `body` under random schedules, and under some with few changes of who goes first. Says how
/// many, for `cargo xtask schedules` to add up.
pub(crate) fn check(body: fn()) {
    let mut config = Config::new();
    config.silence_warnings = true;
    config.stack_size = 1 << 17;
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    let few = schedules().div_ceil(2);
    let tried = Runner::new(RandomScheduler::new(few), config.clone()).run(body)
        + Runner::new(PctScheduler::new(3, few), config).run(body);
    println!("schedules: {tried}");
}

/// A number below `n`, of the schedule's choice.
pub(crate) fn below(n: usize) -> usize {
    shuttle::rand::thread_rng().gen_range(0..n)
}

/// Starts a thread.
pub(crate) fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn("test", body).unwrap()
}

/// A cache with one file that is its device.
pub(crate) struct Rig {
    pub(crate) file: CachedFile,
    pub(crate) device: Arc<Later>,
    pub(crate) dev: Arc<BackingDev>,
    pub(crate) cache: PageCache,
}

/// How a [`Rig`] differs from the usual one.
#[derive(Clone, Copy)]
pub(crate) struct Build {
    /// Pages of the file; their content is [`stamp`] 0.
    pub(crate) pages: u64,
    pub(crate) memory: usize,
    pub(crate) block: usize,
    /// Bytes of the largest bio.
    pub(crate) bio: usize,
    pub(crate) volatile_cache: bool,
}

impl Build {
    /// A file of `pages` pages.
    pub(crate) fn pages(pages: u64) -> Build {
        Build { pages, memory: MEMORY, block: 512, bio: 1 << 20, volatile_cache: false }
    }

    pub(crate) fn rig(self) -> Rig {
        self.rig_with(|options| options)
    }

    /// As [`rig`](Self::rig), with other options of the cache.
    pub(crate) fn rig_with(self, change: impl FnOnce(Options) -> Options) -> Rig {
        let mut content = vec![0; usize::try_from(DEVICE_PAGES * PAGE).unwrap()];
        for page in 0..self.pages {
            let at = usize::try_from(page * PAGE).unwrap();
            content[at..at + 4096].copy_from_slice(&stamp(page * PAGE, 4096, 0));
        }
        let device = Later::new(content, self.bio, self.volatile_cache);
        let options = Options {
            memory: self.memory,
            dirty_background_percent: 50,
            dirty_percent: 100,
            dirty_interval: Duration::ZERO,
            ..Options::default()
        };
        let cache = PageCache::new(&change(options)).unwrap();
        let dev = cache.add_device(device.clone()).unwrap();
        let block = BlockSize::new(self.block).unwrap();
        let map = Arc::new(Identity::new(device.clone(), block));
        let ops = Operations { get_block: Some(map), ..Operations::default() };
        let mapping = cache.add_mapping(&dev, block, self.pages * PAGE, ops).unwrap();
        Rig { file: CachedFile::new(mapping, true), device, dev, cache }
    }
}

impl Rig {
    /// Another open of the file.
    pub(crate) fn open(&self) -> CachedFile {
        CachedFile::new(Arc::clone(self.file.mapping()), true)
    }

    pub(crate) fn mapping(&self) -> &Arc<AddressSpace> {
        self.file.mapping()
    }

    /// Drops the cache with everything in it, and then ends the device.
    pub(crate) fn end(self) {
        let Rig { file, device, dev, cache } = self;
        drop((file, dev));
        drop(cache);
        device.stop();
    }
}

/// Bytes of the file from `offset` on, in words that say where they belong and in which version.
pub(crate) fn stamp(offset: u64, len: usize, version: u64) -> Vec<u8> {
    assert!(offset.is_multiple_of(8) && len.is_multiple_of(8) && version < 256);
    let words = (offset / 8..).take(len / 8);
    words.flat_map(|n| (0x5a << 56 | n << 16 | version).to_le_bytes()).collect()
}

/// The version of each word of `bytes`, which are those of the file from `offset` on; `None` for
/// zeros. Fails when a word belongs elsewhere.
pub(crate) fn versions(offset: u64, bytes: &[u8]) -> Vec<Option<u64>> {
    let word = |(n, bytes): (u64, &[u8])| {
        let word = u64::from_le_bytes(bytes.try_into().unwrap());
        let place = 0x5a << 56 | n << 16;
        assert!(word == 0 || word & !0xff == place, "word {n} of the file is {word:x}");
        (word != 0).then_some(word & 0xff)
    };
    (offset / 8..).zip(bytes.chunks(8)).map(word).collect()
}

/// Reads `len` bytes and says their versions; fewer at the end of the file.
pub(crate) fn read_versions(file: &CachedFile, offset: u64, len: usize) -> Vec<Option<u64>> {
    let mut bytes = vec![0xff; len];
    let read = file.read_at(&mut bytes, offset).unwrap();
    versions(offset, &bytes[..read / 8 * 8])
}

/// The part of `device` that begins at `offset`.
pub(crate) fn part(device: &[u8], offset: u64, len: usize) -> &[u8] {
    &device[usize::try_from(offset).unwrap()..][..len]
}

/// Writes version `version` of `len` bytes at `offset`.
pub(crate) fn write(file: &CachedFile, offset: u64, len: usize, version: u64) {
    file.write_all_at(&stamp(offset, len, version), offset).unwrap();
}
