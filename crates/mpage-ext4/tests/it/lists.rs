//! Access lists say what Linux makes of them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use mpage_block::Errno;
use mpage_ext4::{FileSystem, InodeNumber, New, NewAttributes, XattrFlags};
use rustix::fs::{XattrFlags as LinuxFlags, lremovexattr, lsetxattr};

use crate::image::KINDS;
use crate::mounted::Mounted;
use crate::written::{FILE, OWNER, ROOT, Written};
use crate::xattrs::{in_library, on_linux};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// A list: few of them are right only by chance.
fn list(random: &mut fastrand::Rng, is_right: bool) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let mut entries = vec![(1, NOBODY), (4, NOBODY), (0x20, NOBODY)];
    let names = random.usize(..4);
    for _ in 0..names {
        entries.push(([2, 8][random.usize(..2)], random.u32(1..2000)));
    }
    if names > 0 || random.bool() {
        entries.push((0x10, NOBODY));
    }
    entries.sort();
    if !is_right {
        match random.u8(..5) {
            0 => {
                let _gone = entries.remove(random.usize(..entries.len()));
            }
            1 => entries.push(entries[random.usize(..entries.len())]),
            2 => random.shuffle(&mut entries),
            3 => entries[0].0 = random.u16(..),
            _ => entries.clear(),
        }
    }
    let entry = |(kind, name): (u16, u32)| {
        let permissions = random.u16(..8 + u16::from(!is_right));
        [&kind.to_le_bytes()[..], &permissions.to_le_bytes(), &name.to_le_bytes()].concat()
    };
    [2u32.to_le_bytes().to_vec(), entries.into_iter().flat_map(entry).collect()].concat()
}

/// Sees to it that `inode` is as Linux has `path`.
fn compare(fs: &FileSystem, inode: InodeNumber, path: &Path, what: &str) {
    let is = fs.attributes(inode).unwrap();
    let should = fs::symlink_metadata(path).unwrap();
    assert_eq!(u32::from(is.mode), should.mode(), "{what}: {:o} {:o}", is.mode, should.mode());
    assert_eq!(is.sectors, should.blocks(), "{what}");
    assert_eq!(in_library(fs, inode), on_linux(path), "{what}");
}

/// What each of the two makes of a list.
fn set(fs: &FileSystem, inode: InodeNumber, path: &Path, name: &str, list: &[u8]) {
    let answer = lsetxattr(path, name, list, LinuxFlags::empty());
    let result = fs.set_extended_attribute(inode, name.as_bytes(), list, XattrFlags::None);
    assert_eq!(result.map_err(|error| error.kind.errno()), answer, "{name}: {list:?}");
}

fn chmod(fs: &FileSystem, inode: InodeNumber, path: &Path, mode: u16) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode.into())).unwrap();
    let new = NewAttributes { permissions: Some(mode), ..NewAttributes::default() };
    fs.set_attributes(inode, &new).unwrap();
}

fn empty(options: &[&str]) -> (Written, Mounted) {
    let mounted = Mounted::new("16M", options, &[]);
    (Written::open(&mounted.image()), mounted)
}

