//! Images to work on.

use std::fs;
use std::process::Command;

/// A kind of image.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// What it is called.
    pub name: &'static str,
    /// Words for mke2fs.
    words: &'static [&'static str],
    /// Its size, in KiB.
    kib: u32,
}

/// The kinds.
pub const FORMATS: [Format; 4] = [
    Format { name: "ext4-1k", words: &["-t", "ext4", "-b", "1024"], kib: 5120 },
    Format { name: "ext3", words: &["-t", "ext3", "-b", "1024", "-O", "^resize_inode"], kib: 5120 },
    Format { name: "ext4-4k", words: &["-t", "ext4", "-b", "4096"], kib: 8192 },
    Format {
        name: "ext4-plain",
        words: &["-t", "ext4", "-b", "1024", "-I", "128", "-O", "^metadata_csum,^64bit,uninit_bg"],
        kib: 5120,
    },
];

impl Format {
    /// An image of this kind, always the same.
    ///
    /// # Panics
    ///
    /// Without mke2fs.
    pub fn make(&self) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("image");
        let output = Command::new("mke2fs")
            .args(["-q", "-F", "-m", "0", "-N", "256"])
            .args(["-U", "00000000-1111-2222-3333-444444444444"])
            .args(["-E", "hash_seed=00000000-1111-2222-3333-444444444444"])
            .args(self.words)
            .arg(&path)
            .arg(format!("{}k", self.kib))
            .env("E2FSPROGS_FAKE_TIME", "1000000000")
            .output()
            .unwrap_or_else(|error| panic!("mke2fs of Debian's package e2fsprogs: {error}"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::read(path).expect("an image")
    }
}
