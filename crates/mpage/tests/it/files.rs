//! Files of the host opened through the cache, held against what the host reads: group H of the
//! contract for a file over itself, and that each refusal is one clear line.

use std::fs;
use std::path::{Path, PathBuf};

use mpage::units::{BlockSize, FILE_SIZE_MAX};
use mpage::{
    CachedFile, Error, ErrorKind, Identity, OpenOptions, Operations, Options, PageCache,
    RangeSteps, Span,
};
use mpage_block::Errno;
use tempfile::TempDir;

use crate::rig::{memory_device, options, pattern};
use crate::table::content_of;

/// A folder with a cache beside it.
struct Folder {
    cache: PageCache,
    folder: TempDir,
}

impl Folder {
    fn new() -> Folder {
        let cache = PageCache::new(&options()).unwrap();
        Folder { cache, folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn open(&self, name: &str) -> CachedFile {
        self.cache.open(self.path(name), &OpenOptions::default()).unwrap()
    }

    fn refused(&self, path: &Path, options: &OpenOptions) -> Error {
        one_clear_line(self.cache.open(path, options).unwrap_err())
    }
}

/// An error that a person can read: one line, with its operation, a cause, and words of its own.
fn one_clear_line(error: Error) -> Error {
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    assert!(text.starts_with(error.op), "{text}");
    assert!(!error.detail.is_empty(), "{text}");
    assert!(!text.contains("Some(") && !text.contains("Err("), "{text}");
    error
}

/// Statement 87: after a sync the host sees the file with its exact length and bytes, whatever the
/// length, and so does another cache after it.
///
/// Seen to fail: without `set_len` in `Identity::sync`.
#[test]
fn a_synced_file_has_its_exact_length_and_bytes_on_the_host() {
    for len in [0, 1, 511, 512, 513, 4095, 4096, 4097, 100_000, 1 << 20] {
        let folder = Folder::new();
        let file = folder.open("data");
        let bytes = pattern(len, 0, usize::try_from(len).unwrap());
        file.write_all_at(&bytes, 0).unwrap();
        file.fsync().unwrap();
        assert!(fs::read(folder.path("data")).unwrap() == bytes, "{len}");
        drop((file, folder.cache));

        let cache = PageCache::new(&options()).unwrap();
        let path = folder.folder.path().join("data");
        let file = cache.open(&path, &OpenOptions::default()).unwrap();
        assert_eq!(file.size(), len);
        assert!(content_of(&file) == bytes, "{len}");
    }
}

/// Statements 86, 87 and 93: what was cut, punched and written again is on the host, byte by byte,
/// after each sync and without the cache.
#[test]
fn a_file_that_was_cut_and_grown_is_the_same_on_the_host() {
    let folder = Folder::new();
    let file = folder.open("data");
    let mut model = Vec::new();
    let mut random: u64 = 7;
    for round in 0..200_u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round | 1);
        let (at, len) = (random >> 20 & 0xffff, random >> 40 & 0x3fff);
        let (start, end) = (usize::try_from(at).unwrap(), usize::try_from(at + len).unwrap());
        match random >> 60 {
            0..=7 => {
                let bytes = pattern(round, at, end - start);
                file.write_all_at(&bytes, at).unwrap();
                model.resize(model.len().max(end), 0);
                model[start..end].copy_from_slice(&bytes);
            }
            8..=10 => {
                file.set_len(at).unwrap();
                model.resize(start, 0);
            }
            11..=12 => {
                file.punch_hole(at..at + len).unwrap();
                let end = end.min(model.len());
                model[start.min(end)..end].fill(0);
            }
            13 => file.invalidate(0..1 << 20),
            _ => {
                file.fsync().unwrap();
                assert!(fs::read(folder.path("data")).unwrap() == model, "round {round}");
            }
        }
        assert!(content_of(&file) == model, "round {round}");
    }
    file.fsync().unwrap();
    assert!(fs::read(folder.path("data")).unwrap() == model);
}

