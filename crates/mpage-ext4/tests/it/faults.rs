//! Every operation of the device fails once, in every way: what was done is there, what was not is
//! not, and the image is right once nothing fails any more. Where a journal could not be written,
//! nothing is written from then on, and what was synced before is there when the image is opened
//! again.

use std::sync::Arc;
use std::time::Duration;

use mpage_block::wrap::{Effect, Fault, Rule, Times};
use mpage_block::{Errno, MemoryDevice, MemoryOptions};
use mpage_ext4::{At, Existing, FileSystem, InodeNumber, Options, Result, XattrFlags};

use crate::image::{Opened, make, open, open_over};
use crate::stores::{Library, Places, Store, Tree};
use crate::written::{FILE, OWNER, ROOT, check, check_replayed};

/// How an operation fails.
const EFFECTS: [Effect; 4] = [
    Effect::Fail(Errno::IO),
    Effect::Refuse(Errno::IO),
    Effect::DoneButFail(Errno::IO),
    Effect::Torn { sectors: 1, error: Errno::IO },
];

/// How often a sync is tried once nothing fails any more: the first may tell of what did.
const TRIES: usize = 3;

/// The content of a file of the workload.
fn content(number: usize) -> Vec<u8> {
    let byte = u8::try_from(number % 250 + 1).unwrap();
    vec![byte; 3000 + number * 4096]
}

/// Makes a file, and syncs it now and then. True when all of it was done.
fn write(fs: &Arc<FileSystem>, folder: InodeNumber, number: usize) -> Result<()> {
    let inode = fs.create(folder, format!("file{number}").as_bytes(), &FILE)?;
    let file = fs.open_file(inode)?;
    if number.is_multiple_of(3) {
        file.allocate(0..20_000, true)?;
    }
    file.write_all_at(&content(number), 0)?;
    match number % 4 {
        0 => file.fsync(),
        1 => fs.sync(),
        _ => Ok(()),
    }
}

/// What is done; returns the files of which everything was.
fn work(fs: &Arc<FileSystem>) -> Vec<usize> {
    let mut whole = Vec::new();
    let Ok(folder) = fs.mkdir(ROOT, b"folder", 0o755, OWNER) else { return whole };
    for number in 0..8 {
        if write(fs, folder, number).is_ok() {
            whole.push(number);
        }
    }
    let find = |name: &[u8]| fs.lookup(folder, name);
    let cut = find(b"file5").and_then(|inode| {
        let file = fs.open_file(inode)?;
        file.set_len(5000)?;
        file.punch_hole(0..4096)?;
        file.fsync()
    });
    // Whatever came of it, it is not as it was.
    whole.retain(|number| *number != 5);
    let (from, to) = (At { parent: folder, name: b"file6" }, At { parent: ROOT, name: b"moved" });
    let moved = fs.rename(from, to, Existing::Replace);
    whole.retain(|number| *number != 6);
    let linked = find(b"file2").and_then(|inode| fs.link(inode, ROOT, b"linked"));
    let named = find(b"file1").and_then(|inode| {
        fs.set_extended_attribute(inode, b"user.name", &[7; 900], XattrFlags::None)
    });
    let gone = fs.unlink(folder, b"file3");
    whole.retain(|number| *number != 3);
    let synced = fs.sync();
    // Each of these may have failed; the tree tells what came of it.
    let _all = (cut, moved, linked, named, gone, synced);
    whole
}

/// A run over an image that fails as `rule` says.
struct Run {
    memory: Arc<MemoryDevice>,
    fault: Arc<Fault>,
    bytes: u64,
}

impl Run {
    fn new(image: &[u8], rule: Option<Rule>) -> Run {
        let memory = Arc::new(MemoryDevice::from_contents(image, MemoryOptions::default()));
        let fault = Arc::new(Fault::new(Arc::clone(&memory) as _));
        rule.into_iter().for_each(|rule| {
            let _id = fault.add(rule);
        });
        Run { memory, fault, bytes: image.len() as u64 }
    }

    fn open(&self) -> Result<Opened> {
        let options =
            mpage::Options { memory: mpage::Options::MEMORY_MIN, ..mpage::Options::default() };
        let how = Options { commit_interval: Duration::ZERO, ..Options::default() };
        open_over(Arc::clone(&self.fault) as _, self.bytes, &options, &how)
    }

