//! What keeps a mapping alive, and its size beside its pages, under random schedules: no more than
//! the mapping itself, so that the few orders that matter are tried.

use std::collections::BTreeSet;
use std::ops::Range;

use mpage_block::wrap::Delay;
use mpage_block::{Errno, MemoryDevice, MemoryOptions};
use mpage_locks::Mutex;
use mpage_locks::thread::spawn;
use mpage_mem::{Arena, ArenaOptions};
use shuttle::rand::Rng;

use super::*;
use crate::address_space::{Operations, SyncMode};
use crate::backing_dev::BackingDev;
use crate::error::Result;
use crate::filemap;
use crate::flusher::Flusher;
use crate::get_block::{Extent, GetBlock, MapRequest};
use crate::identity::Identity;
use crate::may_wait::MayWait;
use crate::page_tree::Mark;
use crate::readahead::Readahead;
use crate::truncate::{set_size, zero_range};
use crate::units::{BlockSize, FileBlock, PAGE_BYTES, PageIndex};
use crate::zeroed::Room;

/// The blocks for which room is set aside, of a file that is all hole.
#[derive(Default)]
struct Rooms(Mutex<BTreeSet<u64>>);

impl GetBlock for Rooms {
    fn get_block(&self, request: &MapRequest) -> Result<Extent> {
        Ok(Extent::hole(request.first, request.count))
    }

    fn reserve(&self, blocks: Range<FileBlock>) -> Result<()> {
        self.0.lock().extend(blocks.start.0..blocks.end.0);
        Ok(())
    }

    fn remove(&self, blocks: Range<FileBlock>) -> Result<()> {
        self.0.lock().retain(|block| !blocks.contains(&FileBlock(*block)));
        Ok(())
    }
}

fn mapping(frames: usize) -> (Arc<Core>, Arc<AddressSpace>) {
    mapping_with(frames, Operations::default())
}

fn mapping_with(frames: usize, ops: Operations) -> (Arc<Core>, Arc<AddressSpace>) {
    let options = ArenaOptions { frames, reserve: 0, prefault: false };
    let arena = Arc::new(Arena::new(&options).expect("a mapping"));
    let limits =
        DirtyLimits { background_pages: frames, pages: frames, expire_ns: 0, interval_ns: None };
    let nodes = NodePool::new(8);
    let core = Arc::new(Core::new(PagePool::new(arena), nodes, limits, Clock::system()));
    let device = Arc::new(MemoryDevice::new(4096, MemoryOptions::default()));
    let dev = Arc::new(BackingDev::new(core.next_id(), device));
    let block = BlockSize::new(512).expect("a sector");
    let mapping = AddressSpace::new(&core, &dev, block, 0, ops, None);
    (core, mapping)
}

/// Tries `body` in random orders, and in those of few changes of who goes on.
fn check(schedules: usize, body: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(body, schedules);
    shuttle::check_pct(body, schedules, 3);
    println!("schedules: {}", 2 * schedules);
}

fn schedules() -> usize {
    let schedules = std::env::var("MPAGE_SCHEDULES");
    schedules.map_or(2000, |count| count.parse().expect("a number"))
}

/// S x T: a file is as long as a write made it and has its bytes, or is cut and has neither.
///
/// Failed when a write let the file grow whose end was being cut off.
#[test]
fn shuttle_a_file_does_not_grow_while_it_is_cut() {
    let end = PAGE_BYTES + 512;
    check(schedules(), move || {
        let (core, mapping) = mapping(4);
        let write = |space: &AddressSpace| filemap::write(space, PAGE_BYTES, &[1; 512]);
        assert_eq!(write(&mapping).expect("there is room"), 512);
        let space = Arc::clone(&mapping);
        let writer = spawn("writer", move || write(&space)).expect("a thread");
        set_size(&mapping, 0).expect("nothing can fail");
        assert_eq!(writer.join().expect("no panic").expect("there is room"), 512);
        let dirty = mapping.pin(PageIndex(1)).is_some_and(|pin| !pin.word().dirty().is_empty());
        assert_eq!((mapping.size(), dirty), if dirty { (end, true) } else { (0, false) });
        mapping.abandon();
        drop(core);
    });
}

/// S x T: every dirty block has room set aside, also one that a removal took away in between.
///
/// Failed when room that a removal had given back, or was about to, was taken for granted.
#[test]
fn shuttle_what_is_dirty_behind_a_removal_has_room() {
    check(schedules(), || {
        let room = Arc::<Rooms>::default();
        let ops = Operations { get_block: Some(room.clone()), ..Operations::default() };
        let (core, mapping) = mapping_with(4, ops);
        let mut random = shuttle::rand::thread_rng();
        let (was_dirty, cuts) = (random.gen_bool(0.5), random.gen_bool(0.5));
        let first = [1; 1024];
        let first = if was_dirty { &first[..] } else { &first[..512] };
        assert_eq!(filemap::write(&mapping, 0, first).expect("there is room"), first.len());
        set_size(&mapping, 1024).expect("nothing can fail");
        let space = Arc::clone(&mapping);
        let write = move || filemap::write(&space, 512, &[2; 512]);
        let writer = spawn("writer", write).expect("a thread");
        let removed = match cuts {
            true => set_size(&mapping, 512),
            false => zero_range(&mapping, &(512..1024), Room::Freed),
        };
        removed.expect("nothing can fail");
        assert_eq!(writer.join().expect("no panic").expect("there is room"), 512);
        let pin = mapping.pin(PageIndex(0)).expect("its first block is dirty");
        let dirty = pin.word().dirty().runs().flat_map(|run| run.start / 512..run.end / 512);
        let dirty: BTreeSet<u64> = dirty.map(|block| block as u64).collect();
        drop(pin);
        assert!(dirty.is_subset(&room.0.lock()), "{dirty:?} are dirty");
        mapping.abandon();
        drop(core);
    });
}

