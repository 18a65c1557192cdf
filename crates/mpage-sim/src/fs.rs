//! A small file system: it allocates when pages are written back, scatters, and commits.
//!
//! It does what a file system owes its data, and no more, so that what the cache owes it shows:
//! 1. A block is allocated unwritten, and reads as zeros until its first write has ended.
//! 2. A commit holds the size and the map as they were before its own flush of the device began,
//!    and is durable when that has ended.
//! 3. A block that was freed is used again only once a commit without it is durable.
//! 4. Free blocks hold what nobody wrote.
//! 5. It does not know which blocks a failed flush of the device has lost: behind one, whoever made
//!    it, nothing is committed any more. Linux: an aborted journal, `errors=continue`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use mpage::units::{DeviceBlock, FileBlock};
use mpage::{
    DeviceFlush, Error, ErrorKind, Extent, GetBlock, MapRequest, OwnWrites, Place, Purpose, Result,
    SyncKind,
};
use mpage_block::Errno;
use mpage_locks::Mutex;

use crate::instants::Instants;

/// Where a block is, and whether it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub(crate) to: u64,
    pub(crate) written: bool,
}

/// The map of a file: by file block.
pub(crate) type Map = BTreeMap<u64, Mapped>;

/// What a crash finds of a file.
#[derive(Clone, Debug)]
pub(crate) struct Commit {
    /// From when on.
    pub(crate) at: u64,
    pub(crate) size: u64,
    pub(crate) map: Map,
}

pub(crate) struct SimFs {
    instants: Arc<Instants>,
    state: Mutex<State>,
}

struct State {
    free: BTreeSet<u64>,
    files: Vec<Inode>,
    random: fastrand::Rng,
    changes: u64,
    /// Questions for places that are still going to fail, at random.
    faults: u32,
    went_wrong: u64,
}

struct Inode {
    map: Map,
    reserved: BTreeSet<u64>,
    /// Not free before a commit without them is durable.
    freed: Vec<u64>,
    commits: Vec<Commit>,
}

impl SimFs {
    /// A file system of `blocks` blocks with files of so many blocks, one behind the other, as long
    /// as `block` bytes each. So many questions as `faults` says for a place of a block fail.
    pub(crate) fn new(
        instants: &Arc<Instants>,
        (blocks, block): (u64, u64),
        files: &[u64],
        faults: u32,
        seed: u64,
    ) -> Arc<SimFs> {
        let mut next = 0;
        let inodes = files.iter().map(|count| {
            let map: Map =
                (0..*count).map(|n| (n, Mapped { to: next + n, written: true })).collect();
            next += count;
            let commit = Commit { at: 0, size: count * block, map: map.clone() };
            let (reserved, freed) = (BTreeSet::new(), Vec::new());
            Inode { map, reserved, freed, commits: vec![commit] }
        });
        let files = inodes.collect();
        let random = fastrand::Rng::with_seed(seed);
        let free = (next..blocks).collect();
        let state = State { free, files, random, changes: 0, faults, went_wrong: 0 };
        Arc::new(SimFs { instants: Arc::clone(instants), state: Mutex::new(state) })
    }

    /// Whose block `block` is, and which of that file.
    pub(crate) fn owner(&self, block: u64) -> Option<(usize, u64)> {
        let state = self.state.lock();
        let mut files = state.files.iter().enumerate();
        files.find_map(|(file, inode)| {
            let mut blocks = inode.map.iter();
            blocks.find(|(_, mapped)| mapped.to == block).map(|(number, _)| (file, *number))
        })
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.state.lock().faults = 0;
    }

    /// How many questions failed so far.
    pub(crate) fn went_wrong(&self) -> u64 {
        self.state.lock().went_wrong
    }

    /// All commits of a file, in order.
    pub(crate) fn commits(&self, file: usize) -> Vec<Commit> {
        self.state.lock().files[file].commits.clone()
    }
}

/// A file of a [`SimFs`].
pub(crate) struct SimFile {
    fs: Arc<SimFs>,
    file: usize,
    flush: DeviceFlush,
    /// Since the file system was mounted.
    writes: OwnWrites,
    /// Commits of a file follow each other.
    journal: Mutex<()>,
}

impl SimFile {
    pub(crate) fn new(fs: &Arc<SimFs>, file: usize, flush: DeviceFlush) -> Arc<SimFile> {
        let (fs, writes) = (Arc::clone(fs), flush.begin_writes());
        Arc::new(SimFile { fs, file, flush, writes, journal: Mutex::new(()) })
    }
}

fn no_space() -> Error {
    Error::new(ErrorKind::Device(Errno::NOSPC), "reserve")
}

impl State {
    fn available(&self) -> usize {
        let reserved: usize = self.files.iter().map(|inode| inode.reserved.len()).sum();
        self.free.len() - reserved
    }

    /// Sets room aside for those of `blocks` that have none.
    fn reserve(&mut self, file: usize, blocks: Range<u64>) -> Result<()> {
        let inode = &self.files[file];
        let has = |block: &u64| inode.map.contains_key(block) || inode.reserved.contains(block);
        let wanted: Vec<u64> = blocks.filter(|block| !has(block)).collect();
        if wanted.len() > self.available() {
            return Err(no_space());
        }
        self.files[file].reserved.extend(wanted);
        Ok(())
    }

