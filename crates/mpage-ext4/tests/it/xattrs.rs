//! Extended attributes are set as Linux sets them, and it reads them so.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mpage_block::Errno;
use mpage_ext4::{FileKind, FileSystem, InodeNumber, New, XattrFlags};
use rustix::fs::{XattrFlags as LinuxFlags, lgetxattr, llistxattr, lremovexattr, lsetxattr};

use crate::image::{KINDS, inode_of, open, run};
use crate::mounted::Mounted;
use crate::written::{FILE, OWNER, ROOT, Written, errno};

/// Attributes by name.
pub(crate) type All = BTreeMap<Vec<u8>, Vec<u8>>;

/// What Linux has of `path`.
pub(crate) fn on_linux(path: &Path) -> All {
    let mut names = vec![0; 65536];
    let len = llistxattr(path, &mut names[..]).unwrap();
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| (name.to_vec(), one_on_linux(path, name).unwrap())).collect()
}

pub(crate) fn one_on_linux(path: &Path, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 65536];
    let len = lgetxattr(path, name, &mut value[..])?;
    value.truncate(len);
    Ok(value)
}

/// What the library has of `inode`.
pub(crate) fn in_library(fs: &FileSystem, inode: InodeNumber) -> All {
    let names = fs.extended_attribute_names(inode).unwrap();
    let count = names.len();
    let value = |name: &[u8]| fs.extended_attribute(inode, name).unwrap();
    let all: All = names.into_iter().map(|name| (name.clone(), value(&name))).collect();
    assert_eq!(all.len(), count, "none twice");
    all
}

fn set(fs: &FileSystem, inode: InodeNumber, name: &str, value: &[u8]) -> mpage_ext4::Result<()> {
    fs.set_extended_attribute(inode, name.as_bytes(), value, XattrFlags::None)
}

#[test]
fn attributes_come_change_and_go() {
    for (kind, options) in KINDS {
        println!("{kind}");
        let written = Written::new("16M", options);
        let fs = &written.fs;
        let file = fs.create(ROOT, b"file", &FILE).unwrap();
        let other = fs.create(ROOT, b"other", &FILE).unwrap();
        set(fs, other, "trusted.other", b"stays").unwrap();
        let before = fs.attributes(file).unwrap();
        for len in [0, 1, 40, 300, 900, 44, 3, 4, 5, 901, 0, 60, 70, 80, 90, 100, 30] {
            set(fs, file, "user.one", &vec![b'1'; len]).unwrap();
            assert_eq!(fs.extended_attribute(file, b"user.one").unwrap(), vec![b'1'; len]);
            if len % 3 == 0 {
                set(fs, file, "user.two", &[b'2'; 20]).unwrap();
            }
        }
        let expected: All = [("user.one", vec![b'1'; 30]), ("user.two", vec![b'2'; 20])]
            .map(|(name, value)| (name.as_bytes().to_vec(), value))
            .into();
        assert_eq!(in_library(fs, file), expected, "{kind}");
        // A short inode has whole seconds.
        let is = fs.attributes(file).unwrap();
        assert!(is.changed > before.changed || is.created.is_none(), "{kind}");
        let written = Written::open(&written.close());
        let mounted = Mounted::of(&written.close());
        assert_eq!(on_linux(&mounted.path().join("file")), expected, "{kind}");
        let written = Written::open(&mounted.image());
        let fs = &written.fs;
        for name in ["user.one", "user.two"] {
            fs.remove_extended_attribute(file, name.as_bytes()).unwrap();
            assert_eq!(errno(fs.extended_attribute(file, name.as_bytes())), Errno::NODATA);
            let again = fs.remove_extended_attribute(file, name.as_bytes());
            assert_eq!(errno(again), Errno::NODATA);
        }
        assert_eq!(fs.attributes(file).unwrap().sectors, before.sectors, "{kind}");
        let mounted = Mounted::of(&written.close());
        assert_eq!(on_linux(&mounted.path().join("file")), All::new(), "{kind}");
        assert_eq!(on_linux(&mounted.path().join("other")).len(), 1, "{kind}");
    }
}

