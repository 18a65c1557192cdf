//! What directories have is found by name, and listed once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use mpage_block::Errno;
use mpage_ext4::{Cookie, DirectoryEntry, ErrorKind, FileKind, FileSystem, InodeNumber};

use crate::image::{KINDS, make, open, run, with_indexes};
use crate::mounted::Mounted;

/// Kinds of images whose directories differ further from each other: names, the words that make
/// them, and what debugfs sets in their superblocks.
const HASHES: [(&str, &[&str], &[&str]); 6] = [
    ("no kinds in entries", &["-t", "ext2", "-O", "^filetype"], &[]),
    ("no hashes, checksums", &["-t", "ext4", "-b", "1024", "-O", "^dir_index"], &[]),
    ("legacy", &["-t", "ext4", "-b", "1024"], &["ssv def_hash_version legacy"]),
    ("TEA", &["-t", "ext3", "-b", "2048"], &["ssv def_hash_version tea"]),
    ("unsigned", &["-t", "ext4", "-b", "1024"], &["ssv flags 2"]),
    ("signed, no seed", &["-t", "ext4"], &["ssv flags 1", "ssv hash_seed clear"]),
];

/// A name of `len` bytes that no other number has; `len` is four or more.
fn name(number: usize, len: usize) -> Vec<u8> {
    let mut name = format!("{number:04}").into_bytes();
    // All bytes that a name can have, which are not those of UTF-8.
    let fill = (1..=0xffu8).filter(|byte| *byte != b'/').cycle().skip(number);
    name.extend(fill.take(len - name.len()));
    name
}

fn path(folder: &Path, name: &[u8]) -> std::path::PathBuf {
    folder.join(OsStr::from_bytes(name))
}

