//! What e2fsprogs wrote is what is read.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use mpage_ext4::{ErrorKind, FileKind, InodeNumber};

use crate::image::{KINDS, inode_of, make, open};

/// A tree with a file in pieces, a large one, an empty one, links and folders.
fn plant(folder: &Path) {
    fs::create_dir(folder.join("inner")).unwrap();
    fs::write(folder.join("empty"), b"").unwrap();
    fs::write(folder.join("small"), b"some words").unwrap();
    let large: Vec<u8> = (0..3_000_000u32).flat_map(|n| (n * 7).to_le_bytes()).collect();
    fs::write(folder.join("inner/large"), large).unwrap();
    let sparse = File::create(folder.join("sparse")).unwrap();
    for at in [0u64, 100_000, 5_000_000, 90_000_000] {
        sparse.write_all_at(&[at.to_le_bytes()[1] | 1; 9000], at).unwrap();
    }
    // Every second block: more runs than a node of extents has entries.
    let pieces = File::create(folder.join("pieces")).unwrap();
    for n in 0..1500 {
        pieces.write_all_at(&[7; 4096], n * 8192).unwrap();
    }
    symlink("small", folder.join("link")).unwrap();
}

#[test]
fn the_root_of_every_kind_of_image_is_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path());
    for (name, options) in KINDS {
        let image = make(folder.path(), "40M", options);
        let opened = open(&image).unwrap_or_else(|error| panic!("{name}: {error}"));
        let root = opened.fs.attributes(InodeNumber::ROOT).unwrap();
        assert_eq!(root.kind, FileKind::Directory, "{name}");
        assert_eq!(root.links, 4, "{name}: of itself, of inner, and of lost+found");
    }
}

/// Extents in trees with levels, indirect blocks of all levels, holes, and the end of a file.
#[test]
fn the_content_of_files_is_read_from_every_kind_of_image() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path());
    for (kind, options) in KINDS {
        let image = make(folder.path(), "40M", options);
        let opened = open(&image).unwrap();
        for name in ["empty", "small", "inner/large", "sparse", "pieces"] {
            let expected = fs::read(folder.path().join(name)).unwrap();
            let inode = inode_of(&image, name);
            let file = opened.fs.open_file(inode).unwrap();
            assert_eq!(file.size(), expected.len() as u64, "{kind}: {name}");
            let mut content = vec![1; expected.len() + 10];
            let count = file.read_at(&mut content, 0).unwrap();
            assert!(content[..count] == expected, "{kind}: {name}");
            let attributes = opened.fs.attributes(inode).unwrap();
            assert_eq!(attributes.size, expected.len() as u64, "{kind}: {name}");
            assert_eq!(attributes.kind, FileKind::Regular, "{kind}: {name}");
        }
    }
}

#[test]
fn features_for_which_an_image_must_not_be_written_are_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let features = |options: &[&str]| {
        let opened = open(&make(folder.path(), "16M", options)).unwrap();
        opened.fs.read_only().map(str::to_owned)
    };
    assert_eq!(features(&["-t", "ext4"]).as_deref(), Some("the image was opened for reading"));
    assert_eq!(
        features(&["-t", "ext4", "-O", "verity,quota"]).as_deref(),
        Some("the image has quota, verity")
    );
}

#[test]
fn what_is_no_image_is_refused_and_told_why() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |image: &[u8]| open(image).err().expect("it is refused");
    assert_eq!(refused(&[0; 4096]).kind, ErrorKind::NotExt);
    assert_eq!(refused(&[0; 1024]).kind, ErrorKind::NotExt);
    let image = make(folder.path(), "16M", &["-t", "ext4"]);
    let cut = refused(&image[..image.len() / 2]);
    assert_eq!(cut.kind, ErrorKind::Corrupt, "{cut}");
    for (feature, name) in
        [("inline_data", "inline_data"), ("encrypt", "encrypt"), ("bigalloc", "bigalloc")]
    {
        let image = make(folder.path(), "16M", &["-t", "ext4", "-O", feature]);
        let error = refused(&image);
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(error.detail.contains(name), "{error}");
    }
}
