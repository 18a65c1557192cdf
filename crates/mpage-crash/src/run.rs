//! One workload on one image, and all its crashes.

use std::sync::Arc;
use std::time::Duration;

use mpage::PageCache;
use mpage_block::{BlockDevice, Limits};
use mpage_ext4::{FileSystem, Options};
use mpage_sim::{Event, Instants, SimDevice, SimOptions, explore};

use crate::facts::Facts;
use crate::format::Format;
use crate::judge::Judge;
use crate::workload::Workload;
use crate::world::World;

/// Bytes that are never torn: those of the superblock, which Linux and e2fsck refuse when half of
/// it is of another time.
const SECTOR: usize = 1024;

/// Bytes of a cache with enough memory.
const MEMORY: usize = 8 << 20;

/// States that are tried for an event, roughly.
const STATES_PER_EVENT: u64 = 6;

/// What came of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ran {
    /// Different states that were judged.
    pub states: u64,
    /// Of these, those that Linux mounted too.
    pub mounted: u64,
    /// What happened to the device.
    pub events: usize,
}

/// Runs `workload` on an image of `format`, and judges about `states` of the states that crashes
/// may leave. `seed` says in which order the device does its I/O, and which states are judged.
///
/// # Errors
///
/// What is wrong with the first that is.
pub fn run(workload: &Workload, format: &Format, states: u64, seed: u64) -> Result<Ran, String> {
    let image = format.make();
    let (events, facts) = record(workload, &image, seed)?;
    let all = (events.len() as u64 * STATES_PER_EVENT).max(1);
    let per_mille = (states * 1000 / all).clamp(1, 1000);
    let promises = facts.promises();
    let judge = Judge::new(facts, per_mille, seed);
    let explored = explore(image, SECTOR, &events, &promises, &judge, seed)?;
    assert!(explored > 0, "a run has a beginning");
    let (states, mounted) = judge.counts();
    Ok(Ran { states, mounted, events: events.len() })
}

/// Does `workload` on `image`; returns what happened to the device, and what was promised.
fn record(workload: &Workload, image: &[u8], seed: u64) -> Result<(Vec<Event>, Facts), String> {
    let instants = Arc::<Instants>::default();
    let limits = Limits {
        capacity: Some(image.len() as u64),
        volatile_cache: true,
        fua: seed.is_multiple_of(2),
        ..Limits::default()
    };
    let options = SimOptions { limits, faults: Vec::new(), seed };
    let device = SimDevice::new(image.to_vec(), &options, &instants, None);
    let memory = if workload.little_memory { mpage::Options::MEMORY_MIN } else { MEMORY };
    let options = mpage::Options { memory, ..mpage::Options::default() };
    let cache = Arc::new(PageCache::new(&options).map_err(|error| error.to_string())?);
    let below: Arc<dyn BlockDevice> = Arc::clone(&device) as _;
    let dev = cache.add_device(below).map_err(|error| error.to_string())?;
    let how = Options { writable: true, commit_interval: Duration::from_millis(20) };
    let fs = FileSystem::open(&cache, &dev, image.len() as u64, &how);
    let fs = fs.map_err(|error| error.to_string())?;
    let mut world = World::new(Arc::clone(&fs), instants);
    (workload.work)(&mut world).map_err(|error| format!("it could not be done: {error}"))?;
    let facts = world.into_facts();
    // The end is crashed into as well.
    fs.close().map_err(|error| format!("it could not be closed: {error}"))?;
    drop((fs, dev, cache));
    device.stop();
    Ok((device.events(), facts))
}
