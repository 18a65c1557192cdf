//! What e2fsprogs wrote is what is read.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use mpage_ext4::{FileKind, InodeNumber};

use crate::image::{KINDS, make, open};

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
    symlink("small", folder.join("link")).unwrap();
}

#[test]
fn the_root_of_every_kind_of_image_is_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    plant(folder.path());
    for (name, options) in KINDS {
        let image = make(folder.path(), "128M", options);
        let opened = open(&image).unwrap_or_else(|error| panic!("{name}: {error}"));
        let root = opened.fs.attributes(InodeNumber::ROOT).unwrap();
        assert_eq!(root.kind, FileKind::Directory, "{name}");
        assert_eq!(root.links, 4, "{name}: of itself, of inner, and of lost+found");
    }
}
