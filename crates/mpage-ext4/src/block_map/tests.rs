use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mpage::units::{DeviceBlock, FileBlock};
use mpage::{BackingDev, PageCache, Place};
use mpage_block::{MemoryDevice, MemoryOptions};

use super::*;
use crate::extents::FILE_BLOCKS;
use crate::{FileSystem, Options, balloc};

mod bounds;
mod damage;

const CHECKED: &[&str] = &["-t", "ext4", "-b", "1024"];
const UNCHECKED: &[&str] = &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^64bit"];
const WIDE: &[&str] = &["-t", "ext4", "-b", "4096"];
const NUMBERED: &[&str] = &["-t", "ext2", "-b", "1024"];
const NUMBERED_WIDE: &[&str] = &["-t", "ext3", "-b", "4096"];

/// A file of an image, and what its map should be: places of blocks, and whether they are written.
struct Mapped {
    fs: Arc<FileSystem>,
    _dev: Arc<BackingDev>,
    device: Arc<MemoryDevice>,
    inode: InodeNumber,
    model: BTreeMap<u64, (u64, bool)>,
    /// Blocks that were free at the beginning.
    free: u64,
}

impl Mapped {
    fn new(size: &str, options: &[&str]) -> Mapped {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("file"), "").unwrap();
        let image = scratch.path().join("image");
        let words = [&["-q", "-d", folder.to_str().unwrap()], options].concat();
        let made = Command::new("mke2fs").args(words).arg(&image).arg(size).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let contents = fs::read(image).unwrap();
        let device = MemoryDevice::from_contents(&contents, MemoryOptions::default());
        let device = Arc::new(device);
        let memory = mpage::Options { memory: 16 << 20, ..mpage::Options::default() };
        let cache = Arc::new(PageCache::new(&memory).unwrap());
        let dev = cache.add_device(Arc::clone(&device) as Arc<_>).unwrap();
        let how = Options { commit_interval: Duration::ZERO, ..Options::default() };
        let fs = FileSystem::open(&cache, &dev, contents.len() as u64, &how).unwrap();
        let inode = fs.lookup(InodeNumber::ROOT, b"file").unwrap();
        let free = fs.metadata().space.lock().free;
        Mapped { fs, _dev: dev, device, inode, model: BTreeMap::new(), free }
    }

    fn sb(&self) -> &Superblock {
        self.fs.metadata().superblock()
    }

    fn read_inode(&self) -> Inode {
        self.fs.metadata().read(|view| view.inode(self.inode)).unwrap()
    }

    /// Blocks that the file can have.
    fn blocks_max(&self) -> u64 {
        self.read_inode().size_max(self.sb()) / self.sb().block_bytes
    }

    fn depth(&self) -> u8 {
        self.read_inode().block[6]
    }

    /// Blocks of the map itself.
    fn nodes(&self) -> u64 {
        self.read_inode().sectors / (self.sb().block_bytes / 512) - self.model.len() as u64
    }

    fn commit(&self) {
        let metadata = self.fs.metadata();
        metadata.commit(metadata.running()).unwrap();
    }

    fn edit<T>(
        &self,
        mut edit: impl FnMut(&mut Change<'_>, &mut Inode) -> Attempt<T>,
    ) -> Result<T> {
        self.fs.metadata().change(|change| {
            let mut inode = change.inode(self.inode)?;
            let result = edit(change, &mut inode)?;
            change.put_inode(&inode)?;
            Ok(result)
        })
    }

    /// Gives places to the first of the holes from `first` on, `count` at most; returns how many.
    fn fill(&mut self, first: u64, count: u64, written: bool, goal: u64) -> u64 {
        let hole = self.model.range(first..).next().map_or(u64::MAX, |(next, _)| *next) - first;
        let count = count.min(hole);
        if count == 0 {
            return 0;
        }
        let places = self.edit(|change, inode| {
            let places = balloc::allocate_run(change, goal, count)?;
            insert(change, inode, &extent(first, places.clone(), written))?;
            Ok(places)
        });
        let places = places.unwrap();
        let count = places.end - places.start;
        self.model.extend((first..).zip(places.map(|place| (place, written))));
        count
    }

    /// Gives a place to each of `blocks`, or writes it if it has one, many in one change.
    fn fill_each(&mut self, blocks: &[u64], mut goal: impl FnMut() -> u64) {
        for some in blocks.chunks(24) {
            let goals: Vec<u64> = some.iter().map(|_| goal()).collect();
            let places = self.edit(|change, inode| {
                let mut places = Vec::new();
                for (block, goal) in some.iter().zip(&goals) {
                    let place = match self.model.get(block) {
                        Some((place, _)) => *place,
                        None => balloc::allocate(change, *goal)?,
                    };
                    insert(change, inode, &extent(*block, place..place + 1, true))?;
                    places.push((place, true));
                }
                Ok(places)
            });
            self.model.extend(some.iter().copied().zip(places.unwrap()));
        }
    }

    /// Writes what is unwritten from `first` on, `count` at most, of one run.
    fn convert(&mut self, first: u64, count: u64) {
        let Some(&(to, false)) = self.model.get(&first) else { return };
        let same = |n: &u64| self.model.get(&(first + n)) == Some(&(to + n, false));
        let count = (0..count).take_while(same).count() as u64;
        let run = extent(first, to..to + count, true);
        self.edit(|change, inode| insert(change, inode, &run)).unwrap();
        for (_, block) in self.model.range_mut(first..first + count) {
            block.1 = true;
        }
    }

    /// Does a long operation in steps, none of which touches too much.
    fn in_steps(
        &self,
        blocks: Range<u64>,
        step: impl Fn(&mut Change<'_>, &mut Inode, Range<u64>) -> Attempt<Option<u64>>,
    ) -> usize {
        let mut end = blocks.end;
        for steps in 1.. {
            let left = self.edit(|change, inode| {
                let left = step(change, inode, blocks.start..end)?;
                assert!(change.written() <= BLOCKS_MAX + 24, "{} blocks", change.written());
                Ok(left)
            });
            let Some(left) = left.unwrap() else { return steps };
            assert!(left < end && left > blocks.start, "{left} of {blocks:?} up to {end}");
            end = left;
        }
        unreachable!("it returns")
    }

    fn remove(&mut self, blocks: Range<u64>) {
        let _steps = self.in_steps(blocks.clone(), remove);
        self.model.retain(|block, _| !blocks.contains(block));
    }

    fn unwrite(&mut self, blocks: Range<u64>) {
        let _steps = self.in_steps(blocks.clone(), unwrite);
        for (_, block) in self.model.range_mut(blocks) {
            block.1 = false;
        }
    }

    fn found(&self, block: u64) -> Extent {
        self.fs.metadata().read(|view| find(view, &view.inode(self.inode)?, block)).unwrap()
    }

    /// Compares the map of `blocks` with what it should be.
    fn check(&self, blocks: Range<u64>) {
        let mut block = blocks.start;
        while block < blocks.end {
            let run = self.found(block);
            assert!(run.contains(FileBlock(block)), "{run:?} of {block}");
            let end = run.first.0.saturating_add(run.count);
            let mut model = self.model.range(block..end);
            let (to, written) = match run.place {
                Place::Hole => {
                    assert_eq!(model.next(), None, "{run:?}");
                    block = end;
                    continue;
                }
                Place::Mapped(to) => (to.0, true),
                Place::Unwritten(to) => (to.0, false),
            };
            for block in block..end {
                let should = (to + (block - run.first.0), written);
                assert_eq!(model.next(), Some((&block, &should)), "{run:?}");
            }
            block = end;
        }
    }

    fn check_all(&self) {
        if self.read_inode().has_extents() || self.model.is_empty() {
            return self.check(0..FILE_BLOCKS);
        }
        // Holes of a map of numbers are found piece by piece.
        let mut next = 0;
        for block in self.model.keys().filter(|block| **block != 0) {
            self.check((block - 1).max(next)..block + 2);
            next = block + 2;
        }
    }

    /// Lets e2fsck judge the image as it is.
    fn judge(&self) {
        let size = self.model.last_key_value().map_or(0, |(last, _)| last + 1);
        let block = self.sb().block_bytes;
        self.edit(|_, inode| {
            inode.size = size * block;
            Ok(())
        })
        .unwrap();
        self.commit();
        let free = self.fs.metadata().space.lock().free;
        let used = self.model.len() as u64 + self.nodes();
        assert_eq!(free + used, self.free, "blocks that are free and in use");
    }

    /// Closes the image, which e2fsck finds to be right.
    fn close(self) {
        self.check_all();
        self.judge();
        self.fs.close().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), self.device.contents()).unwrap();
        fsck(file.path());
    }

    /// Removes all, and closes.
    fn empty_and_close(mut self) {
        self.remove(0..u64::MAX);
        assert_eq!((self.nodes(), self.read_inode().sectors), (0, 0));
        if self.read_inode().has_extents() {
            assert_eq!(self.read_inode().block[2..8], [0, 0, 4, 0, 0, 0]);
        } else {
            assert_eq!(self.read_inode().block, [0; 60]);
        }
        self.close();
    }

    /// As the image would be if it were closed now, e2fsck finds it to be right.
    fn is_right(&self) {
        self.check_all();
        self.judge();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), self.device.contents()).unwrap();
        // What is committed and not in its place yet.
        let mut replay = Command::new("e2fsck");
        let replayed = replay.args(["-y", "-E", "journal_only"]).arg(file.path()).output().unwrap();
        assert!(replayed.status.success(), "{replayed:?}");
        // The counts of the superblock are written when it is closed.
        let settings = ["ssv free_blocks_count", "ssv free_inodes_count", "ssv state"];
        let space = self.fs.metadata().space.lock();
        for (setting, value) in settings.into_iter().zip([space.free, space.free_inodes, 1]) {
            let command = format!("{setting} {value}");
            let mut debugfs = Command::new("debugfs");
            let ran = debugfs.args(["-w", "-R", &command]).arg(file.path()).output().unwrap();
            assert!(ran.status.success(), "{command}");
        }
        fsck(file.path());
    }
}

