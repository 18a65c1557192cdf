//! Taking parts of a file away: statements 86 to 93.

use std::ops::Range;
use std::sync::Arc;

use mpage::units::{BlockSize, FileBlock, PageIndex};
use mpage::{
    CachedFile, Error, ErrorKind, Extent, GetBlock, Identity, MapRequest, Operations, PageCache,
    Purpose, SetCounts, SyncMode,
};
use mpage_block::wrap::{DeviceOp, Times};
use mpage_block::{BioOp, Errno};
use mpage_locks::atomic::{AtomicBool, Ordering};

use crate::rig::{Rig, memory_device, options, pattern};
use crate::stack::{Stack, bytes_of, spawn, still_waits, wait_until};
use crate::table::{Gate, TableRig, content_of};

const BLOCK_SIZES: [usize; 3] = [512, 1024, 4096];

/// A file of eight pages, all of them dirty.
fn dirty_rig(block: usize) -> TableRig {
    let rig = TableRig::new(block);
    rig.file.write_all_at(&pattern(1, 0, 8 * 4096), 0).unwrap();
    rig
}

/// Statements 86 and 87: the size is lowered first, then writes of removed pages that are in flight
/// are waited for, and only then blocks are freed.
///
/// Seen to fail: without the wait in `truncate::remove` the blocks go while writes are in flight.
#[test]
fn truncate_waits_for_writes_of_removed_pages() {
    for block in BLOCK_SIZES {
        let rig = dirty_rig(block);
        rig.stack.hold(BioOp::Write);
        rig.file.start_writing(0..8 * 4096).unwrap();
        let (trace, mapping) = (rig.stack.trace.clone(), rig.file.mapping().clone());
        rig.table.on_remove(move |blocks| {
            assert_eq!((mapping.size(), blocks.start.0), (100, 100_u64.div_ceil(block as u64)));
            assert_eq!(mapping.writeback_pages(&(0..u64::MAX / 2)), []);
            let in_flight = trace.events().into_iter().find(|event| event.completed.is_none());
            assert_eq!(in_flight, None);
        });
        let file = rig.file.clone();
        let truncate = spawn(move || file.set_len(100));
        wait_until(|| rig.file.size() == 100);
        still_waits(&truncate);
        let mapped = rig.table.used().0;
        assert!(mapped > 1, "no block is free while its write is in flight");
        rig.stack.let_go();
        truncate.join().unwrap().unwrap();
        assert!(rig.table.used().0 <= 1);
        rig.file.fsync().unwrap();
        rig.table.check();
        assert_eq!(content_of(&rig.file), pattern(1, 0, 100));
    }
}

/// Statement 86: what was dirty in removed pages is never written, by nobody, later.
#[test]
fn no_write_of_a_removed_page_reaches_the_device_after_truncate() {
    for block in BLOCK_SIZES {
        let rig = dirty_rig(block);
        rig.file.set_len(2 * 4096).unwrap();
        rig.file.fsync().unwrap();
        let writes = rig.stack.take_writes();
        let bytes = writes.iter().filter(|event| event.op == DeviceOp::Bio(BioOp::Write));
        assert_eq!(bytes.map(|event| event.bytes).sum::<u64>(), 2 * 4096);
        rig.file.set_len(0).unwrap();
        rig.cache.sync().unwrap();
        assert!(
            rig.stack.take_writes().iter().all(|event| event.op != DeviceOp::Bio(BioOp::Write))
        );
        rig.table.check();
    }
}

