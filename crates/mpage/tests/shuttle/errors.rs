//! Writes and flushes that fail while others go on.

use std::sync::Arc;

use mpage::CachedFile;
use mpage_block::Errno;

use crate::rig::{Build, PAGE, Rig, check, part, read_versions, spawn, stamp, versions, write};

/// S x C, contract 9: a failed write gives its dirty bits back, a store meanwhile keeps its own.
///
/// Failed when a failed write left the page clean, when it left the mapping's mark clear, and when
/// its error was recorded after the table let it go.
#[test]
fn shuttle_store_racing_with_failed_writeback() {
    check(|| {
        let rig = Build::pages(2).rig();
        rig.device.fail_writes(&[Errno::NOSPC]);
        write(&rig.file, 0, 4096, 1);
        write(&rig.file, PAGE, 512, 1);
        let file = rig.file.clone();
        let writer = spawn(move || {
            write(&file, 0, 32, 2);
            write(&file, 2048, 32, 2);
        });
        let other = rig.open();
        let other = spawn(move || sync_until_good(&other));
        let failures = sync_until_good(&rig.file);
        assert_eq!(failures.first(), Some(&Errno::NOSPC), "this open was there before");
        writer.join().unwrap();
        assert_eq!(other.join().unwrap().first(), Some(&Errno::NOSPC), "each open is told");
        rig.file.fsync().unwrap();
        let mut expected = stamp(0, 4096, 1);
        expected[..32].copy_from_slice(&stamp(0, 32, 2));
        expected[2048..2080].copy_from_slice(&stamp(2048, 32, 2));
        assert!(part(&rig.device.durable(), 0, 4096) == expected, "a store was lost");
        assert!(part(&rig.device.durable(), PAGE, 512) == stamp(PAGE, 512, 1), "page 1");
        assert!(rig.mapping().failed_ranges(&(0..2 * PAGE)).is_empty());
        rig.end();
    });
}

/// Syncs until it succeeds; returns what it said before.
fn sync_until_good(file: &CachedFile) -> Vec<Errno> {
    let mut failures = Vec::new();
    while let Err(error) = file.fsync() {
        failures.push(error.kind.errno());
        assert!(failures.len() < 5, "{error}");
    }
    failures
}

/// Error x open x close, contract 78: an error nobody was told of keeps the mapping, so that the
/// next open is told, whoever closes meanwhile.
///
/// The race of an error with the last look is
/// `shuttle_error_while_the_last_open_is_told_and_closes`: here it takes too many steps.
#[test]
fn shuttle_errors_against_open_and_close() {
    check(|| {
        let rig = Build::pages(2).rig();
        let mapping = Arc::downgrade(rig.mapping());
        write(&rig.file, 0, 512, 1);
        write(&rig.file, PAGE, 512, 1);
        rig.device.fail_writes(&[Errno::NOSPC, Errno::DQUOT]);
        let (looker, cleaner) = (rig.open(), rig.file.clone());
        let looker = spawn(move || errno_of(looker.fsync()));
        let Rig { file, device, dev, cache } = rig;
        drop(file);
        for _ in 0..3 {
            // Its errors are this open's too, which closes without looking.
            cleaner.start_writing(0..2 * PAGE).unwrap();
        }
        drop(cleaner);
        let mut all_told = vec![looker.join().unwrap()];
        // The pages are written again in the end: they are not what keeps the mapping.
        while cache.sync().is_err() {}
        if let Some(mapping) = mapping.upgrade() {
            let next = CachedFile::new(mapping, true);
            all_told.push(errno_of(next.fsync()));
            next.fsync().unwrap();
        }
        assert!(all_told.contains(&Some(Errno::DQUOT)), "the last error was lost: {all_told:?}");
        assert!(part(&device.durable(), 0, 512) == stamp(0, 512, 1), "kept after the error");
        drop((dev, cache));
        device.stop();
    });
}

fn errno_of(result: mpage::Result<()>) -> Option<Errno> {
    result.err().map(|error| error.kind.errno())
}

/// Contract 9 with a volatile cache: a failed flush makes what it did not cover dirty again, also
/// what is written meanwhile.
///
/// Failed when a failed flush left pages clean, and when the writes it covered were counted after
/// it was submitted.
#[test]
fn shuttle_flush_failure_against_write() {
    check(|| {
        let rig = Build { volatile_cache: true, ..Build::pages(3) }.rig();
        rig.device.fail_flushes(2);
        let writers = [0, 1].map(|page| {
            let (file, device) = (rig.open(), rig.device.clone());
            spawn(move || {
                for version in 1..4 {
                    write(&file, page * PAGE, 32, version);
                    write(&file, 2 * PAGE + 512 * page, 32, version);
                    if file.fsync().is_ok() {
                        for at in [page * PAGE, 2 * PAGE + 512 * page] {
                            let on = versions(at, part(&device.durable(), at, 32));
                            assert!(on.iter().all(|on| *on >= Some(version)), "synced: {on:?}");
                        }
                    }
                }
            })
        });
        rig.file.start_writing(0..3 * PAGE).unwrap();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        let failures = sync_until_good(&rig.file);
        assert!(!failures.is_empty(), "this open was there before a flush failed");
        for at in [0, PAGE, 2 * PAGE, 2 * PAGE + 512] {
            assert_eq!(read_versions(&rig.file, at, 32), [Some(3); 4]);
            assert!(part(&rig.device.durable(), at, 32) == stamp(at, 32, 3), "lost by a flush");
        }
        rig.end();
    });
}
