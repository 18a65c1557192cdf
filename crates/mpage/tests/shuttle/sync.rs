//! Several walks and syncs of one mapping, and those who dirty it meanwhile.

use std::sync::Arc;

use mpage::{SyncKind, SyncMode, WritebackControl, mpage_writepages};
use mpage_locks::atomic::{AtomicU64, Ordering};

use crate::rig::{Build, PAGE, Rig, below, check, part, spawn, versions, write};

/// Fails unless a power cut now would leave at least `version` in the first words of `page`.
fn assert_durable(rig_device: &crate::later::Later, page: u64, version: u64) {
    let durable = rig_device.durable();
    let there = versions(page * PAGE, part(&durable, page * PAGE, 32));
    let newest = there.iter().all(|on_device| *on_device >= Some(version));
    assert!(newest, "page {page}: {there:?} on the device, {version} was written before the sync");
}

/// W x W, W x C and Y x C, contract 31 and 56: each sync returns when what was dirty at its own
/// call is durable, whoever wrote it.
///
/// Failed when a cleaning walk took the mark of an integrity caller's snapshot, when a write took a
/// page's mark without what was dirtied since it was mapped, when it entered the table after
/// its exchange, and when a sync did not wait for the table.
#[test]
fn shuttle_two_syncs_and_a_cleaner() {
    check(|| {
        // A bio may hold one page, so that pages leave a full bio for the next.
        let bio = [4096, 1 << 20][below(2)];
        let rig = Build { bio, volatile_cache: true, ..Build::pages(3) }.rig();
        let syncers = [0, 1].map(|page| {
            let (file, device) = (rig.open(), rig.device.clone());
            spawn(move || {
                for version in 1..3 {
                    write(&file, page * PAGE, 32, version);
                    write(&file, 2 * PAGE + page * 1024, 32, version);
                    file.fsync().unwrap();
                    assert_durable(&device, page, version);
                    let durable = device.durable();
                    let at = 2 * PAGE + page * 1024;
                    let shared = versions(at, part(&durable, at, 32));
                    assert!(shared.iter().all(|on| *on >= Some(version)), "the shared page");
                }
            })
        });
        rig.file.start_writing(0..3 * PAGE).unwrap();
        rig.file.start_writing(0..3 * PAGE).unwrap();
        syncers.into_iter().for_each(|syncer| syncer.join().unwrap());
        rig.end();
    });
}

/// Y x C, contract 56: a page that leaves a full bio for the next is waited for by a sync that came
/// in between.
///
/// Failed when the page's new entry in the table was younger than its write.
#[test]
fn shuttle_sync_while_a_page_moves_to_the_next_bio() {
    check(|| {
        let rig = Build { bio: 4096, ..Build::pages(2) }.rig();
        write(&rig.file, 0, 4096, 1);
        write(&rig.file, PAGE, 4096, 1);
        let file = rig.file.clone();
        let cleaner = spawn(move || file.start_writing(0..2 * PAGE).unwrap());
        rig.file.fsync().unwrap();
        assert_durable(&rig.device, 0, 1);
        assert_durable(&rig.device, 1, 1);
        cleaner.join().unwrap();
        rig.end();
    });
}

/// R1, R3 and R4 of Linux 2.6, contract 9 and 57: whatever a dirtier and a cleaner do, a sync
/// covers what was written before its call.
///
/// Failed when a cleaning walk cleared the integrity callers' mark, and when an integrity walk took
/// a page under writeback that is dirty again for written.
#[test]
fn shuttle_dirtier_fsync_and_cleaning() {
    check(|| {
        let bio = [4096, 1 << 20][below(2)];
        let rig = Build { bio, ..Build::pages(3) }.rig();
        let said = Arc::new([(); 3].map(|()| AtomicU64::new(0)));
        let (file, says) = (rig.file.clone(), Arc::clone(&said));
        let dirtier = spawn(move || {
            for version in 1..4 {
                for page in [0, 2, 1] {
                    write(&file, page * PAGE, 32, version);
                    let said = &says[usize::try_from(page).unwrap()];
                    said.store(version, Ordering::SeqCst);
                }
            }
        });
        let file = rig.file.clone();
        let cleaner = spawn(move || {
            for _ in 0..3 {
                file.start_writing(0..3 * PAGE).unwrap();
            }
        });
        sync_and_look(&rig, &said);
        sync_and_look(&rig, &said);
        dirtier.join().unwrap();
        sync_and_look(&rig, &said);
        cleaner.join().unwrap();
        rig.end();
    });
}

