//! Extended attributes, access lists and symbolic links.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use mpage_block::Errno;
use mpage_ext4::{ErrorKind, InodeNumber};

use crate::image::{KINDS, inode_of, make, open, run};

/// The inodes of the names in the root, as debugfs tells them.
fn names() -> Vec<String> {
    let long = "l".repeat(200);
    ["few", "many", "short", "long"].map(str::to_owned).into_iter().chain([long]).collect()
}

fn plant(folder: &Path) {
    for name in ["few", "many"] {
        fs::write(folder.join(name), name).unwrap();
    }
    symlink("few", folder.join("short")).unwrap();
    symlink("x/".repeat(400), folder.join("long")).unwrap();
    symlink("y".repeat(59), folder.join("l".repeat(200))).unwrap();
}

/// Sets attributes with debugfs: few, which fit into a long inode, and many, which do not.
fn set(image: &mut Vec<u8>) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("image");
    fs::write(&path, &image).unwrap();
    let path = path.to_str().unwrap();
    let set = |words: &str| run("debugfs", &["-w", "-R", words, path]);
    let _told = set("ea_set few user.one first");
    for n in 0..12 {
        let _told = set(&format!("ea_set many user.{n:0>20} {}", "v".repeat(10 + n)));
    }
    let _told = set("ea_set many security.label words");
    *image = fs::read(path).unwrap();
}

#[test]
fn attributes_in_inodes_and_in_blocks_are_read() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path());
    for (name, options) in KINDS {
        let mut image = make(folder.path(), "32M", options);
        set(&mut image);
        let opened = open(&image).unwrap();
        let (few, many) = (inode_of(&image, "few"), inode_of(&image, "many"));
        let value = opened.fs.extended_attribute(few, b"user.one").unwrap();
        assert_eq!(value, b"first", "{name}");
        let none = opened.fs.extended_attribute(few, b"user.two").unwrap_err();
        assert_eq!(none.kind, ErrorKind::Errno(Errno::NODATA), "{name}");
        let mut found = opened.fs.extended_attribute_names(many).unwrap();
        found.sort();
        assert_eq!(found.len(), 13, "{name}");
        assert_eq!(found[0], b"security.label", "{name}");
        for n in 0..12 {
            let key = format!("user.{n:0>20}");
            let value = opened.fs.extended_attribute(many, key.as_bytes()).unwrap();
            assert_eq!(value.len(), 10 + n, "{name}");
        }
    }
}

#[test]
fn symbolic_links_in_inodes_and_in_blocks_are_read() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path());
    for (name, options) in KINDS {
        let image = make(folder.path(), "32M", options);
        let opened = open(&image).unwrap();
        for link in &names()[2..] {
            let target = opened.fs.read_link(inode_of(&image, link)).unwrap();
            let expected = fs::read_link(folder.path().join(link)).unwrap();
            assert_eq!(target, expected.as_os_str().as_encoded_bytes(), "{name}: {link}");
        }
        let error = opened.fs.read_link(InodeNumber::ROOT).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Errno(Errno::INVAL));
    }
}