fn fsck(image: &Path) {
    let output = Command::new("e2fsck").arg("-fn").arg(image).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && !text.contains("Fix?"), "{text}");
}

fn extent(first: u64, places: Range<u64>, written: bool) -> Extent {
    let (to, count) = (DeviceBlock(places.start), places.end - places.start);
    let place = if written { Place::Mapped(to) } else { Place::Unwritten(to) };
    Extent { place, ..Extent::mapped(FileBlock(first), to, count) }
}

/// Random operations on a map, of `blocks_max` blocks of a file at most.
fn run_program(seed: u64, options: &[&str], blocks_max: u64, steps: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut file = Mapped::new("24M", options);
    let has_extents = file.read_inode().has_extents();
    let blocks = file.sb().blocks;
    let blocks_max = file.blocks_max().min(blocks_max);
    for step in 0..steps {
        // Near others mostly, so that runs meet.
        let nearest = file.model.range(random.u64(0..blocks_max)..).next().map(|(at, _)| *at);
        let first = match nearest {
            Some(near) if random.u8(..) < 200 => {
                (near + random.u64(0..40)).saturating_sub(20).min(blocks_max - 1)
            }
            _ => random.u64(0..blocks_max),
        };
        let power = random.u32(0..8);
        let count = 1 + random.u64(0..1 << power).min(blocks_max - first - 1);
        let before = first.checked_sub(1).and_then(|before| file.model.get(&before));
        let goal = match before {
            Some((place, _)) if random.bool() => place + 1,
            _ => random.u64(1..blocks),
        };
        let full = file.model.len() as u64 * 3 > file.free;
        let wide = if random.u8(..) < 10 { count * 100 } else { count };
        let range = first..first + wide;
        match random.u8(0..100) {
            _ if full => file.remove(random.u64(0..blocks_max)..blocks_max),
            0..60 => {
                let _count = file.fill(first, count, !has_extents || random.bool(), goal);
            }
            60..75 => file.convert(first, count),
            75..90 => file.remove(range),
            _ if has_extents => file.unwrite(range),
            _ => {}
        }
        file.check(first.saturating_sub(3)..first + wide + 3);
        if step % 100 == 99 {
            file.commit();
            file.check_all();
        }
    }
    file.is_right();
    file.empty_and_close();
}

