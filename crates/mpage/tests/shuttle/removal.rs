//! Truncating against everything else.

use mpage_block::BioOp;

use crate::rig::{Build, PAGE, check, part, read_versions, spawn, stamp, write};

/// F x T and I x T, contract 88 and 89: nothing that was removed comes back.
///
/// Failed when a page could be inserted into a range that is being removed, and when a detached
/// page was freed while it was filled.
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
}

/// S x T, contract 86 to 88: either the write came first and is gone, or it came last and grew the
/// file over zeros.
///
/// Failed when the size was moved without a look at the removals, and when a store in the page did
/// not wait for the removal.
#[test]
fn shuttle_truncate_against_extending_write() {
    check(|| {
        let rig = Build::pages(1).rig();
        write(&rig.file, 1024, 512, 1);
        let file = rig.file.clone();
        let writer = spawn(move || {
            write(&file, PAGE, 16, 1);
            write(&file, 2048, 16, 1);
        });
        rig.file.set_len(104).unwrap();
        writer.join().unwrap();
        let size = rig.file.size();
        let end = if size == 104 { 104 } else { size };
        assert!([104, 2064, PAGE + 16].contains(&size), "the size is {size}");
        rig.file.set_len(2 * PAGE).unwrap();
        let words = read_versions(&rig.file, 0, 2 * 4096);
        for (n, version) in words.iter().enumerate() {
            let at = n as u64 * 8;
            let first = (PAGE..PAGE + 16).contains(&at) && end > PAGE;
            let second = (2048..2064).contains(&at);
            match at {
                0..104 => assert_eq!(*version, Some(0)),
                _ if first => assert_eq!(*version, Some(1), "what grew the file is gone"),
                _ if second && end == 2064 => assert_eq!(*version, Some(1)),
                _ if second => {}
                _ => assert_eq!(*version, None, "byte {at} is back, size was {size}"),
            }
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
/// Failed when truncate did not wait for the table, when a walk did not look again after it locked
/// a page, and when a write entered the table after its exchange.
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
