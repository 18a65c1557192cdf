//! Random programs of operations on names, each of which Linux does too: every answer and what is
//! there afterwards are the same.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use mpage_block::Errno;
use mpage_ext4::{At, Existing, FileKind, FileSystem, InodeNumber, New, NewAttributes, Result};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use crate::mounted::Mounted;
use crate::written::{FILE, OWNER, ROOT, Written, check, list};

/// What one step of a program does, to paths of the tree.
#[derive(Clone, Debug)]
enum Step {
    Create(String),
    Device(String, u32),
    Mkdir(String),
    Symlink(String, usize),
    Link(String, String),
    Unlink(String),
    Rmdir(String),
    Rename(String, String, Existing),
    Chmod(String, u16),
}

/// A path: folders of few names, and at the end one of many.
fn path(random: &mut fastrand::Rng) -> String {
    let mut path = String::new();
    for _ in 0..random.usize(..4) {
        path += &format!("d{}/", random.u8(..3));
    }
    let number = random.usize(..200);
    path + &match number {
        0..30 => format!("d{}", number % 3),
        _ => format!("{number}").repeat(1 + (number % 9) * (number % 9)),
    }
}

fn step(random: &mut fastrand::Rng) -> Step {
    let first = path(random);
    match random.u8(..40) {
        0..10 => Step::Create(first),
        10..12 => Step::Device(first, random.u32(..) & 0x000f_ffff >> random.u8(..20)),
        12..17 => Step::Mkdir(first),
        17..19 => Step::Symlink(first, random.usize(1..1100)),
        19..23 => Step::Link(first, path(random)),
        23..29 => Step::Unlink(first),
        29..31 => Step::Rmdir(first),
        31..38 => {
            let kinds = [Existing::Replace, Existing::Keep, Existing::Exchange];
            Step::Rename(first, path(random), kinds[random.usize(..3)])
        }
        _ => Step::Chmod(first, random.u16(..) & 0o7777),
    }
}

/// A path of `len` bytes that leads nowhere.
fn target(len: usize) -> String {
    let mut target = "-/".repeat(len);
    target.truncate(len);
    target
}

/// Does `step` as Linux does.
fn on_linux(step: &Step, root: &Path) -> std::io::Result<()> {
    match step {
        Step::Create(path) => {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).open(root.join(path)).map(drop)
        }
        Step::Device(path, number) => {
            let kind = if *number % 2 == 0 { FileType::CharacterDevice } else { FileType::Fifo };
            let minor = *number & 0xff | *number >> 12 & 0xf_ff00;
            let device = rustix::fs::makedev(*number >> 8 & 0xfff, minor);
            Ok(mknodat(CWD, root.join(path), kind, Mode::from_raw_mode(0o600), device)?)
        }
        Step::Mkdir(path) => fs::create_dir(root.join(path)),
        Step::Symlink(path, len) => symlink(target(*len), root.join(path)),
        Step::Link(from, to) => fs::hard_link(root.join(from), root.join(to)),
        Step::Unlink(path) => fs::remove_file(root.join(path)),
        Step::Rmdir(path) => fs::remove_dir(root.join(path)),
        Step::Rename(from, to, existing) => {
            let flags = match existing {
                Existing::Replace => RenameFlags::empty(),
                Existing::Keep => RenameFlags::NOREPLACE,
                Existing::Exchange => RenameFlags::EXCHANGE,
            };
            Ok(renameat_with(CWD, root.join(from), CWD, root.join(to), flags)?)
        }
        Step::Chmod(path, mode) => {
            // One that is followed leads nowhere.
            fs::set_permissions(root.join(path), fs::Permissions::from_mode((*mode).into()))
        }
    }
}

/// The folder of `path` and the name in it. A symbolic link on the way leads nowhere.
fn resolve<'a>(fs: &FileSystem, path: &'a str) -> std::result::Result<At<'a>, Errno> {
    let errno = |error: mpage_ext4::Error| error.kind.errno();
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut parent = ROOT;
    for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
        parent = fs.lookup(parent, folder.as_bytes()).map_err(errno)?;
        if fs.attributes(parent).unwrap().kind == FileKind::SymbolicLink {
            return Err(Errno::NOENT);
        }
        if fs.attributes(parent).unwrap().kind != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
    }
    Ok(At { parent, name: name.as_bytes() })
}

