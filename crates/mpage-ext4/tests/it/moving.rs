//! Names that go, and names that move.

use mpage_block::Errno;
use mpage_ext4::{At, Existing, FileSystem, InodeNumber, NewAttributes, Timestamp};

use crate::image::set;
use crate::written::{FILE, OWNER, ROOT, Written, errno, names};

fn rename(
    fs: &FileSystem,
    from: (InodeNumber, &str),
    to: (InodeNumber, &str),
    existing: Existing,
) -> mpage_ext4::Result<()> {
    let at = |(parent, name): (InodeNumber, &'static str)| At { parent, name: name.as_bytes() };
    let [from, to] = [from, to].map(|(parent, name)| (parent, &*name.to_owned().leak()));
    fs.rename(at(from), at(to), existing)
}

/// `/file`, `/other`, `/folder` with `below` in it, and `/empty`.
fn plant(fs: &FileSystem) -> [InodeNumber; 3] {
    let _file = fs.create(ROOT, b"file", &FILE).unwrap();
    let _other = fs.create(ROOT, b"other", &FILE).unwrap();
    let folder = fs.mkdir(ROOT, b"folder", 0o755, OWNER).unwrap();
    let below = fs.mkdir(folder, b"below", 0o755, OWNER).unwrap();
    let empty = fs.mkdir(ROOT, b"empty", 0o755, OWNER).unwrap();
    [folder, below, empty]
}

#[test]
fn a_name_goes_only_as_its_kind_of_file_may() {
    let written = Written::new("8M", &["-t", "ext4"]);
    let fs = &written.fs;
    let [folder, below, _] = plant(fs);
    assert_eq!(errno(fs.unlink(ROOT, b"folder")), Errno::ISDIR);
    assert_eq!(errno(fs.unlink(ROOT, b"nothing")), Errno::NOENT);
    assert_eq!(errno(fs.unlink(ROOT, &[b'x'; 256])), Errno::NAMETOOLONG);
    assert_eq!(errno(fs.unlink(ROOT, b".")), Errno::ISDIR);
    assert_eq!(errno(fs.rmdir(ROOT, b"folder")), Errno::NOTEMPTY);
    assert_eq!(errno(fs.rmdir(ROOT, b"file")), Errno::NOTDIR);
    assert_eq!(errno(fs.rmdir(ROOT, b"nothing")), Errno::NOENT);
    assert_eq!(errno(fs.rmdir(folder, b".")), Errno::INVAL);
    assert_eq!(errno(fs.rmdir(folder, b"..")), Errno::NOTEMPTY);
    assert_eq!(errno(fs.link(below, ROOT, b"name")), Errno::PERM);
    let file = fs.lookup(ROOT, b"file").unwrap();
    assert_eq!(errno(fs.unlink(file, b"name")), Errno::NOTDIR);
    fs.rmdir(folder, b"below").unwrap();
    fs.rmdir(ROOT, b"folder").unwrap();
    assert_eq!(names(fs, ROOT), [&b"empty"[..], b"file", b"other"]);
    let _image = written.close();
}

#[test]
fn a_file_with_more_names_stays() {
    let written = Written::new("8M", &["-t", "ext4"]);
    let fs = &written.fs;
    let [folder, ..] = plant(fs);
    let file = fs.lookup(ROOT, b"file").unwrap();
    fs.link(file, folder, b"again").unwrap();
    fs.unlink(ROOT, b"file").unwrap();
    assert_eq!(fs.attributes(file).unwrap().links, 1);
    assert_eq!(fs.lookup(folder, b"again").unwrap(), file);
    fs.unlink(folder, b"again").unwrap();
    assert_eq!(errno(fs.link(file, folder, b"again")), Errno::NOENT);
    let _image = written.close();
}

/// The most names that a file may have.
const LINKS_MAX: u32 = 65_000;

#[test]
fn a_file_has_so_many_names_and_no_more() {
    let written = Written::new("8M", &["-t", "ext4"]);
    let inode = written.fs.create(ROOT, b"file", &FILE).unwrap();
    let commands = [format!("sif file links_count {}", LINKS_MAX - 1)];
    let image = changed(&written.close(), &commands.each_ref().map(String::as_str));
    let fs = &Written::open(&image).fs;
    fs.link(inode, ROOT, b"last").unwrap();
    assert_eq!(errno(fs.link(inode, ROOT, b"more")), Errno::MLINK);
    assert_eq!(fs.attributes(inode).unwrap().links, LINKS_MAX);
}

/// `image`, changed as `commands` of debugfs say.
fn changed(image: &[u8], commands: &[&str]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), image).unwrap();
    set(file.path(), commands);
    std::fs::read(file.path()).unwrap()
}

