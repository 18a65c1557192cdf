//! An image that was not closed is what its journal says, once it is open.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mpage::{Options, PageCache};
use mpage_block::wrap::{DeviceOp, Effect, Fault, PowerCut, Rule, Times};
use mpage_block::{
    Bio, BioOp, BlockDevice, Errno, Limits, MemoryDevice, MemoryOptions, Span, SubmitError,
};
use mpage_ext4::{ErrorKind, FileSystem};
use mpage_locks::Mutex;
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
    let _closed = open_on(&(Arc::clone(&device) as Arc<dyn BlockDevice>), image.len())?;
    Ok(device.contents())
}

/// Opens the image of `bytes` bytes on `device`. The cache writes what is dirty when it goes away,
/// after the image.
fn open_on(
    device: &Arc<dyn BlockDevice>,
    bytes: usize,
) -> mpage_ext4::Result<(Arc<FileSystem>, Arc<PageCache>)> {
    let options = Options { memory: 8 << 20, ..Options::default() };
    let cache = Arc::new(PageCache::new(&options).unwrap());
    let dev = cache.add_device(Arc::clone(device)).unwrap();
    let reading = mpage_ext4::Options { writable: false, ..mpage_ext4::Options::default() };
    Ok((FileSystem::open(&cache, &dev, bytes as u64, &reading)?, cache))
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

    /// Where the log begins, and the number of its next transaction.
    fn journal_state(&self) -> Vec<String> {
        let text = run("dumpe2fs", &["-h", self.image().to_str().unwrap()]);
        let state: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with("Journal start:") || line.starts_with("Journal seq"))
            .map(str::to_owned)
            .collect();
        assert_eq!(state.len(), 2, "{text}");
        state
    }

    /// The journal's own blocks.
    fn journal_blocks(&self) -> BTreeSet<u64> {
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
    let journal = theirs.journal_blocks();
    let block = block_bytes(dirty);
    let theirs_bytes = theirs.bytes();
    assert_eq!(ours.len(), theirs_bytes.len(), "{name}");
    let may_differ = |at: usize| {
        journal.contains(&((at / block) as u64))
            || SUPERBLOCK_MAY_DIFFER.iter().any(|(_, range)| range.contains(&at))
    };
    let chunks = ours.chunks(1024).zip(theirs_bytes.chunks(1024)).enumerate();
    let chunks = chunks.filter(|(_, (ours, theirs))| ours != theirs);
    let differs = chunks.flat_map(|(chunk, _)| chunk * 1024..(chunk + 1) * 1024);
    let differs = differs.filter(|at| ours[*at] != theirs_bytes[*at] && !may_differ(*at));
    let differs: Vec<_> = differs.take(20).collect();
    assert!(differs.is_empty(), "{name}: bytes {differs:x?} differ");
    let ours = Scratch::holding(ours);
    assert_eq!(ours.journal_state(), theirs.journal_state(), "{name}");
    for (whose, image) in [("theirs", theirs), ("ours", ours)] {
        let (code, text) = image.e2fsck(&["-fn"]);
        assert_eq!(code, 0, "{name}, {whose}: {text}");
    }
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

/// Some free blocks of the image, from block `from` on.
fn free_blocks(image: &Path, count: usize, from: u64) -> Vec<u64> {
    let text = run("debugfs", &["-R", &format!("ffb {count} {from}"), image.to_str().unwrap()]);
    let (_, numbers) = text.split_once(':').unwrap();
    numbers.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// An image with four transactions in its log: contents, some that look like the journal's own,
/// revokes, and contents again; and the start of one that is not committed.
fn dirty(options: &[&str], open: &str) -> Vec<u8> {
    let scratch = Scratch::made("32M", &[&["-t", "ext4"], options].concat());
    let block = block_bytes(&scratch.bytes());
    let free: Vec<String> =
        free_blocks(&scratch.image(), 300, 5000).iter().map(ToString::to_string).collect();
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

/// An image that the kernel has mounted; unmounted when it goes away.
struct Mounted<'a> {
    scratch: &'a Scratch,
}

impl Mounted<'_> {
    fn new<'a>(scratch: &'a Scratch, options: &str) -> Mounted<'a> {
        fs::create_dir(scratch.path("mount")).unwrap();
        let (image, mount) = (scratch.image(), scratch.path("mount"));
        let options = ["loop", options].join(",");
        let words = ["-t", "ext4", "-o", options.trim_end_matches(',')];
        let words = [&words[..], &[image.to_str().unwrap(), mount.to_str().unwrap()]].concat();
        let _quiet = run("mount", &words);
        Mounted { scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path("mount").join(name)
    }

    /// Commits what was done, and returns the image as it is then, mounted.
    fn image(&self) -> Vec<u8> {
        let _quiet = run("sync", &["-f", self.path(".").to_str().unwrap()]);
        self.scratch.bytes()
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let mount = self.path(".");
        let status = Command::new("umount").arg(&mount).status();
        if !status.is_ok_and(|status| status.success()) {
            let _lazy = Command::new("umount").arg("-l").arg(&mount).status();
        }
    }
}