/// Statement 87: the bytes between the end and the next page read as zeros when the file grows
/// again, from the cache and from the device, wherever the cut was.
///
/// Seen to fail: without `zero_edge` for the tail.
#[test]
fn what_truncate_cut_off_reads_as_zeros_when_the_file_grows_again() {
    const CUTS: [u64; 16] =
        [0, 1, 511, 512, 513, 1023, 1024, 1025, 2500, 4095, 4096, 4097, 4608, 5119, 5120, 8191];
    for block in BLOCK_SIZES {
        let rig = TableRig::new(block);
        for cut in CUTS {
            for state in 0..4 {
                rig.file.write_all_at(&pattern(cut, 0, 3 * 4096), 0).unwrap();
                match state {
                    0 => {}
                    1 => rig.file.fsync().unwrap(),
                    2 => rig.forget(),
                    _ => rig.file.sync_range(4096..8192, mpage::SyncKind::Data).unwrap(),
                }
                rig.file.set_len(cut).unwrap();
                let mut expected = pattern(cut, 0, usize::try_from(cut).unwrap());
                assert_eq!(rig.content(), expected, "block {block}, cut {cut}, state {state}");
                if state % 2 == 0 {
                    rig.file.set_len(3 * 4096).unwrap();
                } else {
                    rig.forget();
                    rig.file.write_all_at(&[0], 3 * 4096 - 1).unwrap();
                }
                expected.resize(3 * 4096, 0);
                assert!(rig.content() == expected, "block {block}, cut {cut}, state {state}");
                rig.forget();
                assert!(rig.content() == expected, "block {block}, cut {cut}, state {state}");
            }
        }
        rig.table.check();
    }
}

/// Statement 87, on a device whose blocks are the file's: what was on the device behind the end is
/// zeros there too.
#[test]
fn a_cut_in_a_file_that_is_its_device_zeroes_the_device() {
    for block in BLOCK_SIZES {
        let memory = memory_device(1 << 20);
        let rig = Rig::over(memory.clone(), block, 0);
        rig.file.write_all_at(&pattern(3, 0, 5 * 4096), 0).unwrap();
        rig.cache.device_sync(&rig.dev).sync().unwrap();
        rig.open().set_len(4096 + 700).unwrap();
        rig.file.fsync().unwrap();
        let contents = memory.contents();
        assert_eq!(contents[..4796], pattern(3, 0, 4796));
        assert!(contents[4796..].iter().all(|byte| *byte == 0));
    }
}

const EDGES: [u64; 22] = [
    0, 1, 511, 512, 513, 1023, 1024, 1025, 2047, 2048, 4095, 4096, 4097, 4607, 4608, 4609, 5120,
    8191, 8192, 8193, 12_287, 12_288,
];

/// Statement 93: a hole is exact to the byte at both edges, in the cache and on the device, whether
/// the pages were dirty, clean or not cached; only whole blocks lose their place.
///
/// Seen to fail: with `sectors_touched` for `sectors_covered` in `zero_edge`.
#[test]
fn a_punched_hole_is_exact_to_the_byte_at_both_edges() {
    for block in BLOCK_SIZES {
        let rig = TableRig::new(block);
        for (n, start) in EDGES.into_iter().enumerate() {
            for end in EDGES.into_iter().skip(n) {
                for state in 0..3 {
                    let mut expected = pattern(start ^ end << 20, 0, 3 * 4096);
                    rig.file.write_all_at(&expected, 0).unwrap();
                    match state {
                        0 => {}
                        1 => rig.file.fsync().unwrap(),
                        _ => rig.forget(),
                    }
                    rig.file.punch_hole(start..end).unwrap();
                    let hole = usize::try_from(start).unwrap()..usize::try_from(end).unwrap();
                    expected[hole].fill(0);
                    let at = format!("block {block}, {start}..{end}, state {state}");
                    assert!(rig.content() == expected, "{at}");
                    rig.forget();
                    assert!(rig.content() == expected, "from the device: {at}");
                    let size = block as u64;
                    let freed = (end / size).saturating_sub(start.div_ceil(size));
                    let used = usize::try_from(12_288 / size - freed).unwrap();
                    assert_eq!(rig.table.used(), (used, 0), "{at}");
                }
            }
        }
        rig.table.check();
    }
}