#[test]
fn as_many_attributes_as_linux_has_room_for() {
    for (kind, options) in KINDS {
        println!("{kind}");
        let written = Written::new("16M", options);
        let fs = &written.fs;
        let file = fs.create(ROOT, b"file", &FILE).unwrap();
        let image = written.abandon();
        let mounted = Mounted::of(&image);
        let written = Written::open(&image);
        let fs = &written.fs;
        let (mut expected, mut refused) = (All::new(), 0);
        for number in 0..400 {
            let name = format!("user.{}", "n".repeat(number * 7 % 23) + &number.to_string());
            let value = vec![b'v'; number * 5 % 17];
            let path = mounted.path().join("file");
            let answer = lsetxattr(&path, &name, &value, LinuxFlags::empty());
            let result = set(fs, file, &name, &value).map_err(|error| error.kind.errno());
            assert_eq!(result, answer, "{kind}: {name}");
            match answer {
                Ok(()) => {
                    let _new = expected.insert(name.into_bytes(), value);
                }
                Err(errno) => {
                    assert_eq!(errno, Errno::NOSPC);
                    refused += 1;
                    assert_eq!(in_library(fs, file), expected, "{kind}");
                }
            }
        }
        assert!(refused > 100, "{kind}: {refused}");
        assert_eq!(on_linux(&mounted.path().join("file")), expected, "{kind}");
        let mounted = Mounted::of(&written.close());
        assert_eq!(on_linux(&mounted.path().join("file")), expected, "{kind}");
    }
}

/// One step of a program: an attribute of one of the files, and its value, or none.
struct Step {
    file: &'static str,
    name: Vec<u8>,
    value: Option<Vec<u8>>,
    flags: XattrFlags,
}

const FILES: [&str; 5] = ["file", "other", "folder", "link", "fifo"];

fn step(random: &mut fastrand::Rng) -> Step {
    let prefixes = ["user.", "trusted.", "security.", "user.", "trusted.", "trusted."];
    let odd = ["system.x", "user", "nothing.x", "trusted.", "", "system.posix_acl_accessx"];
    let mut name = match random.u8(..20) {
        0 => odd[random.usize(..odd.len())].to_owned(),
        _ => prefixes[random.usize(..prefixes.len())].to_owned() + &"x".repeat(random.usize(1..6)),
    };
    if random.u8(..40) == 0 {
        name += &"y".repeat(random.usize(240..260));
    }
    let mut name = name.into_bytes();
    if random.u8(..5) == 0 && name.ends_with(b"x") {
        // Bytes are hashed without their sign.
        name.push(0xe9);
    }
    let len = match random.u8(..20) {
        0 => random.usize(..70_000),
        1..4 => random.usize(..4096),
        4..8 => random.usize(..1024),
        _ => random.usize(..90),
    };
    let files = if random.bool() { 2 } else { FILES.len() };
    let flags = [XattrFlags::None, XattrFlags::Create, XattrFlags::Replace];
    Step {
        file: FILES[random.usize(..files)],
        name,
        value: (random.u8(..4) > 0).then(|| vec![random.u8(..); len]),
        flags: flags[[0, 0, 0, 0, 1, 2][random.usize(..6)]],
    }
}

fn do_on_linux(step: &Step, root: &Path) -> Result<(), Errno> {
    let path = root.join(step.file);
    let flags = match step.flags {
        XattrFlags::None => LinuxFlags::empty(),
        XattrFlags::Create => LinuxFlags::CREATE,
        XattrFlags::Replace => LinuxFlags::REPLACE,
    };
    match &step.value {
        Some(value) => lsetxattr(path, &step.name[..], value, flags),
        None => lremovexattr(path, &step.name[..]),
    }
}

fn do_in_library(step: &Step, fs: &FileSystem) -> Result<(), Errno> {
    let inode = fs.lookup(ROOT, step.file.as_bytes()).unwrap();
    let result = match &step.value {
        Some(value) => fs.set_extended_attribute(inode, &step.name, value, step.flags),
        None => fs.remove_extended_attribute(inode, &step.name),
    };
    result.map_err(|error| error.kind.errno())
}

