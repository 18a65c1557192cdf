//! A block map that answers what it is told, and a file over it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use mpage::units::{BlockSize, DeviceBlock, FileBlock};
use mpage::{
    AddressSpace, CachedFile, Error, Extent, GetBlock, MapRequest, Operations, Options, PageCache,
    Purpose, Result, SyncKind, SyncMode, WritebackControl, mpage_writepages,
};
use mpage_block::Errno;
use mpage_block::wrap::DeviceOp;
use mpage_locks::Mutex;

use crate::rig::options;
use crate::stack::Stack;
use crate::table::Gate;

/// The whole file.
pub(crate) const WHOLE: Range<u64> = 0..mpage::units::FILE_SIZE_MAX;

type Answer = Arc<dyn Fn(&MapRequest) -> Result<Extent> + Send + Sync>;
type Hook = Box<dyn FnOnce() + Send>;

/// A block map that answers what it is told, and notes what it is asked.
pub(crate) struct Answers {
    block: BlockSize,
    answer: Mutex<Answer>,
    hooks: Mutex<Vec<(u64, Hook)>>,
    asked: Mutex<Vec<MapRequest>>,
    events: Mutex<Vec<String>>,
    room: Mutex<(BTreeSet<u64>, usize)>,
}

impl Answers {
    /// File block n is device block n, told a page at a time.
    pub(crate) fn new(block: usize) -> Arc<Answers> {
        let size = BlockSize::new(block).unwrap();
        Arc::new(Answers {
            block: size,
            answer: Mutex::new(Arc::new(move |request| Ok(one_page(size, request, 0)))),
            hooks: Mutex::default(),
            asked: Mutex::default(),
            events: Mutex::default(),
            room: Mutex::new((BTreeSet::new(), usize::MAX)),
        })
    }

    /// Answers so from now on.
    pub(crate) fn answer(
        &self,
        answer: impl Fn(&MapRequest) -> Result<Extent> + Send + Sync + 'static,
    ) {
        *self.answer.lock() = Arc::new(answer);
    }

    /// Places for writes of `blocks` are refused with `errno` from now on, block by block.
    pub(crate) fn refuse(&self, blocks: &'static [(u64, Errno)]) {
        self.answer(move |request| {
            let first = request.first;
            match blocks.iter().find(|(block, _)| *block == first.0) {
                Some((_, errno)) if request.purpose == Purpose::Write => {
                    Err(Error::new(*errno, "get_block"))
                }
                _ => Ok(Extent::mapped(first, DeviceBlock(first.0), 1)),
            }
        });
    }

    /// Runs `hook` once, when a place to write page `index` to is asked for.
    pub(crate) fn once(&self, index: u64, hook: impl FnOnce() + Send + 'static) {
        self.hooks.lock().push((index, Box::new(hook)));
    }

    /// Stops whoever asks for a place to write page `index` to, once, until the gate is opened.
    pub(crate) fn stop_at(&self, index: u64) -> Gate {
        let gate = Gate::new();
        self.once(index, gate.stop());
        gate
    }

    /// Takes the questions so far.
    pub(crate) fn take_asked(&self) -> Vec<MapRequest> {
        std::mem::take(&mut self.asked.lock())
    }

    /// Takes what it was told so far: what was written, removed and synced.
    pub(crate) fn take_events(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock())
    }

    /// Has room for `blocks` blocks.
    pub(crate) fn set_room(&self, blocks: usize) {
        self.room.lock().1 = blocks;
    }

    /// Blocks with room set aside.
    pub(crate) fn reserved(&self) -> usize {
        self.room.lock().0.len()
    }
}

/// Part of the block map that moves files by `base` blocks: the page that holds what is asked.
pub(crate) fn one_page(size: BlockSize, request: &MapRequest, base: u64) -> Extent {
    let first = request.first;
    let in_page = 4096 / size.bytes();
    Extent::mapped(first, DeviceBlock(first.0 + base), in_page - first.0 % in_page)
}

impl GetBlock for Answers {
    fn get_block(&self, request: &MapRequest) -> Result<Extent> {
        self.asked.lock().push(*request);
        if request.purpose == Purpose::Write {
            let page = self.block.start_of(request.first) / 4096;
            let mut hooks = self.hooks.lock();
            let at = hooks.iter().position(|(index, _)| *index == page);
            let hook = at.map(|at| hooks.remove(at).1);
            drop(hooks);
            hook.into_iter().for_each(|hook| hook());
        }
        let answer = self.answer.lock().clone();
        answer(request)
    }

    fn reserve(&self, blocks: Range<FileBlock>) -> Result<()> {
        let (reserved, limit) = &mut *self.room.lock();
        let fresh: Vec<u64> =
            (blocks.start.0..blocks.end.0).filter(|n| !reserved.contains(n)).collect();
        if reserved.len() + fresh.len() > *limit {
            return Err(Error::new(Errno::NOSPC, "write"));
        }
        reserved.extend(fresh);
        Ok(())
    }