/// A tree with a folder of a few names, of each kind, one of so many names that the
/// index of 1 KiB blocks has two levels, and an empty one.
fn plant(folder: &Path) {
    for name in ["few", "many", "empty"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    let few = folder.join("few");
    File::create(path(&few, b"a")).unwrap().set_len(1).unwrap();
    File::create(path(&few, &name(2, 255))).unwrap().set_len(2).unwrap();
    File::create(path(&few, b"\xff\xfe \x80")).unwrap().set_len(3).unwrap();
    symlink("a", few.join("link")).unwrap();
    fs::create_dir(few.join("inner")).unwrap();
    let _quiet = run("mkfifo", &[few.join("fifo").to_str().unwrap()]);
    for number in 0..1500 {
        let name = name(number, if number % 3 == 0 { 255 } else { 4 + number % 40 });
        let file = File::create(path(&folder.join("many"), &name)).unwrap();
        file.set_len(number as u64).unwrap();
    }
}

/// All of `directory`, and how many calls that took.
fn list(fs: &FileSystem, directory: InodeNumber) -> mpage_ext4::Result<(Vec<DirectoryEntry>, u64)> {
    let (mut entries, mut from, mut calls) = (Vec::new(), Some(Cookie::START), 0);
    while let Some(cookie) = from {
        let some = fs.read_directory(directory, cookie)?;
        assert!(some.next.is_none_or(|next| next > cookie), "a listing goes on");
        let limit = some.next.unwrap_or(Cookie(u64::MAX));
        for entry in &some.entries {
            assert!(entry.next > cookie && entry.next <= limit, "{entry:?} in {cookie:?}");
        }
        entries.extend(some.entries);
        (from, calls) = (some.next, calls + 1);
    }
    Ok((entries, calls))
}

/// What a listing has besides `.` and `..`.
fn names(entries: &[DirectoryEntry]) -> Vec<Vec<u8>> {
    let names = entries.iter().map(|entry| entry.name.clone());
    names.filter(|name| name != b"." && name != b"..").collect()
}

fn kind(metadata: &fs::Metadata) -> FileKind {
    FileKind::of_mode((metadata.mode() & 0xffff).try_into().unwrap()).unwrap()
}

/// Every how many of the names of a linear directory are looked up: each searches half of it.
const LINEAR_STEP: usize = 7;

/// Lists `directory`, and looks every `step`th of its names up. It is to be what `folder` is.
fn compare(
    fs: &FileSystem,
    (directory, parent): (InodeNumber, InodeNumber),
    folder: &Path,
    step: usize,
) {
    let (entries, _calls) = list(fs, directory).unwrap();
    let mut listed = BTreeMap::new();
    for entry in &entries {
        let before = listed.insert(entry.name.clone(), entry);
        assert_eq!(before, None, "{} is listed once", entry.name.escape_ascii());
    }
    for entry in entries.iter().step_by(step) {
        assert_eq!(fs.lookup(directory, &entry.name).unwrap(), entry.inode);
    }
    assert_eq!(listed.remove(b".".as_slice()).unwrap().inode, directory);
    assert_eq!(listed.remove(b"..".as_slice()).unwrap().inode, parent);
    for file in fs::read_dir(folder).unwrap() {
        let (name, file) = (file.as_ref().unwrap().file_name(), file.as_ref().unwrap());
        let entry = listed.remove(name.as_bytes()).unwrap();
        let (attributes, right) = (fs.attributes(entry.inode).unwrap(), file.metadata().unwrap());
        assert_eq!(attributes.kind, kind(&right), "{name:?}");
        assert!(entry.kind.is_none_or(|hint| hint == attributes.kind), "{name:?}");
        if right.is_file() {
            assert_eq!(attributes.size, right.len(), "{name:?}");
        }
    }
    let _found = listed.remove(b"lost+found".as_slice());
    assert_eq!(listed.keys().collect::<Vec<_>>(), Vec::<&Vec<u8>>::new(), "no more are listed");
}

fn errno<T: std::fmt::Debug>(result: mpage_ext4::Result<T>) -> Errno {
    match result.expect_err("it cannot be").kind {
        ErrorKind::Errno(errno) => errno,
        other => panic!("{other:?}"),
    }
}

/// Looks up what is not in `directory`.
fn miss(fs: &FileSystem, directory: InodeNumber) {
    for number in 9000..9050 {
        assert_eq!(errno(fs.lookup(directory, &name(number, 4 + number % 200))), Errno::NOENT);
    }
    assert_eq!(errno(fs.lookup(directory, b"")), Errno::NOENT);
    assert_eq!(errno(fs.lookup(directory, &[b'x'; 255])), Errno::NOENT);
    assert_eq!(errno(fs.lookup(directory, &[b'x'; 256])), Errno::NAMETOOLONG);
}

#[test]
fn every_name_of_every_kind_of_image_is_found_and_listed_once() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path());
    let kinds = KINDS.map(|(kind, options)| (kind, options, [].as_slice()));
    for (kind, options, settings) in kinds.into_iter().chain(HASHES) {
        println!("{kind}");
        let linear = make(folder.path(), "32M", options);
        for (image, step) in [(with_indexes(&linear, settings), 1), (linear, LINEAR_STEP)] {
            let fs = open(&image).unwrap().fs;
            let root = InodeNumber::ROOT;
            compare(&fs, (root, root), folder.path(), 1);
            for name in ["few", "many", "empty"] {
                let directory = fs.lookup(root, name.as_bytes()).unwrap();
                compare(&fs, (directory, root), &folder.path().join(name), step);
                miss(&fs, directory);
            }
        }
    }
}

#[test]
fn names_are_looked_up_in_directories_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), b"").unwrap();
    let fs = open(&make(folder.path(), "4M", &["-t", "ext4"])).unwrap().fs;
    let file = fs.lookup(InodeNumber::ROOT, b"file").unwrap();
    assert_eq!(errno(fs.lookup(file, b"file")), Errno::NOTDIR);
    assert_eq!(errno(fs.read_directory(file, Cookie::START)), Errno::NOTDIR);
}