/// Opens of one file share its pages, also by another name, and close without losing anything.
#[test]
fn opens_of_one_file_share_its_pages() {
    let folder = Folder::new();
    let first = folder.open("data");
    first.write_all_at(b"shared", 0).unwrap();
    fs::hard_link(folder.path("data"), folder.path("link")).unwrap();
    let second = folder.open("link");
    assert_eq!(content_of(&second), b"shared");
    second.write_all_at(b"SH", 0).unwrap();
    drop(second);
    assert_eq!(content_of(&first), b"SHared");
    drop(first);
    assert_eq!(content_of(&folder.open("data")), b"SHared");
    folder.cache.sync().unwrap();
    assert_eq!(fs::read(folder.path("link")).unwrap(), b"SHared");
}

/// The size a file has when it is closed is the host's, though nobody synced it and no page of it
/// is dirty: pages are written in whole blocks.
///
/// Seen to fail: without telling the block map of the size in the mapping's drop.
#[test]
fn a_file_closed_without_a_sync_has_its_exact_size() {
    let folder = Folder::new();
    let size = |name: &str| {
        // It is opened when the cache that had it has closed it.
        let other = PageCache::new(&options()).unwrap();
        let size = other.open(folder.path(name), &OpenOptions::default()).unwrap().size();
        assert_eq!(size, fs::metadata(folder.path(name)).unwrap().len());
        size
    };
    let grown = folder.open("grown");
    grown.set_len(70_001).unwrap();
    drop(grown);
    assert_eq!(size("grown"), 70_001);

    let written = folder.open("written");
    written.write_all_at(&pattern(1, 0, 70_001), 0).unwrap();
    let steps = RangeSteps { wait_before: true, write: true, wait_after: true };
    written.sync_file_range(0..u64::MAX, steps).unwrap();
    drop(written);
    assert_eq!(size("written"), 70_001);

    let cut = folder.open("written");
    cut.set_len(8000).unwrap();
    cut.sync_file_range(0..u64::MAX, steps).unwrap();
    drop(cut);
    assert_eq!(size("written"), 8000);
    assert!(fs::read(folder.path("written")).unwrap() == pattern(1, 0, 8000));
}

/// A file that is zeroed up to its end, whose last block the device zeroes whole, does not grow.
///
/// Seen to fail: with the device's end left where it was noted before.
#[test]
fn a_file_zeroed_to_its_end_keeps_its_exact_size_on_the_host() {
    let folder = Folder::new();
    let file = folder.open("data");
    file.write_all_at(&pattern(1, 0, 8999), 0).unwrap();
    file.fsync().unwrap();
    for (range, left) in [(4097..100_000, 4097), (0..8999, 0)] {
        file.zero_range(range).unwrap();
        file.fsync().unwrap();
        let mut expected = pattern(1, 0, 8999);
        expected[left..].fill(0);
        assert!(fs::read(folder.path("data")).unwrap() == expected, "{left}");
    }
}

/// What a file was grown by and nobody wrote is one hole, before a sync as after it.
///
/// Seen to fail: with the device asked behind its end, as data in spans of a block.
#[test]
fn what_a_file_was_grown_by_is_one_hole() {
    let folder = Folder::new();
    let file = folder.open("data");
    file.write_all_at(&pattern(1, 0, 8192), 0).unwrap();
    file.fsync().unwrap();
    file.set_len(1 << 30).unwrap();
    for _ in 0..2 {
        let hole = Span { bytes: 8192..1 << 30, hole: true };
        assert_eq!(file.span_at(8192).unwrap(), hole);
        assert!(!file.span_at(0).unwrap().hole);
        file.fsync().unwrap();
    }
    file.write_all_at(b"data", 1 << 20).unwrap();
    assert_eq!(file.span_at(8192).unwrap(), Span { bytes: 8192..1 << 20, hole: true });
    assert!(!file.span_at(1 << 20).unwrap().hole);
}

/// An image that another cache has is refused, with who has it and what to do.
#[test]
fn an_image_in_use_is_refused() {
    let folder = Folder::new();
    let file = folder.open("data");
    file.write_all_at(b"mine", 0).unwrap();
    let other = PageCache::new(&options()).unwrap();
    let path = folder.path("data");
    let error = one_clear_line(other.open(&path, &OpenOptions::default()).unwrap_err());
    assert_eq!(error.kind.errno(), Errno::BUSY);
    assert!(error.detail.contains("is in use by"), "{error}");
    drop((file, folder.cache));
    assert_eq!(content_of(&other.open(&path, &OpenOptions::default()).unwrap()), b"mine");
}

