//! What the block map is asked, told, and trusted with.

use mpage_locks::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use mpage::units::{BlockSize, DeviceBlock, FileBlock};
use mpage::{
    CachedFile, Error, Extent, GetBlock, Identity, MapRequest, Operations, Place, Purpose, Result,
    SyncMode,
};
use mpage_block::wrap::Times;
use mpage_block::{BioOp, Errno};

use crate::answers::{Bench, WHOLE, one_page, only};
use crate::stack::{errno, spawn, still_waits};

/// Statement 46: what the device's own mapping has cached of a block, dirty or clean, is forgotten
/// when the block is given to a file, before the file's data is written there.
///
/// Seen to fail: without `forget_alias` the stale bytes are written over the file's.
#[test]
fn fresh_blocks_forget_their_alias_on_the_device() {
    for dirty in [false, true] {
        let bench = Bench::new(4096, 0);
        let dev = bench.mapping().dev();
        let block = BlockSize::new(4096).unwrap();
        let identity = Arc::new(Identity::new(bench.stack.top(), block));
        let ops = Operations { get_block: Some(identity), ..Operations::default() };
        let device = bench.cache.add_mapping(dev, block, 64 << 20, ops).unwrap();
        let raw = CachedFile::new(Arc::clone(&device), true);
        let map: Arc<dyn GetBlock> = bench.map.clone();
        bench.map.answer(|request| {
            Ok(Extent { fresh: true, ..Extent::mapped(request.first, DeviceBlock(40), 1) })
        });
        let ops = Operations { get_block: Some(map), alias: Some(device), ..Operations::default() };
        let mapping = bench.cache.add_mapping(dev, block, 0, ops).unwrap();
        let file = CachedFile::new(mapping, true);
        raw.write_all_at(&[9; 2 * 4096], 40 * 4096).unwrap();
        if !dirty {
            raw.fsync().unwrap();
        }
        file.write_all_at(&[1; 4096], 0).unwrap();
        file.fsync().unwrap();
        raw.fsync().unwrap();
        assert_eq!([40, 41].map(|n| bench.on_device(n)), [1, 9], "dirty: {dirty}");
        let mut byte = [0];
        assert_eq!(raw.read_at(&mut byte, 40 * 4096).unwrap(), 1);
        assert_eq!(byte, [1]);
    }
}

/// Statement 46, for a write of the device's own mapping that is on its way, and fails: its bytes
/// are dirty again then, since the page has other blocks too.
///
/// Seen to fail: with what is cached dropped once, before that write ended.
#[test]
fn fresh_blocks_forget_an_alias_whose_write_fails() {
    let bench = Bench::new(1024, 0);
    let dev = bench.mapping().dev();
    let block = BlockSize::new(1024).unwrap();
    let identity = Arc::new(Identity::new(bench.stack.top(), block));
    let ops = Operations { get_block: Some(identity), ..Operations::default() };
    let device = bench.cache.add_mapping(dev, block, 64 << 20, ops).unwrap();
    let raw = CachedFile::new(Arc::clone(&device), true);
    bench.map.answer(|request| {
        Ok(Extent { fresh: true, ..Extent::mapped(request.first, DeviceBlock(40), 1) })
    });
    let map: Arc<dyn GetBlock> = bench.map.clone();
    let ops = Operations { get_block: Some(map), alias: Some(device), ..Operations::default() };
    let file = CachedFile::new(bench.cache.add_mapping(dev, block, 0, ops).unwrap(), true);
    raw.write_all_at(&[9; 4096], 40 * 1024).unwrap();
    bench.stack.hold_page(10);
    bench.stack.fail(BioOp::Write, Times::First(1), Errno::IO);
    raw.start_writing(0..64 << 20).unwrap();
    file.write_all_at(&[1; 1024], 0).unwrap();
    let synced = spawn(move || file.fsync());
    still_waits(&synced);
    bench.stack.let_go();
    synced.join().unwrap().unwrap();
    assert_eq!(errno(raw.fsync()), Errno::IO, "of the write that failed");
    raw.fsync().unwrap();
    let firsts: Vec<u8> =
        bench.stack.bytes(40 << 10..44 << 10).chunks(1024).map(|block| block[0]).collect();
    assert_eq!(firsts, [1, 9, 9, 9]);
}

