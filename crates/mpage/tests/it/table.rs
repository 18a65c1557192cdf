//! A block map with a table: allocates late, frees, collapses, and notices who breaks its rules.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use mpage::units::{BlockSize, DeviceBlock, FileBlock};
use mpage::{
    AddressSpace, CachedFile, Extent, GetBlock, MapRequest, Operations, Options, PageCache, Place,
    Purpose, Result,
};
use mpage_block::MemoryDevice;
use mpage_locks::Mutex;
use mpage_locks::atomic::{AtomicBool, Ordering};

use crate::rig::options;
use crate::stack::{Stack, bytes_of, wait_until};

/// What a block of nobody holds. Whoever frees a block gives it to somebody else, so to say: its
/// bytes on the device change at once, and nobody else may change them again.
const POISON: u8 = 0xee;

/// The blocks a table has to give.
const BLOCKS: u64 = 8192;

type Hook = Arc<dyn Fn(&Range<FileBlock>) + Send + Sync>;

/// File blocks get a place on the device when they are written back, never next to each other in
/// file order, and lose it when they are removed.
pub(crate) struct Table {
    memory: Arc<MemoryDevice>,
    block: BlockSize,
    state: Mutex<State>,
    on_remove: Mutex<Option<Hook>>,
    on_map: Mutex<Option<Hook>>,
    on_reserve: Mutex<Option<Hook>>,
}

#[derive(Default)]
struct State {
    mapped: BTreeMap<u64, u64>,
    unwritten: BTreeSet<u64>,
    reserved: BTreeSet<u64>,
    free: Vec<u64>,
    broken: Vec<String>,
    changes: u64,
}

impl Table {
    pub(crate) fn new(memory: Arc<MemoryDevice>, block: usize) -> Arc<Table> {
        let block = BlockSize::new(block).unwrap();
        memory.write_at(0, &vec![POISON; usize::try_from(BLOCKS * block.bytes()).unwrap()]);
        let free = (0..BLOCKS).map(|n| n * 5 % BLOCKS).collect();
        let state = Mutex::new(State { free, ..State::default() });
        Arc::new(Table {
            memory,
            block,
            state,
            on_remove: Mutex::default(),
            on_map: Mutex::default(),
            on_reserve: Mutex::default(),
        })
    }

    /// Runs `hook` in each later removal, before anything is freed.
    pub(crate) fn on_remove(&self, hook: impl Fn(&Range<FileBlock>) + Send + Sync + 'static) {
        *self.on_remove.lock() = Some(Arc::new(hook));
    }

    /// Runs `hook` in each later question for a place to write to.
    pub(crate) fn on_map(&self, hook: impl Fn(&Range<FileBlock>) + Send + Sync + 'static) {
        *self.on_map.lock() = Some(Arc::new(hook));
    }

    /// Runs `hook` in each later reservation, when the room is set aside.
    pub(crate) fn on_reserve(&self, hook: impl Fn(&Range<FileBlock>) + Send + Sync + 'static) {
        *self.on_reserve.lock() = Some(Arc::new(hook));
    }

    /// Blocks with a place, and blocks with room set aside.
    pub(crate) fn used(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.mapped.len(), state.reserved.len())
    }

    /// Nobody wrote to a block that was free, and nobody asked for room at the wrong time.
    pub(crate) fn check(&self) {
        let state = self.state.lock();
        assert!(state.broken.is_empty(), "{:?}", state.broken);
        for place in &state.free {
            assert!(self.is_poison(*place), "block {place} was written after it was freed");
        }
    }

    fn is_poison(&self, place: u64) -> bool {
        let bytes = bytes_of(&self.memory, self.place_bytes(place));
        bytes.iter().all(|byte| *byte == POISON)
    }

    fn place_bytes(&self, place: u64) -> Range<u64> {
        place * self.block.bytes()..(place + 1) * self.block.bytes()
    }

    fn free(&self, state: &mut State, file_block: u64) {
        let _unwritten = state.unwritten.remove(&file_block);
        let Some(place) = state.mapped.remove(&file_block) else { return };
        let len = usize::try_from(self.block.bytes()).unwrap();
        self.memory.write_at(place * self.block.bytes(), &vec![POISON; len]);
        state.free.push(place);
    }

    fn allocate(&self, state: &mut State, file_block: u64) -> u64 {
        if !state.reserved.remove(&file_block) {
            state.broken.push(format!("block {file_block} written without room set aside"));
        }
        let place = state.free.pop().unwrap();
        if !self.is_poison(place) {
            state.broken.push(format!("block {place} was written after it was freed"));
        }
        let _none = state.mapped.insert(file_block, place);
        let _new = state.unwritten.insert(file_block);
        state.changes += 1;
        place
    }

    fn hook(slot: &Mutex<Option<Hook>>, blocks: &Range<FileBlock>) {
        let hook = slot.lock().clone();
        if let Some(hook) = hook {
            hook(blocks);
        }
    }
}

