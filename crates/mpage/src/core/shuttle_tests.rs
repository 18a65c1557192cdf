//! What keeps a mapping alive, under random schedules.

use mpage_block::{Errno, MemoryDevice, MemoryOptions};
use mpage_locks::thread::spawn;
use mpage_mem::{Arena, ArenaOptions};

use super::*;
use crate::address_space::Operations;
use crate::backing_dev::BackingDev;
use crate::units::BlockSize;

fn mapping() -> (Arc<Core>, Arc<AddressSpace>) {
    let options = ArenaOptions { frames: 1, reserve: 0, prefault: false };
    let arena = Arc::new(Arena::new(&options).expect("a mapping"));
    let limits = DirtyLimits { background_pages: 1, pages: 1, expire_ns: 0, interval_ns: None };
    let core = Arc::new(Core::new(PagePool::new(arena), NodePool::new(1), limits, Clock::system()));
    let device = Arc::new(MemoryDevice::new(4096, MemoryOptions::default()));
    let dev = Arc::new(BackingDev::new(core.next_id(), device));
    let block = BlockSize::new(512).expect("a sector");
    let mapping = AddressSpace::new(&core, &dev, block, 0, Operations::default(), None);
    (core, mapping)
}

/// Error x open x close, contract 78: an error that nobody was told of keeps the mapping for the
/// next open, when it comes while the last open is told of another and closes.
///
/// Failed when who was told looked for other errors and let the mapping go without a lock over
/// both.
#[test]
fn shuttle_error_while_the_last_open_is_told_and_closes() {
    let schedules = std::env::var("MPAGE_SCHEDULES");
    let schedules = schedules.map_or(2000, |count| count.parse().expect("a number"));
    shuttle::check_random(
        || {
            let (core, mapping) = mapping();
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