/// Makes, changes and removes files, so that each kind of metadata is in the journal, blocks are
/// used again for other things, and contents look like the journal's own.
fn work(mounted: &Mounted<'_>, round: usize) {
    let mut rng = fastrand::Rng::with_seed(round as u64);
    let folder = mounted.path(&format!("folder{round}"));
    fs::create_dir(&folder).unwrap();
    for n in 0..150 {
        let mut content = vec![0; rng.usize(..9000)];
        rng.fill(&mut content);
        if let Some(front) = content.get_mut(..4) {
            front.copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
        }
        fs::write(folder.join(format!("a file with a name that is long {n}")), content).unwrap();
    }
    if round == 0 {
        return;
    }
    let before = mounted.path(&format!("folder{}", round - 1));
    for n in 0..75 {
        fs::remove_file(before.join(format!("a file with a name that is long {n}"))).unwrap();
    }
    let file = File::options().write(true).open(before.join("a file with a name that is long 80"));
    file.unwrap().set_len(100).unwrap();
    fs::rename(before, mounted.path(&format!("moved{round}"))).unwrap();
    if round > 2 {
        fs::remove_dir_all(mounted.path(&format!("moved{}", round - 1))).unwrap();
        let mut large = vec![0; 1 << 20];
        rng.fill(&mut large);
        fs::write(mounted.path(&format!("large{round}")), large).unwrap();
    }
}

/// Feature sets of images, and how the kernel mounts them.
const MOUNTS: [(&str, &[&str], &str); 7] = [
    ("sums", &["-O", "metadata_csum,64bit"], ""),
    ("sums, 1 KiB", &["-b", "1024", "-O", "metadata_csum,64bit"], "data=journal"),
    ("sums, 32 bits", &["-b", "4096", "-O", "metadata_csum,^64bit"], "data=journal"),
    ("no sums", &["-b", "4096", "-O", "^metadata_csum,^64bit"], ""),
    ("sums of commits", &["-b", "1024", "-O", "^metadata_csum,64bit"], "journal_checksum"),
    (
        "early commits",
        &["-b", "4096", "-O", "^metadata_csum"],
        "data=writeback,journal_async_commit",
    ),
    ("indirect", &["-b", "1024", "-O", "^metadata_csum,^64bit,^extent,^flex_bg"], "data=journal"),
];

/// Needs root, and loop devices.
#[test]
fn what_the_kernel_wrote_into_a_journal_is_replayed() {
    let mut logs = Vec::new();
    for (name, features, options) in MOUNTS {
        let small = ["-t", "ext4", "-J", "size=4"];
        let scratch = Scratch::made("64M", &[&small, features].concat());
        let mut dirty = Vec::new();
        {
            let mounted = Mounted::new(&scratch, options);
            for round in 0..14 {
                work(&mounted, round);
                if [0, 5, 9, 11, 13].contains(&round) {
                    dirty.push(mounted.image());
                }
            }
        }
        for (round, dirty) in dirty.iter().enumerate() {
            let name = format!("{name}, {round}");
            let ours = replay(dirty).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(&ours != dirty, "{name}: nothing was replayed");
            compare(&name, dirty, &ours);
            logs.push(log_of(dirty));
            let replayed = Scratch::holding(&ours);
            let _mounted = Mounted::new(&replayed, options);
        }
    }
    for words in ["Revoke FS block", "(flags 0x3)", "(flags 0xa)"] {
        assert!(logs.iter().any(|log| log.contains(words)), "no log has {words}");
    }
    assert!(logs.iter().any(|log| wraps(log)), "no log wraps around");
}

