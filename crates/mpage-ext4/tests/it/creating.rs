//! Files of every kind are made as they are to be, or not at all.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use mpage_block::Errno;
use mpage_ext4::{FileKind, FileSystem, InodeNumber, New};

use crate::image::{KINDS, run};
use crate::mounted::Mounted;
use crate::written::{FILE, OWNER, ROOT, Written, errno, list, names};

/// Device numbers: small ones, and such of which a part does not fit into eight bits.
const DEVICES: [(u64, u64); 4] = [(1, 3), (8, 255), (259, 1), (7, 300)];

/// A device's number as the format has it.
fn number((major, minor): (u64, u64)) -> u32 {
    u32::try_from(minor & 0xff | major << 8 | (minor & !0xff) << 12).unwrap()
}

#[test]
fn linux_finds_every_kind_of_file_as_it_was_made() {
    for (kind, options) in KINDS {
        println!("{kind}");
        let written = Written::new("24M", options);
        let fs = &written.fs;
        let new = |kind| New { kind, permissions: 0o4751, uid: 70_000, gid: 80_000, device: 0 };
        let kinds = [FileKind::Regular, FileKind::Fifo, FileKind::Socket];
        for (name, kind) in ["regular", "fifo", "socket"].into_iter().zip(kinds) {
            let _inode = fs.create(ROOT, name.as_bytes(), &new(kind)).unwrap();
        }
        for (device, name) in DEVICES.into_iter().zip(["a", "b", "c", "d"]) {
            let block = New { device: number(device), ..new(FileKind::BlockDevice) };
            let _inode = fs.create(ROOT, name.as_bytes(), &block).unwrap();
        }
        for len in [1, 59, 60, 1000] {
            let name = format!("link{len}");
            let target = "x".repeat(len);
            let inode = fs.symlink(ROOT, name.as_bytes(), target.as_bytes(), (1, 2)).unwrap();
            assert_eq!(fs.read_link(inode).unwrap(), target.as_bytes(), "{kind}");
        }
        let folder = fs.mkdir(ROOT, b"folder", 0o1777, (5, 6)).unwrap();
        let _inode = fs.create(folder, &[b'n'; 255], &FILE).unwrap();
        let mounted = Mounted::of(&written.close());
        let path = |name: &str| mounted.path().join(name);
        for name in ["regular", "fifo", "socket", "a", "b", "c", "d"] {
            let is = fs::symlink_metadata(path(name)).unwrap();
            let owner = (is.mode() & 0o7777, is.uid(), is.gid(), is.nlink(), is.len());
            assert_eq!(owner, (0o4751, 70_000, 80_000, 1, 0), "{kind}: {name}");
        }
        assert!(fs::metadata(path("regular")).unwrap().is_file());
        assert!(fs::metadata(path("fifo")).unwrap().file_type().is_fifo());
        assert!(fs::metadata(path("socket")).unwrap().file_type().is_socket());
        for (device, name) in DEVICES.into_iter().zip(["a", "b", "c", "d"]) {
            let is = fs::metadata(path(name)).unwrap();
            let (major, minor) = (rustix::fs::major(is.rdev()), rustix::fs::minor(is.rdev()));
            assert_eq!((u64::from(major), u64::from(minor)), device, "{kind}");
            assert!(is.file_type().is_block_device());
        }
        for len in [1, 59, 60, 1000] {
            let target = fs::read_link(path(&format!("link{len}"))).unwrap();
            assert_eq!(target.to_str().unwrap(), "x".repeat(len), "{kind}");
        }
        let is = fs::metadata(path("folder")).unwrap();
        assert_eq!((is.mode() & 0o7777, is.uid(), is.gid(), is.nlink()), (0o1777, 5, 6, 2));
        assert!(path("folder").join("n".repeat(255)).exists(), "{kind}");
    }
}

#[test]
fn a_name_that_cannot_be_is_refused() {
    let written = Written::new("8M", &["-t", "ext4"]);
    let fs = &written.fs;
    let file = fs.create(ROOT, b"file", &FILE).unwrap();
    let create = |name: &[u8]| errno(fs.create(ROOT, name, &FILE));
    for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b"] {
        assert_eq!(create(name), Errno::INVAL, "{name:?}");
    }
    assert_eq!(create(&[b'x'; 256]), Errno::NAMETOOLONG);
    assert_eq!(create(b"file"), Errno::EXIST);
    assert_eq!(errno(fs.mkdir(ROOT, b"file", 0o755, OWNER)), Errno::EXIST);
    assert_eq!(errno(fs.symlink(ROOT, b"file", b"x", OWNER)), Errno::EXIST);
    assert_eq!(errno(fs.link(file, ROOT, b"file")), Errno::EXIST);
    assert_eq!(errno(fs.create(file, b"name", &FILE)), Errno::NOTDIR);
    let directory = New { kind: FileKind::Directory, ..FILE };
    assert_eq!(errno(fs.create(ROOT, b"name", &directory)), Errno::INVAL);
    assert_eq!(errno(fs.symlink(ROOT, b"name", b"", OWNER)), Errno::NOENT);
    assert_eq!(errno(fs.symlink(ROOT, b"name", &[b'x'; 4096], OWNER)), Errno::NAMETOOLONG);
    let removed = fs.mkdir(ROOT, b"removed", 0o755, OWNER).unwrap();
    fs.rmdir(ROOT, b"removed").unwrap();
    assert_eq!(errno(fs.create(removed, b"name", &FILE)), Errno::NOENT);
    assert_eq!(errno(fs.lookup(ROOT, b"name")), Errno::NOENT);
    let _image = written.close();
}