/// A file opened for reading refuses every change, in words, and syncs without doing anything.
#[test]
fn a_file_opened_for_reading_cannot_be_changed() {
    let folder = Folder::new();
    fs::write(folder.path("data"), pattern(1, 0, 5000)).unwrap();
    let read_only = OpenOptions { write: false, ..OpenOptions::default() };
    let file = folder.cache.open(folder.path("data"), &read_only).unwrap();
    assert!(content_of(&file) == pattern(1, 0, 5000));
    for refused in [
        file.write_at(b"x", 0).map(|_| ()),
        file.write_at(b"", 0).map(|_| ()),
        file.write_all_at(b"x", 0),
        file.write_all_at(b"", 0),
        file.write_through_at(b"x", 0, true),
        file.write_through_at(b"", 0, true),
        file.write_direct_at(&[0; 4096], 0),
        file.set_len(10),
        file.punch_hole(0..4096),
        file.collapse_range(0..4096),
    ] {
        let error = one_clear_line(refused.unwrap_err());
        assert_eq!((error.kind, error.kind.errno()), (ErrorKind::ReadOnly, Errno::BADF));
    }
    file.fsync().unwrap();
    assert!(fs::read(folder.path("data")).unwrap() == pattern(1, 0, 5000));
}

/// What is open for reading only has a device that cannot be written: an open for writing beside it
/// is refused, and not one of its syncs later. Opened for writing first, the file has both.
///
/// Seen to fail: with the mapping shared whatever it was opened for.
#[test]
fn a_file_open_for_reading_only_is_refused_for_writing_until_it_is_closed() {
    let folder = Folder::new();
    let path = folder.path("data");
    fs::write(&path, pattern(1, 0, 100_000)).unwrap();
    let read_only = OpenOptions { write: false, ..OpenOptions::default() };
    let reader = folder.cache.open(&path, &read_only).unwrap();
    let error = folder.refused(&path, &OpenOptions::default());
    assert_eq!(error.kind.errno(), Errno::BUSY);
    assert!(error.detail.contains("by this cache, for reading only"), "{error}");
    assert!(content_of(&reader) == pattern(1, 0, 100_000));
    drop(reader);

    let writer = folder.open("data");
    let reader = folder.cache.open(&path, &read_only).unwrap();
    writer.write_all_at(b"both", 0).unwrap();
    writer.fsync().unwrap();
    assert_eq!(content_of(&reader)[..4], *b"both");
    assert_eq!(fs::read(&path).unwrap()[..4], *b"both");
    assert_eq!(reader.set_len(0).unwrap_err().kind, ErrorKind::ReadOnly);
    drop(writer);
    folder.open("data").set_len(4).unwrap();
    assert_eq!(content_of(&reader), b"both");
}

/// A path that cannot be opened is named, and so is the remedy.
#[test]
fn what_cannot_be_opened_is_told_with_its_path_and_the_remedy() {
    let folder = Folder::new();
    let existing = OpenOptions { create: false, ..OpenOptions::default() };
    let missing = folder.path("missing");
    let error = folder.refused(&missing, &existing);
    assert_eq!(error.kind.errno(), Errno::NOENT);
    assert!(error.detail.contains(missing.to_str().unwrap()), "{error}");
    assert!(!missing.exists());
    let read_only = OpenOptions { write: false, ..OpenOptions::default() };
    assert_eq!(folder.refused(&missing, &read_only).kind.errno(), Errno::NOENT);
    assert!(!missing.exists(), "opening for reading makes no file");

    let error = folder.refused(folder.folder.path(), &existing);
    assert_eq!(error.kind.errno(), Errno::ISDIR);
    let nowhere = folder.path("missing/data");
    let error = folder.refused(&nowhere, &OpenOptions::default());
    assert_eq!(error.kind.errno(), Errno::NOENT);
    let error = folder.refused(Path::new(""), &OpenOptions::default());
    assert!(error.detail.contains("empty"), "{error}");
    let error = folder.refused(Path::new("/dev/null"), &OpenOptions::default());
    assert!(error.detail.contains("neither a regular file nor a block device"), "{error}");
}

