//! The shape of I/O: fixed workloads against lists of what the device has to see.

use std::sync::Arc;

use mpage::units::{DeviceBlock, FILE_SIZE_MAX, FileBlock, PageIndex};
use mpage::{ErrorKind, Extent, Options, Purpose, SyncMode, WritebackControl, mpage_writepages};
use mpage_block::wrap::{DeviceOp, Effect, Rule, Times, TraceEvent};
use mpage_block::{BioOp, Errno, MemoryDevice, MemoryOptions, Sector};

use crate::answers::{Answers, Bench, WHOLE, only};
use crate::rig::pattern;
use crate::stack::{Stack, count, errno, spawn};

/// Memory for 16 MiB dirty at once.
fn roomy() -> Options {
    Options {
        memory: 32 << 20,
        dirty_background_percent: 90,
        dirty_percent: 90,
        ..Options::default()
    }
}

fn device(options: MemoryOptions) -> Stack {
    Stack::around(Arc::new(MemoryDevice::new(64 << 20, options)))
}

/// No byte is in two of `events`.
fn assert_nothing_is_written_twice(events: &[TraceEvent]) {
    let mut parts: Vec<_> =
        events.iter().map(|e| (e.sector.0, e.sector.0 + e.bytes / 512)).collect();
    parts.sort_unstable();
    assert!(parts.windows(2).all(|two| two[0].1 <= two[1].0), "{parts:?}");
}

/// Statement 33: 16 MiB of dirty neighbours are 16 writes where a bio holds 1 MiB.
///
/// Seen to fail: with a bio submitted after each page.
#[test]
fn neighbours_go_out_in_as_few_bios_as_the_device_allows() {
    let options =
        MemoryOptions { bytes_max: 1 << 20, segments_max: 256, ..MemoryOptions::default() };
    let bench = Bench::with(&roomy(), device(options), 4096, 0);
    let content = pattern(3, 0, 16 << 20);
    bench.file.write_all_at(&content, 0).unwrap();
    bench.file.fsync().unwrap();
    let mut expected: Vec<_> = (0..16).map(|n| format!("W {}+2048 sync", n * 2048)).collect();
    expected.push("F".to_owned());
    assert_eq!(bench.lines(), expected);
    assert!(bench.stack.bytes(0..16 << 20) == content);
}

/// Statement 33: scattered dirty pages are one write a run. Nothing is written twice.
///
/// Seen to fail: with `Hand::prepare` not comparing the sector, all of it goes into one bio.
#[test]
fn scattered_pages_are_one_bio_a_run() {
    let bench = Bench::new(4096, 0);
    bench.fill([0, 1, 3, 7, 8, 9, 12], 1);
    bench.file.fsync().unwrap();
    assert_eq!(bench.lines(), ["W 0+16 sync", "W 24+8 sync", "W 56+24 sync", "W 96+8 sync", "F"]);
    bench.fill([9, 3, 8], 2);
    bench.file.fsync().unwrap();
    assert_eq!(bench.lines(), ["W 24+8 sync", "W 64+16 sync", "F"]);
    // Neighbours in the file that are not neighbours on the device.
    bench.map.answer(|request| {
        let first = request.first;
        Ok(Extent::mapped(first, DeviceBlock(if first.0 < 2 { first.0 } else { first.0 + 90 }), 1))
    });
    bench.fill(0..4, 3);
    bench.file.fsync().unwrap();
    assert_eq!(bench.lines(), ["W 0+16 sync", "W 736+16 sync", "F"]);
}

/// Design decision 8: one byte costs one write of one block.
///
/// Seen to fail: with the dirty sectors of a store widened to the page.
#[test]
fn one_byte_is_one_write_of_one_block() {
    for (block, line) in [(512, "W 8+1 sync"), (1024, "W 8+2 sync"), (4096, "W 8+8 sync")] {
        let bench = Bench::new(block, 64 << 10);
        bench.file.write_all_at(b"x", 4096 + 100).unwrap();
        bench.file.fsync().unwrap();
        assert_eq!(bench.lines(), [line, "F"]);
        assert_eq!(bench.stack.bytes(4196..4198), [b'x', 0]);
    }
}