/// What cannot be made zeros is what the device has, at once and later.
///
/// Seen to fail: with zeros left in the page.
#[test]
fn a_range_that_cannot_be_zeroed_is_what_the_device_has() {
    for block in BLOCK_SIZES {
        let rig = TableRig::new(block);
        for (n, start) in EDGES.into_iter().enumerate() {
            for end in EDGES.into_iter().skip(n) {
                rig.file.write_all_at(&pattern(start ^ end << 20, 0, 3 * 4096), 0).unwrap();
                rig.file.fsync().unwrap();
                // The map cannot zero whole blocks.
                let zeroed = rig.file.zero_range(start..end);
                let size = block as u64;
                assert_eq!(zeroed.is_err(), start.div_ceil(size) < end / size, "{start}..{end}");
                let content = rig.content();
                rig.forget();
                assert!(rig.content() == content, "block {block}, {start}..{end}");
            }
        }
        rig.table.check();
    }
}

/// A hole whose first edge cannot be read leaves what is on its way at the other as it is.
///
/// Seen to fail: with both edges read again from the device, whatever was done of them.
#[test]
fn a_hole_that_fails_does_not_show_what_a_write_under_way_replaces() {
    let stack = Stack::new(1 << 20);
    let rig = Rig::over(stack.top(), 512, 1 << 20);
    rig.file.write_all_at(&pattern(1, 4096, 4096), 4096).unwrap();
    stack.hold(BioOp::Write);
    rig.file.start_writing(0..8192).unwrap();
    stack.delay.wait_for_held(1);
    stack.fail(BioOp::Read, Times::First(1), Errno::IO);
    let punched = rig.file.punch_hole(4000..8000);
    assert_eq!(punched.unwrap_err().kind.errno(), Errno::IO);
    let mut bytes = [0; 4096];
    assert_eq!(rig.file.read_at(&mut bytes, 4096).unwrap(), 4096);
    stack.let_go();
    assert!(bytes[..] == pattern(1, 4096, 4096));
}

/// Statement 93: what follows a collapsed range moves to its front, and not a byte else changes.
#[test]
fn a_collapsed_range_is_exact_at_both_edges() {
    for block in BLOCK_SIZES {
        let size = 3 * 4096 + 700;
        let blocks = size / block as u64;
        for start in 0..blocks {
            for end in [start + 1, start + 2, blocks / 2, blocks] {
                let range = start * block as u64..end * block as u64;
                if range.start >= range.end || range.end >= size {
                    continue;
                }
                let rig = TableRig::new(block);
                let mut expected = pattern(start, 0, usize::try_from(size).unwrap());
                rig.file.write_all_at(&expected, 0).unwrap();
                rig.file.collapse_range(range.clone()).unwrap();
                let inside =
                    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
                let _cut: Vec<u8> = expected.drain(inside).collect();
                assert!(rig.content() == expected, "block {block}, {range:?}");
                rig.forget();
                assert!(rig.content() == expected, "from the device: block {block}, {range:?}");
                rig.table.check();
            }
        }
    }
}

/// Statement 93: a range that cannot be collapsed is refused in words, and nothing changes.
#[test]
fn a_range_that_cannot_be_collapsed_changes_nothing() {
    let rig = dirty_rig(1024);
    for range in [1..1024, 0..1000, 1024..1024, 0..8 * 4096, 7 * 4096..9 * 4096] {
        let error = rig.file.collapse_range(range).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput);
        assert!(!error.detail.is_empty());
    }
    assert_eq!(rig.content(), pattern(1, 0, 8 * 4096));
    let plain = Rig::over(memory_device(1 << 20), 4096, 0);
    plain.file.write_all_at(&pattern(1, 0, 8192), 0).unwrap();
    let error = plain.file.collapse_range(0..4096).unwrap_err();
    assert_eq!(error.kind.errno(), Errno::OPNOTSUPP);
    assert_eq!(content_of(&plain.file), pattern(1, 0, 8192));
}