/// Statement 46, for a page in several fresh runs: each is forgotten.
///
/// Seen to fail: with only the last fresh run of a page kept for `forget_alias`.
#[test]
fn each_fresh_run_of_a_page_forgets_its_alias() {
    let bench = Bench::new(1024, 0);
    let dev = bench.mapping().dev();
    let block = BlockSize::new(1024).unwrap();
    let identity = Arc::new(Identity::new(bench.stack.top(), block));
    let ops = Operations { get_block: Some(identity), ..Operations::default() };
    let device = bench.cache.add_mapping(dev, block, 64 << 20, ops).unwrap();
    let raw = CachedFile::new(Arc::clone(&device), true);
    bench.map.answer(|request| {
        let to = DeviceBlock(40 + 10 * request.first.0);
        Ok(Extent { fresh: true, ..Extent::mapped(request.first, to, 1) })
    });
    let map: Arc<dyn GetBlock> = bench.map.clone();
    let ops = Operations { get_block: Some(map), alias: Some(device), ..Operations::default() };
    let file = CachedFile::new(bench.cache.add_mapping(dev, block, 0, ops).unwrap(), true);
    raw.write_all_at(&[9; 40 * 1024], 40 * 1024).unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.fsync().unwrap();
    raw.fsync().unwrap();
    let firsts: Vec<u8> =
        bench.stack.bytes(40 << 10..80 << 10).chunks(1024).map(|block| block[0]).collect();
    let expected: Vec<u8> = (0..40).map(|n| if n % 10 == 0 { 1 } else { 9 }).collect();
    assert_eq!(firsts, expected);
}

/// Statement 47: where the block map has no place for one block of a page, its others are written,
/// those behind it too; the one stays dirty and is named.
///
/// Seen to fail: with the mapped blocks dropped on an error; with the questions ended by the first
/// error.
#[test]
fn blocks_with_a_place_are_written_when_another_has_none() {
    for failure in [Errno::NOSPC, Errno::IO] {
        let bench = Bench::new(1024, 0);
        bench.stack.memory.write_at(0, &[0xdd; 4096]);
        match failure {
            Errno::NOSPC => bench.map.refuse(&[(2, Errno::NOSPC)]),
            _ => bench.map.refuse(&[(2, Errno::IO)]),
        }
        bench.fill([0], 1);
        let error = bench.file.fsync().unwrap_err();
        assert_eq!(error.kind.errno(), failure);
        assert_eq!((error.at, error.retained), (only(2048..3072), true));
        assert_eq!(bench.lines(), ["W 0+4 sync", "W 6+2 sync", "F"]);
        let device = bench.stack.bytes(0..4096);
        let firsts: Vec<u8> = device.chunks(1024).map(|block| block[0]).collect();
        assert_eq!(firsts, [1, 1, 0xdd, 1]);
        let mut page = [0; 4096];
        assert_eq!(bench.file.read_at(&mut page, 0).unwrap(), 4096);
        assert_eq!(page, [1; 4096], "nothing old can be read");
        bench.map.refuse(&[]);
        bench.file.fsync().unwrap();
        assert_eq!(bench.lines(), ["W 4+2 sync", "F"]);
    }
}

/// Statement 48: an answer without a place, or about other blocks, is an error and not block 0.
///
/// Seen to fail: with a hole taken for device block 0; without the test of the answer's range.
#[test]
fn an_answer_without_a_place_is_not_block_zero() {
    type Wrong = fn(&MapRequest) -> Extent;
    let wrong: [Wrong; 3] = [
        |request| Extent::hole(request.first, 1),
        |_| Extent::mapped(FileBlock(100), DeviceBlock(0), 5),
        |request| Extent::mapped(request.first, DeviceBlock(0), 0),
    ];
    for answer in wrong {
        let bench = Bench::new(4096, 0);
        bench.stack.memory.write_at(0, &[0xdd; 4 * 4096]);
        bench.map.answer(move |request| match request.purpose {
            Purpose::Write => Ok(answer(request)),
            Purpose::Read => Ok(Extent::hole(request.first, 1)),
        });
        bench.fill([1], 1);
        assert_eq!(errno(bench.file.fsync()), Errno::IO);
        assert!(bench.lines().is_empty());
        assert_eq!((bench.on_device(0), bench.on_device(1)), (0xdd, 0xdd));
        assert_eq!(bench.dirty(), [1]);
    }
}

