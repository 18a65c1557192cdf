//! Directories with many names.

use mpage_block::Errno;

use crate::image::{KINDS, make, set};
use crate::names::ONE_HASH;
use crate::written::{FILE, OWNER, ROOT, Written, errno, names};

/// A name of which the length is `number`'s own.
fn name(number: usize) -> Vec<u8> {
    let len = if number.is_multiple_of(10) { 255 } else { 6 + number % 40 };
    let mut name = format!("{number:06}").into_bytes();
    name.resize(len, b'a' + u8::try_from(number % 26).unwrap());
    name
}

/// Fills, reads, and empties a directory of `count` names.
fn fill_and_empty(kind: &str, written: Written, count: usize) -> Written {
    let fs = &written.fs;
    let folder = fs.mkdir(ROOT, b"folder", 0o755, OWNER).unwrap();
    let mut inodes = Vec::new();
    for number in 0..count {
        inodes.push(fs.create(folder, &name(number), &FILE).unwrap());
        assert_eq!(errno(fs.create(folder, &name(number / 2), &FILE)), Errno::EXIST);
    }
    let mut expected: Vec<_> = (0..count).map(name).collect();
    expected.sort();
    assert_eq!(names(fs, folder), expected, "{kind}");
    let found = |fs: &mpage_ext4::FileSystem| {
        (0..count).all(|number| fs.lookup(folder, &name(number)).unwrap() == inodes[number])
    };
    assert!(found(fs), "{kind}");
    let image = written.close();
    let written = Written::open(&image);
    let fs = &written.fs;
    assert!(found(fs), "{kind}");
    assert_eq!(errno(fs.rmdir(ROOT, b"folder")), Errno::NOTEMPTY);
    for number in (0..count).filter(|number| number % 3 != 1) {
        fs.unlink(folder, &name(number)).unwrap();
    }
    let written = Written::open(&written.close());
    let fs = &written.fs;
    for number in (0..count).filter(|number| number % 3 == 1) {
        assert_eq!(fs.lookup(folder, &name(number)).unwrap(), inodes[number], "{kind}");
        fs.unlink(folder, &name(number)).unwrap();
    }
    assert_eq!(names(fs, folder), Vec::<Vec<u8>>::new(), "{kind}");
    written
}

#[test]
fn directories_grow_and_are_emptied_on_every_kind_of_image() {
    for (kind, options) in KINDS {
        println!("{kind}");
        let written = Written::new("40M", options);
        let written = fill_and_empty(kind, written, 600);
        written.fs.rmdir(ROOT, b"folder").unwrap();
        let _image = written.close();
    }
}

/// Blocks of 1 KiB, so that the index gets a second level.
#[test]
fn an_index_gets_two_levels() {
    let written = Written::new("40M", &["-t", "ext4", "-b", "1024", "-N", "12000"]);
    let written = fill_and_empty("two levels", written, 5000);
    let folder = written.fs.lookup(ROOT, b"folder").unwrap();
    let blocks = written.fs.attributes(folder).unwrap().size >> 10;
    assert!(blocks > 124, "more than the {blocks} that a root has room for");
    written.fs.rmdir(ROOT, b"folder").unwrap();
    let _image = written.close();
}

/// Names with one legacy hash, in leaves of three: an index has to say where they go on.
#[test]
fn names_with_one_hash_come_and_go() {
    let legacy = ["ssv def_hash_version legacy"];
    let image = with_settings(&["-t", "ext4", "-b", "1024"], &legacy);
    let written = Written::open(&image);
    let fs = &written.fs;
    let folder = fs.mkdir(ROOT, b"folder", 0o755, OWNER).unwrap();
    let mut all: Vec<_> = (0..300).map(name).collect();
    let same = ONE_HASH.map(|end| [&[b'x'; 247], end.as_bytes()].concat());
    for (at, name) in (0..).step_by(37).zip(same) {
        all.insert(at, name);
    }
    let inodes: Vec<_> = all.iter().map(|name| fs.create(folder, name, &FILE).unwrap()).collect();
    for name in &all {
        assert_eq!(errno(fs.create(folder, name, &FILE)), Errno::EXIST);
    }
    let written = Written::open(&written.close());
    let fs = &written.fs;
    for (name, inode) in all.iter().zip(&inodes) {
        assert_eq!(fs.lookup(folder, name).unwrap(), *inode);
    }
    let mut listed = names(fs, folder);
    for (at, name) in all.iter().enumerate() {
        fs.unlink(folder, name).unwrap();
        listed.retain(|one| one != name);
        if at.is_multiple_of(10) {
            assert!(names(fs, folder) == listed);
        }
    }
    let _image = written.close();
}

/// Blocks of 1 KiB: about 15,000 leaves, with two to three names of 255 bytes each.
#[test]
fn an_index_that_is_full_takes_no_more() {
    let written = Written::new("40M", &["-t", "ext4", "-b", "1024", "-N", "1024"]);
    let fs = &written.fs;
    let folder = fs.mkdir(ROOT, b"folder", 0o755, OWNER).unwrap();
    let mut file = fs.create(ROOT, b"file0", &FILE).unwrap();
    let name = |number: usize| format!("{number:0>255}").into_bytes();
    let mut count = 0;
    let full = loop {
        if count % 60_000 == 59_999 {
            file = fs.create(ROOT, format!("file{count}").as_bytes(), &FILE).unwrap();
        }
        match fs.link(file, folder, &name(count)) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind.errno(), Errno::NOSPC);
    assert!(fs.statfs().unwrap().free > 1000, "it is the index that is full");
    assert!(count > 15_000, "{count}");
    assert_eq!(errno(fs.lookup(folder, &name(count))), Errno::NOENT);
    assert_eq!(fs.lookup(folder, &name(count - 1)).unwrap(), file);
    let _image = written.close();
}

/// A new image of `options`, with `settings` of debugfs.
fn with_settings(options: &[&str], settings: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let image = make(folder.path(), "24M", options);
    let path = folder.path().join("image");
    std::fs::write(&path, image).unwrap();
    set(&path, settings);
    std::fs::read(&path).unwrap()
}

/// One link says that directories are too many to be counted, where the image may say so.
#[test]
fn directories_are_counted_as_far_as_links_go() {
    let plain = ["-t", "ext2", "-b", "1024"];
    let uncounted = ["-t", "ext4", "-b", "1024"];
    for options in [plain, uncounted] {
        let written = Written::open(&with_settings(&options, &["mkdir folder"]));
        let folder = written.fs.lookup(ROOT, b"folder").unwrap();
        for number in 0..200 {
            let _below = written.fs.mkdir(folder, &name(number), 0o755, OWNER).unwrap();
        }
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), written.close()).unwrap();
        set(path.path(), &["sif folder links_count 64999"]);
        let written = Written::open(&std::fs::read(path.path()).unwrap());
        let fs = &written.fs;
        let links = || fs.attributes(folder).unwrap().links;
        let _below = fs.mkdir(folder, b"first", 0o755, OWNER).unwrap();
        assert_eq!(links(), 65_000);
        if options == plain {
            assert_eq!(errno(fs.mkdir(folder, b"second", 0o755, OWNER)), Errno::MLINK);
            continue;
        }
        for name in [b"second", b"third_"] {
            let _below = fs.mkdir(folder, name, 0o755, OWNER).unwrap();
            assert_eq!(links(), 1);
        }
        fs.rmdir(folder, b"second").unwrap();
        assert_eq!(links(), 1);
        let _image = written.close();
    }
}