fn sync_and_look(rig: &Rig, said: &[AtomicU64; 3]) {
    let before = said.each_ref().map(|version| version.load(Ordering::SeqCst));
    rig.file.fsync().unwrap();
    for (page, version) in (0..).zip(before) {
        assert_durable(&rig.device, page, version);
    }
}

/// Contract 15: a page in the walk's own hand is stored into again and spliced by somebody else;
/// neither an integrity walk nor a cleaning one waits for itself.
///
/// Failed when a walk waited for writeback without giving up its bio.
#[test]
fn shuttle_walk_against_a_splice_by_another() {
    check(|| {
        let rig = Build::pages(3).rig();
        for page in 0..3 {
            write(&rig.file, page * PAGE, 32, 1);
        }
        let _leftovers: usize = rig.mapping().splice(&(0..2 * PAGE), SyncMode::Cleaning);
        let file = rig.file.clone();
        let dirtier = spawn(move || {
            for page in [0, 1] {
                write(&file, page * PAGE, 32, 2);
                let _joined: usize = file.mapping().splice(&(0..3 * PAGE), SyncMode::DataIntegrity);
            }
        });
        let file = rig.file.clone();
        let cleaner = spawn(move || file.start_writing(0..3 * PAGE).unwrap());
        rig.file.fsync().unwrap();
        dirtier.join().unwrap();
        cleaner.join().unwrap();
        rig.file.fsync().unwrap();
        for (page, version) in [(0, 2), (1, 2), (2, 1)] {
            assert_durable(&rig.device, page, version);
        }
        rig.end();
    });
}

/// Contract 29: walkers that begin at opposite ends, and meet pages that the other holds, end.
///
/// Failed when a walk waited for the page lock without giving up its bio.
#[test]
fn shuttle_walkers_with_opposite_starts() {
    check(|| {
        let rig = Build::pages(4).rig();
        for page in 0..4 {
            write(&rig.file, page * PAGE, 32, 1);
        }
        let walker = |halves: [std::ops::Range<u64>; 2]| {
            let file = rig.file.clone();
            spawn(move || {
                for range in halves {
                    file.sync_range(range, SyncKind::Data).unwrap();
                }
            })
        };
        let up = walker([0..2 * PAGE, 2 * PAGE..4 * PAGE]);
        let down = walker([2 * PAGE..4 * PAGE, 0..2 * PAGE]);
        let file = rig.file.clone();
        let whole = spawn(move || {
            write(&file, PAGE, 32, 2);
            let mapping = file.mapping();
            let _joined: usize = mapping.splice(&(0..4 * PAGE), SyncMode::DataIntegrity);
            let get_block = mpage::Identity::new(
                Arc::clone(mapping.dev().block()),
                mpage::units::BlockSize::new(512).unwrap(),
            );
            let mut wbc = WritebackControl::integrity(0..4 * PAGE);
            mpage_writepages(mapping, &mut wbc, Some(&get_block)).unwrap();
            mapping.wait_for_writes(&(0..4 * PAGE));
        });
        write(&rig.file, 3 * PAGE, 32, 2);
        [up, down, whole].into_iter().for_each(|walker| walker.join().unwrap());
        assert_durable(&rig.device, 1, 2);
        rig.file.fsync().unwrap();
        assert_durable(&rig.device, 3, 2);
        rig.end();
    });
}