#[test]
fn what_cannot_be_renamed_stays_as_it_is() {
    let written = Written::new("8M", &["-t", "ext4"]);
    let fs = &written.fs;
    let [folder, below, empty] = plant(fs);
    let replace = |from, to| errno(rename(fs, from, to, Existing::Replace));
    assert_eq!(replace((ROOT, "nothing"), (ROOT, "name")), Errno::NOENT);
    assert_eq!(replace((ROOT, "folder"), (ROOT, "file")), Errno::NOTDIR);
    assert_eq!(replace((ROOT, "file"), (ROOT, "folder")), Errno::ISDIR);
    assert_eq!(replace((ROOT, "empty"), (ROOT, "folder")), Errno::NOTEMPTY);
    assert_eq!(replace((ROOT, "folder"), (folder, "name")), Errno::INVAL);
    assert_eq!(replace((ROOT, "folder"), (below, "name")), Errno::INVAL);
    assert_eq!(replace((folder, "below"), (ROOT, "folder")), Errno::NOTEMPTY);
    assert_eq!(replace((ROOT, "file"), (ROOT, "a/b")), Errno::INVAL);
    assert_eq!(replace((ROOT, "file"), (ROOT, "..")), Errno::BUSY);
    assert_eq!(replace((folder, "."), (ROOT, "name")), Errno::BUSY);
    let keep = |from, to| errno(rename(fs, from, to, Existing::Keep));
    assert_eq!(keep((ROOT, "file"), (ROOT, "other")), Errno::EXIST);
    assert_eq!(keep((ROOT, "file"), (ROOT, "file")), Errno::EXIST);
    let exchange = |from, to| errno(rename(fs, from, to, Existing::Exchange));
    assert_eq!(exchange((ROOT, "file"), (ROOT, "nothing")), Errno::NOENT);
    assert_eq!(exchange((ROOT, "folder"), (folder, "below")), Errno::INVAL);
    assert_eq!(exchange((folder, "below"), (ROOT, "folder")), Errno::INVAL);
    fs.rmdir(ROOT, b"empty").unwrap();
    assert_eq!(replace((ROOT, "file"), (empty, "name")), Errno::NOENT);
    assert_eq!(names(fs, ROOT), [&b"file"[..], b"folder", b"other"]);
    let _image = written.close();
}

#[test]
fn a_directory_that_moves_has_another_parent() {
    for options in [&["-t", "ext4", "-b", "1024"][..], &["-t", "ext2", "-b", "1024"]] {
        let written = Written::new("8M", options);
        let fs = &written.fs;
        let [folder, below, empty] = plant(fs);
        for number in 0..200 {
            let name = format!("a name of the directory that moves: {number}");
            let _inode = fs.create(below, name.as_bytes(), &FILE).unwrap();
        }
        let links = |inode| fs.attributes(inode).unwrap().links;
        let [at_root, at_folder, at_empty] = [ROOT, folder, empty].map(links);
        rename(fs, (folder, "below"), (empty, "name"), Existing::Replace).unwrap();
        assert_eq!(fs.lookup(below, b"..").unwrap(), empty);
        assert_eq!([folder, empty].map(links), [at_folder - 1, at_empty + 1]);
        rename(fs, (ROOT, "file"), (empty, "name"), Existing::Exchange).unwrap();
        assert_eq!(fs.lookup(below, b"..").unwrap(), ROOT);
        assert_eq!([ROOT, empty].map(links), [at_root + 1, at_empty]);
        rename(fs, (ROOT, "file"), (ROOT, "folder"), Existing::Replace).unwrap();
        assert_eq!([ROOT, below].map(links), [at_root, 2]);
        assert_eq!(fs.lookup(ROOT, b"folder").unwrap(), below);
        let _image = written.close();
    }
}

