//! Content of files, and who else has to do with it.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use mpage::RangeSteps;
use mpage_block::wrap::{Delay, DeviceOp, Effect, Fault, Rule, Times};
use mpage_block::{BioOp, BlockDevice, Errno, MemoryDevice, MemoryOptions};
use mpage_ext4::Options;
use mpage_locks::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::image::{make, open, open_over};
use crate::written::{FILE, ROOT, Written, check};

const ALL: std::ops::Range<u64> = 0..u64::MAX >> 1;
const WRITTEN: RangeSteps = RangeSteps { wait_before: true, write: true, wait_after: true };

/// Seen to fail: with blocks that are settled but unwritten in the map read as unwritten.
#[test]
fn what_was_written_into_allocated_room_is_read_before_the_map_knows_of_it() {
    let written = Written::new("16M", &["-t", "ext4"]);
    let inode = written.fs.create(ROOT, b"file", &FILE).unwrap();
    let file = written.fs.open_file(inode).unwrap();
    file.allocate(0..65536, false).unwrap();
    file.write_all_at(&[7; 8192], 4096).unwrap();
    file.cached().sync_file_range(ALL, WRITTEN).unwrap();
    file.cached().invalidate_strict(ALL).unwrap();
    let mut bytes = [1; 16384];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    assert!(bytes[..4096].iter().chain(&bytes[12288..]).all(|byte| *byte == 0));
    assert!(bytes[4096..12288].iter().all(|byte| *byte == 7));
    let span = file.span_at(4096).unwrap();
    assert_eq!((span.bytes, span.hole), (4096..12288, false));
    drop(file);
    let _image = written.close();
}

/// Seen to fail: with a discard that leaves the blocks to the file.
#[test]
fn what_is_discarded_is_a_hole() {
    let written = Written::new("16M", &["-t", "ext4"]);
    let inode = written.fs.create(ROOT, b"file", &FILE).unwrap();
    let file = written.fs.open_file(inode).unwrap();
    for sync in [false, true] {
        file.write_all_at(&[7; 65536], 0).unwrap();
        if sync {
            file.fsync().unwrap();
        }
        file.cached().sync_file_range(ALL, WRITTEN).unwrap();
        file.cached().discard(8192..32768).unwrap();
        let span = file.span_at(8192).unwrap();
        assert_eq!((span.bytes, span.hole), (8192..32768, true), "synced before: {sync}");
        let mut bytes = [1; 65536];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        assert!(bytes[8192..32768].iter().all(|byte| *byte == 0));
    }
    drop(file);
    let _image = written.close();
}

/// How often one thread allocates while another writes.
const TURNS: u64 = 20_000;

/// Seen to fail: with an allocation that sets the size, though the file had become longer.
#[test]
fn room_for_a_file_cuts_nothing_off_that_others_write() {
    let written = Written::new("16M", &["-t", "ext4"]);
    let inode = written.fs.create(ROOT, b"file", &FILE).unwrap();
    let file = written.fs.open_file(inode).unwrap();
    // What is allocated ends before what is written a moment later.
    let (ends, writes) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut random = fastrand::Rng::with_seed(1);
    thread::scope(|scope| {
        let _writer = scope.spawn(|| {
            for turn in 1..=TURNS {
                while ends.load(Ordering::SeqCst) < turn {
                    std::hint::spin_loop();
                }
                (0..random.u32(..2000)).for_each(|_| std::hint::spin_loop());
                file.write_all_at(&[7], turn * 64 + 32).unwrap();
                writes.store(turn, Ordering::SeqCst);
            }
        });
        for turn in 1..=TURNS {
            ends.store(turn, Ordering::SeqCst);
            file.allocate(turn * 64 - 64..turn * 64, false).unwrap();
            while writes.load(Ordering::SeqCst) < turn {
                std::hint::spin_loop();
            }
        }
    });
    for turn in 1..=TURNS {
        let mut byte = [0];
        assert_eq!(file.read_at(&mut byte, turn * 64 + 32).unwrap(), 1, "the file ends");
        assert_eq!(byte, [7], "of turn {turn}");
    }
    drop(file);
    let _image = written.close();
}

