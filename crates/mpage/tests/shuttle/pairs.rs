//! Pairs of `docs/locking.md` that the other files leave: stores, syncs, and removals beside them.

use std::sync::Arc;

use mpage::units::BlockSize;
use mpage::{CachedFile, Extent, GetBlock, Identity, MapRequest, Operations, Purpose};
use mpage_block::Errno;
use mpage_locks::atomic::{AtomicU32, Ordering};

use crate::rig::{Build, PAGE, Rig, check, part, read_versions, spawn, stamp, versions, write};

/// The versions of the words of page `page` that a power cut leaves; `None` for zeros.
fn durable_versions(rig: &Rig, page: u64) -> Vec<Option<u64>> {
    versions(page * PAGE, part(&rig.device.durable(), page * PAGE, 4096))
}

/// The version of page `page` that a power cut leaves, where nobody stores beside a sync.
fn durable_version(rig: &Rig, page: u64) -> Option<u64> {
    let words = durable_versions(rig, page);
    assert!(words.iter().all(|word| *word == words[0]), "page {page} is torn: {words:?}");
    words[0]
}

fn volatile(pages: u64) -> Rig {
    Build { volatile_cache: true, ..Build::pages(pages) }.rig()
}

/// R x S: each word that is read was stored, and none goes back in time.
///
/// Failed with stores of half words.
#[test]
fn shuttle_reader_beside_a_writer_sees_whole_words_and_goes_forward() {
    check(|| {
        let rig = Build::pages(1).rig();
        let _read = read_versions(&rig.file, 0, 64);
        let file = rig.file.clone();
        let writer = spawn(move || (1..4).for_each(|version| write(&file, 0, 64, version)));
        let mut newest = [0; 8];
        for _ in 0..4 {
            for (n, version) in read_versions(&rig.file, 0, 64).into_iter().enumerate() {
                let version = version.expect("there were never zeros");
                assert!(version >= newest[n], "word {n} went back");
                newest[n] = version;
            }
        }
        writer.join().unwrap();
        rig.end();
    });
}

/// S x S: of two stores to different words of a page that is written back meanwhile, both are in
/// the cache and, behind a sync, on the device.
///
/// Failed when a copy was made of a frame into which somebody stored.
#[test]
fn shuttle_two_stores_to_one_page_both_land() {
    check(|| {
        let rig = volatile(1);
        let writers = [0, 64].map(|at| {
            let file = rig.file.clone();
            spawn(move || (1..3).for_each(|version| write(&file, at, 64, version)))
        });
        let file = rig.file.clone();
        let cleaner = spawn(move || file.start_writing(0..PAGE).unwrap());
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        cleaner.join().unwrap();
        assert_eq!(read_versions(&rig.file, 0, 128), [Some(2); 16]);
        rig.file.fsync().unwrap();
        assert_eq!(versions(0, part(&rig.device.durable(), 0, 128)), [Some(2); 16]);
        rig.end();
    });
}

/// Y x Y: each of two syncs that meet finds its own page durable, with a flush of its own or the
/// other's.
///
/// Failed when a flush covered what had ended behind its beginning.
#[test]
fn shuttle_two_syncs_that_share_a_flush_are_both_durable() {
    check(|| {
        let rig = std::sync::Arc::new(volatile(2));
        let syncs = [0, 1].map(|page| {
            let rig = rig.clone();
            spawn(move || {
                write(&rig.file, page * PAGE, 4096, 1);
                rig.file.sync_range(page * PAGE..(page + 1) * PAGE, mpage::SyncKind::Data).unwrap();
                assert_eq!(durable_version(&rig, page), Some(1));
            })
        });
        syncs.into_iter().for_each(|sync| sync.join().unwrap());
        std::sync::Arc::into_inner(rig).expect("the last one").end();
    });
}

