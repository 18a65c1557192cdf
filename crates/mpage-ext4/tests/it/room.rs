//! How much room an image says it has.

use rustix::fs::statvfs;

use crate::image::KINDS;
use crate::mounted::Mounted;
use crate::written::{FILE, OWNER, ROOT, Written};

#[test]
fn room_is_what_linux_says() {
    for (kind, options) in KINDS {
        let written = Written::new("48M", options);
        let folder = written.fs.mkdir(ROOT, b"folder", 0o755, OWNER).unwrap();
        for number in 0..100 {
            let name = format!("{number}");
            let _inode = written.fs.create(folder, name.as_bytes(), &FILE).unwrap();
        }
        let is = written.fs.statfs().unwrap();
        let mounted = Mounted::of(&written.close());
        let right = statvfs(mounted.path()).unwrap();
        assert_eq!(is.block_bytes, right.f_bsize, "{kind}");
        assert_eq!(is.blocks, right.f_blocks, "{kind}");
        assert_eq!(is.free, right.f_bfree, "{kind}");
        assert_eq!((is.files, is.free_files), (right.f_files, right.f_ffree), "{kind}");
        assert_eq!(is.name_bytes_max as u64, right.f_namemax, "{kind}");
        // Linux keeps some for itself besides.
        assert!(is.available >= right.f_bavail, "{kind}");
        assert!(is.available <= is.free, "{kind}");
    }
}