/// Statement 88: while a range is being removed, nobody puts a page back into it: readers and
/// writers of it wait for the removal, others do not.
///
/// Seen to fail: without the test of `removing` in `AddressSpace::insert`.
#[test]
fn nobody_puts_a_page_into_a_range_that_is_being_removed() {
    let rig = dirty_rig(4096);
    rig.file.fsync().unwrap();
    let gate = Gate::new();
    let stop = gate.stop();
    rig.table.on_remove(move |_| stop());
    let file = rig.file.clone();
    let punch = spawn(move || file.punch_hole(4096..4 * 4096));
    gate.wait_for_arrival();
    let file = rig.file.clone();
    let read = spawn(move || {
        let mut bytes = vec![1; 4096];
        file.read_at(&mut bytes, 4096).map(|_| bytes)
    });
    let file = rig.file.clone();
    let write = spawn(move || file.write_all_at(&pattern(2, 0, 300), 2 * 4096 + 50));
    let file = rig.file.clone();
    let pin = spawn(move || file.pin_page(PageIndex(3)).map(|page| page.index()));
    rig.file.write_all_at(b"outside", 0).unwrap();
    let mut outside = [0; 100];
    assert_eq!(rig.file.read_at(&mut outside, 5 * 4096).unwrap(), 100);
    still_waits(&read);
    still_waits(&write);
    still_waits(&pin);
    assert_eq!(rig.mapping().set_counts(), SetCounts { clean: 4, dirty: 1, io: 0, locked: 0 });
    gate.open();
    punch.join().unwrap().unwrap();
    assert_eq!(read.join().unwrap().unwrap(), [0; 4096]);
    write.join().unwrap().unwrap();
    assert_eq!(pin.join().unwrap().unwrap(), PageIndex(3));
    let mut page = vec![0; 4096];
    assert_eq!(rig.file.read_at(&mut page, 2 * 4096).unwrap(), 4096);
    assert_eq!(page[50..350], pattern(2, 0, 300));
    rig.file.fsync().unwrap();
    rig.table.check();
}

/// Statement 88: a write that extends the file waits for a truncate to end, and its bytes stay.
#[test]
fn a_write_that_extends_the_file_waits_for_a_truncate() {
    let rig = dirty_rig(1024);
    let gate = Gate::new();
    let stop = gate.stop();
    rig.table.on_remove(move |_| stop());
    let file = rig.file.clone();
    let truncate = spawn(move || file.set_len(5000));
    gate.wait_for_arrival();
    let files = [rig.file.clone(), rig.file.clone(), rig.file.clone()];
    let [tail, far, grow] = files;
    let tail = spawn(move || tail.write_all_at(b"tail", 6000));
    let far = spawn(move || far.write_all_at(b"far", 20_000));
    let grow = spawn(move || grow.set_len(30_000));
    still_waits(&tail);
    still_waits(&far);
    still_waits(&grow);
    assert_eq!(rig.file.size(), 5000);
    gate.open();
    for handle in [truncate, tail, far, grow] {
        handle.join().unwrap().unwrap();
    }
    let mut expected = pattern(1, 0, 5000);
    expected.resize(30_000, 0);
    expected[6000..6004].copy_from_slice(b"tail");
    expected[20_000..20_003].copy_from_slice(b"far");
    assert_eq!(rig.content(), expected);
    rig.forget();
    assert_eq!(rig.content(), expected);
    rig.table.check();
}

/// Statement 86: a store into a block at the edge of a range that is being removed, through a
/// pinned page or not, waits for the removal, and never puts a block under I/O while it is freed.
///
/// Seen to fail: without the test of `is_removing` in `PinnedPage::write_guard`, and without that
/// in `try_store`.
#[test]
fn a_store_waits_for_the_removal_of_its_blocks() {
    for through_pin in [true, false] {
        let rig = dirty_rig(512);
        rig.file.fsync().unwrap();
        let page = Arc::new(rig.file.pin_page(PageIndex(0)).unwrap());
        let gate = Gate::new();
        let stop = gate.stop();
        rig.table.on_remove(move |_| stop());
        let file = rig.file.clone();
        let punch = spawn(move || file.punch_hole(512..2048));
        gate.wait_for_arrival();
        let (pinned, file) = (page.clone(), rig.file.clone());
        let store = spawn(move || match through_pin {
            true => assert!(pinned.write(600, b"after").unwrap()),
            false => file.write_all_at(b"after", 600).unwrap(),
        });
        still_waits(&store);
        gate.open();
        punch.join().unwrap().unwrap();
        store.join().unwrap();
        drop(page);
        let mut expected = pattern(1, 0, 8 * 4096);
        expected[512..2048].fill(0);
        expected[600..605].copy_from_slice(b"after");
        assert_eq!(rig.content(), expected);
        rig.forget();
        assert_eq!(rig.content(), expected);
        rig.table.check();
    }
}