/// Does `step` with the library.
fn on_library(step: &Step, fs: &FileSystem) -> std::result::Result<(), Errno> {
    let told = |result: Result<InodeNumber>| result.map(drop);
    let at = |path| resolve(fs, path);
    let find = |at: At<'_>| fs.lookup(at.parent, at.name).map_err(|error| error.kind.errno());
    let result = match step {
        Step::Create(path) => told(fs.create(at(path)?.parent, at(path)?.name, &FILE)),
        Step::Device(path, number) => {
            let is_fifo = *number % 2 == 1;
            let kind = if is_fifo { FileKind::Fifo } else { FileKind::CharacterDevice };
            let device = if is_fifo { 0 } else { *number };
            let new = New { kind, permissions: 0o600, device, ..FILE };
            told(fs.create(at(path)?.parent, at(path)?.name, &new))
        }
        Step::Mkdir(path) => told(fs.mkdir(at(path)?.parent, at(path)?.name, 0o755, OWNER)),
        Step::Symlink(path, len) => {
            told(fs.symlink(at(path)?.parent, at(path)?.name, target(*len).as_bytes(), OWNER))
        }
        Step::Link(from, to) => {
            let inode = find(at(from)?)?;
            fs.link(inode, at(to)?.parent, at(to)?.name)
        }
        Step::Unlink(path) => fs.unlink(at(path)?.parent, at(path)?.name),
        Step::Rmdir(path) => fs.rmdir(at(path)?.parent, at(path)?.name),
        Step::Rename(from, to, existing) => fs.rename(at(from)?, at(to)?, *existing),
        Step::Chmod(path, mode) => {
            let inode = find(at(path)?)?;
            if fs.attributes(inode).unwrap().kind == FileKind::SymbolicLink {
                return Err(Errno::NOENT);
            }
            let new = NewAttributes { permissions: Some(*mode), ..NewAttributes::default() };
            fs.set_attributes(inode, &new)
        }
    };
    result.map_err(|error| error.kind.errno())
}

/// Sees to it that `directory` and all below is what Linux has in `folder`.
fn compare(fs: &FileSystem, (directory, parent): (InodeNumber, InodeNumber), folder: &Path) {
    let mut count = 0;
    for entry in list(fs, directory) {
        let name = String::from_utf8(entry.name).unwrap();
        let expected = match &*name {
            "." => Some(directory),
            ".." => Some(parent),
            _ => None,
        };
        if let Some(expected) = expected {
            assert_eq!(entry.inode, expected, "{name} in {folder:?}");
            continue;
        }
        let at = folder.join(&name);
        let right = fs::symlink_metadata(&at).unwrap_or_else(|error| panic!("{at:?}: {error}"));
        let is = fs.attributes(entry.inode).unwrap();
        assert_eq!(u32::from(is.mode), right.mode(), "{at:?}");
        assert_eq!(u64::from(is.links), right.nlink(), "{at:?}");
        let minor = is.device & 0xff | is.device >> 12 & 0xf_ff00;
        let device = rustix::fs::makedev(is.device >> 8 & 0xfff, minor);
        assert_eq!(device, right.rdev(), "{at:?}");
        assert!(entry.kind.is_none_or(|kind| kind == is.kind), "{at:?}");
        if is.kind == FileKind::SymbolicLink {
            let target = fs.read_link(entry.inode).unwrap();
            assert_eq!(target, fs::read_link(&at).unwrap().into_os_string().into_encoded_bytes());
        }
        if is.kind == FileKind::Directory && name != "lost+found" {
            compare(fs, (entry.inode, directory), &at);
        }
        count += 1;
    }
    assert_eq!(count, fs::read_dir(folder).unwrap().count(), "{folder:?}");
}

/// Runs `steps` random steps.
fn run(seed: u64, kind: &str, options: &[&str], steps: usize) {
    let mut random = fastrand::Rng::with_seed(seed);
    let linux = Mounted::new("24M", options, &[]);
    let mut written = Written::new("24M", options);
    for number in 0..steps {
        let step = step(&mut random);
        let is = on_library(&step, &written.fs);
        let right = on_linux(&step, &linux.path());
        let right = right.map_err(|error| Errno::from_io_error(&error).unwrap());
        assert_eq!(is, right, "{kind}, seed {seed}, step {number}: {step:?}");
        if number.is_multiple_of(200) {
            compare(&written.fs, (ROOT, ROOT), &linux.path());
        }
        if number.is_multiple_of(1000) {
            written = Written::open(&written.close());
        }
    }
    compare(&written.fs, (ROOT, ROOT), &linux.path());
    let image = written.close();
    // Linux finds in it what the library does, and goes on with it.
    let mounted = Mounted::of(&image);
    let written = Written::open(&image);
    compare(&written.fs, (ROOT, ROOT), &mounted.path());
    for _ in 0..300 {
        let step = step(&mut random);
        let right = on_linux(&step, &linux.path()).map_err(|error| error.raw_os_error());
        let is = on_linux(&step, &mounted.path()).map_err(|error| error.raw_os_error());
        assert_eq!(is, right, "{kind}, seed {seed}: {step:?}");
    }
    check(&mounted.image());
}

/// Kinds of images: names, and the words that make them.
const KINDS: [(&str, &[&str]); 5] = [
    ("ext4 in 1 KiB", &["-t", "ext4", "-b", "1024"]),
    ("ext4 in 4 KiB", &["-t", "ext4", "-b", "4096"]),
    ("ext2 in 1 KiB", &["-t", "ext2", "-b", "1024"]),
    ("no checksums or hashes", &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^dir_index"]),
    ("short inodes, orphan file", &["-t", "ext4", "-b", "2048", "-I", "128", "-O", "orphan_file"]),
];

#[test]
fn random_programs_are_answered_as_linux_does() {
    for (number, (kind, options)) in (0..).zip(KINDS) {
        run(number, kind, options, 3000);
    }
}