#[test]
fn what_is_in_a_setgid_directory_has_its_group() {
    let written = Written::new("8M", &["-t", "ext4"]);
    let fs = &written.fs;
    let folder = fs.mkdir(ROOT, b"folder", 0o2775, (1, 77)).unwrap();
    let file = fs.create(folder, b"file", &FILE).unwrap();
    let below = fs.mkdir(folder, b"below", 0o755, (3, 4)).unwrap();
    let of = |inode| fs.attributes(inode).unwrap();
    assert_eq!((of(file).gid, of(file).mode), (77, 0o100_644));
    assert_eq!((of(below).uid, of(below).gid, of(below).mode), (3, 77, 0o42_755));
    let _image = written.close();
}

#[test]
fn a_new_file_changes_the_times_of_its_directory_and_the_number_of_links() {
    let written = Written::new("8M", &["-t", "ext4"]);
    let fs = &written.fs;
    let root = || fs.attributes(ROOT).unwrap();
    let before = root();
    let folder = fs.mkdir(ROOT, b"folder", 0o755, OWNER).unwrap();
    assert_eq!(root().links, before.links + 1);
    assert!(root().modified > before.modified && root().changed == root().modified);
    assert_eq!(root().accessed, before.accessed);
    let is = fs.attributes(folder).unwrap();
    assert_eq!(is.created, Some(is.modified));
    fs.rmdir(ROOT, b"folder").unwrap();
    assert_eq!(root().links, before.links);
    let _image = written.close();
}

/// What debugfs says is the generation of the only file.
fn generation(image: &[u8]) -> u32 {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), image).unwrap();
    let told = run("debugfs", &["-R", "stat file", file.path().to_str().unwrap()]);
    let (_, rest) = told.split_once("Generation: ").unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn an_inode_that_is_used_again_is_of_another_generation() {
    let written = Written::new("8M", &["-t", "ext4"]);
    let first = written.fs.create(ROOT, b"file", &FILE).unwrap();
    let image = written.close();
    let written = Written::open(&image);
    written.fs.unlink(ROOT, b"file").unwrap();
    let other = written.fs.create(ROOT, b"other", &FILE).unwrap();
    assert_ne!(other, first, "it is not free before that is durable");
    let written = Written::open(&written.close());
    assert_eq!(written.fs.create(ROOT, b"file", &FILE).unwrap(), first);
    assert_eq!(generation(&written.close()), generation(&image) + 1);
}

/// Makes what `make` does until there is no room; then that changes nothing.
fn fill(
    fs: &FileSystem,
    (folder, prefix): (InodeNumber, &str),
    make: impl Fn(&[u8]) -> mpage_ext4::Result<InodeNumber>,
) {
    let mut made = names(fs, folder);
    for number in 0.. {
        let name = format!("{prefix}{number}").repeat(20).into_bytes();
        let before = (fs.attributes(folder).unwrap(), list(fs, folder));
        if let Err(error) = make(&name) {
            assert_eq!(error.kind.errno(), Errno::NOSPC);
            assert!((fs.attributes(folder).unwrap(), list(fs, folder)) == before, "{prefix}");
            break;
        }
        made.push(name);
    }
    made.sort();
    assert!(names(fs, folder) == made, "{prefix}");
}

#[test]
fn what_has_no_room_leaves_nothing_behind() {
    for options in [
        &["-t", "ext4", "-b", "1024", "-I", "128", "-N", "4096"][..],
        &["-t", "ext4", "-b", "1024", "-N", "64"],
        &["-t", "ext2", "-b", "1024", "-I", "128", "-N", "4096"],
    ] {
        let written = Written::new("2M", options);
        let fs = &written.fs;
        let folder = fs.mkdir(ROOT, b"folder", 0o755, OWNER).unwrap();
        fill(fs, (folder, "link"), |name| fs.symlink(folder, name, &[b't'; 900], OWNER));
        fill(fs, (folder, "folder"), |name| fs.mkdir(folder, name, 0o755, OWNER));
        fill(fs, (folder, "file"), |name| fs.create(folder, name, &FILE));
        let image = written.close();
        let written = Written::open(&image);
        let fs = &written.fs;
        for entry in list(fs, folder) {
            if entry.name.starts_with(b".") {
                continue;
            }
            match fs.attributes(entry.inode).unwrap().kind {
                FileKind::Directory => fs.rmdir(folder, &entry.name).unwrap(),
                _ => fs.unlink(folder, &entry.name).unwrap(),
            }
        }
        // What was freed has to be waited for.
        for number in 0..20 {
            let name = format!("{number}").into_bytes();
            let _inode = fs.symlink(folder, &name, &[b't'; 900], OWNER).unwrap();
        }
        let _image = written.close();
    }
}

/// e2fsck takes a link whose target is shorter than its size for damage.
#[test]
fn the_target_of_a_symbolic_link_has_no_zero_byte() {
    let written = Written::new("16M", &["-t", "ext4"]);
    let refused = written.fs.symlink(ROOT, b"link", b"a\0b", OWNER);
    assert_eq!(errno(refused), Errno::INVAL);
    let _image = written.close();
}
