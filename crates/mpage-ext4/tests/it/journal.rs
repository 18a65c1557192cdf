//! An image that was not closed is what its journal says, once it is open.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use mpage::{Options, PageCache};
use mpage_block::wrap::PowerCut;
use mpage_block::{
    Bio, BioOp, BlockDevice, Errno, Limits, MemoryDevice, MemoryOptions, Span, SubmitError,
};
use mpage_ext4::{ErrorKind, FileSystem};
use tempfile::TempDir;

use crate::image::run;

/// Bytes of the superblock that e2fsck changes beside clearing `needs_recovery`, and the names that
/// the format has for them.
const SUPERBLOCK_MAY_DIFFER: [(&str, Range<usize>); 4] = [
    ("s_wtime", 0x430..0x434),
    ("s_kbytes_written", 0x578..0x580),
    ("s_wtime_hi", 0x674..0x675),
    ("s_checksum", 0x7fc..0x800),
];

/// What opening the image leaves on the device.
fn replay(image: &[u8]) -> mpage_ext4::Result<Vec<u8>> {
    let device = Arc::new(MemoryDevice::from_contents(image, MemoryOptions::default()));
    replay_on(&(Arc::clone(&device) as Arc<dyn BlockDevice>), image.len())?;
    Ok(device.contents())
}

fn replay_on(device: &Arc<dyn BlockDevice>, bytes: usize) -> mpage_ext4::Result<()> {
    let options = Options { memory: 8 << 20, ..Options::default() };
    let cache = Arc::new(PageCache::new(&options).unwrap());
    let dev = cache.add_device(Arc::clone(device)).unwrap();
    FileSystem::open(&cache, &dev, bytes as u64).map(drop)
}

/// An image in a file, in a folder of its own.
struct Scratch {
    folder: TempDir,
}

impl Scratch {
    fn made(size: &str, options: &[&str]) -> Scratch {
        let scratch = Scratch { folder: tempfile::tempdir().unwrap() };
        let image = scratch.image();
        let words = [&["-q"], options, &[image.to_str().unwrap(), size]].concat();
        let _quiet = run("mke2fs", &words);
        scratch
    }

    fn holding(image: &[u8]) -> Scratch {
        let scratch = Scratch { folder: tempfile::tempdir().unwrap() };
        fs::write(scratch.image(), image).unwrap();
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn image(&self) -> PathBuf {
        self.path("image")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.image()).unwrap()
    }

    fn debugfs(&self, commands: &str) -> String {
        let script = self.path("commands");
        fs::write(&script, commands).unwrap();
        let (script, image) = (script.to_str().unwrap().to_owned(), self.image());
        run("debugfs", &["-w", "-f", &script, image.to_str().unwrap()])
    }

    /// How e2fsck ends, with `words`, and what it says.
    fn e2fsck(&self, words: &[&str]) -> (i32, String) {
        let output = Command::new("e2fsck").args(words).arg(self.image()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code().unwrap(), text)
    }

    /// The bytes of the journal's own blocks.
    fn journal_bytes(&self) -> BTreeSet<u64> {
        let image = self.image();
        let text = run("debugfs", &["-R", "blocks <8>", image.to_str().unwrap()]);
        text.split_whitespace().map(|number| number.parse().unwrap()).collect()
    }
}

fn block_bytes(image: &[u8]) -> usize {
    1024 << u32::from_le_bytes(image[0x418..0x41c].try_into().unwrap())
}

