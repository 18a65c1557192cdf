//! A tree with all that a file system has: every kind of file, odd names, times, modes, attributes.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::word;
use crate::rig::image::Random;

/// Grows the tree at `place`, which is made, with so many entries in its `wide` folder.
pub(super) fn grow(place: &Path, wide: usize) -> Result<(), Failure> {
    let at = |error| Failure::at(&word(place), &error);
    fs::create_dir(place).map_err(at)?;
    names(place, wide).map_err(at)?;
    contents(place).map_err(at)?;
    links(place).map_err(at)?;
    kinds(place).map_err(at)?;
    owners_and_modes(place).map_err(at)?;
    attributes(place).map_err(at)?;
    access_lists(place)?;
    times(place).map_err(at)
}

/// Deep folders, wide ones, long names and names that are no text.
fn names(place: &Path, wide: usize) -> io::Result<()> {
    let mut deep = place.join("deep");
    for level in 0..12 {
        deep.push(format!("{level}{}", "d".repeat(200)));
    }
    fs::create_dir_all(&deep)?;
    fs::write(deep.join("bottom"), "far down")?;
    let folder = place.join("wide");
    fs::create_dir(&folder)?;
    for number in 0..wide {
        fs::write(folder.join(format!("entry {number}")), number.to_string())?;
    }
    for number in (0..wide).step_by(3) {
        fs::remove_file(folder.join(format!("entry {number}")))?;
    }
    for number in (1..wide).step_by(3) {
        let from = folder.join(format!("entry {number}"));
        fs::rename(from, folder.join(format!("moved, with a longer name, {number}")))?;
    }
    fs::write(place.join("n".repeat(255)), "a long name")?;
    let bytes = vec![b'a', 0xff, 0xfe, b'\n', b'\t', b'"'];
    fs::write(place.join(std::ffi::OsString::from_vec(bytes)), "no text")
}

/// Files of all sizes about those of blocks, with holes, and with room that was never written.
fn contents(place: &Path) -> io::Result<()> {
    let mut random = Random(21);
    for size in [0_usize, 1, 59, 1023, 1024, 4095, 4096, 4097, 65_536, 1_000_003] {
        let mut data = vec![0; size];
        random.fill(&mut data);
        fs::write(place.join(format!("size {size}")), data)?;
    }
    let sparse = File::create(place.join("sparse"))?;
    let mut data = vec![0; 10_000];
    for offset in [5000, 1 << 20, (1 << 20) + 200_000, 50 << 20, (100 << 20) + 77] {
        random.fill(&mut data);
        sparse.write_all_at(&data, offset)?;
    }
    sparse.set_len((120 << 20) + 1)?;
    let room = File::create(place.join("room"))?;
    room.write_all_at(&data, 40_000)?;
    allocate(&room, FallocateFlags::empty(), 0, 300_000)?;
    allocate(&room, FallocateFlags::KEEP_SIZE, 300_000, 100_000)?;
    let holes = File::create(place.join("holes"))?;
    let mut data = vec![0; 400_000];
    random.fill(&mut data);
    holes.write_all_at(&data, 0)?;
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    allocate(&holes, punch, 70_001, 200_000)?;
    holes.set_len(350_000)
}