/// Statements 34 and 39: a page with clean blocks among dirty ones is as many writes as it has
/// runs, and leaves the clean blocks of the device alone.
///
/// Seen to fail: with the whole page mapped instead of what is dirty.
#[test]
fn clean_blocks_among_dirty_ones_are_not_written() {
    let bench = Bench::new(1024, 3 * 4096);
    bench.stack.memory.write_at(0, &[9; 3 * 4096]);
    bench.file.write_all_at(&[1; 1024], 0).unwrap();
    bench.file.write_all_at(&[2; 1024], 2048).unwrap();
    bench.file.write_all_at(&[3; 2048], 4096 + 1024).unwrap();
    bench.file.fsync().unwrap();
    assert_eq!(bench.lines(), ["W 0+2 sync", "W 4+2 sync", "W 10+4 sync", "F"]);
    let parts = [1, 9, 2, 9, 9, 3, 3, 9, 9, 9, 9, 9];
    let expected: Vec<u8> = parts.iter().flat_map(|byte| [*byte; 1024]).collect();
    assert_eq!(bench.stack.bytes(0..3 * 4096), expected);
}

/// Statement 39: a page with a hole before its data, and scattered blocks, leaves the same bytes on
/// the device as one write would.
///
/// Seen to fail: with the runs of a page placed one behind the other (`Run::offset` ignored).
#[test]
fn data_behind_a_hole_and_scattered_blocks_land_where_they_belong() {
    let bench = Bench::new(1024, 4096);
    // Block 0 is a hole; 1 and 2 are apart, 3 follows 2.
    bench.map.answer(|request| {
        let first = request.first;
        Ok(match first.0 {
            0 => Extent::hole(first, 1),
            1 => Extent::mapped(first, DeviceBlock(50), 1),
            n => Extent::mapped(first, DeviceBlock(20 + n), 4 - n),
        })
    });
    bench.file.write_all_at(&pattern(5, 1024, 3072), 1024).unwrap();
    bench.file.fsync().unwrap();
    assert_eq!(bench.lines(), ["W 100+2 sync", "W 44+4 sync", "F"]);
    assert_eq!(bench.stack.bytes(50 << 10..51 << 10), pattern(5, 1024, 1024));
    assert_eq!(bench.stack.bytes(22 << 10..24 << 10), pattern(5, 2048, 2048));
    let mut page = vec![7; 4096];
    assert_eq!(bench.file.read_at(&mut page, 0).unwrap(), 4096);
    assert!(page[..1024].iter().all(|byte| *byte == 0));
}

/// Statement 34: a page in four bios leaves writeback once, with the last of them, whichever that
/// is; one that failed leaves its own blocks dirty.
///
/// Seen to fail: with writeback ended by the first part.
#[test]
fn a_page_in_several_bios_leaves_writeback_with_the_last() {
    let bench = Bench::new(1024, 0);
    bench.map.answer(|request| {
        Ok(Extent::mapped(request.first, DeviceBlock(10 + 10 * request.first.0), 1))
    });
    bench.stack.hold(BioOp::Write);
    bench.file.write_all_at(&[1; 4096], 0).unwrap();
    let wbc = bench.splice_and_walk(SyncMode::Cleaning);
    assert_eq!((wbc.pages_written, wbc.nr_to_write), (1, i64::MAX - 1));
    assert_eq!(bench.stack.delay.held().len(), 4);
    for released in [3, 1, 0] {
        assert_eq!(bench.sets(), [0, 0, 0, 1]);
        assert!(bench.stack.delay.release_nth(released));
    }
    assert_eq!(bench.sets(), [0, 0, 0, 1]);
    bench.stack.fail(BioOp::Write, Times::All, Errno::IO);
    assert!(bench.stack.delay.release_next());
    assert_eq!(bench.sets(), [0, 1, 0, 0]);
    assert_eq!(bench.mapping().failed_ranges(&WHOLE), only(2048..3072));
}