#[test]
fn random_programs_on_trees_of_extents() {
    for (seed, options) in (0..).zip([CHECKED, UNCHECKED, WIDE]) {
        run_program(seed, options, 30_000, 3000);
        run_program(seed + 10, options, u64::MAX, 2000);
    }
}

#[test]
fn random_programs_on_maps_of_numbers() {
    for (seed, options) in (20..).zip([NUMBERED, NUMBERED_WIDE]) {
        run_program(seed, options, 3000, 1500);
        run_program(seed + 10, options, u64::MAX, 800);
    }
}

#[test]
fn a_tree_grows_four_levels_deep_and_is_taken_down() {
    let mut random = fastrand::Rng::with_seed(7);
    for options in [CHECKED, UNCHECKED] {
        let mut file = Mapped::new("40M", options);
        // From the end on, so that most nodes are split in halves.
        let mut blocks: Vec<u64> = (0..9000).rev().map(|n| n * 2 + 1).collect();
        blocks.chunks_mut(50).for_each(|some| random.shuffle(some));
        let end = file.sb().blocks;
        file.fill_each(&blocks, || random.u64(1..end));
        assert_eq!(file.depth(), 3);
        file.is_right();
        for _ in 0..200 {
            let first = random.u64(0..18_000);
            file.remove(first..first + random.u64(0..150));
            file.check(first.saturating_sub(3)..first + 160);
        }
        file.is_right();
        assert!(file.in_steps(9000..18_000, remove) > 1, "what is long is cut into steps");
        file.model.retain(|block, _| *block < 9000);
        file.is_right();
        file.empty_and_close();
    }
}

