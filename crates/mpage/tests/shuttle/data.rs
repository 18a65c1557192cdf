//! Readers, fills, stores, copies.

use crate::rig::{Build, PAGE, Rig, check, part, read_versions, spawn, stamp, versions, write};

/// Reads both ends of page 0 a few times: every word belongs there and none goes back in time.
fn watch_page_0(rig: &Rig, zeros_after_data: bool) -> impl FnOnce() + Send + 'static {
    let file = rig.file.clone();
    move || {
        let mut newest = [0; 4];
        for _ in 0..3 {
            let words = [(0, 16), (PAGE - 16, 16)].map(|(at, len)| read_versions(&file, at, len));
            for (n, version) in words.concat().into_iter().enumerate() {
                assert!(zeros_after_data || version.is_some(), "zeros where there never were any");
                let version = version.unwrap_or(0);
                assert!(zeros_after_data || version >= newest[n], "older than what was read");
                newest[n] = version;
            }
        }
    }
}

/// The version protocol: contract 127 and R x X, R x E, R x T of `docs/locking.md`.
///
/// Failed when `take_frame` did not move the version, and when a reader did not ask it again. A
/// copy on write is too short for random schedules: `a_reader_never_takes_a_replaced_frame` has it.
#[test]
fn shuttle_reader_never_sees_a_reused_frame() {
    check(|| {
        let rig = Build::pages(8).rig();
        write(&rig.file, 0, 4096, 0);
        rig.file.start_writing(0..PAGE).unwrap();
        let reader = spawn(watch_page_0(&rig, false));
        let file = rig.file.clone();
        let writer = spawn(move || {
            // Page 0 is on its way: its frame stays behind, and goes to another page.
            write(&file, 0, 16, 1);
            write(&file, PAGE - 16, 16, 1);
        });
        writer.join().unwrap();
        for page in 1..8 {
            let _read = read_versions(&rig.file, page * PAGE + 8, 16);
        }
        reader.join().unwrap();
        rig.end();
    });
    check(|| {
        let rig = Build::pages(8).rig();
        let _read = read_versions(&rig.file, 0, 16);
        let reader = spawn(watch_page_0(&rig, false));
        let evicter = rig.file.clone();
        let evicter = spawn(move || evicter.invalidate(0..PAGE));
        for page in 1..8 {
            let _read = read_versions(&rig.file, page * PAGE + 8, 16);
        }
        evicter.join().unwrap();
        reader.join().unwrap();
        rig.end();
    });
    check(|| {
        let rig = Build::pages(4).rig();
        let _read = read_versions(&rig.file, 0, 16);
        let reader = spawn(watch_page_0(&rig, true));
        let file = rig.file.clone();
        let truncater = spawn(move || {
            file.set_len(0).unwrap();
            file.set_len(4 * PAGE).unwrap();
            for page in 1..4 {
                write(&file, page * PAGE, 4096, 1);
            }
        });
        truncater.join().unwrap();
        reader.join().unwrap();
        rig.end();
    });
}

/// Protocol 5: F x S, F x F, F x X and I x I.
///
/// Failed when `try_fill` did not look at the stores, when a copy did not wait for a fill, when a
/// store into stale blocks did not wait for FILLING, and when `missing` was computed before FILLING
/// was set. That a fill waits for COPYING follows from the copier's store.
#[test]
fn shuttle_fill_never_overwrites_a_store() {
    check(|| {
        let rig = Build::pages(1).rig();
        let stores = [(64, 16), (512, 512), (1024 - 16, 32)];
        let writers = stores.map(|(at, len)| {
            let file = rig.file.clone();
            spawn(move || write(&file, at, len, 1))
        });
        let file = rig.file.clone();
        let reader = spawn(move || versions(0, &read_all(&file, 4096)));
        let _read: Vec<_> = read_versions(&rig.file, 2048, 64);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let seen = reader.join().unwrap();
        assert!(seen.iter().all(Option::is_some), "zeros of a page that was never read");
        let mut expected = stamp(0, 4096, 0);
        for (at, len) in stores {
            let new = stamp(at, len, 1);
            expected[usize::try_from(at).unwrap()..][..len].copy_from_slice(&new);
        }
        assert!(read_all(&rig.file, 4096) == expected, "a store was lost");
        rig.file.fsync().unwrap();
        assert!(part(&rig.device.durable(), 0, 4096) == expected, "a store is not on the device");
        rig.end();
    });
    check(|| {
        let rig = Build::pages(1).rig();
        // One block is on its way while others are read and it is stored into again.
        write(&rig.file, 512, 512, 1);
        rig.file.start_writing(0..PAGE).unwrap();
        let readers = [0, 2048].map(|at| {
            let file = rig.file.clone();
            spawn(move || read_versions(&file, at, 64))
        });
        write(&rig.file, 512, 64, 2);
        for reader in readers {
            assert!(reader.join().unwrap().iter().all(|version| *version == Some(0)));
        }
        let mut expected = stamp(0, 4096, 0);
        expected[512..1024].copy_from_slice(&stamp(512, 512, 1));
        expected[512..576].copy_from_slice(&stamp(512, 64, 2));
        assert!(read_all(&rig.file, 4096) == expected, "a store or a fill was lost");
        rig.end();
    });
}

