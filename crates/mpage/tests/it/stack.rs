//! Devices around a memory device, and a block map that tells what it was asked.

use std::ops::Range;
use std::sync::Arc;

use mpage::units::{BlockSize, FileBlock};
use mpage::{
    AddressSpace, BackingDev, CachedFile, Error, Extent, GetBlock, Identity, MapRequest,
    Operations, Options, PageCache, Purpose, Result, SyncKind,
};
use mpage_block::wrap::{Delay, DeviceOp, Effect, Fault, Rule, Times, Trace, TraceEvent};
use mpage_block::{Bio, BioOp, BlockDevice, Errno, Limits, MemoryDevice, Sector, SubmitError};
use mpage_locks::atomic::{AtomicBool, Ordering};
use mpage_locks::thread::{self, JoinHandle};
use mpage_locks::{Condvar, Mutex};

use crate::rig::{memory_device, options};

/// Holds back the news that a write has ended, once: on the thread that submitted it.
#[derive(Default)]
pub(crate) struct Late {
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Late {
    /// The next write that ends is held.
    pub(crate) fn hold_writes(&self) {
        self.state.lock().0 = true;
    }

    pub(crate) fn wait_for_held(&self) {
        let mut state = self.state.lock();
        while !state.1 {
            state = self.changed.wait(state);
        }
    }

    pub(crate) fn let_go(&self) {
        *self.state.lock() = (false, false);
        self.changed.notify_all();
    }

    fn ended(&self) {
        let mut state = self.state.lock();
        if !std::mem::take(&mut state.0) {
            return;
        }
        state.1 = true;
        self.changed.notify_all();
        while state.1 {
            state = self.changed.wait(state);
        }
    }
}

/// A trace of a delay of a fault of a device in memory. The delay holds nothing until it is told.
pub(crate) struct Stack {
    pub(crate) memory: Arc<MemoryDevice>,
    pub(crate) fault: Arc<Fault>,
    pub(crate) delay: Arc<Delay>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) late: Arc<Late>,
}

impl Stack {
    pub(crate) fn new(bytes: u64) -> Stack {
        Stack::around(memory_device(bytes))
    }

    pub(crate) fn around(memory: Arc<MemoryDevice>) -> Stack {
        let fault = Arc::new(Fault::new(memory.clone()));
        let delay = Arc::new(Delay::manual(fault.clone()));
        delay.hold_only(|_| false);
        let trace = Arc::new(Trace::new(delay.clone()));
        Stack { memory, fault, delay, trace, late: Arc::default() }
    }

    /// The device on top.
    pub(crate) fn top(&self) -> Arc<dyn BlockDevice> {
        self.trace.clone()
    }

    /// Holds every `op` from now on.
    pub(crate) fn hold(&self, op: BioOp) {
        self.delay.hold_only(move |bio| bio.op() == op);
    }

    /// Holds writes that touch page `index` of the device from now on.
    pub(crate) fn hold_page(&self, index: u64) {
        let page = Sector(index * 8)..Sector(index * 8 + 8);
        self.delay.hold_only(move |bio| {
            let touches = bio.sector() < page.end && page.start < bio.end_sector();
            bio.op() == BioOp::Write && touches
        });
    }

    /// Holds nothing any more and lets go what is held.
    pub(crate) fn let_go(&self) {
        self.delay.hold_only(|_| false);
        let _released: usize = self.delay.release_all();
    }

    /// From now on `times` of the bios `op` fail with `errno`.
    pub(crate) fn fail(&self, op: BioOp, times: Times, errno: Errno) {
        let op = Some(DeviceOp::Bio(op));
        let _id = self.fault.add(Rule { op, sectors: None, times, effect: Effect::Fail(errno) });
    }

    /// The bytes of the device, past all wrappers.
    pub(crate) fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        bytes_of(&self.memory, range)
    }

    /// Takes what was written since the last look, flushes included.
    pub(crate) fn take_writes(&self) -> Vec<TraceEvent> {
        let mut events = self.trace.take();
        events.retain(|event| event.op != DeviceOp::Bio(BioOp::Read));
        events
    }
}

impl Drop for Stack {
    /// What a test that failed still holds would be waited for.
    fn drop(&mut self) {
        self.let_go();
        self.late.let_go();
    }
}

pub(crate) fn bytes_of(memory: &MemoryDevice, range: Range<u64>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
    memory.read_at(range.start, &mut bytes);
    bytes
}

