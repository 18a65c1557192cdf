//! Damaged directories are errors, and nothing worse.

use std::fs::{self, File};
use std::iter;

use mpage_ext4::{Cookie, ErrorKind, FileSystem, InodeNumber};

use crate::image::{make, open, run, set, with_indexes};

/// Bytes of a block.
const BLOCK: usize = 1024;
const FOLDER: &str = "folder";
/// Names of the folder: enough for two levels of index.
const NAMES: usize = 1200;

fn name(number: usize) -> Vec<u8> {
    format!("{number:0>len$}", len = 200 + number % 50).into_bytes()
}

/// An image with a folder of many names: linear, and with an index.
fn images(options: &[&str]) -> [Vec<u8>; 2] {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join(FOLDER);
    fs::create_dir(&inner).unwrap();
    for number in 0..NAMES {
        let name = String::from_utf8(name(number)).unwrap();
        let _file = File::create(inner.join(name)).unwrap();
    }
    let linear = make(folder.path(), "2M", &[&["-b", "1024", "-N", "1400"], options].concat());
    [with_indexes(&linear, &[]), linear]
}

/// The blocks of the folder of `image`, in order, as debugfs tells them.
fn blocks(image: &[u8]) -> Vec<usize> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), image).unwrap();
    let command = format!("blocks /{FOLDER}");
    let text = run("debugfs", &["-R", &command, file.path().to_str().unwrap()]);
    text.split_whitespace().map(|block| block.parse().unwrap()).collect()
}

/// The folder's inode.
fn folder(image: &[u8]) -> InodeNumber {
    open(image).unwrap().fs.lookup(InodeNumber::ROOT, FOLDER.as_bytes()).unwrap()
}

/// Lists `directory`, which has `blocks` blocks, as far as it can be. True if nothing is wrong.
fn list(fs: &FileSystem, directory: InodeNumber, blocks: usize) -> bool {
    let (mut from, mut entries) = (Cookie::START, 0);
    for _ in 0..=blocks {
        match fs.read_directory(directory, from) {
            Ok(some) => {
                entries += some.entries.len();
                let Some(next) = some.next else {
                    assert!(entries <= blocks * (BLOCK / 12), "no entry is given twice");
                    return true;
                };
                assert!(next > from);
                from = next;
            }
            Err(error) => {
                assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
                return false;
            }
        }
    }
    panic!("a listing has no more steps than the directory has blocks");
}

/// Looks some names up: each is found, is not there, or the directory is damaged.
fn look_up(fs: &FileSystem, directory: InodeNumber, random: &mut fastrand::Rng) {
    for _ in 0..4 {
        let found = fs.lookup(directory, &name(random.usize(..NAMES + 10)));
        let Err(error) = found else { continue };
        let not_there = ErrorKind::Errno(mpage_block::Errno::NOENT);
        assert!([ErrorKind::Corrupt, not_there].contains(&error.kind), "{error}");
    }
}

/// Where the entries of `block` begin, as far as they can be followed.
fn entries(block: &[u8]) -> Vec<usize> {
    let len = |at: usize| usize::from(u16::from_le_bytes([block[at + 4], block[at + 5]]));
    let next = |at: &usize| Some(at + len(*at).max(12)).filter(|at| at + 12 <= block.len());
    iter::successors(Some(0), next).collect()
}

/// Changes some bytes of `block`, most of them where numbers are.
fn change(block: &mut [u8], random: &mut fastrand::Rng) {
    let entries = entries(block);
    for _ in 0..random.usize(1..=3) {
        let at = match random.u8(..8) {
            0 => random.usize(..BLOCK),
            1..=3 => random.usize(..64),
            _ => entries[random.usize(..entries.len())] + random.usize(..8),
        };
        block[at] = match random.u8(..4) {
            0 => random.u8(..),
            1 => 0,
            2 => block[at] ^ 1 << random.u8(..8),
            _ => block[random.usize(..BLOCK)],
        };
    }
}

#[test]
fn any_bytes_make_a_listing_or_an_error() {
    let images = images(&["-t", "ext4", "-O", "^metadata_csum,^has_journal"]);
    for (seed, image) in (1..).zip(&images) {
        let blocks = blocks(image);
        let (directory, mut well) = (folder(image), 0);
        for seed in (seed * 10_000..).take(1500) {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut image = image.clone();
            // Block 0 and the one behind are of the index, or hold the first names.
            let block = match random.bool() {
                true => blocks[random.usize(..3)],
                false => blocks[random.usize(..blocks.len())],
            };
            change(&mut image[block * BLOCK..][..BLOCK], &mut random);
            let opened = open(&image).unwrap();
            well += u32::from(list(&opened.fs, directory, blocks.len()));
            look_up(&opened.fs, directory, &mut random);
        }
        assert!((100..1400).contains(&well), "{well} of the changes are in names or in free room");
    }
}