#[test]
fn a_new_file_has_the_default_list_as_linux_gives_it() {
    for (seed, (kind, options)) in (1..).zip(KINDS) {
        println!("{kind}, seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (written, mounted) = empty(options);
        let fs = &written.fs;
        for number in 0..24 {
            let name = format!("folder{number}");
            let folder = mounted.path().join(&name);
            fs::DirBuilder::new().mode(0o755).create(&folder).unwrap();
            let parent = fs.mkdir(ROOT, name.as_bytes(), 0o755, OWNER).unwrap();
            set(fs, parent, &folder, DEFAULT, &list(&mut random, true));
            compare(fs, parent, &folder, &name);
            for number in 0..4 {
                let (name, mode) = (format!("file{number}"), random.u16(..) & 0o777);
                let path = folder.join(&name);
                let mut how = fs::OpenOptions::new();
                let _file = how.write(true).create_new(true).mode(mode.into()).open(&path).unwrap();
                let new = New { permissions: mode, ..FILE };
                let file = fs.create(parent, name.as_bytes(), &new).unwrap();
                compare(fs, file, &path, &name);
                let mode = random.u16(..) & 0o777;
                chmod(fs, file, &path, mode);
                compare(fs, file, &path, &name);
            }
            let mode = random.u16(..) & 0o777;
            fs::DirBuilder::new().mode(mode.into()).create(folder.join("below")).unwrap();
            let below = fs.mkdir(parent, b"below", mode, OWNER).unwrap();
            compare(fs, below, &folder.join("below"), "below");
            std::os::unix::fs::symlink("target", folder.join("link")).unwrap();
            let link = fs.symlink(parent, b"link", b"target", OWNER).unwrap();
            compare(fs, link, &folder.join("link"), "link");
        }
        let _image = written.close();
    }
}

#[test]
fn lists_and_modes_change_as_with_linux() {
    for (seed, (kind, options)) in (1..).zip(KINDS) {
        println!("{kind}, seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let (written, mounted) = empty(options);
        let fs = &written.fs;
        fs::DirBuilder::new().mode(0o755).create(mounted.path().join("folder")).unwrap();
        let _inode = fs.mkdir(ROOT, b"folder", 0o755, OWNER).unwrap();
        fs::write(mounted.path().join("file"), "").unwrap();
        let _inode = fs.create(ROOT, b"file", &FILE).unwrap();
        std::os::unix::fs::symlink("target", mounted.path().join("link")).unwrap();
        let _inode = fs.symlink(ROOT, b"link", b"target", OWNER).unwrap();
        chmod(fs, fs.lookup(ROOT, b"file").unwrap(), &mounted.path().join("file"), 0o644);
        for _ in 0..300 {
            let file = ["file", "folder", "file", "folder", "link"][random.usize(..5)];
            let path = mounted.path().join(file);
            let inode = fs.lookup(ROOT, file.as_bytes()).unwrap();
            let name = if random.bool() { ACCESS } else { DEFAULT };
            match random.u8(..10) {
                0 => {
                    let answer = lremovexattr(&path, name);
                    let result = fs.remove_extended_attribute(inode, name.as_bytes());
                    let result = result.map_err(|error| error.kind.errno());
                    assert_eq!(result, answer, "{kind}: {file} {name}");
                }
                1..4 if file != "link" => chmod(fs, inode, &path, random.u16(..) & 0o777),
                4 => set(fs, inode, &path, name, &[0, 2][..random.usize(..3)]),
                _ => {
                    let is_right = random.u8(..3) > 0;
                    set(fs, inode, &path, name, &list(&mut random, is_right));
                }
            }
            compare(fs, inode, &path, &format!("{kind}: {file} {name}"));
        }
        let mounted = Mounted::of(&written.close());
        let written = Written::open(&mounted.image());
        for name in ["file", "folder", "link"] {
            let inode = written.fs.lookup(ROOT, name.as_bytes()).unwrap();
            compare(&written.fs, inode, &mounted.path().join(OsStr::new(name)), name);
        }
    }
}

#[test]
fn a_list_of_another_version_is_refused() {
    let written = Written::new("16M", &["-t", "ext4"]);
    let set = |list: &[u8]| {
        let result =
            written.fs.set_extended_attribute(ROOT, ACCESS.as_bytes(), list, XattrFlags::None);
        result.map_err(|error| error.kind.errno())
    };
    assert_eq!(set(&[1, 0, 0, 0]), Err(Errno::OPNOTSUPP));
    assert_eq!(set(&[2, 0, 0, 0, 1]), Err(Errno::INVAL));
    assert_eq!(set(&[2, 0, 0, 0]), Ok(()));
    let _image = written.close();
}