/// Statement 38: behind the last page of an extent that says boundary the bio goes out, before the
/// next page is asked about.
///
/// Seen to fail: without the submission in `Walk::count`.
#[test]
fn a_boundary_submits_right_behind_its_page() {
    let bench = Bench::new(4096, 0);
    let trace = Arc::clone(&bench.stack.trace);
    bench.map.answer(move |request| {
        let first = request.first.0;
        assert_eq!(trace.events().len() as u64, first / 2, "what was before is at the device");
        let start = FileBlock(first / 2 * 2);
        Ok(Extent { boundary: true, ..Extent::mapped(start, DeviceBlock(start.0), 2) })
    });
    bench.fill(0..6, 1);
    let _walk = bench.splice_and_walk(SyncMode::Cleaning);
    let lines = ["W 0+16 background", "W 16+16 background", "W 32+16 background"];
    assert_eq!(bench.lines(), lines);
}

/// Statement 35: a bio that is full goes out and the page goes into the next, whole.
///
/// Seen to fail: with the page left out when it does not fit.
#[test]
fn a_full_bio_goes_out_and_loses_no_page() {
    let options = MemoryOptions { bytes_max: 3 * 4096, ..MemoryOptions::default() };
    let bench = Bench::over(device(options), 4096, 0);
    let content = pattern(6, 0, 8 * 4096);
    bench.file.write_all_at(&content, 0).unwrap();
    bench.file.fsync().unwrap();
    assert_eq!(bench.lines(), ["W 0+24 sync", "W 24+24 sync", "W 48+16 sync", "F"]);
    assert!(bench.stack.bytes(0..8 * 4096) == content);
    assert_eq!(bench.sets(), [8, 0, 0, 0]);
}

/// Statement 35: no bio has more segments than the device takes, wherever the frames are.
///
/// Seen to fail: with the limits' segments ignored the device refuses the write.
#[test]
fn no_bio_has_more_segments_than_the_device_takes() {
    for segments_max in [1, 2, 5] {
        let options = MemoryOptions { segments_max, ..MemoryOptions::default() };
        let bench = Bench::over(device(options), 4096, 0);
        // Frames out of order: pages are brought in from both ends.
        for index in (0..10).flat_map(|n| [n, 19 - n]) {
            bench.file.write_all_at(&pattern(7, index * 4096, 4096), index * 4096).unwrap();
        }
        bench.file.fsync().unwrap();
        let writes = bench.stack.take_writes();
        assert_eq!(count(&writes, BioOp::Flush), 1);
        let writes: Vec<_> = writes.into_iter().filter(|e| e.bytes > 0).collect();
        assert!(writes.iter().all(|event| event.segments <= segments_max));
        assert_nothing_is_written_twice(&writes);
        assert_eq!(writes.iter().map(|event| event.bytes).sum::<u64>(), 20 * 4096);
        assert!(bench.stack.bytes(0..20 * 4096) == pattern(7, 0, 20 * 4096));
    }
}

/// Statement 36: a page is dirty until it is in a bio: while its place is looked for, and when it
/// has none.
///
/// Seen to fail: with dirty cleared before the block map is asked.
#[test]
fn a_page_is_dirty_until_it_is_in_a_bio() {
    let bench = Bench::new(4096, 0);
    bench.fill([0], 1);
    let file = bench.file.clone();
    bench.map.once(0, move || {
        assert_eq!(file.mapping().dirty_pages(&WHOLE), [PageIndex(0)]);
        assert!(file.mapping().writeback_pages(&WHOLE).is_empty());
    });
    bench.map.refuse(&[(0, Errno::NOSPC)]);
    assert_eq!(errno(bench.file.fsync()), Errno::NOSPC);
    assert_eq!((bench.dirty(), bench.sets()), (vec![0], [0, 1, 0, 0]));
    assert!(bench.lines().is_empty());
}