impl GetBlock for Table {
    fn get_block(&self, request: &MapRequest) -> Result<Extent> {
        let first = request.first;
        if request.purpose == Purpose::Write {
            Table::hook(&self.on_map, &(first..FileBlock(first.0 + request.count)));
        }
        let mut state = self.state.lock();
        let place = match (state.mapped.get(&first.0), request.purpose) {
            (Some(place), _) => *place,
            (None, Purpose::Read) => return Ok(Extent::hole(first, 1)),
            (None, Purpose::Write) => self.allocate(&mut state, first.0),
        };
        let unwritten = state.unwritten.contains(&first.0);
        let mut extent = Extent::mapped(first, DeviceBlock(place), 1);
        if unwritten {
            extent.place = Place::Unwritten(DeviceBlock(place));
        }
        Ok(extent)
    }

    fn reserve(&self, blocks: Range<FileBlock>) -> Result<()> {
        let mut state = self.state.lock();
        for block in blocks.start.0..blocks.end.0 {
            if !state.mapped.contains_key(&block) {
                let _new = state.reserved.insert(block);
            }
        }
        drop(state);
        Table::hook(&self.on_reserve, &blocks);
        Ok(())
    }

    fn remove(&self, blocks: Range<FileBlock>) -> Result<()> {
        Table::hook(&self.on_remove, &blocks);
        let mut state = self.state.lock();
        let range = blocks.start.0..blocks.end.0;
        let gone: Vec<u64> = state.mapped.range(range.clone()).map(|(block, _)| *block).collect();
        gone.into_iter().for_each(|block| self.free(&mut state, block));
        state.reserved.retain(|block| !range.contains(block));
        state.changes += 1;
        Ok(())
    }

    fn collapse(&self, blocks: Range<FileBlock>) -> Result<()> {
        let mut state = self.state.lock();
        let range = blocks.start.0..blocks.end.0;
        let gone: Vec<u64> = state.mapped.range(range.clone()).map(|(block, _)| *block).collect();
        gone.into_iter().for_each(|block| self.free(&mut state, block));
        let by = range.end - range.start;
        let moved = |block: u64| if block < range.end { block } else { block - by };
        state.mapped = state.mapped.iter().map(|(from, to)| (moved(*from), *to)).collect();
        state.unwritten = state.unwritten.iter().map(|block| moved(*block)).collect();
        state.reserved.retain(|block| !range.contains(block));
        state.reserved = state.reserved.iter().map(|block| moved(*block)).collect();
        state.changes += 1;
        Ok(())
    }

    fn written(&self, blocks: Range<FileBlock>) {
        let mut state = self.state.lock();
        state.unwritten.retain(|block| !(blocks.start.0..blocks.end.0).contains(block));
        state.changes += 1;
    }

    fn cookie(&self) -> u64 {
        self.state.lock().changes
    }
}

/// A place where the first thread that comes stops until it is let go.
#[derive(Clone)]
pub(crate) struct Gate {
    reached: Arc<AtomicBool>,
    open: Arc<AtomicBool>,
}

impl Gate {
    pub(crate) fn new() -> Gate {
        Gate { reached: Arc::new(AtomicBool::new(false)), open: Arc::new(AtomicBool::new(false)) }
    }

    /// What to call in the gate.
    pub(crate) fn stop(&self) -> impl Fn() + Send + Sync + 'static {
        let gate = self.clone();
        move || {
            if !gate.reached.swap(true, Ordering::SeqCst) {
                wait_until(|| gate.open.load(Ordering::SeqCst));
            }
        }
    }

    pub(crate) fn wait_for_arrival(&self) {
        wait_until(|| self.reached.load(Ordering::SeqCst));
    }

    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::SeqCst);
    }
}

impl Drop for Gate {
    /// A test that failed leaves nobody behind it.
    fn drop(&mut self) {
        self.open();
    }
}

/// A cache over a stack with one file whose blocks are in a table.
pub(crate) struct TableRig {
    pub(crate) file: CachedFile,
    pub(crate) table: Arc<Table>,
    pub(crate) cache: PageCache,
    pub(crate) stack: Stack,
}

impl TableRig {
    pub(crate) fn new(block: usize) -> TableRig {
        TableRig::with(&options(), block)
    }

    pub(crate) fn with(options: &Options, block: usize) -> TableRig {
        let stack = Stack::new(64 << 20);
        let cache = PageCache::new(options).unwrap();
        let dev = cache.add_device(stack.top()).unwrap();
        let table = Table::new(stack.memory.clone(), block);
        let ops = Operations { get_block: Some(table.clone()), ..Operations::default() };
        let block = BlockSize::new(block).unwrap();
        let mapping = cache.add_mapping(&dev, block, 0, ops).unwrap();
        TableRig { file: CachedFile::new(mapping, true), table, cache, stack }
    }

    pub(crate) fn mapping(&self) -> &AddressSpace {
        self.file.mapping()
    }

    /// The whole file, as the cache has it.
    pub(crate) fn content(&self) -> Vec<u8> {
        content_of(&self.file)
    }

    /// Drops everything cached, so that the next read asks the device.
    pub(crate) fn forget(&self) {
        self.file.invalidate_strict(0..u64::MAX / 2).unwrap();
        assert_eq!(self.mapping().set_counts(), mpage::SetCounts::default());
    }
}

impl Drop for TableRig {
    /// A test that failed leaves nothing held, for which the cache would wait.
    fn drop(&mut self) {
        self.stack.let_go();
    }
}

/// The whole of a file, as the cache has it.
pub(crate) fn content_of(file: &CachedFile) -> Vec<u8> {
    let mut bytes = vec![0xaa; usize::try_from(file.size()).unwrap()];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    bytes
}
