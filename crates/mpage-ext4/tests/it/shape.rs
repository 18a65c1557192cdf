//! The shape of I/O: how many writes of the device a file costs, and whose.

use std::sync::Arc;
use std::time::Duration;

use mpage::RangeSteps;
use mpage_block::wrap::{Delay, DeviceOp, Trace, TraceEvent};
use mpage_block::{Bio, BioOp, BlockDevice, MemoryDevice, MemoryOptions};
use mpage_ext4::Options;

use crate::image::{Opened, make, open_over};
use crate::written::{FILE, ROOT, check};

const FILE_BYTES: usize = 16 << 20;

/// Nothing is committed or written but what is told to be.
fn open(device: Arc<dyn BlockDevice>, bytes: u64) -> Opened {
    let options = mpage::Options {
        memory: 64 << 20,
        dirty_background_percent: 90,
        dirty_percent: 90,
        ..mpage::Options::default()
    };
    let how = Options { commit_interval: Duration::ZERO, ..Options::default() };
    open_over(device, bytes, &options, &how).unwrap()
}

/// A new image on a device that takes 1 MiB at once.
fn memory(size: &str) -> Arc<MemoryDevice> {
    let empty = tempfile::tempdir().unwrap();
    let image = make(empty.path(), size, &["-t", "ext4", "-b", "4096"]);
    let options =
        MemoryOptions { bytes_max: 1 << 20, segments_max: 256, ..MemoryOptions::default() };
    Arc::new(MemoryDevice::from_contents(&image, options))
}

/// How many of `events` are of kind `op`.
fn count(events: &[TraceEvent], op: BioOp) -> usize {
    events.iter().filter(|event| event.op == DeviceOp::Bio(op)).count()
}

/// Sees to it that no more than `writes_max` were asked for, and one flush.
fn assert_few(trace: &Trace, writes_max: usize, what: &str) {
    let events = trace.take();
    let lines: Vec<_> = events.iter().map(TraceEvent::to_string).collect();
    let (writes, flushes) = (count(&events, BioOp::Write), count(&events, BioOp::Flush));
    println!("{what}: {writes} writes, {flushes} flushes");
    assert!(writes <= writes_max, "{what}: {writes} writes\n{}", lines.join("\n"));
    assert_eq!(flushes, 1, "{what}\n{}", lines.join("\n"));
}

#[test]
fn a_file_written_and_synced_is_few_writes_of_the_device() {
    let device = memory("200M");
    let trace = Arc::new(Trace::new(Arc::clone(&device) as _));
    let opened = open(Arc::clone(&trace) as _, device.len());
    let fs = &opened.fs;
    let content = |seed: usize| -> Vec<u8> {
        let number = |at: usize| u8::try_from((at / 7 + seed) % 251).unwrap();
        (0..FILE_BYTES).map(number).collect()
    };
    let _before = trace.take();
    let inode = fs.create(ROOT, b"file", &FILE).unwrap();
    let file = fs.open_file(inode).unwrap();
    file.write_all_at(&content(1), 0).unwrap();
    file.fsync().unwrap();
    assert_few(&trace, 22, "a new file");
    file.write_all_at(&content(2), 0).unwrap();
    file.fsync().unwrap();
    assert_few(&trace, 20, "an existing file");
    file.write_all_at(&content(3), 0).unwrap();
    file.fdatasync().unwrap();
    assert_few(&trace, 17, "the data of an existing file");
    drop(file);
    fs.close().unwrap();
    check(&device.contents());
}

/// True when `bio` writes a block full of `byte`.
fn writes_block_of(bio: &Bio, byte: u8) -> bool {
    if bio.op() != BioOp::Write {
        return false;
    }
    let mut block = [0; 4096];
    let whole = usize::try_from(bio.bytes()).unwrap() / block.len();
    (0..whole).any(|number| {
        bio.copy_out(number * block.len(), &mut block);
        block.iter().all(|one| *one == byte)
    })
}

#[test]
fn the_sync_of_a_file_does_not_write_what_is_dirty_in_another() {
    let device = memory("64M");
    let delay = Arc::new(Delay::manual(Arc::clone(&device) as _));
    delay.hold_only(|bio| writes_block_of(bio, b'o'));
    let opened = open(Arc::clone(&delay) as _, device.len());
    let fs = &opened.fs;
    let open = |name: &[u8]| fs.open_file(fs.create(ROOT, name, &FILE).unwrap()).unwrap();
    let (synced, other) = (open(b"synced"), open(b"other"));
    for round in 0..3 {
        let start = (round as u64) << 20;
        other.write_all_at(&[b'o'; 1 << 20], start).unwrap();
        synced.write_all_at(&[b's'; 1 << 20], start).unwrap();
        synced.fsync().unwrap();
        assert_eq!(delay.held(), [], "round {round}");
        assert_eq!(other.cached().mapping().dirty_count(), 256 * (round + 1));
    }
    drop((synced, other));
    delay.hold_only(|_| false);
    fs.close().unwrap();
    check(&device.contents());
}

/// Would not end if it waited: nobody releases what is held meanwhile.
#[test]
fn the_sync_of_a_file_does_not_wait_for_what_is_written_of_another() {
    let device = memory("64M");
    let delay = Arc::new(Delay::manual(Arc::clone(&device) as _));
    delay.hold_only(|bio| writes_block_of(bio, b'o'));
    let opened = open(Arc::clone(&delay) as _, device.len());
    let fs = &opened.fs;
    let open = |name: &[u8]| fs.open_file(fs.create(ROOT, name, &FILE).unwrap()).unwrap();
    let (synced, other) = (open(b"synced"), open(b"other"));
    other.write_all_at(&[b'o'; 4 << 20], 0).unwrap();
    let start = RangeSteps { write: true, ..RangeSteps::default() };
    other.cached().sync_file_range(0..4 << 20, start).unwrap();
    delay.wait_for_held(1);
    synced.write_all_at(&[b's'; 4 << 20], 0).unwrap();
    synced.fsync().unwrap();
    // Its name and its inode are in the same blocks, and were committed.
    synced.write_all_at(&[b's'; 4 << 20], 4 << 20).unwrap();
    synced.fsync().unwrap();
    assert!(!delay.held().is_empty(), "it is still on its way");
    delay.hold_only(|_| false);
    assert!(delay.release_all() > 0);
    other.fsync().unwrap();
    drop((synced, other));
    fs.close().unwrap();
    check(&device.contents());
}