/// Where direct I/O is refused, the error names the option that does without it.
#[test]
fn a_file_system_without_direct_io_is_told_with_the_option() {
    let folder = Folder::new();
    let path = Path::new("/proc/version");
    let read_only = OpenOptions { write: false, ..OpenOptions::default() };
    let error = folder.refused(path, &read_only);
    assert!(error.detail.contains("`direct: false`"), "{error}");
}

/// A file opened without direct I/O works the same.
#[test]
fn a_file_without_direct_io_has_the_same_bytes() {
    let folder = Folder::new();
    let buffered = OpenOptions { direct: false, ..OpenOptions::default() };
    let file = folder.cache.open(folder.path("data"), &buffered).unwrap();
    file.write_all_at(&pattern(1, 0, 70_001), 0).unwrap();
    file.set_len(70_000).unwrap();
    file.fsync().unwrap();
    assert!(fs::read(folder.path("data")).unwrap() == pattern(1, 0, 70_000));
}

/// At the far end of the number range nothing overflows: what fits works, what does not is refused.
#[test]
fn the_largest_offsets_work_or_are_refused() {
    let cache = PageCache::new(&options()).unwrap();
    let device = memory_device(1 << 20);
    let dev = cache.add_device(device.clone()).unwrap();
    let block = BlockSize::new(4096).unwrap();
    let far = mpage::OneBlock(|block: mpage::units::FileBlock, _| {
        Ok(Some(mpage::units::DeviceBlock(block.0 % 256)))
    });
    let ops = Operations { get_block: Some(std::sync::Arc::new(far)), ..Operations::default() };
    let mapping = cache.add_mapping(&dev, block, 0, ops).unwrap();
    let file = CachedFile::new(mapping, true);
    file.write_all_at(b"the end", FILE_SIZE_MAX - 7).unwrap();
    assert_eq!(file.size(), FILE_SIZE_MAX);
    file.fsync().unwrap();
    file.invalidate_strict(0..u64::MAX).unwrap();
    let mut bytes = [0; 20];
    assert_eq!(file.read_at(&mut bytes, FILE_SIZE_MAX - 7).unwrap(), 7);
    assert_eq!(&bytes[..7], b"the end");
    assert_eq!(file.read_at(&mut bytes, u64::MAX).unwrap(), 0);
    for offset in [FILE_SIZE_MAX - 6, FILE_SIZE_MAX, i64::MAX as u64, u64::MAX - 6, u64::MAX] {
        let error = one_clear_line(file.write_at(b"the end", offset).unwrap_err());
        assert_eq!(error.kind.errno(), Errno::FBIG);
    }
    for size in [FILE_SIZE_MAX + 1, u64::MAX] {
        assert_eq!(file.set_len(size).unwrap_err().kind, ErrorKind::TooLarge);
    }
    file.sync_range(0..u64::MAX, mpage::SyncKind::Data).unwrap();
    file.start_writing(u64::MAX - 1..u64::MAX).unwrap();
    file.invalidate(FILE_SIZE_MAX..u64::MAX);
    file.punch_hole(FILE_SIZE_MAX - 5..u64::MAX).unwrap();
    assert_eq!(file.read_at(&mut bytes, FILE_SIZE_MAX - 7).unwrap(), 7);
    assert_eq!(&bytes[..7], b"th\0\0\0\0\0");
    file.punch_hole(u64::MAX - 1..u64::MAX).unwrap();
    file.set_len(FILE_SIZE_MAX - 1).unwrap();
    file.set_len(0).unwrap();
    file.fsync().unwrap();
}

