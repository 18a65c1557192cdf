//! What is held stays as it is when its last name goes; what must not wait does not.

use mpage_block::Errno;
use mpage_ext4::{XattrFlags, without_waiting};

use crate::written::{FILE, OWNER, ROOT, Written, errno, names};

const EXT4: &[&str] = &["-t", "ext4", "-b", "1024"];

#[test]
fn a_held_file_outlives_its_names_and_can_be_changed_and_opened() {
    let written = Written::new("8M", EXT4);
    let fs = std::sync::Arc::clone(&written.fs);
    let before = fs.statfs().unwrap();
    let inode = fs.create(ROOT, b"file", &FILE).unwrap();
    let known = fs.hold(inode).unwrap();
    assert_eq!((known.inode, known.links), (inode, 1));
    fs.open_file(inode).unwrap().write_all_at(&[7; 5000], 0).unwrap();
    fs.unlink(ROOT, b"file").unwrap();
    assert_eq!(fs.attributes(inode).unwrap().links, 0);
    assert_eq!(fs.hold(inode).unwrap().size, 5000);
    fs.set_extended_attribute(inode, b"user.one", b"1", XattrFlags::Create).unwrap();
    let file = fs.open_file(inode).unwrap();
    let mut bytes = [0; 5000];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 5000);
    assert_eq!(bytes, [7; 5000]);
    file.write_all_at(&[8; 5000], 5000).unwrap();
    file.fsync().unwrap();
    drop(file);
    assert_eq!(fs.attributes(inode).unwrap().size, 10_000);
    assert!(!fs.unhold(inode, 1));
    assert_eq!(fs.statfs().unwrap().free_files + 1, before.free_files);
    assert!(fs.unhold(inode, 1), "it is to be freed");
    fs.release(inode);
    assert_eq!(fs.statfs().unwrap(), before);
    assert_eq!(errno(fs.hold(inode)), Errno::NOENT);
    let _image = written.close();
}

#[test]
fn a_held_file_that_is_open_is_freed_by_who_leaves_last() {
    for holds_last in [false, true] {
        let written = Written::new("8M", EXT4);
        let fs = std::sync::Arc::clone(&written.fs);
        let before = fs.statfs().unwrap();
        let inode = fs.create(ROOT, b"file", &FILE).unwrap();
        let _known = fs.hold(inode).unwrap();
        let file = fs.open_file(inode).unwrap();
        file.write_all_at(&[7; 100_000], 0).unwrap();
        fs.unlink(ROOT, b"file").unwrap();
        if holds_last {
            drop(file);
            assert!(fs.unhold(inode, 1));
            fs.release(inode);
        } else {
            assert!(fs.unhold(inode, 1));
            fs.release(inode);
            assert_eq!(fs.attributes(inode).unwrap().size, 100_000, "it is open");
            drop(file);
        }
        assert_eq!(fs.statfs().unwrap(), before);
        let _image = written.close();
    }
}

#[test]
fn a_held_directory_outlives_its_name() {
    let written = Written::new("8M", EXT4);
    let fs = std::sync::Arc::clone(&written.fs);
    let before = fs.statfs().unwrap();
    let inode = fs.mkdir(ROOT, b"directory", 0o755, OWNER).unwrap();
    let _known = fs.hold(inode).unwrap();
    fs.rmdir(ROOT, b"directory").unwrap();
    assert_eq!(fs.attributes(inode).unwrap().links, 0);
    assert_eq!(errno(fs.create(inode, b"file", &FILE)), Errno::NOENT);
    assert!(fs.unhold(inode, 1));
    fs.release(inode);
    assert_eq!(fs.statfs().unwrap(), before);
    let _image = written.close();
}

#[test]
fn what_is_held_when_an_image_is_closed_is_freed() {
    let written = Written::new("8M", EXT4);
    let fs = std::sync::Arc::clone(&written.fs);
    for name in [b"one", b"two"] {
        let inode = fs.create(ROOT, name, &FILE).unwrap();
        let _known = fs.hold(inode).unwrap();
        fs.open_file(inode).unwrap().write_all_at(&[7; 5000], 0).unwrap();
        fs.unlink(ROOT, name).unwrap();
    }
    let _image = written.close();
}

#[test]
fn what_would_have_to_wait_says_so_and_changes_nothing() {
    let written = Written::new("8M", EXT4);
    let directory = written.fs.mkdir(ROOT, b"directory", 0o755, OWNER).unwrap();
    let _inode = written.fs.create(directory, b"file", &FILE).unwrap();
    let written = Written::open(&written.close());
    let fs = std::sync::Arc::clone(&written.fs);
    assert!(without_waiting(|| fs.lookup(directory, b"file")).is_none());
    assert!(without_waiting(|| fs.create(directory, b"new", &FILE)).is_none());
    assert_eq!(names(&fs, directory), [b"file"]);
    let inode = fs.lookup(directory, b"file").unwrap();
    assert_eq!(without_waiting(|| fs.lookup(directory, b"file")), Some(Ok(inode)));
    let found = without_waiting(|| fs.lookup(directory, b"new")).unwrap();
    assert_eq!(errno(found), Errno::NOENT);
    let _new = fs.create(directory, b"new", &FILE).unwrap();
    let made = without_waiting(|| fs.create(directory, b"newer", &FILE)).unwrap();
    assert_eq!(fs.lookup(directory, b"newer").unwrap(), made.unwrap());
    assert!(without_waiting(|| fs.sync_names()).is_none(), "a commit waits for the device");
    let _image = written.close();
}

#[test]
fn what_is_removed_without_waiting_is_freed_by_who_may_wait() {
    let written = Written::new("8M", EXT4);
    let fs = std::sync::Arc::clone(&written.fs);
    let before = fs.statfs().unwrap();
    let inode = fs.create(ROOT, b"file", &FILE).unwrap();
    without_waiting(|| fs.unlink(ROOT, b"file")).unwrap().unwrap();
    assert_eq!(fs.statfs().unwrap().free_files + 1, before.free_files);
    fs.release(inode);
    assert_eq!(fs.statfs().unwrap(), before);
    let _image = written.close();
}

#[test]
fn a_write_that_must_not_wait_stores_what_it_can() {
    let written = Written::new("8M", EXT4);
    let inode = written.fs.create(ROOT, b"file", &FILE).unwrap();
    written.fs.open_file(inode).unwrap().write_all_at(&[7; 3000], 0).unwrap();
    let written = Written::open(&written.close());
    let file = written.fs.open_file(inode).unwrap();
    assert_eq!(file.try_write_at(&[8; 10], 5).unwrap(), 0, "a block has to be read first");
    file.write_all_at(&[8; 10], 5).unwrap();
    assert_eq!(file.try_write_at(&[9; 10], 5).unwrap(), 10);
    let mut bytes = [0; 16];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 16);
    assert_eq!(bytes, [7, 7, 7, 7, 7, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 7]);
    drop(file);
    let _image = written.close();
}