#[test]
fn a_listing_goes_on_from_any_entry() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path());
    let linear = make(folder.path(), "32M", &["-t", "ext4", "-b", "1024"]);
    for image in [with_indexes(&linear, &[]), linear] {
        let fs = open(&image).unwrap().fs;
        for name in ["many", "few"] {
            let directory = fs.lookup(InodeNumber::ROOT, name.as_bytes()).unwrap();
            let (whole, _calls) = list(&fs, directory).unwrap();
            let (mut from, mut single) = (Some(Cookie::START), Vec::new());
            while let Some(cookie) = from {
                let some = fs.read_directory(directory, cookie).unwrap();
                from = some.entries.first().map_or(some.next, |entry| Some(entry.next));
                single.extend(some.entries.into_iter().next());
            }
            assert!(single == whole, "{name}: {} of {}", single.len(), whole.len());
        }
    }
}

#[test]
fn there_is_nothing_behind_the_end() {
    let folder = tempfile::tempdir().unwrap();
    create(folder.path(), 0..300);
    let linear = make(folder.path(), "4M", &["-t", "ext4", "-b", "1024"]);
    for image in [with_indexes(&linear, &[]), linear] {
        let fs = open(&image).unwrap().fs;
        let small = fs.lookup(InodeNumber::ROOT, b"lost+found").unwrap();
        for directory in [InodeNumber::ROOT, small] {
            for far in [i64::MAX.cast_unsigned(), u64::MAX] {
                let behind = fs.read_directory(directory, Cookie(far)).unwrap();
                assert!(behind.entries.is_empty() && behind.next.is_none());
            }
        }
    }
}

/// Ends of names of 255 bytes, all the others `x`, that have one legacy hash.
pub(crate) const ONE_HASH: [&str; 8] = [
    "aaekfoaj", "bnoofgen", "cfhlgnkm", "dbhdeebe", "djalghfk", "doheclbc", "dpemcmim", "dpepfmdb",
];

#[test]
fn names_with_one_hash_are_given_together_from_more_than_one_block() {
    let folder = tempfile::tempdir().unwrap();
    let same: BTreeSet<Vec<u8>> =
        ONE_HASH.iter().map(|end| [&[b'x'; 247], end.as_bytes()].concat()).collect();
    for name in &same {
        let _file = File::create(path(folder.path(), name)).unwrap();
    }
    for number in 0..500 {
        let _file = File::create(path(folder.path(), &name(number, 200))).unwrap();
    }
    let linear = make(folder.path(), "8M", &["-t", "ext4", "-b", "1024"]);
    let image = with_indexes(&linear, &["ssv def_hash_version legacy"]);
    let fs = open(&image).unwrap().fs;
    compare(&fs, (InodeNumber::ROOT, InodeNumber::ROOT), folder.path(), 1);
    let (whole, _calls) = list(&fs, InodeNumber::ROOT).unwrap();
    let first = whole.iter().position(|entry| same.contains(&entry.name)).unwrap();
    let group = &whole[first..first + same.len()];
    assert!(group.iter().all(|entry| entry.next == group[0].next));
    assert_eq!(names(group).into_iter().collect::<BTreeSet<_>>(), same);
    // Whoever goes on before the group gets all of it, and behind it none.
    let at = Cookie(group[0].next.0 - 1);
    let some = fs.read_directory(InodeNumber::ROOT, at).unwrap();
    assert_eq!(&some.entries[..same.len()], group);
    let some = fs.read_directory(InodeNumber::ROOT, group[0].next).unwrap();
    assert!(names(&some.entries).iter().all(|name| !same.contains(name)));
}

/// Kinds of images that Linux makes directories in.
const MOUNTED: [(&str, &[&str], &[&str]); 5] = [
    ("ext4 in 1 KiB", &["-t", "ext4", "-b", "1024"], &[]),
    ("ext4 in 4 KiB", &["-t", "ext4", "-b", "4096"], &["ssv flags 2"]),
    ("ext3 in 1 KiB", &["-t", "ext3", "-b", "1024"], &["ssv def_hash_version legacy"]),
    ("ext4 with TEA", &["-t", "ext4", "-b", "1024"], &["ssv def_hash_version tea"]),
    ("ext2 without hashes", &["-t", "ext2", "-b", "1024", "-O", "^dir_index"], &[]),
];