#[test]
fn random_programs_do_what_linux_does() {
    for (seed, (kind, options)) in (1..).zip(KINDS) {
        println!("{kind}, seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let written = Written::new("16M", options);
        let fs = &written.fs;
        for name in &FILES[..2] {
            let _inode = fs.create(ROOT, name.as_bytes(), &FILE).unwrap();
        }
        let _inode = fs.mkdir(ROOT, b"folder", 0o755, OWNER).unwrap();
        let _inode = fs.symlink(ROOT, b"link", b"nowhere", OWNER).unwrap();
        let fifo = New { kind: FileKind::Fifo, ..FILE };
        let _inode = fs.create(ROOT, b"fifo", &fifo).unwrap();
        let image = written.close();
        let linux = Mounted::of(&image);
        let mut written = Written::open(&image);
        for number in 1..=400 {
            let step = step(&mut random);
            let (answer, result) =
                (do_on_linux(&step, &linux.path()), do_in_library(&step, &written.fs));
            let len = step.value.as_ref().map(Vec::len);
            let what = format!("{} of {}: {len:?}", step.name.escape_ascii(), step.file);
            assert_eq!(result, answer, "{kind}: {what}, {:?}", step.flags);
            if number % 100 == 0 {
                compare(&written.fs, &linux.path(), kind);
                written = Written::open(&written.close());
            }
        }
        let mounted = Mounted::of(&written.close());
        for name in FILES {
            let (is, should) = (mounted.path().join(name), linux.path().join(name));
            assert!(on_linux(&is) == on_linux(&should), "{kind}: {name}");
        }
        let image = linux.image();
        compare(&open(&image).unwrap().fs, &linux.path(), kind);
        drop(linux);
    }
}

/// Sees to it that the files are as Linux has them in `folder`.
fn compare(fs: &FileSystem, folder: &Path, kind: &str) {
    for name in FILES {
        let inode = fs.lookup(ROOT, name.as_bytes()).unwrap();
        let path = folder.join(name);
        assert!(in_library(fs, inode) == on_linux(&path), "{kind}: {name}");
        let is = fs.attributes(inode).unwrap();
        let should = fs::symlink_metadata(&path).unwrap();
        let (mode, sectors) = (u32::from(is.mode), is.sectors);
        assert_eq!((mode, sectors), (should.mode(), should.blocks()), "{kind}: {name}");
    }
}

/// The block of attributes of `path`, as debugfs tells it.
fn block_of(image: &[u8], path: &str) -> u64 {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), image).unwrap();
    let told = run("debugfs", &["-R", &format!("stat {path}"), file.path().to_str().unwrap()]);
    let (_, rest) = told.split_once("File ACL: ").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn who_shares_a_block_keeps_it_when_another_changes_it() {
    for (kind, options) in KINDS {
        println!("{kind}");
        let mounted = Mounted::new("16M", options, &[]);
        let names = ["a", "b", "c", "d"];
        for name in names {
            let path = mounted.path().join(name);
            fs::write(&path, name).unwrap();
            lsetxattr(&path, "user.long", &[b'l'; 500], LinuxFlags::empty()).unwrap();
        }
        let image = mounted.image();
        drop(mounted);
        let block = block_of(&image, "a");
        assert_ne!(block, 0, "{kind}");
        assert!(names.iter().all(|name| block_of(&image, name) == block), "{kind}");
        let inodes = names.map(|name| inode_of(&image, name));
        let written = Written::open(&image);
        let fs = &written.fs;
        set(fs, inodes[0], "user.long", &[b'm'; 500]).unwrap();
        fs.remove_extended_attribute(inodes[1], b"user.long").unwrap();
        fs.unlink(ROOT, b"c").unwrap();
        let image = written.close();
        assert_eq!(block_of(&image, "d"), block, "{kind}");
        assert_eq!(block_of(&image, "b"), 0, "{kind}");
        assert!(![0, block].contains(&block_of(&image, "a")), "{kind}");
        let mounted = Mounted::of(&image);
        let value = |name| one_on_linux(&mounted.path().join(name), b"user.long");
        assert_eq!(value("a"), Ok(vec![b'm'; 500]), "{kind}");
        assert_eq!(value("b"), Err(Errno::NODATA), "{kind}");
        assert_eq!(value("d"), Ok(vec![b'l'; 500]), "{kind}");
        drop(mounted);
        let written = Written::open(&image);
        set(&written.fs, inodes[3], "user.long", b"short").unwrap();
        set(&written.fs, inodes[3], "user.more", &[b'n'; 400]).unwrap();
        let _image = written.close();
    }
}