#[test]
fn attributes_are_what_they_were_set_to() {
    for options in [&["-t", "ext4"][..], &["-t", "ext2", "-I", "128"]] {
        let written = Written::new("8M", options);
        let fs = &written.fs;
        let file = fs.create(ROOT, b"file", &FILE).unwrap();
        let before = fs.attributes(file).unwrap();
        let at = |seconds| Some(Timestamp { seconds, nanoseconds: 0 });
        let all = NewAttributes {
            permissions: Some(0o1234),
            uid: Some(100_000),
            gid: Some(5),
            accessed: at(1),
            modified: at(-2),
            changed: at(3),
        };
        fs.set_attributes(file, &all).unwrap();
        let written = Written::open(&written.close());
        let is = written.fs.attributes(file).unwrap();
        assert_eq!((is.mode, is.uid, is.gid), (0o101_234, 100_000, 5));
        let times = [is.accessed, is.modified, is.changed].map(Some);
        assert_eq!(times, [at(1), at(-2), at(3)]);
        let one = NewAttributes { gid: Some(6), ..NewAttributes::default() };
        written.fs.set_attributes(file, &one).unwrap();
        let then = written.fs.attributes(file).unwrap();
        assert_eq!((then.mode, then.uid, then.gid), (is.mode, is.uid, 6));
        assert_eq!((then.accessed, then.modified), (is.accessed, is.modified));
        assert!(then.changed.seconds >= before.changed.seconds);
        let _image = written.close();
    }
}

/// `chattr +i` and `chattr +a`.
const FLAGS: [u32; 2] = [0x10, 0x20];

#[test]
fn flags_forbid_changes() {
    for flag in FLAGS {
        let written = Written::new("8M", &["-t", "ext2"]);
        let fs = &written.fs;
        let [folder, ..] = plant(fs);
        let _inside = fs.create(folder, b"inside", &FILE).unwrap();
        let image = written.close();
        let commands = ["folder", "file"].map(|name| format!("sif {name} flags {flag:#x}"));
        let written = Written::open(&changed(&image, &commands.each_ref().map(String::as_str)));
        let fs = &written.fs;
        let replace = |from, to| errno(rename(fs, from, to, Existing::Replace));
        assert_eq!(errno(fs.unlink(folder, b"inside")), Errno::PERM);
        assert_eq!(errno(fs.rmdir(folder, b"below")), Errno::PERM);
        assert_eq!(errno(fs.unlink(ROOT, b"file")), Errno::PERM);
        assert_eq!(replace((folder, "inside"), (ROOT, "name")), Errno::PERM);
        assert_eq!(replace((ROOT, "other"), (folder, "inside")), Errno::PERM);
        assert_eq!(replace((ROOT, "file"), (ROOT, "name")), Errno::PERM);
        let inode = fs.lookup(ROOT, b"file").unwrap();
        assert_eq!(errno(fs.link(inode, ROOT, b"name")), Errno::PERM);
        assert_eq!(errno(fs.set_attributes(inode, &NewAttributes::default())), Errno::PERM);
        let file = fs.open_file(inode).unwrap();
        let at_end = file.write_at(b"more", file.size());
        assert_eq!(at_end.is_ok(), flag == FLAGS[1]);
        // This one has no extents.
        let allocated = if flag == FLAGS[0] { Errno::PERM } else { Errno::OPNOTSUPP };
        assert_eq!(errno(file.allocate(50_000..60_000, true)), allocated);
        assert_eq!(errno(file.write_at(b"other", 0)), Errno::PERM);
        assert_eq!(errno(file.set_len(0)), Errno::PERM);
        assert_eq!(errno(file.set_len(100_000)), Errno::PERM);
        assert_eq!(errno(file.punch_hole(0..1)), Errno::PERM);
        assert_eq!(errno(file.zero_range(0..1, true)), Errno::PERM);
        // What may only grow may get names.
        let new = fs.create(folder, b"new", &FILE);
        assert_eq!(new.is_ok(), flag == FLAGS[1]);
        assert_eq!(
            rename(fs, (ROOT, "other"), (folder, "n"), Existing::Replace).is_ok(),
            new.is_ok()
        );
        let _image = written.close();
    }
}