#[test]
fn appending_fills_the_nodes_of_a_tree() {
    let mut file = Mapped::new("24M", CHECKED);
    let blocks: Vec<u64> = (0..8400).map(|n| n * 2).collect();
    file.fill_each(&blocks, || 1);
    assert_eq!((file.depth(), file.nodes()), (2, 100 + 2), "100 leaves of 84 and two indexes");
    file.empty_and_close();
}

#[test]
fn neighbours_are_joined_and_runs_cut_at_what_an_entry_can_count() {
    let features = "^has_journal,^resize_inode,sparse_super2";
    let options = ["-t", "ext4", "-b", "1024", "-E", "num_backup_sb=0", "-O", features];
    let mut file = Mapped::new("100M", &options);
    // The groups behind the first two are all free.
    let end = 70 * 1024;
    for at in (0..end).step_by(1024) {
        assert_eq!(file.fill(at, 1024, true, 16_385 + at), 1024);
    }
    for _ in 0..2 {
        let runs = [0, 32_768, 2 * 32_768].map(|block| file.found(block).count);
        assert_eq!(runs, [32_768, 32_768, end - 2 * 32_768]);
        file.unwrite(0..end);
        assert_eq!(file.found(0).count, 32_767);
        file.check_all();
        file.convert(0, end);
    }
    file.unwrite(0..end);
    file.convert(500, 60_000);
    file.empty_and_close();
}

#[test]
fn every_part_of_an_unwritten_run_is_converted_and_back() {
    for (part, entries) in [(0..20, 1), (0..5, 2), (15..20, 2), (5..15, 3), (19..20, 2)] {
        let mut file = Mapped::new("8M", CHECKED);
        assert_eq!(file.fill(100, 20, false, 5000), 20);
        file.convert(100 + part.start, part.end - part.start);
        assert_eq!((file.read_inode().block[2], file.depth()), (entries, 0));
        file.is_right();
        file.unwrite(100 + part.start..100 + part.end);
        assert_eq!(file.read_inode().block[2], 1);
        file.is_right();
        file.remove(105..110);
        assert_eq!(file.read_inode().block[2], 2);
        file.close();
    }
}