/// Statements 4, 62 and 89: a sync that waits for a page that is truncated meanwhile ends well, and
/// a store into a page that is gone does nothing.
#[test]
fn who_holds_a_removed_page_does_nothing() {
    let rig = dirty_rig(4096);
    let page = rig.file.pin_page(PageIndex(3)).unwrap();
    rig.stack.hold(BioOp::Write);
    let file = rig.file.clone();
    let sync = spawn(move || file.fsync());
    rig.stack.delay.wait_for_held(1);
    let file = rig.file.clone();
    let truncate = spawn(move || file.set_len(0));
    wait_until(|| rig.mapping().set_counts() == SetCounts::default());
    still_waits(&sync);
    still_waits(&truncate);
    assert!(page.write(0, b"nobody's").is_err(), "outside of the file");
    rig.stack.let_go();
    sync.join().unwrap().unwrap();
    truncate.join().unwrap().unwrap();
    rig.file.set_len(8 * 4096).unwrap();
    assert!(!page.write(0, b"nobody's").unwrap(), "the page is gone");
    assert!(!page.read(0, &mut [0; 8]), "the page is gone");
    assert_eq!(rig.mapping().set_counts(), SetCounts::default());
    assert_eq!(rig.content(), vec![0; 8 * 4096]);
    rig.table.check();
}

/// Statement 92: after everything is truncated nothing is dirty, reserved or failed, and all memory
/// is free again, whatever state the pages were in.
///
/// Seen to fail: without `note_clean` in `AddressSpace::detach`.
#[test]
fn accounts_are_at_zero_after_everything_is_truncated() {
    for block in BLOCK_SIZES {
        let rig = TableRig::new(block);
        let free = rig.cache.free_pages();
        let write = |page: u64, seed| {
            rig.file.write_all_at(&pattern(seed, 0, 5000), page * 4096 + 100).unwrap();
        };
        (0..12).for_each(|page| write(page, 1));
        rig.file.fsync().unwrap();
        rig.stack.fail(BioOp::Write, Times::First(1), Errno::IO);
        write(4, 2);
        assert!(rig.file.sync_range(4 * 4096..5 * 4096, mpage::SyncKind::Data).is_err());
        assert!(!rig.mapping().failed_ranges(&(0..u64::MAX / 2)).is_empty());
        rig.stack.hold(BioOp::Write);
        write(0, 3);
        rig.file.start_writing(0..4096).unwrap();
        rig.stack.delay.wait_for_held(1);
        write(0, 4);
        write(8, 5);
        assert!(rig.mapping().splice(&(8 * 4096..9 * 4096), SyncMode::Cleaning) > 0);
        write(10, 6);
        write(30, 7);
        let file = rig.file.clone();
        let truncate = spawn(move || file.set_len(0));
        wait_until(|| rig.mapping().set_counts() == SetCounts::default());
        rig.stack.let_go();
        truncate.join().unwrap().unwrap();
        assert_eq!(rig.mapping().dirty_count(), 0);
        assert_eq!(rig.mapping().dirtied_when_ns(), None);
        assert!(rig.mapping().failed_ranges(&(0..u64::MAX / 2)).is_empty());
        assert_eq!(rig.table.used(), (0, 0));
        assert_eq!(rig.cache.free_pages(), free);
        rig.table.check();
    }
}