/// Compares `ours`, which the replay of `dirty` left, with what e2fsck makes of `dirty`.
fn compare(name: &str, dirty: &[u8], ours: &[u8]) {
    let theirs = Scratch::holding(dirty);
    let (code, text) = theirs.e2fsck(&["-y", "-E", "journal_only"]);
    assert!(code < 2, "{name}: e2fsck ends with {code}: {text}");
    let journal = theirs.journal_bytes();
    let block = block_bytes(dirty);
    let theirs_bytes = theirs.bytes();
    assert_eq!(ours.len(), theirs_bytes.len(), "{name}");
    let may_differ = |at: usize| {
        journal.contains(&((at / block) as u64))
            || SUPERBLOCK_MAY_DIFFER.iter().any(|(_, range)| range.contains(&at))
    };
    let differs = (0..ours.len()).filter(|at| ours[*at] != theirs_bytes[*at]);
    let differs: Vec<_> = differs.filter(|at| !may_differ(*at)).take(20).collect();
    assert!(differs.is_empty(), "{name}: bytes {differs:x?} differ");
    let ours = Scratch::holding(ours);
    assert_eq!(theirs.e2fsck(&["-fn"]), (0, theirs.e2fsck(&["-fn"]).1), "{name}: theirs");
    let (code, text) = ours.e2fsck(&["-fn"]);
    assert_eq!(code, 0, "{name}: {text}");
}

/// Feature sets of images, and how debugfs opens their journals.
const FORMS: [(&str, &[&str], &str); 8] = [
    ("sums, 1 KiB", &["-b", "1024", "-O", "metadata_csum,64bit"], "-c -v 3"),
    ("sums, 4 KiB", &["-b", "4096", "-O", "metadata_csum,64bit"], "-c -v 3"),
    ("sums, 32 bits", &["-b", "1024", "-O", "metadata_csum,^64bit"], "-c -v 3"),
    ("short sums", &["-b", "1024", "-O", "metadata_csum,64bit"], "-c -v 2"),
    ("short sums, 32 bits", &["-b", "4096", "-O", "metadata_csum,^64bit"], "-c -v 2"),
    ("no sums, 1 KiB", &["-b", "1024", "-O", "^metadata_csum,64bit"], ""),
    ("no sums, 4 KiB", &["-b", "4096", "-O", "^metadata_csum,^64bit"], ""),
    ("ext3", &["-b", "2048", "-O", "^metadata_csum,^64bit,^extent"], ""),
];

/// Some free blocks of the image, from the middle on.
fn free_blocks(image: &Path, count: usize) -> Vec<u64> {
    let text = run("debugfs", &["-R", &format!("ffb {count} 5000"), image.to_str().unwrap()]);
    let (_, numbers) = text.split_once(':').unwrap();
    numbers.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// An image with four transactions in its log: contents, some that look like the journal's own,
/// revokes, and contents again; and the start of one that is not committed.
fn dirty(options: &[&str], open: &str) -> Vec<u8> {
    let scratch = Scratch::made("32M", &[&["-t", "ext4"], options].concat());
    let block = block_bytes(&scratch.bytes());
    let free: Vec<String> =
        free_blocks(&scratch.image(), 300).iter().map(ToString::to_string).collect();
    let mut content = vec![0u8; 300 * block];
    fastrand::Rng::with_seed(7).fill(&mut content);
    for at in [0, 3, 290] {
        content[at * block..][..4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
    }
    let file = scratch.path("content");
    fs::write(&file, &content).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let _quiet = scratch.debugfs(&format!(
        "journal_open {open}\n\
         journal_write -b {} {file}\n\
         journal_write -r {}\n\
         journal_write -b {} {file}\n\
         journal_write -b {} -r {} {file}\n\
         journal_write -c -b {} {file}\n\
         journal_close\n",
        free.join(","),
        free[..100].join(","),
        free[50..60].join(","),
        free[200..210].join(","),
        free[60..70].join(","),
        free[100..110].join(","),
    ));
    scratch.bytes()
}

#[test]
fn what_debugfs_wrote_into_a_journal_is_replayed() {
    for (name, options, open) in FORMS {
        let dirty = dirty(options, open);
        let ours = replay(&dirty).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(ours != dirty, "{name}: nothing was replayed");
        compare(name, &dirty, &ours);
        assert!(replay(&ours).unwrap() == ours, "{name}: a second open changed the image");
    }
}