/// Seen to fail: with a sync that removes blocks, and leaves the size.
#[test]
fn a_sync_gives_a_file_the_size_that_a_failed_truncate_did_not() {
    let written = Written::new("16M", &["-t", "ext4"]);
    let inode = written.fs.create(ROOT, b"file", &FILE).unwrap();
    let file = written.fs.open_file(inode).unwrap();
    // Every second block: the map has more runs than the inode has room for.
    for block in (0..600).step_by(2) {
        file.write_all_at(&[7; 4096], block * 4096).unwrap();
    }
    drop(file);
    let image = written.close();
    let memory = Arc::new(MemoryDevice::from_contents(&image, MemoryOptions::default()));
    let fault = Arc::new(Fault::new(Arc::clone(&memory) as _));
    let how = Options { commit_interval: Duration::ZERO, ..Options::default() };
    let device = Arc::clone(&fault) as Arc<dyn BlockDevice>;
    let options = mpage::Options::default();
    let opened = open_over(device, image.len() as u64, &options, &how).unwrap();
    let file = opened.fs.open_file(inode).unwrap();
    let (op, effect) = (Some(DeviceOp::Bio(BioOp::Read)), Effect::Fail(Errno::IO));
    let _rule = fault.add(Rule { op, sectors: None, times: Times::All, effect });
    let error = file.set_len(8192).unwrap_err();
    assert_eq!((error.kind.errno(), file.size()), (Errno::IO, 8192));
    fault.clear();
    file.fsync().unwrap();
    drop(file);
    opened.fs.close().unwrap();
    let image = memory.contents();
    check(&image);
    let attributes = open(&image).unwrap().fs.attributes(inode).unwrap();
    assert_eq!((attributes.size, attributes.sectors), (8192, 8));
}

/// Seen to fail: with all that is settled put into the map.
#[test]
fn what_a_direct_write_has_put_behind_the_end_so_far_is_not_mapped() {
    let empty = tempfile::tempdir().unwrap();
    let image = make(empty.path(), "16M", &["-t", "ext4"]);
    let memory = Arc::new(MemoryDevice::from_contents(&image, MemoryOptions::default()));
    let delay = Arc::new(Delay::manual(Arc::clone(&memory) as _));
    delay.hold_only(|_| false);
    let options = mpage::Options::default();
    let how = Options { commit_interval: Duration::from_millis(10), ..Options::default() };
    let opened = open_over(Arc::clone(&delay) as _, image.len() as u64, &options, &how).unwrap();
    let inode = opened.fs.create(ROOT, b"file", &FILE).unwrap();
    let file = opened.fs.open_file(inode).unwrap();
    opened.fs.sync().unwrap();
    // It is written a few pages at a time; all but the first few have to wait.
    let first = AtomicBool::new(true);
    delay.hold_only(move |bio| bio.bytes() > 16384 && !first.swap(false, Ordering::SeqCst));
    thread::scope(|scope| {
        let direct = scope.spawn(|| file.cached().write_direct_at(&[7; 40 * 4096], 0));
        delay.wait_for_held(1);
        let _marker = opened.fs.create(ROOT, b"marker", &FILE).unwrap();
        // What is settled goes into the maps with the commit that makes this durable.
        let committed = loop {
            let seen = open(&memory.contents()).unwrap();
            if seen.fs.lookup(ROOT, b"marker").is_ok() {
                break seen.fs.attributes(inode).unwrap();
            }
            thread::yield_now();
        };
        delay.hold_only(|_| false);
        let _count = delay.release_all();
        direct.join().unwrap().unwrap();
        assert_eq!((committed.size, committed.sectors), (0, 0));
    });
    drop(file);
    opened.fs.close().unwrap();
    check(&memory.contents());
}