fn create(folder: &Path, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        let _file = File::create(path(folder, &name(number, 10 + number * 7 % 200))).unwrap();
    }
}

fn remove(folder: &Path, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        fs::remove_file(path(folder, &name(number, 10 + number * 7 % 200))).unwrap();
    }
}

/// The numbers of the inodes of `folder`, in the order in which Linux lists them.
fn numbers(folder: &Path) -> Vec<(Vec<u8>, u32)> {
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let both = |file: fs::DirEntry| {
        let number = fs::symlink_metadata(file.path()).unwrap().ino();
        (file.file_name().into_vec(), number.try_into().unwrap())
    };
    files.map(both).collect()
}

#[test]
fn directories_of_linux_are_listed_in_its_order() {
    for (kind, options, settings) in MOUNTED {
        let mounted = Mounted::new("32M", options, settings);
        let folder = mounted.path().join("folder");
        fs::create_dir(&folder).unwrap();
        for (new, old) in [(0..20, 5..10), (20..3000, 100..2000), (3000..5000, 2500..4000)] {
            create(&folder, new);
            remove(&folder, old.step_by(3));
            let right = numbers(&folder);
            let fs = open(&mounted.image()).unwrap().fs;
            let directory = fs.lookup(InodeNumber::ROOT, b"folder").unwrap();
            let (listed, _calls) = list(&fs, directory).unwrap();
            let listed: Vec<_> = listed.into_iter().map(|one| (one.name, one.inode.0)).collect();
            let dots = |name: &[u8]| name == b"." || name == b"..";
            let listed: Vec<_> = listed.into_iter().filter(|(name, _)| !dots(name)).collect();
            assert!(listed == right, "{kind}: {} of {}", listed.len(), right.len());
            let step = if options.contains(&"^dir_index") { LINEAR_STEP } else { 1 };
            for (name, number) in right.into_iter().step_by(step) {
                assert_eq!(fs.lookup(directory, &name).unwrap().0, number, "{kind}");
            }
            miss(&fs, directory);
        }
    }
}

#[test]
fn what_nobody_touches_is_listed_once_while_blocks_are_split() {
    for (kind, options, settings) in MOUNTED {
        let mounted = Mounted::new("32M", options, settings);
        let folder = mounted.path().join("folder");
        fs::create_dir(&folder).unwrap();
        // From one block to two, to many, and to two levels of index.
        for (old, new) in [(0..6, 6..60), (60..400, 400..1500), (1500..1600, 1600..5000)] {
            create(&folder, old.clone());
            let before = open(&mounted.image()).unwrap().fs;
            create(&folder, new.clone());
            remove(&folder, old.clone().step_by(5));
            let after = open(&mounted.image()).unwrap().fs;
            let directory = before.lookup(InodeNumber::ROOT, b"folder").unwrap();
            let stay: BTreeSet<Vec<u8>> =
                numbers(&folder).into_iter().map(|(name, _)| name).collect();
            let (all, _calls) = list(&before, directory).unwrap();
            let stay: BTreeSet<_> =
                names(&all).into_iter().filter(|name| stay.contains(name)).collect();
            for cut in [0, 1, 2, all.len() / 3, all.len() / 2, all.len() - 1] {
                let mut seen = names(&all[..cut]);
                let mut from = Some(cut.checked_sub(1).map_or(Cookie::START, |at| all[at].next));
                while let Some(cookie) = from {
                    let some = after.read_directory(directory, cookie).unwrap();
                    seen.extend(names(&some.entries));
                    from = some.next;
                }
                seen.retain(|name| stay.contains(name));
                let once: BTreeSet<_> = seen.iter().cloned().collect();
                assert!(once == stay && seen.len() == stay.len(), "{kind}, behind {cut}");
            }
        }
    }
}