/// Statement 37: with every frame taken, a page with a store in progress is sampled into a frame of
/// writeback's own reserve, and the sync ends.
///
/// Seen to fail: with the sample's frame taken as cache memory the sync waits for ever.
#[test]
fn writeback_goes_on_from_its_reserve_when_memory_is_out() {
    let options = Options { memory: Options::MEMORY_MIN, ..roomy() };
    let bench = Bench::with(&options, Stack::new(1 << 20), 4096, 1 << 20);
    let first = bench.file.pin_page(PageIndex(0)).unwrap();
    assert!(first.write(0, b"old").unwrap());
    let mut guard = first.write_guard().unwrap().unwrap();
    guard.write(0, b"new").unwrap();
    let mut pinned = Vec::new();
    while bench.cache.free_pages() > 4 {
        pinned.push(bench.file.pin_page(PageIndex(1 + pinned.len() as u64)).unwrap());
    }
    bench.file.fsync().unwrap();
    assert_eq!(bench.cache.stats().pages_sampled, 1);
    assert_eq!(bench.stack.bytes(0..3), b"new");
    drop(guard);
    assert_eq!(bench.dirty(), [0], "the store ended after the sample");
}

/// Statement 42. Seen to fail: with `Hand::new` giving both kinds the same flags.
#[test]
fn syncs_and_background_writes_are_told_apart() {
    let bench = Bench::new(4096, 0);
    bench.fill([0], 1);
    bench.file.start_writing(WHOLE).unwrap();
    bench.fill([0], 2);
    bench.file.fsync().unwrap();
    bench.file.write_through_at(&[3; 4096], 0, true).unwrap();
    let lines = bench.lines();
    assert_eq!(lines, ["W 0+8 background", "W 0+8 sync", "F", "W 0+8 sync fua"]);
}

/// Statement 40: the device gets zeros behind the end of the file, whatever it had there, on the
/// fast path and in a page of scattered blocks.
///
/// Seen to fail: without `Walk::zero_beyond_end` in either path.
#[test]
fn what_is_behind_the_end_reaches_the_device_as_zeros() {
    for scattered in [false, true] {
        let bench = Bench::new(1024, 4096);
        bench.stack.memory.write_at(0, &[0xff; 64 << 10]);
        let place = move |n: u64| if scattered { 8 + n * 2 } else { 8 + n };
        bench.map.answer(move |request| {
            Ok(Extent::mapped(request.first, DeviceBlock(place(request.first.0)), 1))
        });
        // Bytes behind the end come into the page while the file is longer.
        bench.file.write_all_at(&[0xee; 4096], 0).unwrap();
        let pinned = bench.file.pin_page(PageIndex(0)).unwrap();
        let gate = bench.map.stop_at(0);
        let file = bench.file.clone();
        let syncer = spawn(move || file.fsync().unwrap());
        gate.wait_for_arrival();
        // The size falls while the walk has the page locked; the bytes are still there.
        let file = bench.file.clone();
        let truncater = spawn(move || file.set_len(1500).unwrap());
        crate::stack::wait_until(|| bench.file.size() == 1500);
        bench.stack.hold(BioOp::Write);
        gate.open();
        bench.stack.delay.wait_for_held(if scattered { 4 } else { 1 });
        bench.stack.let_go();
        syncer.join().unwrap();
        let block = |n| bench.stack.bytes(place(n) * 1024..(place(n) + 1) * 1024);
        assert_eq!(block(0), [0xee; 1024]);
        assert!(block(1)[..476].iter().all(|byte| *byte == 0xee));
        assert!(block(1)[476..].iter().all(|byte| *byte == 0));
        assert_eq!([block(2), block(3)], [[0; 1024]; 2]);
        truncater.join().unwrap();
        drop(pinned);
    }
}

/// Statement 40, in every write: what a partly covered last block brought in from the device.
///
/// Seen to fail: without the zeroing in the read and `Walk::zero_beyond_end` together.
#[test]
fn garbage_behind_the_end_is_not_written_back() {
    let bench = Bench::new(4096, 4096 + 1000);
    bench.stack.memory.write_at(0, &[0xff; 4 * 4096]);
    for round in 1..4 {
        bench.file.write_all_at(&[round], 4096 + 5).unwrap();
        bench.file.fsync().unwrap();
        let page = bench.stack.bytes(4096..2 * 4096);
        assert_eq!((page[4], page[5], page[999]), (0xff, round, 0xff));
        assert!(page[1000..].iter().all(|byte| *byte == 0));
        bench.stack.memory.write_at(4096 + 1000, &[0xff; 3096]);
    }
}

