//! Truncating against everything else.

use mpage_block::BioOp;

use crate::rig::{Build, PAGE, below, check, part, read_versions, spawn, stamp, write};

/// F x T and I x T, contract 88 and 89: nothing that was removed comes back.
///
/// Failed when a page could be inserted into a range that is being removed (the punched one: the
/// fill zeroes what is beyond the size), and when a detached page was freed while it was filled.
#[test]
fn shuttle_truncate_against_read() {
    check(|| {
        let rig = Build::pages(3).rig();
        let readers = [0, 2].map(|page| {
            let file = rig.file.clone();
            spawn(move || {
                let _read = read_versions(&file, page * PAGE, 16);
                let _read = read_versions(&file, 0, 3 * 4096);
            })
        });
        rig.file.set_len(512).unwrap();
        rig.file.set_len(3 * PAGE).unwrap();
        let rest = read_versions(&rig.file, 512, 3 * 4096 - 512);
        assert!(rest.iter().all(Option::is_none), "what was removed is back");
        assert_eq!(read_versions(&rig.file, 0, 512), vec![Some(0); 64]);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        let rest = read_versions(&rig.file, 512, 3 * 4096 - 512);
        assert!(rest.iter().all(Option::is_none), "what was removed came back");
        rig.end();
    });
    check(|| {
        let rig = Build { block: 4096, ..Build::pages(3) }.rig();
        let readers = [1, 2].map(|page| {
            let file = rig.file.clone();
            spawn(move || read_versions(&file, page * PAGE, 4096))
        });
        rig.file.punch_hole(PAGE..3 * PAGE).unwrap();
        let rest = read_versions(&rig.file, PAGE, 2 * 4096);
        assert!(rest.iter().all(Option::is_none), "what was punched is back");
        readers.into_iter().for_each(|reader| assert_eq!(reader.join().unwrap().len(), 512));
        rig.end();
    });
}

/// S x T: what was stored behind the end while the file could not grow is in no file when it does.
///
/// Failed when removals did not wait for stores that let the file grow.
#[test]
fn shuttle_a_store_that_was_given_up_leaves_nothing_behind_the_end() {
    check(|| {
        let rig = Build::pages(1).rig();
        rig.file.set_len(512).unwrap();
        let file = rig.file.clone();
        let remover = spawn(move || file.punch_hole(0..512).unwrap());
        let stored = rig.file.try_write_at(&stamp(512, 512, 1), 512).unwrap();
        remover.join().unwrap();
        rig.file.set_len(1024).unwrap();
        let expected = (stored > 0).then_some(1);
        assert_eq!(read_versions(&rig.file, 512, 512), vec![expected; 64]);
        rig.end();
    });
}

/// S x T, contract 86 to 88: either the write came first and is gone, or it came last and grew the
/// file over zeros.
///
/// Failed when neither the store nor the move of the size looked at the removals.
#[test]
fn shuttle_truncate_against_extending_write() {
    check(|| {
        let rig = Build::pages(1).rig();
        write(&rig.file, 1024, 512, 1);
        let at = [2048, PAGE][below(2)];
        let file = rig.file.clone();
        let writer = spawn(move || write(&file, at, 512, 1));
        rig.file.set_len(104).unwrap();
        writer.join().unwrap();
        let size = rig.file.size();
        assert!(size == 104 || size == at + 512, "the size is {size}");
        rig.file.set_len(2 * PAGE).unwrap();
        for (n, version) in read_versions(&rig.file, 0, 2 * 4096).into_iter().enumerate() {
            let byte = n as u64 * 8;
            let kept = byte < 104;
            let grown = size > 104 && (at..at + 512).contains(&byte);
            let expected = if kept { Some(0) } else { grown.then_some(1) };
            assert_eq!(version, expected, "byte {byte}, the size was {size}");
        }
        rig.file.fsync().unwrap();
        let mut cached = vec![0; 2 * 4096];
        let _read = rig.file.read_at(&mut cached, 0).unwrap();
        assert!(part(&rig.device.durable(), 0, 2 * 4096) == cached, "cache and device differ");
        rig.end();
    });
}

/// W x T and C x T, contract 86 and 89: after truncate returned, no write of what it removed
/// reaches the device.
///
/// Failed when truncate did not wait for the table, and when a write entered the table after its
/// exchange.
#[test]
fn shuttle_truncate_against_sync() {
    check(|| {
        let rig = Build::pages(3).rig();
        for page in 0..3 {
            write(&rig.file, page * PAGE, 4096, 1);
        }
        let syncer = rig.file.clone();
        let syncer = spawn(move || syncer.fsync().unwrap());
        let file = rig.file.clone();
        let cleaner = spawn(move || file.start_writing(0..3 * PAGE).unwrap());
        rig.file.set_len(PAGE).unwrap();
        let done = rig.device.log().len();
        cleaner.join().unwrap();
        syncer.join().unwrap();
        rig.file.fsync().unwrap();
        for late in &rig.device.log()[done..] {
            let end = late.sector.0 * 512 + late.bytes.len() as u64;
            assert!(late.op != BioOp::Write || end <= PAGE, "a removed page was written");
        }
        assert!(part(&rig.device.durable(), 0, 4096) == stamp(0, 4096, 1));
        assert!(part(&rig.device.durable(), PAGE, 8192) == [0; 8192]);
        let counts = rig.mapping().set_counts();
        assert_eq!((counts.dirty, counts.io, counts.locked), (0, 0, 0));
        rig.end();
    });
}