/// Calls fallocate, which only files with extents have to do all of.
fn allocate(file: &File, mode: FallocateFlags, offset: u64, length: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, mode, offset, length) {
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Names of one file, and symbolic links of all lengths.
fn links(place: &Path) -> io::Result<()> {
    let folder = place.join("links");
    fs::create_dir(&folder)?;
    fs::write(folder.join("first"), "many names")?;
    for number in 0..60 {
        fs::hard_link(folder.join("first"), folder.join(format!("name {number}")))?;
    }
    fs::remove_file(folder.join("first"))?;
    symlink("nowhere", folder.join("dangling"))?;
    for length in [1, 59, 60, 255, 900] {
        let target: PathBuf = "t/".repeat(length).chars().take(length).collect::<String>().into();
        symlink(target, folder.join(format!("target of {length}")))?;
    }
    fs::hard_link(folder.join("dangling"), folder.join("dangling too"))
}

/// What is neither file, folder nor link.
fn kinds(place: &Path) -> io::Result<()> {
    let kinds = [
        ("pipe", FileType::Fifo, 0),
        ("socket", FileType::Socket, 0),
        ("character device", FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        ("block device", FileType::BlockDevice, rustix::fs::makedev(7, 200)),
        ("far device", FileType::CharacterDevice, rustix::fs::makedev(2000, 70_000)),
    ];
    for (name, kind, device) in kinds {
        let mode = Mode::from_raw_mode(0o640);
        rustix::fs::mknodat(CWD, place.join(name), kind, mode, device)?;
    }
    Ok(())
}

fn owners_and_modes(place: &Path) -> io::Result<()> {
    let folder = place.join("modes");
    fs::create_dir(&folder)?;
    for mode in [0, 0o4711, 0o2755, 0o1777, 0o6777, 0o444] {
        for (owner, group) in [(0, 0), (1, 2), (70_000, 4_000_000_000)] {
            let path = folder.join(format!("{mode:o} of {owner}"));
            fs::write(&path, "modes")?;
            chown(&path, Some(owner), Some(group))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
    }
    let inherited = folder.join("inherited");
    fs::create_dir(&inherited)?;
    chown(&inherited, None, Some(77))?;
    fs::set_permissions(&inherited, fs::Permissions::from_mode(0o2775))?;
    fs::create_dir(inherited.join("below"))?;
    fs::write(inherited.join("file"), "of the folder's group")?;
    symlink("x", folder.join("link of another"))?;
    lchown(folder.join("link of another"), Some(123), Some(456))
}

/// Attributes of all spaces, small ones and as large as a block of 1 KiB can hold.
fn attributes(place: &Path) -> io::Result<()> {
    let file = place.join("attributes");
    fs::write(&file, "attributes")?;
    fs::create_dir(place.join("attributes of a folder"))?;
    for path in [file, place.join("attributes of a folder")] {
        let set = |name: &str, value: &[u8]| {
            rustix::fs::lsetxattr(&path, name, value, XattrFlags::empty())
        };
        for number in 0..6 {
            set(&format!("user.small-{number}"), number.to_string().as_bytes())?;
        }
        set("user.empty", b"")?;
        set("user.large", &[b'v'; 500])?;
        set("trusted.of-root", b"trust")?;
        set("security.anything", b"label")?;
        set("user.large", &[b'w'; 400])?;
        rustix::fs::lremovexattr(&path, "user.small-3")?;
    }
    Ok(())
}

fn access_lists(place: &Path) -> Result<(), Failure> {
    let at = |error| Failure::at(&word(place), &error);
    let folder = place.join("access lists");
    fs::create_dir(&folder).map_err(at)?;
    let file = folder.join("file");
    fs::write(&file, "for some").map_err(at)?;
    let set =
        |entries: &[&str], path: &Path| output(program("setfacl", entries).arg(path)).map(drop);
    set(&["--modify", "user:1:rwx,group:2:r-x,user:70000:---,mask::r-x"], &file)?;
    set(&["--default", "--modify", "user:1:rwx,group:3:r-x,other::---"], &folder)?;
    fs::create_dir(folder.join("inherits")).map_err(at)?;
    fs::write(folder.join("inherits/file"), "inherits").map_err(at)?;
    let plain = folder.join("plain again");
    fs::write(&plain, "plain").map_err(at)?;
    set(&["--remove-all"], &plain)
}

/// Times before and behind what 32 bits hold, and of folders and links, last of all.
fn times(place: &Path) -> io::Result<()> {
    let folder = place.join("times");
    fs::create_dir(&folder)?;
    for seconds in [-2_000_000_000, -1, 0, 1_000_000_000, 2_147_483_648, 5_000_000_000] {
        let path = folder.join(format!("at {seconds}"));
        fs::write(&path, "times")?;
        set_time(&path, seconds, 123_456_789)?;
    }
    symlink("a", folder.join("link"))?;
    for (number, path) in
        ["links/dangling", "times/link", "pipe", "socket", "deep", "wide", "times"]
            .iter()
            .enumerate()
    {
        let seconds = 1_100_000_000 + i64::try_from(number).expect("a small number");
        set_time(&place.join(path), seconds, 999_999_999)?;
    }
    set_time(place, 1_200_000_000, 1)
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) -> io::Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