/// Statements 41 and 49: a dirty page that the end of the file has fallen below is not written, not
/// dirtied again, asked about by nobody, and left for truncate.
///
/// Seen to fail: without `cancel_dirty_beyond_end` the block map is asked about it.
#[test]
fn a_page_behind_the_end_is_left_to_truncate() {
    let bench = Bench::new(4096, 0);
    bench.fill([0, 1], 1);
    let gate = bench.map.stop_at(0);
    let file = bench.file.clone();
    let syncer = spawn(move || file.fsync().unwrap());
    gate.wait_for_arrival();
    let file = bench.file.clone();
    let truncater = spawn(move || file.set_len(0).unwrap());
    // It waits for page 0, which the walk has locked; page 1 is still there.
    crate::stack::wait_until(|| bench.file.size() == 0);
    let other = Answers::new(4096);
    let mut wbc = WritebackControl::integrity(4096..2 * 4096);
    mpage_writepages(bench.mapping(), &mut wbc, Some(&*other)).unwrap();
    assert_eq!((wbc.pages_written, other.take_asked().len()), (0, 0));
    assert_eq!((bench.dirty(), bench.sets()), (vec![0], [1, 0, 1, 0]));
    assert!(bench.lines().is_empty());
    gate.open();
    syncer.join().unwrap();
    truncater.join().unwrap();
    assert_eq!(bench.sets(), [0; 4]);
    assert!(bench.map.take_events().contains(&"removed from 0".to_owned()));
}

/// Statement 41: the last page a file can have is written as any other.
///
/// Seen to fail: with `pages_touched` counting one page less.
#[test]
fn the_largest_index_is_written() {
    let bench = Bench::new(4096, 0);
    bench.map.answer(|request| {
        assert!(request.first.0 <= PageIndex::MAX.0);
        let place = DeviceBlock(request.first.0 - PageIndex::MAX.0 + 3);
        Ok(Extent::mapped(request.first, place, 1))
    });
    bench.file.write_all_at(&[5; 4096], PageIndex::MAX.start()).unwrap();
    assert_eq!(bench.file.size(), FILE_SIZE_MAX);
    let error = bench.file.write_all_at(b"x", FILE_SIZE_MAX).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge);
    bench.file.fsync().unwrap();
    assert_eq!((bench.lines(), bench.on_device(3)), (vec!["W 24+8 sync".into(), "F".into()], 5));
    bench.file.set_len(0).unwrap();
    assert_eq!(bench.sets(), [0; 4]);
}

/// Statement 44: a bio that the device refuses completes its pages with the error: nobody waits for
/// ever, the data is dirty again, and the next sync writes it.
///
/// Seen to fail: with a refused bio dropped without its error the pages look clean.
#[test]
fn a_refused_bio_completes_its_pages_with_the_error() {
    let bench = Bench::new(1024, 0);
    let refused = Rule {
        op: Some(DeviceOp::Bio(BioOp::Write)),
        sectors: Some(Sector(0)..Sector(10)),
        times: Times::All,
        effect: Effect::Refuse(Errno::NODEV),
    };
    let _id = bench.stack.fault.add(refused);
    bench.fill([0, 1, 4], 1);
    bench.file.write_all_at(&[2; 1024], 9 * 1024).unwrap();
    let error = bench.file.fsync().unwrap_err();
    assert_eq!((error.kind.errno(), error.retained), (Errno::NODEV, true));
    assert_eq!(error.at, only(0..8192));
    assert_eq!((bench.dirty(), bench.sets()), (vec![0, 1], [2, 2, 0, 0]));
    assert_eq!(bench.on_device(4), 1);
    bench.stack.fault.clear();
    bench.file.fsync().unwrap();
    assert_eq!([0, 1].map(|n| bench.on_device(n)), [1, 1]);
    assert!(bench.map.take_asked().iter().all(|request| request.purpose == Purpose::Write));
}
