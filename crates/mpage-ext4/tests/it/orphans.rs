//! Files without names are freed when nobody has them open, or when the image is opened next.

use std::fs::{self, File};
use std::io::Write;

use crate::mounted::Mounted;
use crate::written::{FILE, ROOT, Written, check, names};

/// Kinds of images: with a list of orphans, and with a file of them.
const KINDS: [(&str, &[&str]); 4] = [
    ("ext4", &["-t", "ext4", "-b", "1024"]),
    ("orphan file", &["-t", "ext4", "-b", "1024", "-O", "orphan_file"]),
    ("orphan file, no checksums", &["-t", "ext4", "-O", "orphan_file,^metadata_csum"]),
    ("ext3", &["-t", "ext3", "-b", "1024"]),
];

#[test]
fn what_linux_left_open_is_freed() {
    for (kind, options) in KINDS {
        println!("{kind}");
        let mounted = Mounted::new("24M", options, &[]);
        let mut open = Vec::new();
        for number in 0..20 {
            let path = mounted.path().join(format!("file{number}"));
            let mut file = File::create(&path).unwrap();
            file.write_all(&vec![7; number * 5000]).unwrap();
            file.sync_all().unwrap();
            if number % 4 != 0 {
                fs::remove_file(&path).unwrap();
            }
            open.push(file);
        }
        let written = Written::open(&mounted.image());
        let left: Vec<_> = (0..20).step_by(4).map(|number| format!("file{number}")).collect();
        let mut left: Vec<_> = left.into_iter().map(String::into_bytes).collect();
        left.sort();
        assert_eq!(names(&written.fs, ROOT), left, "{kind}");
        let _image = written.close();
    }
}

#[test]
fn a_file_that_is_open_is_freed_when_the_image_is_opened_next() {
    for (kind, options) in KINDS {
        let written = Written::new("24M", options);
        let fs = std::sync::Arc::clone(&written.fs);
        let before = fs.statfs().unwrap();
        let mut open = Vec::new();
        for number in 0..10 {
            let name = format!("file{number}");
            let inode = fs.create(ROOT, name.as_bytes(), &FILE).unwrap();
            if number % 2 == 0 {
                open.push((inode, fs.open_file(inode).unwrap()));
            }
            fs.unlink(ROOT, name.as_bytes()).unwrap();
        }
        for (inode, _) in &open {
            assert_eq!(fs.attributes(*inode).unwrap().links, 0, "{kind}");
        }
        let now = fs.statfs().unwrap();
        assert_eq!(now.free_files + open.len() as u64, before.free_files, "{kind}");
        let image = written.abandon();
        let written = Written::open(&image);
        assert_eq!(written.fs.statfs().unwrap(), before, "{kind}");
        let _image = written.close();
        // Linux does the same with it.
        let mounted = Mounted::of(&image);
        assert_eq!(fs::read_dir(mounted.path()).unwrap().count(), 1, "{kind}");
        check(&mounted.image());
    }
}