/// Y x failing C: a sync finds a page that it took into its snapshot, or is told of the error that
/// took the page out of it.
///
/// Failed when the error was recorded before the page was taken out, and nothing told the sync
/// then.
#[test]
fn shuttle_a_failed_page_is_in_the_snapshot_of_a_sync_or_the_sync_is_told() {
    check(schedules(), || {
        let (core, mapping) = mapping(4);
        assert_eq!(filemap::write(&mapping, 0, &[1; 512]).expect("there is room"), 512);
        let space = Arc::clone(&mapping);
        let cleaner = spawn("cleaner", move || {
            let pin = space.pin(PageIndex(0)).expect("it is dirty");
            space.note_failed(&pin.lock(&MayWait::no_bio_held()), Errno::IO);
        });
        let recorded = mapping.errors.recorded();
        let _pages = mapping.splice(&(0..PAGE_BYTES), SyncMode::DataIntegrity);
        cleaner.expect("a thread").join().expect("no panic");
        let is_told = mapping.errors.recorded() != recorded;
        assert!(is_told || mapping.next_marked(0..1, Mark::ToSync).is_some());
        // Else the mapping stays for whoever is to be told.
        assert_eq!(mapping.check_error(&mapping.errors.sample()), Some(Errno::IO));
        mapping.abandon();
        drop(core);
    });
}

/// R x T: a read that began before a cut ends, whatever of its page went meanwhile.
///
/// Failed when a read went on to ask for bytes that were behind the end by then, and nobody read.
#[test]
fn shuttle_a_read_that_began_before_a_cut_ends() {
    check(schedules(), || {
        let ops = Operations { get_block: Some(Arc::<Rooms>::default()), ..Operations::default() };
        let (core, mapping) = mapping_with(4, ops);
        assert_eq!(filemap::write(&mapping, 0, &[1; 1024]).expect("there is room"), 1024);
        let space = Arc::clone(&mapping);
        let read = move || {
            let mut bytes = [9; 1024];
            filemap::read(&space, &Readahead::new(&space), 0, &mut bytes)
                .map(|count| (count, bytes))
        };
        let reader = spawn("reader", read).expect("a thread");
        set_size(&mapping, 512).expect("nothing can fail");
        let (count, bytes) = reader.join().expect("no panic").expect("nothing can fail");
        assert!(count == 512 || count == 1024, "{count} bytes");
        assert!(bytes[..512] == [1; 512]);
        assert!(bytes[512..count].iter().all(|byte| *byte < 2));
        mapping.abandon();
        drop(core);
    });
}

/// Error x open x close, contract 78: an error that nobody was told of keeps the mapping for the
/// next open, when it comes while the last open is told of another and closes.
///
/// Failed when who was told looked for other errors and let the mapping go without a lock over
/// both.
#[test]
fn shuttle_error_while_the_last_open_is_told_and_closes() {
    let schedules = schedules();
    shuttle::check_random(
        || {
            let (core, mapping) = mapping(1);
            let left = Arc::downgrade(&mapping);
            let cursor = mapping.errors.sample();
            mapping.record_error(Errno::NOSPC);
            let device = {
                let mapping = Arc::clone(&mapping);
                spawn("device", move || mapping.record_error(Errno::DQUOT)).expect("a thread")
            };
            let told = mapping.check_error(&cursor);
            drop(mapping);
            device.join().expect("no panic");
            if told == Some(Errno::DQUOT) {
                assert!(left.upgrade().is_none(), "kept for nobody");
            } else {
                assert_eq!(told, Some(Errno::NOSPC));
                let mapping = left.upgrade().expect("somebody has to be told of the second error");
                let next = mapping.errors.sample();
                assert_eq!(mapping.check_error(&next), Some(Errno::DQUOT));
            }
            drop(core);
        },
        schedules,
    );
    println!("schedules: {schedules}");
}

/// Close x end of I/O: a file that is gone with the end of its last read does not keep its device
/// from ending what its flusher waits for.
///
/// Failed when the flusher was waited for wherever the last reference was dropped.
#[test]
fn shuttle_the_end_of_a_read_waits_for_no_flusher() {
    check(schedules(), || {
        let (core, _mapping) = mapping(4);
        let memory = Arc::new(MemoryDevice::new(4096, MemoryOptions::default()));
        let delay = Arc::new(Delay::manual(memory));
        let dev = Arc::new(BackingDev::new(core.next_id(), delay.clone()));
        let flusher = Flusher::start(&core, &dev).expect("a thread");
        let block = BlockSize::new(512).expect("a sector");
        let map = Arc::new(Identity::new(delay.clone(), block));
        let ops = Operations { get_block: Some(map), ..Operations::default() };
        let mapping = AddressSpace::new(&core, &dev, block, 4096, ops, Some(Box::new(flusher)));
        let _number = dev.number_write(false);
        dev.want_flush();
        let refused = Readahead::new(&mapping).start_fetch(&mapping, &(0..4096), Box::new(|| {}));
        assert!(refused.is_none(), "a frame is free");
        delay.wait_for_held(2);
        drop(mapping);
        // The device ends one after the other.
        while delay.release_next() {}
    });
}