#[test]
fn a_changed_byte_is_told_by_the_checksums() {
    for image in images(&["-t", "ext4", "-O", "metadata_csum,^has_journal"]) {
        let blocks = blocks(&image);
        let directory = folder(&image);
        assert!(list(&open(&image).unwrap().fs, directory, blocks.len()), "it is well");
        let mut random = fastrand::Rng::with_seed(7);
        for block in blocks.iter().copied() {
            let mut image = image.clone();
            // Of a node, what is behind its entries counts for nothing: this is before.
            let at = block * BLOCK + random.usize(..40);
            image[at] ^= 1 << random.u8(..8);
            let opened = open(&image).unwrap();
            assert!(!list(&opened.fs, directory, blocks.len()), "byte {at}");
        }
    }
}

#[test]
fn a_hole_in_a_directory_is_an_error() {
    for kind in ["ext2", "ext4"] {
        for image in images(&["-t", kind, "-O", "^has_journal"]) {
            let (directory, blocks) = (folder(&image), blocks(&image).len());
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), &image).unwrap();
            set(file.path(), &[&format!("punch /{FOLDER} 5 5")]);
            let opened = open(&fs::read(file.path()).unwrap()).unwrap();
            assert!(!list(&opened.fs, directory, blocks), "{kind}");
        }
    }
}

/// `image`, in which the file at `path` has block `first` again and again, as far as 32 bits count:
/// blocks of numbers can lead to the same blocks.
pub(crate) fn with_repeated_blocks(image: &[u8], path: &str, first: usize) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), image).unwrap();
    let free = run("debugfs", &["-R", "ffb 3 1000", file.path().to_str().unwrap()]);
    let free = free.split_once(':').unwrap().1.split_whitespace();
    let free: Vec<usize> = free.map(|number| number.parse().unwrap()).collect();
    let numbers = (0..12).map(|number| (number.to_string(), first));
    let more = ["IND", "DIND", "TIND"].map(str::to_owned).into_iter().zip(free.iter().copied());
    let fields = numbers.chain(more).map(|(name, block)| (format!("block[{name}]"), block));
    let fields = fields.chain([("flags".into(), 0), ("size".into(), 0xffff_fc00)]);
    let commands = fields.map(|(field, value)| format!("sif {path} {field} {value}"));
    let commands: Vec<String> = commands.collect();
    set(file.path(), &commands.iter().map(String::as_str).collect::<Vec<_>>());
    let mut image = fs::read(file.path()).unwrap();
    for (block, to) in free.iter().zip([first, free[0], free[1]]) {
        let number = u32::try_from(to).unwrap().to_le_bytes();
        image[block * BLOCK..][..BLOCK].copy_from_slice(&number.repeat(BLOCK / 4));
    }
    image
}

/// It would be searched for long.
#[test]
fn a_directory_longer_than_the_image_is_an_error() {
    let empty = tempfile::tempdir().unwrap();
    fs::create_dir(empty.path().join(FOLDER)).unwrap();
    let image = make(empty.path(), "2M", &["-t", "ext2", "-b", "1024"]);
    let image = with_repeated_blocks(&image, &format!("/{FOLDER}"), blocks(&image)[0]);
    let error = open(&image).unwrap().fs.lookup(folder(&image), b"none").unwrap_err();
    assert_eq!(error.kind, ErrorKind::Corrupt, "{error}");
}

#[test]
fn a_chain_of_leaves_that_does_not_end_is_an_error() {
    let [mut image, _linear] = images(&["-t", "ext4", "-O", "^metadata_csum,^has_journal"]);
    let (directory, blocks) = (folder(&image), blocks(&image));
    let number =
        |image: &[u8], at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
    let count =
        |image: &[u8], at: usize| usize::from(image[at + 2]) | usize::from(image[at + 3]) << 8;
    // Hash 0 goes on in every leaf, and none of them has a name.
    let root = blocks[0] * BLOCK + 32;
    let nodes: Vec<usize> = (0..count(&image, root))
        .map(|at| blocks[number(&image, root + at * 8 + 4) as usize] * BLOCK + 8)
        .collect();
    for node in nodes.iter().chain([&root]) {
        for at in 1..count(&image, *node) {
            image[node + at * 8..][..4].copy_from_slice(&1u32.to_le_bytes());
        }
    }
    for block in &blocks[1..] {
        if !nodes.contains(&(block * BLOCK + 8)) {
            image[block * BLOCK..][..8].copy_from_slice(&[0, 0, 0, 0, 0, 4, 0, 0]);
        }
    }
    let error = open(&image).unwrap().fs.read_directory(directory, Cookie::START);
    let error = error.expect_err("it would read the whole directory");
    assert_eq!(error.kind, ErrorKind::Corrupt);
    assert!(error.detail.contains("names of one hash"), "{error}");
}
