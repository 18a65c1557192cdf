//! What keeps a mapping alive, and its size beside its pages, under random schedules: no more than
//! the mapping itself, so that the few orders that matter are tried.

use mpage_block::{Errno, MemoryDevice, MemoryOptions};
use mpage_locks::thread::spawn;
use mpage_mem::{Arena, ArenaOptions};

use super::*;
use crate::address_space::Operations;
use crate::backing_dev::BackingDev;
use crate::filemap;
use crate::truncate::set_size;
use crate::units::{BlockSize, PAGE_BYTES, PageIndex};

fn mapping(frames: usize) -> (Arc<Core>, Arc<AddressSpace>) {
    let options = ArenaOptions { frames, reserve: 0, prefault: false };
    let arena = Arc::new(Arena::new(&options).expect("a mapping"));
    let limits =
        DirtyLimits { background_pages: frames, pages: frames, expire_ns: 0, interval_ns: None };
    let nodes = NodePool::new(8);
    let core = Arc::new(Core::new(PagePool::new(arena), nodes, limits, Clock::system()));
    let device = Arc::new(MemoryDevice::new(4096, MemoryOptions::default()));
    let dev = Arc::new(BackingDev::new(core.next_id(), device));
    let block = BlockSize::new(512).expect("a sector");
    let mapping = AddressSpace::new(&core, &dev, block, 0, Operations::default(), None);
    (core, mapping)
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
    let schedules = schedules();
    let end = PAGE_BYTES + 512;
    let body = move || {
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
    };
    shuttle::check_random(body, schedules);
    shuttle::check_pct(body, schedules, 3);
    println!("schedules: {}", 2 * schedules);
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
