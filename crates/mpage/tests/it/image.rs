//! Disk images: their size stays, and zeros, discards and holes go to the device without a page.

use std::fs;
use std::os::unix::fs::MetadataExt;

use mpage::{Backend, CachedFile, ErrorKind, OpenOptions, PageCache};
use mpage_block::wrap::DeviceOp;
use mpage_block::{BioOp, Errno, MemoryDevice, MemoryOptions, Span};
use std::sync::Arc;
use tempfile::TempDir;

use crate::rig::{Rig, options, pattern};
use crate::stack::{Stack, errno, is_clean, spawn, still_waits};

const IMAGE: OpenOptions = OpenOptions {
    write: true,
    create: false,
    direct: true,
    image: true,
    keep_room: false,
    backend: Backend::Auto,
};
const MIB: u64 = 1 << 20;

/// An image of `bytes` bytes, all hole, opened with `options`.
fn image(bytes: u64, open: &OpenOptions) -> (TempDir, PageCache, CachedFile) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    fs::File::create(&path).unwrap().set_len(bytes).unwrap();
    let cache = PageCache::new(&options()).unwrap();
    let file = cache.open(&path, open).unwrap();
    (folder, cache, file)
}

fn on_host(folder: &TempDir) -> fs::Metadata {
    fs::metadata(folder.path().join("disk.img")).unwrap()
}

/// A file over the device of `stack`, which can discard.
fn discarding() -> (Stack, Rig) {
    let options = MemoryOptions { volatile_cache: true, discard: true, ..Default::default() };
    let stack = Stack::around(Arc::new(MemoryDevice::new(8 * MIB, options)));
    let rig = Rig::over(stack.top(), 512, 8 * MIB);
    (stack, rig)
}

/// Fails when the map of an image lets the device grow, or cuts it where its tail is zeroed.
#[test]
fn an_image_keeps_its_size() {
    let (folder, cache, file) = image(MIB, &IMAGE);
    assert_eq!(errno(file.write_at(&[1], MIB)), Errno::NOSPC);
    file.write_all_at(&[7; 8192], MIB - 8192).unwrap();
    file.fsync().unwrap();
    file.punch_hole(MIB - 8192..MIB).unwrap();
    assert_eq!(on_host(&folder).len(), MIB, "zeros at the end cut nothing off");
    file.fsync().unwrap();
    drop((file, cache));
    assert!(fs::read(folder.path().join("disk.img")).unwrap() == vec![0; 1 << 20]);
}

#[test]
fn an_image_of_broken_blocks_is_refused_in_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    fs::write(&path, [1; 1000]).unwrap();
    let cache = PageCache::new(&options()).unwrap();
    let error = cache.open(&path, &IMAGE).unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidInput);
    let text = error.to_string();
    assert!(text.contains("1000 bytes") && text.contains("truncate(1)"), "{text}");
}

/// Fails when a punched hole keeps its room on the host, or zeros that keep it give it back.
#[test]
fn a_punched_hole_gives_its_room_back_and_a_zeroed_range_keeps_it() {
    let (folder, _cache, file) = image(4 * MIB, &IMAGE);
    file.write_all_at(&pattern(1, 0, 4 << 20), 0).unwrap();
    file.fsync().unwrap();
    let full = on_host(&folder).blocks();
    file.zero_range(0..2 * MIB).unwrap();
    assert!(on_host(&folder).blocks() >= full, "the room stays");
    file.punch_hole(2 * MIB..4 * MIB).unwrap();
    assert!(on_host(&folder).blocks() <= full / 2 + 64, "the room is given back");
    let mut read = vec![1; 4 << 20];
    assert_eq!(file.read_at(&mut read, 0).unwrap(), 4 << 20);
    assert!(read.iter().all(|byte| *byte == 0));
}

