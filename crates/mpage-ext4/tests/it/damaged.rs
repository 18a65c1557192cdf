//! Damaged images: an error, or whatever is still right; never a panic, an endless loop, or memory
//! out of proportion.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Arc;

use mpage_block::Errno;
use mpage_ext4::{
    At, ErrorKind, Existing, FileKind, FileSystem, InodeNumber, NewAttributes, XattrFlags,
};

use crate::image::{make, open, run};
use crate::written::{FILE, OWNER, ROOT, Written};

/// Images of each kind, each damaged in another way.
const IMAGES: u64 = 300;
/// Bytes at the front of the image that are metadata for the most part, and so are damaged.
const FRONT: usize = 160 << 10;

fn plant(folder: &Path) {
    fs::write(folder.join("small"), b"words").unwrap();
    symlink("x".repeat(100), folder.join("long")).unwrap();
    let pieces = File::create(folder.join("pieces")).unwrap();
    for n in 0..200 {
        pieces.write_all_at(&[7; 1024], n * 4096).unwrap();
    }
}

/// `image` with some bytes that are wrong.
fn damage(image: &[u8], seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut damaged = image.to_vec();
    for _ in 0..random.usize(1..20) {
        let at = 1024 + random.usize(..FRONT.min(image.len()) - 1024);
        damaged[at] = match random.u8(..4) {
            0 => 0,
            1 => 255,
            2 => damaged[at] ^ (1 << random.u8(..8)),
            _ => random.u8(..),
        };
    }
    damaged
}

/// Reads all that there is to read of the first inodes.
fn read_all(fs: &Arc<FileSystem>) {
    for number in 0..40 {
        let inode = InodeNumber(number);
        let Ok(attributes) = fs.attributes(inode) else { continue };
        let _names = fs.extended_attribute_names(inode);
        let _access = fs.extended_attribute(inode, b"system.posix_acl_access");
        let _target = fs.read_link(inode);
        if attributes.kind != FileKind::Regular {
            continue;
        }
        let file = fs.open_file(inode).unwrap();
        let mut bytes = vec![0; 64 << 10];
        for at in [0, 200_000, 10_000_000, 1 << 32, file.size().saturating_sub(1)] {
            let _count = file.read_at(&mut bytes, at);
        }
    }
}

#[test]
fn a_damaged_image_is_an_error_or_read_as_far_as_it_is_right() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path());
    let kinds: [&[&str]; 3] = [
        &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^has_journal"],
        &["-t", "ext4", "-b", "4096", "-O", "^metadata_csum,^has_journal,uninit_bg"],
        &["-t", "ext2", "-b", "1024"],
    ];
    for options in kinds {
        let image = make(folder.path(), "2M", options);
        for seed in 0..IMAGES {
            if let Ok(opened) = open(&damage(&image, seed)) {
                read_all(&opened.fs);
            }
        }
    }
}

/// With checksums nothing that was changed is taken for right.
#[test]
fn checksums_find_every_damaged_inode_and_descriptor() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path());
    let image = make(folder.path(), "4M", &["-t", "ext4", "-b", "1024", "-I", "256"]);
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("image");
    fs::write(&path, &image).unwrap();
    let told = run("debugfs", &["-R", "imap /pieces", path.to_str().unwrap()]);
    // "Inode 13 is part of block group 0, located at block 71, offset 0x0200", in two lines.
    let (inode, place) = told.split_once("located at block ").expect("debugfs says where it is");
    let (block, offset) = place.trim().split_once(", offset 0x").expect("and at which byte");
    let number: u32 = inode.split_whitespace().nth(1).unwrap().parse().unwrap();
    let block: usize = block.parse().unwrap();
    let offset = usize::from_str_radix(offset, 16).unwrap();
    let start = block * 1024 + offset;
    for at in (start..start + 160).chain(2048..2048 + 64) {
        let mut damaged = image.clone();
        damaged[at] ^= 0x10;
        let found = open(&damaged).map(|opened| opened.fs.attributes(InodeNumber(number)).is_err());
        assert!(found.unwrap_or(true), "byte {at}");
    }
}

/// Changes what there is to be changed, as far as it goes.
fn change_all(fs: &FileSystem) {
    let root = InodeNumber::ROOT;
    for number in 0..40 {
        let name = format!("a name of some length, {number}").into_bytes();
        let _made = fs.create(root, &name, &FILE);
        let _folder = fs.mkdir(root, &name[1..], 0o755, OWNER);
        let _link = fs.symlink(root, &name[2..], &name.repeat(20), OWNER);
        let from = At { parent: root, name: &name };
        let to = At { parent: root, name: &name[3..] };
        let _moved = fs.rename(from, to, Existing::Replace);
        let _linked = fs.link(InodeNumber(number), root, &name[4..]);
        let _changed = fs.set_attributes(InodeNumber(number), &NewAttributes::default());
        let label = b"security.label";
        let _set = fs.set_extended_attribute(InodeNumber(number), label, &name, XattrFlags::None);
    }
    for name in ["small", "long", "pieces", "lost+found"] {
        let _gone = fs.unlink(root, name.as_bytes());
        let _empty = fs.rmdir(root, name.as_bytes());
    }
    let _room = fs.statfs();
    let _closed = fs.close();
}

#[test]
fn a_damaged_image_is_changed_as_far_as_it_is_right() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path());
    let kinds: [&[&str]; 3] = [
        &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^has_journal"],
        &["-t", "ext4", "-b", "4096", "-O", "^metadata_csum,^has_journal,uninit_bg"],
        &["-t", "ext2", "-b", "1024"],
    ];
    for options in kinds {
        let written = Written::open(&make(folder.path(), "2M", options));
        for number in 0..30 {
            let name = format!("{number} of the names for which an index is made");
            let _file = written.fs.create(InodeNumber::ROOT, name.as_bytes(), &FILE).unwrap();
        }
        let image = written.close();
        for seed in 0..IMAGES / 3 {
            if let Ok(written) = Written::try_open(&damage(&image, seed)) {
                change_all(&written.fs);
            }
        }
    }
}

#[test]
fn a_number_that_no_inode_has_is_no_damage() {
    let written = Written::new("8M", &["-t", "ext4"]);
    for number in [0, u32::MAX] {
        let inode = InodeNumber(number);
        let fs = &written.fs;
        for result in [
            fs.attributes(inode).map(drop),
            fs.lookup(inode, b"name").map(drop),
            fs.open_file(inode).map(drop),
            fs.create(inode, b"name", &FILE).map(drop),
            fs.link(inode, ROOT, b"name"),
            fs.set_attributes(inode, &NewAttributes::default()),
        ] {
            assert_eq!(result.unwrap_err().kind, ErrorKind::Errno(Errno::NOENT));
        }
        assert_eq!(fs.read_only(), None);
    }
    let _image = written.close();
}
