//! Pages that are written to the device while somebody stores into them: statements 120, 122, 124
//! and 125, and the two cells of docs/locking.md about words.

use std::sync::Arc;

use mpage::units::PageIndex;
use mpage::{CachedFile, ErrorKind, PinnedPage, SyncKind};
use mpage_block::BioOp;
use mpage_locks::atomic::{AtomicBool, Ordering};

use crate::rig::pattern;
use crate::stack::{Files, is_clean, spawn, still_waits, wait_until};
use crate::table::TableRig;

/// One file of eight pages, durable.
fn durable(files: &Files) -> CachedFile {
    let (file, _) = files.file(0, 0);
    file.write_all_at(&pattern(1, 0, 8 * 4096), 0).unwrap();
    file.fsync().unwrap();
    file
}

/// Statements 120 and 53: a sync of a range makes stores through pinned pages durable, also one
/// made while an older write of the page was in flight.
///
/// Seen to fail: without `store.finish` in the guard's drop.
#[test]
fn a_sync_of_a_range_covers_stores_through_pinned_pages() {
    let files = Files::new();
    let file = durable(&files);
    let page = file.pin_page(PageIndex(2)).unwrap();
    assert!(page.write(10, b"first").unwrap());
    files.stack.hold(BioOp::Write);
    file.start_writing(0..8 * 4096).unwrap();
    files.stack.delay.wait_for_held(1);
    assert!(page.write(20, b"second").unwrap());
    let syncer = file.clone();
    let sync = spawn(move || syncer.sync_range(2 * 4096 + 20..2 * 4096 + 26, SyncKind::Data));
    still_waits(&sync);
    files.stack.let_go();
    sync.join().unwrap().unwrap();
    let mut expected = pattern(1, 2 * 4096, 4096);
    expected[10..15].copy_from_slice(b"first");
    expected[20..26].copy_from_slice(b"second");
    assert_eq!(files.stack.bytes(2 * 4096..3 * 4096), expected);
    let mut read = vec![0; 4096];
    assert!(page.read(0, &mut read));
    assert_eq!(read, expected);
}

/// Statements 122, 124 and 125: a store into a page whose write is in flight returns, the device
/// gets the bytes of before, and the page is dirty for the next sync.
///
/// Seen to fail: with `make_writable` doing nothing.
#[test]
fn a_store_into_a_page_in_flight_returns_and_the_device_gets_the_old_bytes() {
    for through_pin in [false, true] {
        let files = Files::new();
        let file = durable(&files);
        let page = file.pin_page(PageIndex(1)).unwrap();
        let store = |bytes: &[u8]| match through_pin {
            true => assert!(page.write(100, bytes).unwrap()),
            false => file.write_all_at(bytes, 4096 + 100).unwrap(),
        };
        store(&[b'o'; 3000]);
        files.stack.hold(BioOp::Write);
        file.start_writing(0..8 * 4096).unwrap();
        files.stack.delay.wait_for_held(1);
        store(&[b'n'; 3000]);
        store(&[b'n'; 3000]);
        assert_eq!(files.cache.stats().copies_on_write, 1);
        assert_eq!(file.mapping().dirty_pages(&(0..8 * 4096)), [PageIndex(1)]);
        let mut read = vec![0; 3000];
        assert_eq!(file.read_at(&mut read, 4096 + 100).unwrap(), 3000);
        assert!(read.iter().all(|byte| *byte == b'n'), "readers see the new bytes");
        files.stack.let_go();
        file.mapping().wait_for_writes(&(0..8 * 4096));
        let stored = 4096 + 100..4096 + 3100;
        assert!(files.stack.bytes(stored.clone()).iter().all(|byte| *byte == b'o'));
        file.fsync().unwrap();
        assert!(files.stack.bytes(stored).iter().all(|byte| *byte == b'n'));
    }
}

/// Statements 122 and 124: a sync that meets a store in progress takes a sample, waits for no
/// store, and what is stored afterwards is dirty.
///
/// Seen to fail: with the sample taken as if no store were in progress, by `own_frame: true`.
#[test]
fn a_sync_samples_a_page_into_which_somebody_stores() {
    let files = Files::new();
    let file = durable(&files);
    let page = file.pin_page(PageIndex(0)).unwrap();
    file.write_all_at(&[b'a'; 4096], 0).unwrap();
    let mut guard = page.write_guard().unwrap().unwrap();
    files.stack.hold(BioOp::Write);
    let syncer = file.clone();
    let sync = spawn(move || syncer.fsync());
    files.stack.delay.wait_for_held(1);
    guard.write(0, &[b'b'; 4096]).unwrap();
    files.stack.let_go();
    sync.join().unwrap().unwrap();
    assert_eq!(files.cache.stats().pages_sampled, 1);
    assert_eq!(files.stack.bytes(0..4096), [b'a'; 4096]);
    drop(guard);
    assert_eq!(file.mapping().dirty_count(), 1);
    file.fsync().unwrap();
    assert_eq!(files.stack.bytes(0..4096), [b'b'; 4096]);
}

