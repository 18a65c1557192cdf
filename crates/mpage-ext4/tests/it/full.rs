//! Images without room: who was given room keeps it.

use mpage_block::Errno;
use mpage_ext4::File;

use crate::written::{FILE, ROOT, Written, check, errno};

const BLOCK: u64 = 1024;

fn new_file(written: &Written, name: &[u8]) -> File {
    written.fs.open_file(written.fs.create(ROOT, name, &FILE).unwrap()).unwrap()
}

/// Allocates blocks behind the end of `file` until nothing is free.
fn fill(file: &File) {
    let (mut at, mut bytes) = (file.size(), 1 << 20);
    while bytes >= BLOCK {
        match file.allocate(at..at + bytes, false) {
            Ok(()) => at += bytes,
            Err(_) => bytes /= 2,
        }
    }
    assert_eq!(errno(file.allocate(at..at + BLOCK, false)), Errno::NOSPC);
}

/// Sees to it that `file` has `bytes` at `offset`, also when the image is opened again.
fn judge(written: Written, file: File, bytes: &[u8], offset: u64) {
    let inode = file.inode();
    file.fsync().unwrap();
    drop(file);
    let image = written.abandon();
    check(&image);
    let written = Written::open(&image);
    let file = written.fs.open_file(inode).unwrap();
    let mut read = vec![0; bytes.len()];
    assert_eq!(file.read_at(&mut read, offset).unwrap(), read.len());
    assert!(read == bytes);
}

/// The dirty block fits into the map that the file has when it is written, and not into the one
/// that it has when it is synced.
#[test]
fn a_dirty_block_keeps_its_room_when_others_are_allocated_beside_it() {
    let written = Written::new("16M", &["-t", "ext4", "-b", "1024"]);
    let file = new_file(&written, b"file");
    file.write_all_at(&[7; 100], 30_001 * BLOCK).unwrap();
    // As many runs as a leaf of the map has room for.
    for number in 0..84 {
        let start = 2 * number * BLOCK;
        file.allocate(start..start + BLOCK, true).unwrap();
    }
    fill(&new_file(&written, b"other"));
    judge(written, file, &[7; 100], 30_001 * BLOCK);
}

#[test]
fn a_dirty_block_keeps_its_room_when_holes_are_punched_beside_it() {
    let written = Written::new("16M", &["-t", "ext4", "-b", "1024"]);
    let (file, other) = (new_file(&written, b"file"), new_file(&written, b"other"));
    file.write_all_at(&[1; 7 << 10], 0).unwrap();
    file.fsync().unwrap();
    file.write_all_at(&[7; 100], 30_001 * BLOCK).unwrap();
    fill(&other);
    // A run becomes four, as many as an inode has room for.
    for start in [1, 3, 5].map(|block| block * BLOCK) {
        file.punch_hole(start..start + BLOCK).unwrap();
    }
    other.fsync().unwrap();
    fill(&other);
    judge(written, file, &[7; 100], 30_001 * BLOCK);
}

/// The edges of the hole lie in blocks that have room and no data: they need no room in the map, of
/// which nothing is left.
#[test]
fn a_hole_in_blocks_without_data_needs_no_room() {
    let written = Written::new("16M", &["-t", "ext4", "-b", "1024"]);
    let file = new_file(&written, b"file");
    file.set_len(40 * BLOCK).unwrap();
    file.allocate(0..16 * BLOCK, true).unwrap();
    for block in [18, 20, 22] {
        file.allocate(block * BLOCK..(block + 1) * BLOCK, true).unwrap();
    }
    file.fsync().unwrap();
    fill(&new_file(&written, b"other"));
    file.punch_hole(8 * BLOCK + 100..8 * BLOCK + 200).unwrap();
    judge(written, file, &[0; 1024], 8 * BLOCK);
}