/// Statement 49: no question begins or reaches behind the block that holds the end of the file.
///
/// Seen to fail: with the count not cut at the end of the file in `Mapper::map_part`.
#[test]
fn the_block_map_is_not_asked_about_blocks_behind_the_end() {
    for size in [4096 * 2 + 100u64, 4096 * 3, 5, 4096 + 1024] {
        let bench = Bench::new(1024, 0);
        let end = size.div_ceil(1024);
        bench
            .map
            .answer(|request| Ok(Extent::mapped(request.first, DeviceBlock(request.first.0), 1)));
        bench.file.write_all_at(&vec![1; usize::try_from(size).unwrap()], 0).unwrap();
        bench.file.fsync().unwrap();
        bench.file.invalidate_strict(WHOLE).unwrap();
        let mut buffer = vec![0; 4 * 4096];
        assert_eq!(bench.file.read_at(&mut buffer, 0).unwrap() as u64, size);
        let asked = bench.map.take_asked();
        for purpose in [Purpose::Read, Purpose::Write] {
            let reach = asked.iter().filter(|request| request.purpose == purpose);
            let reach = reach.map(|request| request.first.0 + request.count).max();
            assert_eq!(reach, Some(end), "{purpose:?} of {size} bytes");
        }
    }
}

/// A block map whose blocks all move when its cookie was looked at `moves_at` times.
struct Moving {
    looks: AtomicU64,
    moves_at: u64,
    asked: AtomicU64,
}

impl Moving {
    fn base(&self) -> u64 {
        if self.looks.load(Ordering::SeqCst) < self.moves_at { 0 } else { 100 }
    }
}

impl GetBlock for Moving {
    fn get_block(&self, request: &MapRequest) -> Result<Extent> {
        let _before = self.asked.fetch_add(1, Ordering::SeqCst);
        let to = DeviceBlock(request.first.0 + self.base());
        Ok(Extent::mapped(request.first, to, 1000))
    }

    fn cookie(&self) -> u64 {
        let _before = self.looks.fetch_add(1, Ordering::SeqCst);
        self.base()
    }
}

/// Statement 50: an answer serves further pages while the cookie stays, and none when it moved.
///
/// Seen to fail: with the cookie not compared in `Mapper::remembered`; with answers not remembered.
#[test]
fn an_extent_is_kept_only_while_the_cookie_matches() {
    for (moves_at, asked, lines) in [
        (u64::MAX, 1, &["W 0+64 background"][..]),
        (4, 2, &["W 0+24 background", "W 824+40 background"][..]),
    ] {
        let bench = Bench::new(4096, 0);
        let map = Moving { looks: AtomicU64::new(0), moves_at, asked: AtomicU64::new(0) };
        bench.fill(0..8, 1);
        let _joined = bench.mapping().splice(&WHOLE, SyncMode::Cleaning);
        let mut wbc = mpage::WritebackControl::cleaning(100);
        mpage::mpage_writepages(bench.mapping(), &mut wbc, Some(&map)).unwrap();
        assert_eq!((bench.lines(), map.asked.load(Ordering::SeqCst)), (strings(lines), asked));
    }
}