/// Statement 125: when no frame is free for the copy, the writer waits, and goes on when the write
/// has ended.
///
/// Seen to fail: with `NoFrame` taken for success.
#[test]
fn a_writer_waits_for_memory_when_there_is_none_for_the_copy() {
    for through_pin in [false, true] {
        let files = Files::new();
        let pages = files.cache.capacity_pages() as u64 + 8;
        let (file, _) = files.file(0, pages * 4096);
        let page = file.pin_page(PageIndex(0)).unwrap();
        assert!(page.write(0, b"old").unwrap());
        files.stack.hold(BioOp::Write);
        file.start_writing(0..4096).unwrap();
        files.stack.delay.wait_for_held(1);
        let pinned = pin_all_memory(&files, &file);
        let waits = files.cache.stats().waits_for_memory;
        let writer = file.clone();
        let writer = spawn(move || match through_pin {
            true => assert!(page.write(0, b"new").unwrap()),
            false => writer.write_all_at(b"new", 0).unwrap(),
        });
        wait_until(|| files.cache.stats().waits_for_memory > waits);
        still_waits(&writer);
        files.stack.let_go();
        writer.join().unwrap();
        assert_eq!(files.stack.bytes(0..3), b"old");
        drop(pinned);
        file.fsync().unwrap();
        assert_eq!(files.stack.bytes(0..3), b"new");
    }
}

/// Pins pages until no frame is free. How many that are is found out by a thread that has to wait.
fn pin_all_memory(files: &Files, file: &CachedFile) -> Vec<PinnedPage> {
    let reserve = files.cache.capacity_pages() / 32;
    let reserve = reserve.clamp(4, 256);
    let mut pinned = Vec::new();
    let mut index = 1;
    while files.cache.free_pages() > reserve {
        pinned.push(file.pin_page(PageIndex(index)).unwrap());
        index += 1;
    }
    pinned
}

/// A write guard takes nothing outside of its page or the file, and a file open for reading gives
/// none; each refusal says why.
#[test]
fn a_pinned_page_refuses_what_is_outside_in_words() {
    let files = Files::new();
    let (file, _) = files.file(0, 0);
    file.write_all_at(&pattern(1, 0, 5000), 0).unwrap();
    let page = file.pin_page(PageIndex(1)).unwrap();
    for (offset, len) in [(0, 0), (904, 1), (900, 5), (4095, 2), (usize::MAX, 2)] {
        let error = page.write(offset, &vec![1; len]).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput, "{offset} {len}");
        assert!(!error.detail.is_empty());
    }
    for index in [2, 3, u64::MAX / 4096, u64::MAX] {
        let error = file.pin_page(PageIndex(index)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidInput, "{index}");
    }
    let reader = CachedFile::new(file.mapping().clone(), false);
    let page = reader.pin_page(PageIndex(0)).unwrap();
    assert_eq!(page.write(0, b"x").unwrap_err().kind, ErrorKind::ReadOnly);
    assert!(page.write_guard().is_err());
    assert_eq!(file.size(), 5000);
}

/// Truncating into a page waits for its write guard, and what the guard stored beyond the new end
/// is gone.
///
/// Seen to fail: without the wait for stores in `zero_page`.
#[test]
fn truncate_waits_for_a_write_guard_on_the_last_page() {
    let files = Files::new();
    let file = durable(&files);
    let page = file.pin_page(PageIndex(0)).unwrap();
    let mut guard = page.write_guard().unwrap().unwrap();
    guard.write(0, &[b'g'; 4096]).unwrap();
    let cutter = file.clone();
    let truncate = spawn(move || cutter.set_len(1000));
    wait_until(|| file.size() == 1000);
    still_waits(&truncate);
    assert!(guard.write(0, &[b'h'; 2000]).is_err(), "beyond the new end");
    guard.write(0, &[b'h'; 1000]).unwrap();
    drop(guard);
    truncate.join().unwrap().unwrap();
    file.set_len(4096).unwrap();
    let mut expected = vec![b'h'; 1000];
    expected.resize(4096, 0);
    let mut read = vec![1; 4096];
    assert_eq!(file.read_at(&mut read, 0).unwrap(), 4096);
    assert_eq!(read, expected);
    file.fsync().unwrap();
    assert_eq!(files.stack.bytes(0..4096), expected);
}

const ROUNDS: u64 = 3000;