/// The byte range of `count` pages from page `first` on.
pub(crate) fn pages(first: u64, count: u64) -> Range<u64> {
    first * 4096..(first + count) * 4096
}

/// How many of `events` are `op`.
pub(crate) fn count(events: &[TraceEvent], op: BioOp) -> usize {
    events.iter().filter(|event| event.op == DeviceOp::Bio(op)).count()
}

type SyncHook = Box<dyn Fn(SyncKind) -> Result<()> + Send + Sync>;

/// File block n is device block `base` + n. Notes what syncs ask for, and fails when told.
pub(crate) struct Blocks {
    identity: Identity,
    base: u64,
    syncs: Mutex<Vec<(SyncKind, u64)>>,
    on_sync: Mutex<Option<Arc<SyncHook>>>,
    broken: Mutex<Option<(Range<u64>, Errno)>>,
    /// The last it heard of writes and flushes is that a flush failed.
    may_have_lost: AtomicBool,
}

impl Blocks {
    /// `base` is in blocks of `block` bytes.
    pub(crate) fn new(device: Arc<dyn BlockDevice>, block: usize, base: u64) -> Arc<Blocks> {
        Arc::new(Blocks {
            identity: Identity::new(device, BlockSize::new(block).unwrap()),
            base,
            syncs: Mutex::default(),
            on_sync: Mutex::default(),
            broken: Mutex::default(),
            may_have_lost: AtomicBool::new(false),
        })
    }

    /// What syncs asked for so far, each with the file's size then.
    pub(crate) fn syncs(&self) -> Vec<(SyncKind, u64)> {
        self.syncs.lock().clone()
    }

    /// Whether a flush failed behind the last write it was told of.
    pub(crate) fn may_have_lost(&self) -> bool {
        self.may_have_lost.load(Ordering::SeqCst)
    }

    /// Runs `hook` in each later sync, after it was noted.
    pub(crate) fn on_sync(&self, hook: impl Fn(SyncKind) -> Result<()> + Send + Sync + 'static) {
        *self.on_sync.lock() = Some(Arc::new(Box::new(hook)));
    }

    /// Places for writes of `blocks` are refused with `errno` from now on; `None`: given again.
    pub(crate) fn refuse(&self, broken: Option<(Range<u64>, Errno)>) {
        *self.broken.lock() = broken;
    }
}

impl GetBlock for Blocks {
    fn get_block(&self, request: &MapRequest) -> Result<Extent> {
        let first = request.first;
        let to = mpage::units::DeviceBlock(first.0 + self.base);
        match &*self.broken.lock() {
            Some((blocks, errno)) if request.purpose == Purpose::Write => {
                match blocks.contains(&first.0) {
                    true => Err(Error::new(*errno, "get_block")),
                    false => Ok(Extent::mapped(first, to, 1)),
                }
            }
            _ => Ok(Extent::mapped(first, to, 1 << 30)),
        }
    }

    fn remove(&self, blocks: Range<FileBlock>) -> Result<()> {
        match self.base {
            0 => self.identity.remove(blocks),
            _ => Ok(()),
        }
    }

    fn sync(&self, kind: SyncKind, size_bytes: &dyn Fn() -> u64) -> Result<bool> {
        self.syncs.lock().push((kind, size_bytes()));
        let hook = self.on_sync.lock().clone();
        hook.map_or(Ok(()), |hook| hook(kind)).map(|()| false)
    }

    fn written(&self, _blocks: Range<FileBlock>) {
        self.may_have_lost.store(false, Ordering::SeqCst);
    }

    fn flush_failed(&self) {
        self.may_have_lost.store(true, Ordering::SeqCst);
    }

    fn cookie(&self) -> u64 {
        u64::from(self.broken.lock().is_some())
    }
}

/// A cache over one stack, with files one behind the other on it.
pub(crate) struct Files {
    pub(crate) stack: Stack,
    pub(crate) cache: PageCache,
    pub(crate) dev: Arc<BackingDev>,
}

/// Pages of the device that each of [`Files`] has.
pub(crate) const FILE_PAGES: u64 = 1024;

impl Files {
    pub(crate) fn new() -> Files {
        Files::around(Stack::new(64 << 20))
    }

    pub(crate) fn around(stack: Stack) -> Files {
        Files::with(&options(), stack)
    }

    pub(crate) fn with(options: &Options, stack: Stack) -> Files {
        let cache = PageCache::new(options).unwrap();
        let dev = cache.add_device(stack.top()).unwrap();
        Files { stack, cache, dev }
    }