/// True when the log that debugfs says `log` of goes on at the front of its ring.
fn wraps(log: &str) -> bool {
    let records = log.lines().filter(|line| line.starts_with("Found expected sequence"));
    let places = records.filter_map(|line| line.rsplit_once(' ')?.1.parse().ok());
    let places: Vec<u32> = places.collect();
    places.windows(2).any(|pair| pair[1] < pair[0])
}

/// What debugfs says of the log of an image.
fn log_of(image: &[u8]) -> String {
    let scratch = Scratch::holding(image);
    let output = Command::new("debugfs").args(["-R", "logdump -a"]).arg(scratch.image()).output();
    String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
}

/// A small image whose log has superblocks, descriptors and inodes, beside contents and revokes.
fn small(features: &str) -> Vec<u8> {
    let options = ["-t", "ext4", "-b", "1024", "-J", "size=1", "-O", features];
    let scratch = Scratch::made("4M", &options);
    let image = scratch.image();
    let free = free_blocks(&image, 40, 2500);
    let mut script = String::new();
    let features = if features.contains("^metadata_csum") { "" } else { "-c -v 3" };
    script += &format!("journal_open {features}\n");
    for label in ["first", "second"] {
        let other = scratch.path(label);
        let _bytes = fs::copy(&image, &other).unwrap();
        let _quiet = run("tune2fs", &["-L", label, other.to_str().unwrap()]);
        let metadata = &fs::read(&other).unwrap()[1024..400 * 1024];
        fs::write(&other, metadata).unwrap();
        // The superblock, what follows it, and others; some of the others are revoked.
        let blocks: Vec<String> =
            (1..30).chain(free.iter().copied()).map(|number| number.to_string()).collect();
        let revoked = &blocks[60..];
        script += &format!("journal_write -b {} {}\n", blocks.join(","), other.display());
        script += &format!("journal_write -r {}\n", revoked.join(","));
    }
    let _quiet = scratch.debugfs(&format!("{script}journal_close\n"));
    scratch.bytes()
}

/// A device that looks at power cuts before and after each change.
struct Cuts {
    cut: PowerCut,
    seen: Mutex<BTreeSet<Vec<u8>>>,
}

impl Cuts {
    fn look(&self) {
        for seed in 0..20 {
            let _is_new = self.seen.lock().insert(self.cut.cut(seed));
        }
    }
}

impl BlockDevice for Cuts {
    fn limits(&self) -> Limits {
        self.cut.limits()
    }

    fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
        let changes = bio.op() != BioOp::Read;
        if changes {
            self.look();
        }
        let result = self.cut.submit(bio);
        if changes {
            self.look();
        }
        result
    }

    fn span_at(&self, offset: u64) -> Result<Span, Errno> {
        self.cut.span_at(offset)
    }
}

#[test]
fn a_crash_at_any_instant_of_a_replay_leaves_what_can_be_replayed() {
    for features in ["metadata_csum", "^metadata_csum"] {
        let dirty = small(features);
        let whole = replay(&dirty).unwrap();
        // Small bios, so that there are many instants.
        let options = MemoryOptions { bytes_max: 8 << 10, ..MemoryOptions::default() };
        let memory = Arc::new(MemoryDevice::from_contents(&dirty, options));
        let cut = PowerCut::new(memory, dirty.clone());
        let cuts = Arc::new(Cuts { cut, seen: Mutex::default() });
        let device = Arc::clone(&cuts) as Arc<dyn BlockDevice>;
        let _open = open_on(&device, dirty.len()).unwrap();
        assert!(cuts.cut.durable() == whole, "{features}: what was replayed is not durable");
        let seen = std::mem::take(&mut *cuts.seen.lock());
        assert!(seen.len() > 20, "{features}: only {} cuts", seen.len());
        for (n, image) in seen.iter().enumerate() {
            let again = replay(image).unwrap_or_else(|error| panic!("{features}, {n}: {error}"));
            assert!(again == whole, "{features}: cut {n} ends otherwise");
        }
    }
}