fn read_all(file: &mpage::CachedFile, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let read = file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(read, len);
    bytes
}

/// Protocols 3 and 4, contract 2 and 9: what a store left is dirty, in io, in flight or written, at
/// every instant.
///
/// Failed when the page was marked dirty before the store and not after, and when the dirty bits
/// were cleared after the write was sampled.
#[test]
fn shuttle_store_racing_with_writeback_is_never_lost() {
    check(|| {
        let rig = Build::pages(1).rig();
        write(&rig.file, 0, 64, 1);
        let (file, device) = (rig.file.clone(), rig.device.clone());
        let writer = spawn(move || {
            for version in 2..5 {
                write(&file, 0, 64, version);
                let counts = file.mapping().set_counts();
                if counts.clean == 1 {
                    let written = versions(0, part(&device.written(), 0, 64));
                    assert!(written.iter().all(|on| *on >= Some(version)), "clean and not written");
                }
            }
        });
        let file = rig.file.clone();
        let cleaner = spawn(move || {
            file.start_writing(0..PAGE).unwrap();
            file.start_writing(0..PAGE).unwrap();
        });
        rig.file.fsync().unwrap();
        writer.join().unwrap();
        cleaner.join().unwrap();
        rig.file.fsync().unwrap();
        assert!(part(&rig.device.durable(), 0, 64) == stamp(0, 64, 4), "a store was lost");
        rig.end();
    });
}

/// Protocol 2, contract 125: what is on its way does not change, and one copy serves all writers.
///
/// Failed when COPYING did not keep a second copier away, and when SHARED was not looked at on
/// entry.
#[test]
fn shuttle_two_writers_copy_once() {
    check(|| {
        let rig = Build::pages(1).rig();
        write(&rig.file, 0, 4096, 1);
        rig.file.start_writing(0..PAGE).unwrap();
        let writers = [0, 2048].map(|at| {
            let file = rig.file.clone();
            spawn(move || {
                write(&file, at, 32, 2);
                write(&file, at, 32, 3);
            })
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        assert!(rig.cache.stats().copies_on_write <= 1, "copied twice for one write");
        rig.file.fsync().unwrap();
        let log = rig.device.log();
        assert!(log[0].bytes == stamp(0, 4096, 1), "a page changed on its way");
        let mut expected = stamp(0, 4096, 1);
        expected[..32].copy_from_slice(&stamp(0, 32, 3));
        expected[2048..2080].copy_from_slice(&stamp(2048, 32, 3));
        assert!(part(&rig.device.durable(), 0, 4096) == expected, "a store was lost");
        rig.end();
    });
}

/// Protocol 6, contract 127: S x E, W x E and E x E.
///
/// Failed when eviction took dirty pages or pinned ones, and when a pin did not compare whose the
/// page is. `freezing_against_stores_and_pins` holds that testing and freezing is one exchange:
/// here a store into a frozen page is noticed later, and made again.
#[test]
fn shuttle_eviction_never_drops_a_store() {
    check(|| {
        let rig = Build::pages(7).rig();
        let _read = read_versions(&rig.file, 0, 16);
        let file = rig.file.clone();
        let writer = spawn(move || {
            for version in 1..3 {
                write(&file, 0, 16, version);
                write(&file, 4080, 16, version);
            }
        });
        let file = rig.file.clone();
        let evicter = spawn(move || {
            file.invalidate(0..PAGE);
            file.start_writing(0..PAGE).unwrap();
            file.invalidate(0..PAGE);
        });
        for page in 1..7 {
            let _read = read_versions(&rig.file, page * PAGE, 16);
        }
        writer.join().unwrap();
        evicter.join().unwrap();
        for at in [0, 4080] {
            assert_eq!(read_versions(&rig.file, at, 16), [Some(2); 2], "a store was dropped");
        }
        rig.file.fsync().unwrap();
        assert!(part(&rig.device.durable(), 0, 16) == stamp(0, 16, 2), "a store was dropped");
        rig.end();
    });
}
