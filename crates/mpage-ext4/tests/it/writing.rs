//! Content that is written: as it was given, and such that e2fsck has nothing to say.

use std::fs::File;
use std::sync::Arc;

use mpage_block::{MemoryDevice, MemoryOptions};

use crate::image::{KINDS, inode_of, make, open, open_to_write, run_fsck};

#[test]
fn what_is_written_into_a_file_is_there_when_the_image_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let _empty = File::create(folder.path().join("file")).unwrap();
    for (kind, options) in KINDS {
        if kind.starts_with("ext2") || kind.starts_with("ext3") {
            continue;
        }
        let image = make(folder.path(), "32M", options);
        let inode = inode_of(&image, "/file");
        let device = Arc::new(MemoryDevice::from_contents(&image, MemoryOptions::default()));
        let bytes: Vec<u8> = (0..5_000_000u32).map(|n| (n / 7 % 251) as u8).collect();
        {
            let opened = open_to_write(&device).unwrap();
            let file = opened.fs.open_file(inode).unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            file.fsync().unwrap();
            drop(file);
            opened.fs.close().unwrap();
        }
        run_fsck(kind, &device.contents());
        let opened = open(&device.contents()).unwrap();
        let file = opened.fs.open_file(inode).unwrap();
        let mut read = vec![0; bytes.len() + 1];
        assert_eq!(file.read_at(&mut read, 0).unwrap(), bytes.len(), "{kind}");
        assert!(read[..bytes.len()] == bytes, "{kind}");
    }
}
