//! Parts of a file that become zeros while they are written.

use std::ops::Range;

use mpage_block::BioOp;

use crate::later::Done;
use crate::rig::{Build, PAGE, Rig, below, check, part, read_versions, spawn, versions, write};

/// What becomes zeros: both ends lie inside blocks, and inside pages.
const HOLE: Range<u64> = 256..2 * PAGE + 256;

/// Blocks that are written: over the first end, in the first page, in a whole one, over the last
/// end.
const BLOCKS: [u64; 4] = [0, 1024, PAGE + 512, 2 * PAGE];

/// S x T in the middle of a file, contract 88 and 93: a write beside a punch or a zeroing is there
/// or gone, block by block; what lies around stays, and what is cached is what is on the device.
///
/// Failed when a store into the range did not wait for the removal, when an edge was zeroed while
/// its page was filled, when dirty bits of freed blocks stayed, when an edge was not marked dirty,
/// when the range was given up before its zeros were on the device, and when writes in flight were
/// not waited for.
#[test]
fn shuttle_write_beside_zeros_is_there_or_gone() {
    check(|| {
        let rig = Build::pages(4).rig();
        let at = BLOCKS[below(4)];
        let file = rig.file.clone();
        let first = if below(2) == 0 { 1 } else { 2 };
        if first == 2 {
            write(&file, at, 512, 1);
        }
        let writer = spawn(move || (first..3).for_each(|version| write(&file, at, 512, version)));
        let file = rig.file.clone();
        let cleaner = spawn(move || file.start_writing(0..3 * PAGE).unwrap());
        // Brings in what the write leaves of the page, with what is removed of it.
        let file = rig.file.clone();
        let reader = spawn(move || drop(read_versions(&file, at / PAGE * PAGE + 2048, 16)));
        make_zeros(&rig);
        writer.join().unwrap();
        reader.join().unwrap();
        cleaner.join().unwrap();
        assert_there_or_gone(&rig, at);
        rig.end();
    });
}

/// F x T: what a read of a page brings in while blocks of it become zeros is not there afterwards.
///
/// Failed when zeros were put into a page that was being filled.
#[test]
fn shuttle_a_read_beside_zeros_brings_nothing_back() {
    check(|| {
        let rig = Build::pages(1).rig();
        write(&rig.file, 0, 512, 1);
        let file = rig.file.clone();
        let reader = spawn(move || drop(read_versions(&file, 2048, 16)));
        rig.file.punch_hole(1024..3072).unwrap();
        reader.join().unwrap();
        let versions = read_versions(&rig.file, 0, 4096);
        for (n, version) in versions.into_iter().enumerate() {
            let expected = match n * 8 {
                0..512 => Some(1),
                1024..3072 => None,
                _ => Some(0),
            };
            assert_eq!(version, expected, "word {n}");
        }
        rig.end();
    });
}

/// T x X: a write that is in flight when a part of its page becomes zeros goes out as it was.
///
/// Failed when an edge was zeroed in a frame that is on its way.
#[test]
fn shuttle_zeros_leave_a_write_in_flight_as_it_was() {
    check(|| {
        let rig = Build::pages(4).rig();
        let at = BLOCKS[below(4)];
        let _cached = read_versions(&rig.file, 0, 4 * 4096);
        write(&rig.file, at, 512, 1);
        rig.file.start_writing(0..3 * PAGE).unwrap();
        let file = rig.file.clone();
        let writer = spawn(move || write(&file, at, 512, 2));
        make_zeros(&rig);
        writer.join().unwrap();
        assert_there_or_gone(&rig, at);
        let log = rig.device.log();
        // The flusher may write the edges before it.
        let is_it = |done: &&Done| done.op == BioOp::Write && done.sector.0 * 512 == at;
        let in_flight = log.iter().find(is_it).expect("it was on its way");
        let in_flight = versions(at, part(&in_flight.bytes, 0, 512));
        assert_eq!(in_flight, [Some(1); 64], "a page changed on its way");
        rig.end();
    });
}

fn make_zeros(rig: &Rig) {
    if below(2) == 0 {
        rig.file.punch_hole(HOLE).unwrap();
    } else {
        rig.file.zero_range(HOLE).unwrap();
    }
}

/// Version 2 of the block at `at` is there, or its part of the hole is gone; all else is as it has
/// to be, and on the device too.
fn assert_there_or_gone(rig: &Rig, at: u64) {
    let cached = read_versions(&rig.file, 0, 4 * 4096);
    for (n, version) in cached.iter().enumerate() {
        let byte = n as u64 * 8;
        let is_written = (at..at + 512).contains(&byte);
        let expected = match (is_written, HOLE.contains(&byte)) {
            (true, false) => *version == Some(2),
            (true, true) => *version == Some(2) || version.is_none(),
            (false, true) => version.is_none(),
            (false, false) => *version == Some(0),
        };
        assert!(expected, "byte {byte} has {version:?} beside a write at {at}");
    }
    let block = &cached[usize::try_from(at / 8).unwrap()..][..64];
    let is_torn = block.iter().any(|version| *version != block[0]);
    assert!(!is_torn || at == 0 || at == 2 * PAGE, "a part of a block is gone");
    rig.file.fsync().unwrap();
    let device = versions(0, part(&rig.device.durable(), 0, 4 * 4096));
    assert!(device == cached, "cache and device differ");
}