/// What the file system has no offset for is refused by the write or truncate, and not by each sync
/// ever after. What it has an offset for works.
///
/// Seen to fail: with mpage's own largest size for every file: the write succeeded.
#[test]
fn what_the_file_system_has_no_offset_for_is_refused_at_once() {
    let folder = Folder::new();
    let file = folder.open("data");
    let host = fs::File::open(folder.path("data")).unwrap();
    let has_offset = |at: u64| rustix::fs::seek(&host, rustix::fs::SeekFrom::Start(at)).is_ok();
    let (mut most, mut refused) = (0, FILE_SIZE_MAX + 1);
    while refused - most > 4096 {
        let middle = (most + (refused - most) / 2) / 4096 * 4096;
        match has_offset(middle) {
            true => most = middle,
            false => refused = middle,
        }
    }
    assert_eq!(file.set_len(most + 4096).unwrap_err().kind, ErrorKind::TooLarge);
    assert_eq!(file.write_at(b"far", most + 4096).unwrap_err().kind, ErrorKind::TooLarge);
    assert_eq!(file.write_at(&[1; 8192], most - 4096).unwrap_err().kind, ErrorKind::TooLarge);
    assert_eq!(file.size(), 0);
    file.fsync().unwrap();
    file.write_all_at(b"the end", most - 4096).unwrap();
    file.fsync().unwrap();
    assert_eq!(fs::metadata(folder.path("data")).unwrap().len(), most - 4096 + 7);
    file.set_len(most).unwrap();
    file.fsync().unwrap();
    file.set_len(0).unwrap();
    file.fsync().unwrap();
}

/// Options that make no cache are refused in words, and never by a panic.
#[test]
fn options_that_make_no_cache_are_refused() {
    let least = Options { memory: Options::MEMORY_MIN, ..Options::default() };
    assert!(PageCache::new(&least).is_ok());
    let wrong = [
        Options { memory: 0, ..least.clone() },
        Options { memory: Options::MEMORY_MIN - 1, ..least.clone() },
        Options { memory: usize::MAX, ..least.clone() },
        Options { memory: 1 << 62, ..least.clone() },
        Options { dirty_percent: 101, ..least.clone() },
        Options { dirty_percent: usize::MAX, ..least.clone() },
        Options { dirty_background_percent: 30, dirty_percent: 20, ..least.clone() },
    ];
    for options in wrong {
        let error = one_clear_line(PageCache::new(&options).unwrap_err());
        assert_eq!(error.kind, ErrorKind::InvalidInput, "{options:?}");
    }
    let none = Options { dirty_background_percent: 0, dirty_percent: 0, ..least };
    let cache = PageCache::new(&none).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = cache.open(folder.path().join("data"), &OpenOptions::default()).unwrap();
    file.write_all_at(&pattern(1, 0, 1 << 20), 0).unwrap();
    file.fsync().unwrap();
    assert!(content_of(&file) == pattern(1, 0, 1 << 20));
}

/// A mapping that its device cannot hold is refused in words.
#[test]
fn a_mapping_that_cannot_work_is_refused() {
    let cache = PageCache::new(&options()).unwrap();
    let sectors = mpage_block::MemoryOptions { alignment: 4096, ..Default::default() };
    let device = std::sync::Arc::new(mpage_block::MemoryDevice::new(1 << 20, sectors));
    let dev = cache.add_device(device.clone()).unwrap();
    let block = BlockSize::new(512).unwrap();
    let error = cache.add_mapping(&dev, block, 0, Operations::default()).unwrap_err();
    assert_eq!(one_clear_line(error).kind, ErrorKind::InvalidInput);
    let block = BlockSize::new(4096).unwrap();
    let error = cache.add_mapping(&dev, block, u64::MAX, Operations::default()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooLarge);
    let mapping = cache.add_mapping(&dev, block, 8192, Operations::default()).unwrap();
    let file = CachedFile::new(mapping, true);
    let error = one_clear_line(file.read_at(&mut [0; 10], 0).unwrap_err());
    assert_eq!(error.kind, ErrorKind::InvalidInput);

    let map = Identity::new(device, block);
    let ops = Operations { get_block: Some(std::sync::Arc::new(map)), ..Operations::default() };
    let mapping = cache.add_mapping(&dev, block, 0, ops).unwrap();
    let file = CachedFile::new(mapping, true);
    let error = one_clear_line(file.write_at(&[1; 10], 1 << 20).unwrap_err());
    assert_eq!(error.kind.errno(), Errno::NOSPC);
}
