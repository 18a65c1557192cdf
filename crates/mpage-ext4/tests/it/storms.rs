//! Changes under way beside much writing: nothing reaches the device before its commit, and what
//! shares a page of the device's own mapping is not lost by it.

use std::sync::Arc;
use std::time::Duration;

use mpage_block::{MemoryDevice, MemoryOptions};
use mpage_ext4::Options;
use mpage_locks::atomic::{AtomicU64, Ordering};

use crate::image::{Opened, make, open, open_over};
use crate::tagged::Tagged;
use crate::worker::{Limits, Worker};
use crate::written::{FILE, ROOT, check};

/// Opened over a cache of `memory` bytes; nothing is committed but what is told to be.
fn open_tagged(device: &Arc<Tagged>, bytes: u64, memory: usize) -> Opened {
    let options = mpage::Options { memory, ..mpage::Options::default() };
    let how = Options { commit_interval: Duration::ZERO, ..Options::default() };
    open_over(Arc::clone(device) as _, bytes, &options, &how).unwrap()
}

fn new_image(size: &str, options: &[&str]) -> (Arc<MemoryDevice>, Arc<Tagged>) {
    let empty = tempfile::tempdir().unwrap();
    let image = make(empty.path(), size, options);
    let memory = Arc::new(MemoryDevice::from_contents(&image, MemoryOptions::default()));
    let tagged = Arc::new(Tagged::new(Arc::clone(&memory) as _));
    (memory, tagged)
}

/// Changes between two commits: fewer than fill a transaction, which commits it.
const CHANGES: u64 = 30;

/// Works until `changes` were made by all, with a sync behind every [`CHANGES`].
fn storm(worker: &mut Worker<'_>, opened: &Opened, tagged: &Tagged, made: &AtomicU64, all: u64) {
    loop {
        let number = made.fetch_add(1, Ordering::Relaxed);
        if number >= all {
            return;
        }
        if number.is_multiple_of(CHANGES) {
            match (number / CHANGES).is_multiple_of(3) {
                true => tagged.commit(|| opened.fs.sync()).unwrap(),
                false => tagged.commit(|| worker.sync()),
            }
        }
        worker.change();
        for _ in 0..4 {
            worker.store();
        }
        tagged.check(0);
        worker.read();
    }
}

#[test]
fn nothing_of_a_transaction_is_written_before_its_commit() {
    let kinds: [&[&str]; 3] = [
        &["-t", "ext2", "-b", "1024"],
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext4", "-b", "4096"],
    ];
    for options in kinds {
        println!("{options:?}");
        let (device, tagged) = new_image("64M", options);
        let opened = open_tagged(&tagged, device.len(), 1 << 20);
        let word = || tagged.tag();
        let limits = Limits { names: 40, file_bytes: 100_000, store_bytes: 60_000 };
        let worker = |seed| Worker::new(&opened.fs, seed, limits, &word);
        let mut workers: Vec<_> = (0..3).map(worker).collect();
        let made = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for worker in &mut workers {
                let (opened, tagged, made) = (&opened, &*tagged, &made);
                let _thread = scope.spawn(move || storm(worker, opened, tagged, made, 900));
            }
        });
        workers.iter().for_each(Worker::check);
        tagged.check(200);
        tagged.commit(|| opened.fs.close()).unwrap();
        let image = device.contents();
        check(&image);
        let again = open(&image).unwrap();
        for worker in workers {
            worker.reopened(&again.fs).check();
        }
    }
}

/// Blocks of 1 KiB: four of them, of files and of the file system, are neighbours in a page of the
/// device's own mapping. Content, names, targets and attributes come and go on a small image, so
/// that each block has many owners.
fn churn(options: &[&str], memory: usize, seed: u64) {
    let (device, tagged) = new_image("6M", options);
    let opened = open_tagged(&tagged, device.len(), memory);
    let count = AtomicU64::new(0);
    let word = || format!("{:08}", count.fetch_add(1, Ordering::Relaxed)).into_bytes();
    let limits = Limits { names: 150, file_bytes: 12_000, store_bytes: 5000 };
    let mut worker = Worker::new(&opened.fs, seed, limits, &word);
    let other = opened.fs.open_file(opened.fs.create(ROOT, b"other", &FILE).unwrap()).unwrap();
    other.write_all_at(&[b'o'; 1 << 20], 0).unwrap();
    for round in 0..3000 {
        worker.change();
        worker.store();
        match round % 50 {
            7 | 23 => worker.sync(),
            31 => opened.fs.sync().unwrap(),
            32 => worker.drop_clean(),
            33 => {
                // In a small cache this leaves nothing else there.
                let mut bytes = vec![0; 1 << 20];
                assert_eq!(other.read_at(&mut bytes, 0).unwrap(), bytes.len());
                assert!(bytes.iter().all(|byte| *byte == b'o'));
                worker.check();
            }
            _ => worker.read(),
        }
    }
    worker.check();
    drop(other);
    opened.fs.close().unwrap();
    let image = device.contents();
    check(&image);
    worker.reopened(&open(&image).unwrap().fs).check();
}

#[test]
fn blocks_that_share_a_page_of_the_device_do_not_get_bytes_of_each_other() {
    let kinds: [&[&str]; 3] = [
        &["-t", "ext2", "-b", "1024"],
        &["-t", "ext4", "-b", "1024"],
        &["-t", "ext4", "-b", "1024", "-O", "^metadata_csum"],
    ];
    for (seed, options) in (0..).zip(kinds) {
        for memory in [512 << 10, 8 << 20] {
            println!("{options:?}, {memory} bytes");
            churn(options, memory, seed);
        }
    }
}