/// A durable write-through and a sync of the same page are both durable when they return.
///
/// Failed when the write-through did not flush for a page that the sync had in flight.
#[test]
fn shuttle_write_through_beside_a_sync() {
    check(|| {
        let rig = std::sync::Arc::new(volatile(1));
        write(&rig.file, 0, 4096, 1);
        let other = rig.clone();
        let sync = spawn(move || {
            other.file.fsync().unwrap();
            // It may have taken the page in the midst of the other's store.
            assert!(durable_versions(&other, 0).iter().all(|version| *version >= Some(1)));
        });
        rig.file.write_through_at(&stamp(0, 4096, 2), 0, true).unwrap();
        assert_eq!(durable_version(&rig, 0), Some(2));
        sync.join().unwrap();
        std::sync::Arc::into_inner(rig).expect("the last one").end();
    });
}

/// Y x T: what a punch takes from a sync is durable when its zeros are: behind the sync a crash
/// leaves the new bytes or zeros, never what was there before.
///
/// Failed when a sync did not wait for removals under way.
#[test]
fn shuttle_sync_beside_a_punch() {
    check(|| {
        let rig = volatile(2);
        write(&rig.file, PAGE, 4096, 1);
        let file = rig.file.clone();
        let punch = spawn(move || file.punch_hole(PAGE..2 * PAGE).unwrap());
        rig.file.fsync().unwrap();
        assert_ne!(durable_version(&rig, 1), Some(0));
        punch.join().unwrap();
        rig.end();
    });
}

/// A sync of everything that succeeds has made durable what was dirty, also when a write of it
/// failed just before it began, and another thread tries again.
///
/// Failed when nothing told the sync that the page became dirty again behind its snapshot.
#[test]
fn shuttle_sync_beside_a_write_that_fails() {
    check(|| {
        let rig = volatile(1);
        write(&rig.file, 0, 4096, 1);
        rig.device.fail_writes(&[Errno::IO]);
        let file = rig.file.clone();
        let cleaner = spawn(move || {
            for _ in 0..2 {
                let _advice = file.start_writing(0..PAGE);
                file.mapping().wait_for_writes(&(0..PAGE));
            }
        });
        if rig.cache.sync().is_ok() {
            assert_eq!(durable_version(&rig, 0), Some(1));
        }
        cleaner.join().unwrap();
        rig.end();
    });
}

/// The device itself, some of whose blocks cannot be found at first.
struct Failing {
    map: Identity,
    left: AtomicU32,
}

impl GetBlock for Failing {
    fn get_block(&self, request: &MapRequest) -> mpage::Result<Extent> {
        let write = request.purpose == Purpose::Write;
        let fails = |left: u32| left.checked_sub(1);
        if write && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok() {
            return Err(mpage::Error::new(mpage::ErrorKind::Device(Errno::IO), "get_block"));
        }
        self.map.get_block(request)
    }
}

/// As above, when it is the block map that fails.
///
/// Failed when the walk took the page out of the sync's snapshot, and nothing told the sync: in one
/// of some hundred thousand orders.
#[test]
fn shuttle_sync_beside_a_block_map_that_fails() {
    check(|| {
        let rig = volatile(1);
        let block = BlockSize::new(512).unwrap();
        let map = Identity::new(rig.device.clone(), block);
        let map = Arc::new(Failing { map, left: AtomicU32::new(1) });
        let ops = Operations { get_block: Some(map), ..Operations::default() };
        let mapping = rig.cache.add_mapping(&rig.dev, block, PAGE, ops).unwrap();
        let file = CachedFile::new(mapping, true);
        write(&file, 0, 4096, 1);
        let cleaned = file.clone();
        let cleaner = spawn(move || {
            for _ in 0..2 {
                let _advice = cleaned.start_writing(0..PAGE);
                cleaned.mapping().wait_for_writes(&(0..PAGE));
            }
        });
        if rig.cache.sync().is_ok() {
            assert_eq!(durable_version(&rig, 0), Some(1));
        }
        cleaner.join().unwrap();
        drop(file);
        rig.end();
    });
}