    /// Works, and looks at what is there once nothing fails any more, and when the image is opened
    /// again.
    fn judge(&self, what: &str) {
        let opened = self.open().or_else(|_| self.open());
        let opened = opened.unwrap_or_else(|error| panic!("{what}: {error}"));
        let whole = work(&opened.fs);
        self.fault.clear();
        let mut synced = (0..TRIES).map(|_| opened.fs.sync());
        let last = synced.find(|synced| synced.is_ok());
        if last.is_none() && opened.fs.read_only().is_some_and(|why| why.contains("read now")) {
            drop(opened);
            return self.judge_aborted(what, &whole);
        }
        assert!(last.is_some(), "{what}: nothing fails any more, and no sync succeeds");
        let library = Library(Arc::clone(&opened.fs));
        let before = plain(library.see());
        for number in whole {
            let path = format!("folder/file{number}");
            let inode = opened.fs.lookup(ROOT, b"folder");
            let inode = inode.and_then(|folder| {
                opened.fs.lookup(folder, path.rsplit('/').next().unwrap().as_bytes())
            });
            let file = opened.fs.open_file(inode.unwrap()).unwrap();
            let mut bytes = vec![0; content(number).len() + 1];
            let count = file.read_at(&mut bytes, 0).unwrap();
            assert!(bytes[..count] == content(number), "{what}: {path}");
        }
        opened.fs.close().unwrap_or_else(|error| panic!("{what}: {error}"));
        let image = self.memory.contents();
        check(&image);
        let after = plain(Library(open(&image).unwrap().fs).see());
        let differs = before.iter().find(|(path, seen)| after.get(*path) != Some(seen));
        assert!(differs.is_none() && after.len() == before.len(), "{what}: {differs:?}");
    }
}

impl Run {
    /// The journal was given up: replay finds all that was synced, of files that are `whole`.
    fn judge_aborted(&self, what: &str, whole: &[usize]) {
        let image = replayed(&self.memory.contents());
        check_replayed(&image);
        let opened = open(&image).unwrap();
        let synced = whole.iter().filter(|number| *number % 4 < 2);
        for number in synced {
            let folder = opened.fs.lookup(ROOT, b"folder").unwrap();
            let inode = opened.fs.lookup(folder, format!("file{number}").as_bytes());
            let inode = inode.unwrap_or_else(|error| panic!("{what}: file{number}: {error}"));
            let file = opened.fs.open_file(inode).unwrap();
            let mut bytes = vec![0; content(*number).len() + 1];
            let count = file.read_at(&mut bytes, 0).unwrap();
            assert!(bytes[..count] == content(*number), "{what}: file{number}");
        }
    }
}

/// `image` as e2fsck replays its journal, and does nothing else.
fn replayed(image: &[u8]) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), image).unwrap();
    let mut e2fsck = std::process::Command::new("e2fsck");
    let output = e2fsck.args(["-y", "-E", "journal_only"]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    std::fs::read(file.path()).unwrap()
}

/// `tree` without where things are.
fn plain(mut tree: Tree) -> Tree {
    tree.values_mut().for_each(|seen| seen.places = Places::default());
    tree
}

/// Without a journal.
const NO_JOURNAL: &str = "^has_journal";

fn every_operation_fails_once(size: &str, options: &[&str]) {
    let empty = tempfile::tempdir().unwrap();
    let image = make(empty.path(), size, options);
    let sound = Run::new(&image, None);
    sound.judge("without a fault");
    let operations = sound.fault.operations();
    assert!(operations > 30, "{operations}");
    for effect in EFFECTS {
        for nth in 1..=operations {
            let rule = Rule { op: None, sectors: None, times: Times::Nth(nth), effect };
            Run::new(&image, Some(rule)).judge(&format!("{effect:?} of operation {nth}"));
        }
    }
}

#[test]
fn every_operation_below_a_journaled_image_fails_once() {
    every_operation_fails_once("5M", &["-t", "ext4", "-b", "1024", "-N", "64"]);
}

#[test]
fn every_operation_below_an_ext4_image_fails_once() {
    every_operation_fails_once("2M", &["-t", "ext4", "-b", "1024", "-N", "64", "-O", NO_JOURNAL]);
}

#[test]
fn every_operation_below_an_ext2_image_fails_once() {
    every_operation_fails_once("2M", &["-t", "ext2", "-b", "4096", "-N", "64"]);
}