    /// A place for `block`, near `after` if chance wants it.
    fn allocate(&mut self, file: usize, block: u64, after: Option<u64>) -> Result<u64> {
        let had_room = self.files[file].reserved.remove(&block);
        assert!(had_room, "block {block} of file {file} is written, and room was never set aside");
        let near = after.filter(|after| self.free.contains(after) && self.random.u8(..4) > 0);
        let chosen = near.or_else(|| {
            let count = self.free.len();
            self.free.iter().copied().nth(self.random.usize(..count))
        });
        let to = chosen.ok_or_else(no_space)?;
        let _was_free = self.free.remove(&to);
        let _before = self.files[file].map.insert(block, Mapped { to, written: false });
        self.changes += 1;
        Ok(to)
    }

    /// The run of blocks that holds `first`.
    fn extent(&self, file: usize, first: u64) -> Extent {
        let map = &self.files[file].map;
        let Some(start) = map.get(&first) else {
            let next = map.range(first..).next().map_or(first + (1 << 20), |(block, _)| *block);
            return Extent::hole(FileBlock(first), next - first);
        };
        let follows = |n: &u64| {
            map.get(&(first + n))
                .is_some_and(|mapped| (mapped.to, mapped.written) == (start.to + n, start.written))
        };
        let count = (0..).take_while(follows).count() as u64;
        let to = DeviceBlock(start.to);
        let place = if start.written { Place::Mapped(to) } else { Place::Unwritten(to) };
        Extent { place, ..Extent::mapped(FileBlock(first), to, count) }
    }
}

impl GetBlock for SimFile {
    fn get_block(&self, request: &MapRequest) -> Result<Extent> {
        let mut state = self.fs.state.lock();
        if !request.may_wait && state.random.u8(..4) == 0 {
            return Err(Error::new(ErrorKind::WouldBlock, "get_block"));
        }
        if state.faults > 0 && state.random.u8(..4) == 0 {
            state.faults -= 1;
            state.went_wrong += 1;
            return Err(Error::new(ErrorKind::Device(Errno::IO), "get_block"));
        }
        let first = request.first.0;
        let is_new =
            request.purpose == Purpose::Write && !state.files[self.file].map.contains_key(&first);
        if is_new {
            let before = first.checked_sub(1).and_then(|n| state.files[self.file].map.get(&n));
            let mut after = before.map(|mapped| mapped.to + 1);
            for block in first..first + request.count {
                let wanted = block == first || state.files[self.file].reserved.contains(&block);
                if !wanted || state.files[self.file].map.contains_key(&block) {
                    break;
                }
                after = Some(state.allocate(self.file, block, after)? + 1);
            }
        }
        let extent = state.extent(self.file, first);
        Ok(Extent { fresh: is_new, ..extent })
    }

    fn reserve(&self, blocks: Range<FileBlock>) -> Result<()> {
        self.fs.state.lock().reserve(self.file, blocks.start.0..blocks.end.0)
    }

    fn remove(&self, blocks: Range<FileBlock>) -> Result<()> {
        let mut state = self.fs.state.lock();
        state.changes += 1;
        let inode = &mut state.files[self.file];
        let range = blocks.start.0..blocks.end.0;
        inode.reserved.retain(|block| !range.contains(block));
        let gone: Vec<u64> = inode.map.range(range).map(|(block, _)| *block).collect();
        for block in gone {
            inode.freed.extend(inode.map.remove(&block).map(|mapped| mapped.to));
        }
        Ok(())
    }

    fn zero(&self, blocks: Range<FileBlock>) -> Result<()> {
        let mut state = self.fs.state.lock();
        state.changes += 1;
        let range = blocks.start.0..blocks.end.0;
        for (_, mapped) in state.files[self.file].map.range_mut(range.clone()) {
            mapped.written = false;
        }
        state.reserve(self.file, range)
    }

    fn discard(&self, blocks: Range<FileBlock>) -> Result<()> {
        let mut state = self.fs.state.lock();
        state.changes += 1;
        for (_, mapped) in state.files[self.file].map.range_mut(blocks.start.0..blocks.end.0) {
            mapped.written = false;
        }
        Ok(())
    }

    fn written(&self, blocks: Range<FileBlock>) {
        let mut state = self.fs.state.lock();
        state.changes += 1;
        for (_, mapped) in state.files[self.file].map.range_mut(blocks.start.0..blocks.end.0) {
            mapped.written = true;
        }
    }

    fn sync(&self, _kind: SyncKind, size_bytes: &dyn Fn() -> u64) -> Result<bool> {
        let _alone = self.journal.lock();
        let size = size_bytes();
        let mut state = self.fs.state.lock();
        let inode = &mut state.files[self.file];
        let (map, freed) = (inode.map.clone(), std::mem::take(&mut inode.freed));
        drop(state);
        let flushed = self.flush.flush_writes(&self.writes);
        let mut state = self.fs.state.lock();
        if let Err(error) = flushed {
            state.files[self.file].freed.extend(freed);
            return Err(error);
        }
        let at = self.fs.instants.next();
        state.files[self.file].commits.push(Commit { at, size, map });
        state.free.extend(freed);
        Ok(false)
    }

    fn cookie(&self) -> u64 {
        self.fs.state.lock().changes
    }
}