fn strings(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// Statement 51: room is set aside when a block is first dirtied, so that no space is told by write
/// and never by fsync; truncate and punch give it back.
///
/// Seen to fail: without the call of `reserve` in `filemap::store`, fsync tells it.
#[test]
fn no_space_is_told_by_write_and_never_by_fsync() {
    let bench = Bench::new(1024, 0);
    bench.map.set_room(6);
    bench.map.answer(|request| match request.purpose {
        Purpose::Write if request.first.0 >= 20 => Err(Error::new(Errno::NOSPC, "get_block")),
        _ => Ok(Extent::mapped(request.first, DeviceBlock(request.first.0), 1)),
    });
    bench.file.write_all_at(&[1; 4096], 0).unwrap();
    bench.file.write_all_at(&[2; 4096], 0).unwrap();
    bench.file.write_all_at(&[3; 2048], 4096).unwrap();
    assert_eq!(bench.map.reserved(), 6);
    assert_eq!(errno(bench.file.write_at(b"x", 20 * 1024)), Errno::NOSPC);
    assert_eq!((bench.file.size(), bench.dirty()), (6144, vec![0, 1]));
    bench.file.fsync().unwrap();
    bench.file.write_all_at(&[4; 6144], 0).unwrap();
    bench.file.punch_hole(1024..2048).unwrap();
    assert_eq!(bench.map.reserved(), 5);
    bench.file.set_len(100).unwrap();
    assert_eq!(bench.map.reserved(), 1);
    bench.file.set_len(0).unwrap();
    assert_eq!(bench.map.reserved(), 0);
    bench.file.write_all_at(&[5; 6144], 0).unwrap();
    bench.file.fsync().unwrap();
}

/// Statement 52: the block map learns that blocks are written after their I/O completed, and before
/// the sync goes on to its metadata; of a write that failed it learns nothing.
///
/// Seen to fail: with `written` called at submission; with it called whatever the result.
#[test]
fn written_is_told_after_the_io_and_before_the_sync() {
    let bench = Bench::new(1024, 0);
    bench.map.answer(|request| {
        let mut extent = one_page(BlockSize::new(1024).unwrap(), request, 0);
        if let Place::Mapped(to) = extent.place {
            extent.place = Place::Unwritten(to);
        }
        Ok(extent)
    });
    bench.stack.hold(BioOp::Write);
    bench.fill([0, 1], 1);
    bench.file.write_all_at(&[1; 1024], 3 * 4096 + 1024).unwrap();
    let file = bench.file.clone();
    let syncer = spawn(move || file.fsync().unwrap());
    bench.stack.delay.wait_for_held(2);
    still_waits(&syncer);
    assert!(bench.map.take_events().is_empty());
    assert!(bench.stack.delay.release_nth(1));
    assert_eq!(bench.map.take_events(), ["written 13..14"]);
    assert!(bench.stack.delay.release_next());
    syncer.join().unwrap();
    let size = 3 * 4096 + 2048;
    assert_eq!(bench.map.take_events(), ["written 0..8".to_owned(), format!("synced at {size}")]);
    bench.stack.let_go();
    bench.stack.fail(BioOp::Write, Times::First(1), Errno::IO);
    bench.fill([0], 2);
    assert_eq!(errno(bench.file.fsync()), Errno::IO);
    assert_eq!(bench.map.take_events(), [format!("synced at {size}")]);
}

/// Blocks that have a place and were never written read as zeros, whatever the device has there.
///
/// Seen to fail: with reads that take any place for data.
#[test]
fn blocks_that_were_never_written_read_as_zeros() {
    let bench = Bench::new(4096, 4 * 4096);
    bench.stack.memory.write_at(0, &[0xee; 4 * 4096]);
    bench.map.answer(|request| {
        let place = Place::Unwritten(DeviceBlock(request.first.0));
        Ok(Extent { place, ..Extent::mapped(request.first, DeviceBlock(request.first.0), 1) })
    });
    let mut bytes = vec![1; 4 * 4096];
    assert_eq!(bench.file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    assert!(bytes == [0; 4 * 4096]);
    bytes.fill(1);
    assert_eq!(bench.file.read_direct_at(&mut bytes, 0).unwrap(), bytes.len());
    assert!(bytes == [0; 4 * 4096]);
    bench.file.write_all_at(b"in the middle", 5000).unwrap();
    bench.file.fsync().unwrap();
    let mut expected = vec![0; 4096];
    expected[904..917].copy_from_slice(b"in the middle");
    assert!(bench.stack.bytes(4096..8192) == expected, "the rest of the block is zeros too");
}

/// A durable write is read back after a crash: its size and allocation are written with it.
///
/// Seen to fail: without `sync_metadata` in `write_through`.
#[test]
fn a_durable_write_through_writes_the_metadata_it_needs() {
    let bench = Bench::new(4096, 0);
    bench.file.write_through_at(&[1; 100], 0, false).unwrap();
    let synced = |events: &[String]| events.iter().any(|event| event.starts_with("synced"));
    assert!(!synced(&bench.map.take_events()));
    bench.file.write_through_at(&[2; 100], 4096, true).unwrap();
    let events = bench.map.take_events();
    assert_eq!(events, ["written 1..2", "synced at 4196"]);
}