#[test]
fn a_damaged_log_is_an_error_or_replayed_and_nothing_is_written_behind_the_image() {
    const BEHIND: usize = 64 << 10;
    for features in ["metadata_csum", "^metadata_csum"] {
        let dirty = small(features);
        let scratch = Scratch::holding(&dirty);
        let journal: Vec<u64> = scratch.journal_blocks().into_iter().collect();
        let mut ends = [0; 2];
        for seed in 0..1500 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut image = dirty.clone();
            for _ in 0..rng.usize(1..5) {
                // Mostly where the log's own blocks say what they are.
                let block = usize::try_from(journal[rng.usize(0..160)]).unwrap();
                let in_block = if rng.bool() { rng.usize(..1024) } else { rng.usize(..64) };
                image[block * 1024 + in_block] = rng.u8(..);
            }
            image.resize(dirty.len() + BEHIND, 0x5a);
            let memory = MemoryDevice::from_contents(&image, MemoryOptions::default());
            let memory = Arc::new(memory);
            let result = open_on(&(Arc::clone(&memory) as Arc<dyn BlockDevice>), dirty.len());
            ends[usize::from(result.is_ok())] += 1;
            if let Err(error) = result {
                let kinds = [ErrorKind::Corrupt, ErrorKind::Unsupported, ErrorKind::NotExt];
                assert!(kinds.contains(&error.kind), "{features}, {seed}: {error}");
            }
            assert!(memory.contents()[dirty.len()..] == [0x5a; BEHIND], "{features}, {seed}");
        }
        assert!(ends.iter().all(|count| *count > 20), "{features}: {ends:?} errors and others");
    }
}

/// A device around `dirty` in memory that fails by rules.
fn failing(dirty: &[u8]) -> (Arc<MemoryDevice>, Arc<Fault>) {
    let options = MemoryOptions { bytes_max: 8 << 10, ..MemoryOptions::default() };
    let memory = Arc::new(MemoryDevice::from_contents(dirty, options));
    let fault = Arc::new(Fault::new(Arc::clone(&memory) as Arc<dyn BlockDevice>));
    (memory, fault)
}

#[test]
fn an_error_of_the_device_is_told_and_leaves_what_can_be_replayed() {
    let dirty = small("metadata_csum");
    let whole = replay(&dirty).unwrap();
    let mut failures = 0;
    for nth in 1..200 {
        let (memory, fault) = failing(&dirty);
        let _rule = fault.fail_nth(nth, Errno::IO);
        let device = Arc::clone(&fault) as Arc<dyn BlockDevice>;
        let result = open_on(&device, dirty.len()).map(drop);
        if fault.failed() == 0 {
            assert!(result.is_ok() && memory.contents() == whole);
            break;
        }
        failures += usize::from(result.is_err());
        assert!(replay(&memory.contents()).unwrap() == whole, "operation {nth}");
    }
    assert!(failures > 10, "only {failures} operations");
}

#[test]
fn a_replay_onto_a_device_that_cannot_be_written_is_refused() {
    let dirty = small("metadata_csum");
    let (memory, fault) = failing(&dirty);
    let refuse = Effect::Refuse(Errno::ROFS);
    let rule = Rule {
        op: Some(DeviceOp::Bio(BioOp::Write)),
        sectors: None,
        times: Times::All,
        effect: refuse,
    };
    let _rule = fault.add(rule);
    let device = Arc::clone(&fault) as Arc<dyn BlockDevice>;
    let error = open_on(&device, dirty.len()).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Errno(Errno::ROFS));
    assert!(memory.contents() == dirty);
}

#[test]
fn a_journal_that_is_not_there_is_told() {
    let scratch = Scratch::made("4M", &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum"]);
    let with = |commands: &str| {
        let scratch = Scratch::holding(&scratch.bytes());
        let _quiet = scratch.debugfs(commands);
        replay(&scratch.bytes()).unwrap_err().kind
    };
    let elsewhere = "feature needs_recovery\nset_super_value journal_inum 0\n";
    assert_eq!(with(elsewhere), ErrorKind::Unsupported);
    assert_eq!(with("feature ^has_journal needs_recovery\n"), ErrorKind::Corrupt);
    let no_file = "feature needs_recovery\nset_super_value journal_inum 9\n";
    assert_eq!(with(no_file), ErrorKind::Corrupt);
}