#[test]
fn the_first_attribute_of_an_image_makes_it_one_with_attributes() {
    for inode_bytes in ["128", "256"] {
        let options = ["-t", "ext4", "-O", "^ext_attr", "-I", inode_bytes];
        let written = Written::new("16M", &options);
        let file = written.fs.create(ROOT, b"file", &FILE).unwrap();
        set(&written.fs, file, "user.one", b"first").unwrap();
        set(&written.fs, file, "user.two", &[b's'; 300]).unwrap();
        let mounted = Mounted::of(&written.close());
        assert_eq!(on_linux(&mounted.path().join("file")).len(), 2);
    }
}

#[test]
fn what_has_no_block_for_its_attribute_stays_as_it_is() {
    let written = Written::new("2M", &["-t", "ext2", "-b", "1024", "-I", "128", "-N", "4096"]);
    let fs = &written.fs;
    let mut answers = Vec::new();
    for number in 0..3000u32 {
        let file = fs.create(ROOT, number.to_string().as_bytes(), &FILE);
        let Ok(file) = file else { break };
        let before = fs.attributes(file).unwrap();
        let result = set(fs, file, "user.one", &number.to_le_bytes());
        if let Err(error) = &result {
            assert_eq!(error.kind.errno(), Errno::NOSPC);
            assert_eq!(fs.attributes(file).unwrap(), before);
            assert_eq!(in_library(fs, file), All::new());
        }
        answers.push(result.is_ok());
    }
    assert!(answers.contains(&true) && answers.contains(&false));
    let _image = written.close();
}

#[test]
fn what_does_not_change_an_attribute_does_not_change_the_file() {
    let written = Written::new("16M", &["-t", "ext4"]);
    let fs = &written.fs;
    let file = fs.create(ROOT, b"file", &FILE).unwrap();
    for len in [10, 500] {
        set(fs, file, "user.one", &vec![b'1'; len]).unwrap();
        let before = fs.attributes(file).unwrap();
        set(fs, file, "user.one", &vec![b'1'; len]).unwrap();
        assert_eq!(fs.attributes(file).unwrap(), before);
    }
    fs.unlink(ROOT, b"file").unwrap();
    assert_eq!(errno(set(fs, file, "user.one", b"too late")), Errno::NOENT);
    let _image = written.close();
}

#[test]
fn damaged_attributes_are_an_error_or_changed() {
    let kinds = [["-t", "ext4", "-b", "1024"], ["-t", "ext2", "-b", "4096"]];
    for kind in kinds {
        let options = [&kind[..], &["-O", "^metadata_csum,^has_journal"]].concat();
        let written = Written::new("4M", &options);
        let file = written.fs.create(ROOT, b"file", &FILE).unwrap();
        for len in [0, 9, 20, 300, 100, 50] {
            set(&written.fs, file, &format!("user.{len}"), &vec![b'v'; len]).unwrap();
        }
        let image = written.close();
        let magic = 0xea02_0000u32.to_le_bytes();
        let places = (0..image.len()).step_by(4).filter(|at| image[*at..*at + 4] == magic);
        let places: Vec<usize> = places.collect();
        assert_eq!(places.len(), 2, "in the inode, and in the block");
        let mut random = fastrand::Rng::with_seed(9);
        let (mut changed, mut refused) = (0, 0);
        for _ in 0..150 {
            let mut damaged = image.clone();
            for _ in 0..random.usize(1..6) {
                let at = places[random.usize(..2)] + random.usize(4..90);
                damaged[at] = random.u8(..) >> random.u8(..8);
            }
            let written = Written::open(&damaged);
            for len in [300, 20, 9, 0, 80, 300] {
                let name = format!("user.{len}");
                let results = [
                    written.fs.remove_extended_attribute(file, name.as_bytes()),
                    set(&written.fs, file, &name, &vec![b'w'; len]),
                ];
                for result in results {
                    *if result.is_ok() { &mut changed } else { &mut refused } += 1;
                }
            }
        }
        assert!(changed > 100 && refused > 100, "{changed} {refused}");
    }
}