/// Fails when an image that keeps its room has none at the start, or gives some back.
#[test]
fn an_image_that_keeps_its_room_has_all_of_it_from_the_start() {
    let (folder, _cache, file) = image(4 * MIB, &OpenOptions { keep_room: true, ..IMAGE });
    let full = on_host(&folder).blocks();
    assert!(full * 512 >= 4 * MIB, "{full}");
    file.punch_hole(0..MIB).unwrap();
    file.discard(MIB..2 * MIB).unwrap();
    assert!(on_host(&folder).blocks() >= full);
}

/// Fails when a page is made for what is zeroed or discarded, or more is asked of the device.
#[test]
fn zeros_and_discards_of_any_length_are_one_operation_without_a_page() {
    let (stack, rig) = discarding();
    for (what, op) in [("zero", BioOp::WriteZeroes), ("discard", BioOp::Discard)] {
        rig.file.write_all_at(&[9; 3 * 4096], MIB).unwrap();
        let free = rig.cache.free_pages();
        let _before = stack.trace.take();
        match what {
            "zero" => rig.file.punch_hole(0..8 * MIB).unwrap(),
            _ => rig.file.discard(0..8 * MIB).unwrap(),
        }
        let events = stack.trace.take();
        let [event] = &events[..] else { panic!("{what}: {events:?}") };
        assert_eq!((event.op, event.bytes), (DeviceOp::Bio(op), 8 * MIB));
        assert_eq!(rig.cache.free_pages(), free + 3, "{what}: what was cached is dropped");
        assert!(is_clean(rig.mapping()), "{what}: what was dirty is nobody's");
        rig.file.fsync().unwrap();
        let flushes = stack.trace.take();
        assert_eq!(flushes.len(), 1, "{what}: the sync after it flushes, and writes nothing");
    }
}

/// Fails when a discard takes a page with it that it covers in part.
#[test]
fn a_discard_leaves_pages_it_covers_in_part() {
    let (_stack, rig) = discarding();
    let bytes = pattern(3, 0, 4 * 4096);
    rig.file.write_all_at(&bytes, 0).unwrap();
    rig.file.discard(100..3 * 4096 + 5).unwrap();
    let mut read = vec![0; 4 * 4096];
    assert_eq!(rig.file.read_at(&mut read, 0).unwrap(), 4 * 4096);
    assert!(read[..4096] == bytes[..4096] && read[3 * 4096..] == bytes[3 * 4096..]);
    assert!(read[4096..3 * 4096].iter().all(|byte| *byte == 0));
}

/// Fails when what is stored beside a discard can be on its way before the device has done it.
#[test]
fn a_store_waits_for_the_discard_of_its_page() {
    let (stack, rig) = discarding();
    // A test that failed drops it first, and with it what is held, for which the cache would wait.
    let stack = stack;
    stack.hold(BioOp::Discard);
    let file = rig.file.clone();
    let discard = spawn(move || file.discard(0..8192));
    stack.delay.wait_for_held(1);
    let file = rig.file.clone();
    let store = spawn(move || file.write_all_at(&[7; 4096], 0));
    still_waits(&store);
    stack.let_go();
    discard.join().unwrap().unwrap();
    store.join().unwrap().unwrap();
    rig.file.fsync().unwrap();
    assert_eq!(stack.bytes(0..4096), [7; 4096]);
}

/// Fails when pages that are not on the device yet are left out, or holes are not told.
#[test]
fn spans_tell_data_from_holes_also_before_it_is_written() {
    let (_folder, _cache, file) = image(4 * MIB, &IMAGE);
    let spans = || {
        let mut found = Vec::new();
        let mut at = 0;
        while at < file.size() {
            let Span { bytes, hole } = file.span_at(at).unwrap();
            assert_eq!(bytes.start, at);
            at = bytes.end;
            found.push((bytes.end / 4096, hole));
        }
        found
    };
    assert_eq!(spans(), [(1024, true)]);
    file.write_all_at(&[1; 8192], MIB).unwrap();
    assert_eq!(spans(), [(256, true), (258, false), (1024, true)]);
    file.fsync().unwrap();
    assert_eq!(spans(), [(256, true), (258, false), (1024, true)]);
    assert_eq!(file.span_at(4 * MIB).unwrap_err().kind, ErrorKind::InvalidInput);
}
