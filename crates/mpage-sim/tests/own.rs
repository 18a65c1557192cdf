//! The parts of the simulator around a block map, a device's user and a judge of one's own: a file
//! whose blocks lie on the device in reverse order.

use std::sync::Arc;

use mpage::units::{BlockSize, DeviceBlock};
use mpage::{CachedFile, OneBlock, Operations, Options, PageCache};
use mpage_block::Limits;
use mpage_sim::{Event, Instants, Judge, SimDevice, SimOptions, explore, simulate};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 8;

/// What a crash may leave: every block of the file is of a version that was written, and of none
/// older than the last sync that had returned.
struct Versions {
    /// When each version was synced.
    synced: Vec<u64>,
}

impl Judge for Versions {
    fn judge(&self, image: &[u8], crash: u64) -> Result<(), String> {
        let oldest = self.synced.iter().filter(|at| **at < crash).count();
        for (number, block) in image.chunks(BLOCK).enumerate() {
            let version = usize::from(block[0]);
            if block.iter().any(|byte| *byte != block[0]) {
                return Err(format!("device block {number} is torn"));
            }
            if version < oldest || version > self.synced.len() {
                return Err(format!("device block {number} is of version {version}, not {oldest}"));
            }
        }
        Ok(())
    }
}

/// Three versions, synced one after the other; `sync` may leave the syncing out.
fn versions(seed: u64, sync: fn(&CachedFile)) -> Result<u64, String> {
    simulate(seed, move || {
        let instants = Arc::<Instants>::default();
        let size = BLOCKS * BLOCK as u64;
        let limits = Limits {
            alignment: BLOCK,
            volatile_cache: true,
            capacity: Some(size),
            ..Limits::default()
        };
        let options = SimOptions { limits, faults: Vec::new(), seed };
        let content = vec![0; usize::try_from(size).expect("a small device")];
        let device = SimDevice::new(content.clone(), &options, &instants, None);
        let cache = PageCache::new(&Options { memory: 512 << 10, ..Options::default() });
        let cache = cache.expect("a cache");
        let dev = cache.add_device(device.clone()).expect("a device");
        let reversed = OneBlock(|block: mpage::units::FileBlock, _| {
            Ok(Some(DeviceBlock(BLOCKS - 1 - block.0)))
        });
        let ops = Operations { get_block: Some(Arc::new(reversed)), ..Operations::default() };
        let block = BlockSize::new(BLOCK).expect("a block");
        let mapping = cache.add_mapping(&dev, block, size, ops).expect("a mapping");
        let file = CachedFile::new(mapping, true);
        let mut synced = Vec::new();
        for version in 1..=3 {
            file.write_all_at(&vec![version; content.len()], 0).expect("a write");
            sync(&file);
            synced.push(instants.next());
        }
        drop((file, dev));
        drop(cache);
        device.stop();
        let events: Vec<Event> = device.events();
        explore(content, BLOCK, &events, &synced, &Versions { synced: synced.clone() }, seed)
    })?
}

#[test]
fn a_block_map_of_ones_own_keeps_what_was_synced() {
    let mut states = 0;
    for seed in 1..=20 {
        states += versions(seed, |file| file.fsync().expect("a sync")).expect("nothing is lost");
    }
    assert!(states > 1000, "{states} states");
}

#[test]
fn a_promise_that_nothing_keeps_is_found_out() {
    let wrong = versions(1, |file| file.start_writing(0..u64::MAX >> 1).expect("advice"));
    let wrong = wrong.expect_err("nothing was flushed");
    assert!(wrong.contains("not 1"), "{wrong}");
}