    /// The same over `device`, which is around `stack`.
    pub(crate) fn over(stack: Stack, device: Arc<dyn BlockDevice>) -> Files {
        let cache = PageCache::new(&options()).unwrap();
        let dev = cache.add_device(device).unwrap();
        Files { stack, cache, dev }
    }

    /// The file that begins at page `n * FILE_PAGES` of the device, `size` bytes long.
    pub(crate) fn file(&self, n: u64, size: u64) -> (CachedFile, Arc<Blocks>) {
        let block = BlockSize::new(4096).unwrap();
        let map = Blocks::new(self.stack.top(), 4096, n * FILE_PAGES);
        let ops = Operations { get_block: Some(map.clone()), ..Operations::default() };
        let mapping = self.cache.add_mapping(&self.dev, block, size, ops).unwrap();
        (CachedFile::new(mapping, true), map)
    }
}

/// Starts a thread.
pub(crate) fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    thread::spawn("test", body).unwrap()
}

/// Gives `handle`'s thread many chances to end, and fails when it takes one. It never fails when
/// the thread really waits.
pub(crate) fn still_waits<T>(handle: &JoinHandle<T>) {
    for _ in 0..3000 {
        assert!(!handle.is_finished(), "it returned before what it waits for");
        thread::yield_now();
    }
}

/// Goes on once `reached` is true.
pub(crate) fn wait_until(reached: impl Fn() -> bool) {
    while !reached() {
        thread::yield_now();
    }
}

/// The errno of a failed call.
pub(crate) fn errno<T: std::fmt::Debug>(result: Result<T>) -> Errno {
    result.unwrap_err().kind.errno()
}

/// No page is dirty, in io or in flight.
pub(crate) fn is_clean(mapping: &AddressSpace) -> bool {
    let counts = mapping.set_counts();
    (counts.dirty, counts.io, counts.locked) == (0, 0, 0)
}

/// A device with a volatile cache that a failed flush empties: what was written since the last good
/// flush is gone then, zeros too. FUA writes are not.
pub(crate) struct Forgetful {
    inner: Arc<dyn BlockDevice>,
    medium: Arc<Medium>,
    late: Arc<Late>,
}

struct Medium {
    memory: Arc<MemoryDevice>,
    durable: Mutex<Vec<u8>>,
}

impl Forgetful {
    /// Around `inner`, which stores in `memory`.
    pub(crate) fn new(inner: Arc<dyn BlockDevice>, memory: Arc<MemoryDevice>) -> Forgetful {
        let durable = Mutex::new(memory.contents());
        Forgetful { inner, medium: Arc::new(Medium { memory, durable }), late: Arc::default() }
    }

    /// The same; `late` holds news of its writes.
    pub(crate) fn with_late(mut self, late: &Arc<Late>) -> Forgetful {
        self.late = Arc::clone(late);
        self
    }

    /// What would be left after a power cut that loses everything it may.
    pub(crate) fn durable(&self) -> Vec<u8> {
        self.medium.durable.lock().clone()
    }
}

impl BlockDevice for Forgetful {
    fn limits(&self) -> Limits {
        self.inner.limits()
    }

    fn submit(&self, mut bio: Bio) -> std::result::Result<(), SubmitError> {
        let medium = Arc::clone(&self.medium);
        let bytes = bio.sector().0 * 512..bio.end_sector().0 * 512;
        let through = bio.flags().fua;
        match bio.op() {
            BioOp::Flush => {
                let covered = medium.memory.contents();
                bio.intercept(move |result| {
                    let mut durable = medium.durable.lock();
                    match result {
                        Ok(()) => *durable = covered,
                        Err(_) => medium.memory.write_at(0, &durable),
                    }
                    result
                });
            }
            BioOp::Write if through => bio.intercept(move |result| {
                let at = usize::try_from(bytes.start).unwrap();
                let new = bytes_of(&medium.memory, bytes);
                if result.is_ok() {
                    medium.durable.lock()[at..at + new.len()].copy_from_slice(&new);
                }
                result
            }),
            BioOp::Write => {
                let late = Arc::clone(&self.late);
                bio.intercept(move |result| {
                    late.ended();
                    result
                });
            }
            _ => return self.inner.submit(bio),
        }
        self.inner.submit(bio).map_err(|mut refused| {
            refused.bio.cancel_interceptor();
            refused
        })
    }
}
