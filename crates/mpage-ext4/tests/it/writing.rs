//! Content that is written: as it was given, and such that e2fsck has nothing to say.

use std::fs::File;

use mpage_ext4::{InodeNumber, NewAttributes, Timestamp};

use crate::image::{KINDS, inode_of, make, open};
use crate::written::{FILE, ROOT, Written};

/// A new file, and what was told of it once it was written to.
fn written_file(written: &Written) -> InodeNumber {
    let inode = written.fs.create(ROOT, b"file", &FILE).unwrap();
    written.fs.open_file(inode).unwrap().write_all_at(&[1; 5000], 0).unwrap();
    inode
}

#[test]
fn a_size_that_is_set_behind_a_write_has_the_later_time() {
    let written = Written::new("32M", &[]);
    let inode = written_file(&written);
    let file = written.fs.open_file(inode).unwrap();
    let times = || written.fs.attributes(inode).unwrap().modified;
    let mut last = times();
    for size in [3000, 3000, 9000] {
        file.write_all_at(&[2; 100], 0).unwrap();
        let before = times();
        assert!(last < before);
        file.set_len(size).unwrap();
        last = times();
        assert!(before < last, "a size of {size}");
    }
    file.fsync().unwrap();
    assert_eq!(times(), last);
}

#[test]
fn times_are_told_as_the_inode_keeps_them() {
    let written = Written::new("32M", &["-I", "128"]);
    let inode = written_file(&written);
    assert_eq!(written.fs.attributes(inode).unwrap().modified.nanoseconds, 0);

    let written = Written::new("32M", &[]);
    let inode = written_file(&written);
    for (seconds, kept) in [(i64::MIN, -1 << 31), (i64::MAX, (3 << 32) + (1i64 << 31) - 1)] {
        let modified = Some(Timestamp { seconds, nanoseconds: 7 });
        let new = NewAttributes { modified, ..NewAttributes::default() };
        written.fs.set_attributes(inode, &new).unwrap();
        let told = written.fs.attributes(inode).unwrap().modified;
        assert_eq!(told, Timestamp { seconds: kept, nanoseconds: 0 });
    }
}

#[test]
fn what_is_written_into_a_file_is_there_when_the_image_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let _empty = File::create(folder.path().join("file")).unwrap();
    for (kind, options) in KINDS {
        let image = make(folder.path(), "32M", options);
        let inode = inode_of(&image, "/file");
        let bytes: Vec<u8> = (0..5_000_000u32).map(|n| (n / 7 % 251) as u8).collect();
        let written = Written::open(&image);
        let file = written.fs.open_file(inode).unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        file.fsync().unwrap();
        drop(file);
        let opened = open(&written.close()).unwrap();
        let file = opened.fs.open_file(inode).unwrap();
        let mut read = vec![0; bytes.len() + 1];
        assert_eq!(file.read_at(&mut read, 0).unwrap(), bytes.len(), "{kind}");
        assert!(read[..bytes.len()] == bytes, "{kind}");
    }
}

/// The block numbers of so much fill more blocks than one change may have, which a debug build
/// counts; so do the bitmaps of groups that are small.
#[test]
fn a_sync_of_a_large_file_makes_changes_of_few_blocks() {
    let kinds: [&[&str]; 2] = [
        &["-t", "ext2", "-b", "1024"],
        &["-t", "ext4", "-b", "1024", "-g", "256", "-G", "512", "-O", "^has_journal,^resize_inode"],
    ];
    let piece: Vec<u8> = (0..1_000_003u32).map(|n| (n / 5 % 251) as u8).collect();
    for options in kinds {
        let written = Written::new("100M", options);
        let fs = &written.fs;
        let inode = fs.create(ROOT, b"file", &FILE).unwrap();
        let file = fs.open_file(inode).unwrap();
        let offsets = || (0..80).map(|number| number * piece.len() as u64);
        for offset in offsets() {
            file.write_all_at(&piece, offset).unwrap();
        }
        file.fsync().unwrap();
        drop(file);
        let opened = open(&written.close()).unwrap();
        let file = opened.fs.open_file(inode).unwrap();
        let mut read = vec![0; piece.len()];
        for offset in offsets() {
            assert_eq!(file.read_at(&mut read, offset).unwrap(), read.len(), "{options:?}");
            assert!(read == piece, "{options:?}");
        }
    }
}

#[test]
fn a_file_that_is_cut_to_its_size_keeps_no_room_behind_it() {
    let written = Written::new("32M", &["-t", "ext4"]);
    let inode = written_file(&written);
    let file = written.fs.open_file(inode).unwrap();
    file.fsync().unwrap();
    let sectors = || written.fs.attributes(inode).unwrap().sectors;
    let before = sectors();
    file.allocate(0..1 << 20, true).unwrap();
    assert_eq!(sectors(), 2048);
    file.set_len(file.size()).unwrap();
    assert_eq!(sectors(), before);
    drop(file);
    let _image = written.close();
}