/// S x S in docs/locking.md: two threads that store into the same page at once, while it is written
/// back all the time, both find their bytes there, in the cache and on the device. Rarer orders
/// than threads meet are the schedule checker's: `shuttle_two_writers_copy_once`.
///
/// Seen to fail: with a fresh frame that is not a copy.
#[test]
fn two_stores_to_one_page_both_land() {
    let files = Arc::new(Files::new());
    let (file, _) = files.file(0, 4096);
    let writers: Vec<_> = (0..2)
        .map(|n| {
            let (files, file) = (files.clone(), file.clone());
            spawn(move || {
                for round in 1..=ROUNDS {
                    if n == 0 {
                        write_back_now_and_then(&files, &file, round);
                    }
                    let word = round.to_le_bytes();
                    let at = (round * 7 % 256) * 16 + n * 8;
                    file.write_all_at(&word, at).unwrap();
                    let mut read = [0; 8];
                    assert_eq!(file.read_at(&mut read, at).unwrap(), 8);
                    assert_eq!(read, word, "nobody else writes this word");
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|thread| thread.join().unwrap());
    // Once more with nobody beside: a store into a page in flight goes into a fresh frame.
    write_back_now_and_then(&files, &file, 0);
    file.write_all_at(&ROUNDS.to_le_bytes(), (ROUNDS * 7 % 256) * 16).unwrap();
    assert!(files.cache.stats().copies_on_write > 0);
    files.stack.let_go();
    file.fsync().unwrap();
    let mut expected = vec![0; 4096];
    for round in 1..=ROUNDS {
        let at = usize::try_from(round * 7 % 256).unwrap() * 16;
        expected[at..at + 8].copy_from_slice(&round.to_le_bytes());
        expected[at + 8..at + 16].copy_from_slice(&round.to_le_bytes());
    }
    assert!(files.stack.bytes(0..4096) == expected);
    assert!(is_clean(file.mapping()));
}

/// Lets a file's writes stay at the device for half of the time.
fn write_back_now_and_then(files: &Files, file: &CachedFile, round: u64) {
    match round % 32 {
        0 => {
            files.stack.hold(BioOp::Write);
            file.start_writing(0..8192).unwrap();
        }
        16 => files.stack.let_go(),
        _ => {}
    }
}

/// R x S in docs/locking.md: a reader takes nothing, so it may see some words of a store and not
/// others, but each aligned word is one that was stored, and never older than it was before.
///
/// Seen to fail: with stores of half words.
#[test]
fn read_racing_with_store_sees_old_or_new_words() {
    let files = Arc::new(Files::new());
    let (file, _) = files.file(0, 8192);
    file.write_all_at(&[0; 8192], 0).unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let (stack, stored, end) = (files.clone(), file.clone(), done.clone());
    let writer = spawn(move || {
        for round in 1..=ROUNDS {
            write_back_now_and_then(&stack, &stored, round);
            // The same 32 bits twice: halves of different stores do not match.
            let word = (round << 32 | round).to_le_bytes();
            stored.write_all_at(&word.repeat(512), 0).unwrap();
        }
        end.store(true, Ordering::SeqCst);
    });
    let mut last = vec![0; 512];
    let mut bytes = vec![0; 4096];
    loop {
        let ended = done.load(Ordering::SeqCst);
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 4096);
        for (word, last) in bytes.chunks_exact(8).zip(&mut last) {
            let word = u64::from_le_bytes(word.try_into().unwrap());
            assert_eq!(word >> 32, word & 0xffff_ffff, "a torn word");
            assert!(word >= *last, "an older word than before");
            *last = word;
        }
        if ended {
            break;
        }
    }
    writer.join().unwrap();
    files.stack.let_go();
    assert!(last.iter().all(|word| *word == ROUNDS << 32 | ROUNDS));
}

/// Statement 51: a guard stores where room was set aside when it was made, though the file has
/// grown since; who wants more makes another.
///
/// Seen to fail: with stores up to the end that the file has now.
#[test]
fn a_guard_stores_only_where_room_was_set_aside_for_it() {
    let rig = TableRig::new(512);
    rig.file.write_all_at(&pattern(1, 0, 100), 0).unwrap();
    rig.file.fsync().unwrap();
    let page = rig.file.pin_page(PageIndex(0)).unwrap();
    let mut guard = page.write_guard().unwrap().unwrap();
    rig.file.set_len(4096).unwrap();
    assert_eq!(guard.write(1024, &[7; 100]).unwrap_err().kind, ErrorKind::InvalidInput);
    guard.write(0, &[7; 100]).unwrap();
    drop(guard);
    assert!(page.write(1024, &[8; 100]).unwrap());
    rig.file.fsync().unwrap();
    rig.table.check();
    assert!(rig.content()[..100] == [7; 100] && rig.content()[1024..1124] == [8; 100]);
}
