//! Content that is written: as it was given, and such that e2fsck has nothing to say.

use std::fs::File;

use crate::image::{KINDS, inode_of, make, open};
use crate::written::{FILE, ROOT, Written};

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