/// Statements 51 and 93: zeroing a part of a block that has no place needs no room: nothing is
/// dirtied without room set aside, and a hole stays a hole.
///
/// Seen to fail: with `zero_edge` dirtying blocks in holes.
#[test]
fn cutting_in_a_hole_takes_no_room() {
    for block in BLOCK_SIZES {
        let rig = TableRig::new(block);
        rig.file.set_len(5 * 4096).unwrap();
        rig.file.punch_hole(100..200).unwrap();
        rig.file.punch_hole(5000..9000).unwrap();
        rig.file.set_len(3 * 4096 + 77).unwrap();
        rig.file.fsync().unwrap();
        assert_eq!(rig.table.used(), (0, 0));
        rig.table.check();
        assert_eq!(rig.content(), vec![0; 3 * 4096 + 77]);
    }
}

/// A map that cannot say where blocks are read from while it is told not to.
struct Unclear {
    map: Identity,
    reading_fails: AtomicBool,
    removing_fails: AtomicBool,
}

impl Unclear {
    /// A file of two pages over it, which is its device.
    fn file() -> (CachedFile, Arc<Unclear>, Stack, PageCache) {
        let stack = Stack::new(1 << 20);
        stack.memory.write_at(0, &pattern(1, 0, 8192));
        let cache = PageCache::new(&options()).unwrap();
        let dev = cache.add_device(stack.top()).unwrap();
        let block = BlockSize::new(4096).unwrap();
        let map = Identity::new(stack.top(), block);
        let (reading_fails, removing_fails) = (AtomicBool::new(false), AtomicBool::new(false));
        let map = Arc::new(Unclear { map, reading_fails, removing_fails });
        let ops = Operations { get_block: Some(map.clone()), ..Operations::default() };
        let file = CachedFile::new(cache.add_mapping(&dev, block, 8192, ops).unwrap(), true);
        (file, map, stack, cache)
    }
}

impl GetBlock for Unclear {
    fn get_block(&self, request: &MapRequest) -> mpage::Result<Extent> {
        match request.purpose {
            Purpose::Read if self.reading_fails.load(Ordering::SeqCst) => {
                Err(Error::new(ErrorKind::Device(Errno::IO), "get_block"))
            }
            _ => self.map.get_block(request),
        }
    }

    fn remove(&self, blocks: Range<FileBlock>) -> mpage::Result<()> {
        if self.removing_fails.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Device(Errno::IO), "remove"));
        }
        self.map.remove(blocks)
    }
}

/// Statement 87: the rest of the last page is zeroed though the block map cannot say whether it has
/// a place.
///
/// Seen to fail: when the truncate failed there, with the size set.
#[test]
fn a_cut_through_a_block_whose_place_is_unclear_is_zeroed_all_the_same() {
    let (file, map, _stack, _cache) = Unclear::file();
    let mut bytes = vec![0; 4096];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 4096);
    map.reading_fails.store(true, Ordering::SeqCst);
    file.set_len(100).unwrap();
    map.reading_fails.store(false, Ordering::SeqCst);
    file.set_len(4096).unwrap();
    file.fsync().unwrap();
    file.invalidate_strict(0..4096).unwrap();
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 4096);
    assert!(bytes[..100] == pattern(1, 0, 100));
    assert!(bytes[100..].iter().all(|byte| *byte == 0));
}

/// What a block map could not cut off is cut off by the next sync, which fails as long as that
/// does; the size is what it was set to.
///
/// Seen to fail: when only maps that remove by writing were asked again.
#[test]
fn a_truncate_that_a_block_map_failed_is_finished_by_the_next_sync() {
    let (file, map, stack, _cache) = Unclear::file();
    map.removing_fails.store(true, Ordering::SeqCst);
    let error = file.set_len(4096).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Device(Errno::IO));
    assert_eq!(file.size(), 4096);
    assert!(file.fsync().is_err(), "its blocks are there still");
    map.removing_fails.store(false, Ordering::SeqCst);
    file.fsync().unwrap();
    assert!(bytes_of(&stack.memory, 4096..8192).iter().all(|byte| *byte == 0));
    file.set_len(8192).unwrap();
    let mut bytes = vec![1; 4096];
    assert_eq!(file.read_at(&mut bytes, 4096).unwrap(), 4096);
    assert!(bytes.iter().all(|byte| *byte == 0));
}
