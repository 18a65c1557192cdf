//! A block map of one's own: where a small file system keeps the blocks of a file.
//!
//! ```text
//! cargo run --release -p mpage --example own_get_block
//! ```
//!
//! A block goes through three states, and each has its moment: *reserved* when it is first dirtied,
//! so that "no space" is told by write; *claimed* when it is written back, so that neighbours in
//! the file become neighbours on the device, whatever the order of the writes; *mapped* when its
//! data has arrived, so that a crash shows no stale block.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::ops::Range;
use std::sync::Arc;

use mpage::units::{BlockSize, DeviceBlock, FileBlock};
use mpage::{
    CachedFile, Error, Extent, GetBlock, MapRequest, Operations, Options, PageCache, Place,
    Purpose, Result,
};
use mpage_block::wrap::Trace;
use mpage_block::{BlockDevice, Errno, MemoryDevice, MemoryOptions};
use mpage_locks::Mutex;

const BLOCK_BYTES: usize = 4096;
const DEVICE_BLOCKS: u64 = 64;

/// The blocks of one file, on a device that has no other.
struct FileMap {
    state: Mutex<State>,
}

struct State {
    free: BTreeSet<u64>,
    /// File blocks that will need one of the free blocks.
    reserved: BTreeSet<u64>,
    /// Where file blocks are.
    blocks: BTreeMap<u64, Block>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Block {
    device: u64,
    /// The data is there. Before that, a reader sees zeros.
    mapped: bool,
}

impl FileMap {
    fn new() -> FileMap {
        let free = (0..DEVICE_BLOCKS).collect();
        let (reserved, blocks) = (BTreeSet::new(), BTreeMap::new());
        FileMap { state: Mutex::new(State { free, reserved, blocks }) }
    }

    /// Blocks in each state: reserved, claimed or mapped, free.
    fn counts(&self) -> (usize, usize, usize) {
        let state = self.state.lock();
        (state.reserved.len(), state.blocks.len(), state.free.len())
    }
}

impl State {
    /// Gives `block` the lowest free block. False when it has no place and none was reserved.
    fn claim(&mut self, block: u64) -> bool {
        if self.blocks.contains_key(&block) {
            return true;
        }
        if !self.reserved.remove(&block) {
            return false;
        }
        let device = self.free.pop_first().expect("a free block was kept for each reserved one");
        let claimed = self.blocks.insert(block, Block { device, mapped: false });
        assert!(claimed.is_none(), "a block has one place");
        true
    }

    /// The run that begins at `first`: blocks that are neighbours on the device too, or holes.
    fn run_from(&self, first: u64, count: u64) -> Extent {
        let place = |n: u64| self.blocks.get(&(first + n)).copied();
        let Some(start) = place(0) else {
            let holes = (1..count).take_while(|n| place(*n).is_none()).count();
            return Extent::hole(FileBlock(first), 1 + holes as u64);
        };
        let next = |n: &u64| place(*n) == Some(Block { device: start.device + n, ..start });
        let count = 1 + (1..count).take_while(next).count() as u64;
        let extent = Extent::mapped(FileBlock(first), DeviceBlock(start.device), count);
        match start.mapped {
            true => extent,
            false => Extent { place: Place::Unwritten(DeviceBlock(start.device)), ..extent },
        }
    }
}

impl GetBlock for FileMap {
    fn get_block(&self, request: &MapRequest) -> Result<Extent> {
        let mut state = self.state.lock();
        let first = request.first.0;
        if request.purpose == Purpose::Write {
            // More than the first is a wish: another block may have been truncated meanwhile.
            let claimed = (first..first + request.count).take_while(|n| state.claim(*n)).count();
            assert!(claimed > 0, "what is written was reserved");
        }
        Ok(state.run_from(first, request.count))
    }

    fn reserve(&self, blocks: Range<FileBlock>) -> Result<()> {
        let mut state = self.state.lock();
        let known = |n: &u64| state.blocks.contains_key(n) || state.reserved.contains(n);
        let new: Vec<u64> = (blocks.start.0..blocks.end.0).filter(|n| !known(n)).collect();
        let unpromised = state.free.len() - state.reserved.len();
        if new.len() > unpromised {
            let detail = format!("{} more needed, {unpromised} blocks left", new.len());
            return Err(Error::new(Errno::NOSPC, "write").because(detail));
        }
        state.reserved.extend(new);
        Ok(())
    }

    fn written(&self, blocks: Range<FileBlock>) {
        let mut state = self.state.lock();
        for (_, block) in state.blocks.range_mut(blocks.start.0..blocks.end.0) {
            block.mapped = true;
        }
    }

    fn remove(&self, blocks: Range<FileBlock>) -> Result<()> {
        let mut state = self.state.lock();
        let gone = blocks.start.0..blocks.end.0;
        state.reserved.retain(|n| !gone.contains(n));
        let freed: Vec<(u64, Block)> =
            state.blocks.range(gone).map(|(n, block)| (*n, *block)).collect();
        for (n, block) in freed {
            let removed = state.blocks.remove(&n);
            assert!(removed.is_some() && state.free.insert(block.device), "it was in use");
        }
        Ok(())
    }
}

fn main() -> std::result::Result<(), Box<dyn StdError>> {
    let bytes = DEVICE_BLOCKS * BLOCK_BYTES as u64;
    let memory = MemoryDevice::new(bytes, MemoryOptions::default());
    let trace = Arc::new(Trace::new(Arc::new(memory)));
    let cache = PageCache::new(&Options { memory: 16 << 20, ..Options::default() })?;
    let dev = cache.add_device(Arc::clone(&trace) as Arc<dyn BlockDevice>)?;
    let map = Arc::new(FileMap::new());
    let ops = Operations { get_block: Some(map.clone()), ..Operations::default() };
    let block_size = BlockSize::new(BLOCK_BYTES).ok_or("no block size")?;
    let file = CachedFile::new(cache.add_mapping(&dev, block_size, 0, ops)?, true);

    // Last block first: reserved, and nothing chosen.
    for block in (0..60).rev() {
        file.write_all_at(&[1; BLOCK_BYTES], block * BLOCK_BYTES as u64)?;
    }
    println!("written backwards: reserved, placed, free = {:?}", map.counts());
    assert_eq!(map.counts(), (60, 0, 64));

    file.fsync()?;
    println!("synced:            reserved, placed, free = {:?}", map.counts());
    assert_eq!(map.counts(), (0, 60, 4));
    let seen = trace.take_lines();
    println!("the device saw:    {}", seen.join(", "));
    assert!(seen[0].starts_with("W 0+480"), "one write, in the order of the file");

    // Four blocks are left. The fifth is refused at once, and no sync will fail for it.
    file.write_all_at(&[2; 4 * BLOCK_BYTES], 60 * BLOCK_BYTES as u64)?;
    let full = file.write_at(&[2], 64 * BLOCK_BYTES as u64).expect_err("the device is full");
    println!("one byte more:     {full}");
    assert_eq!(full.kind.errno(), Errno::NOSPC);
    file.fsync()?;

    // Room in the middle is room again.
    file.punch_hole(0..8 * BLOCK_BYTES as u64)?;
    file.write_all_at(&[2], 64 * BLOCK_BYTES as u64)?;
    file.fsync()?;
    println!("8 blocks punched:  reserved, placed, free = {:?}", map.counts());
    assert_eq!(map.counts(), (0, 57, 7));
    Ok(())
}