    fn remove(&self, blocks: Range<FileBlock>) -> Result<()> {
        self.events.lock().push(format!("removed from {}", blocks.start.0));
        self.room.lock().0.retain(|n| !(blocks.start.0..blocks.end.0).contains(n));
        Ok(())
    }

    fn written(&self, blocks: Range<FileBlock>) {
        self.events.lock().push(format!("written {}..{}", blocks.start.0, blocks.end.0));
    }

    fn sync(&self, _kind: SyncKind, size_bytes: &dyn Fn() -> u64) -> Result<bool> {
        self.events.lock().push(format!("synced at {}", size_bytes()));
        Ok(false)
    }
}

/// A file over a stack of devices, its blocks where [`Answers`] says. Nobody writes in the
/// background before most of the memory is dirty.
pub(crate) struct Bench {
    pub(crate) file: CachedFile,
    pub(crate) map: Arc<Answers>,
    pub(crate) cache: PageCache,
    pub(crate) stack: Stack,
}

impl Bench {
    pub(crate) fn new(block: usize, size: u64) -> Bench {
        Bench::over(Stack::new(64 << 20), block, size)
    }

    pub(crate) fn over(stack: Stack, block: usize, size: u64) -> Bench {
        let options = Options { dirty_background_percent: 90, dirty_percent: 90, ..options() };
        Bench::with(&options, stack, block, size)
    }

    pub(crate) fn with(options: &Options, stack: Stack, block: usize, size: u64) -> Bench {
        let cache = PageCache::new(options).unwrap();
        let dev = cache.add_device(stack.top()).unwrap();
        let map = Answers::new(block);
        let ops = Operations { get_block: Some(map.clone()), ..Operations::default() };
        let block = BlockSize::new(block).unwrap();
        let mapping = cache.add_mapping(&dev, block, size, ops).unwrap();
        Bench { file: CachedFile::new(mapping, true), map, cache, stack }
    }

    pub(crate) fn mapping(&self) -> &AddressSpace {
        self.file.mapping()
    }

    /// Fills pages `indices` of the file with `byte`.
    pub(crate) fn fill(&self, indices: impl IntoIterator<Item = u64>, byte: u8) {
        fill(&self.file, indices, byte);
    }

    /// Walks with `mode` over what callers put into io, at most `nr_to_write` pages if cleaning.
    pub(crate) fn walk(&self, mode: SyncMode, nr_to_write: i64) -> (WritebackControl, Result<()>) {
        let mut wbc =
            WritebackControl { sync_mode: mode, ..WritebackControl::cleaning(nr_to_write) };
        let result = mpage_writepages(self.mapping(), &mut wbc, Some(&*self.map));
        (wbc, result)
    }

    /// Puts what is dirty into io and walks it.
    pub(crate) fn splice_and_walk(&self, mode: SyncMode) -> WritebackControl {
        let _joined = self.mapping().splice(&WHOLE, mode);
        let (wbc, result) = self.walk(mode, i64::MAX);
        result.unwrap();
        wbc
    }

    /// What was written and flushed since the last look, as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let events = self.stack.trace.take();
        let is_read = |op| op == DeviceOp::Bio(mpage_block::BioOp::Read);
        events.iter().filter(|e| !is_read(e.op)).map(ToString::to_string).collect()
    }

    /// The first byte of page `index` of the device.
    pub(crate) fn on_device(&self, index: u64) -> u8 {
        self.stack.bytes(index * 4096..index * 4096 + 1)[0]
    }

    /// Pages that are dirty now.
    pub(crate) fn dirty(&self) -> Vec<u64> {
        self.mapping().dirty_pages(&WHOLE).iter().map(|index| index.0).collect()
    }

    /// Pages that are under writeback now.
    pub(crate) fn in_flight(&self) -> Vec<u64> {
        self.mapping().writeback_pages(&WHOLE).iter().map(|index| index.0).collect()
    }

    /// The sets' sizes: clean, dirty, io, locked.
    pub(crate) fn sets(&self) -> [usize; 4] {
        let counts = self.mapping().set_counts();
        [counts.clean, counts.dirty, counts.io, counts.locked]
    }
}

/// A list of one.
pub(crate) fn only<T>(one: T) -> Vec<T> {
    std::iter::once(one).collect()
}

/// Fills pages `indices` of `file` with `byte`.
pub(crate) fn fill(file: &CachedFile, indices: impl IntoIterator<Item = u64>, byte: u8) {
    for index in indices {
        file.write_all_at(&[byte; 4096], index * 4096).unwrap();
    }
}

impl Drop for Bench {
    /// A test that failed must not hang: nothing is held or refused while the cache goes.
    fn drop(&mut self) {
        self.map.hooks.lock().clear();
        let size = self.map.block;
        self.map.answer(move |request| Ok(one_page(size, request, 0)));
        self.stack.fault.clear();
        self.stack.let_go();
    }
}
