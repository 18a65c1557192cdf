//! Images that are closed while others go on changing them.

use std::sync::Arc;
use std::time::Duration;

use mpage_block::wrap::{DeviceOp, Effect, Fault, Rule, Times};
use mpage_block::{BioOp, Errno, MemoryDevice, MemoryOptions};
use mpage_ext4::{FileSystem, Options};
use mpage_locks::{Condvar, Mutex, thread};

use crate::image::{make, open_over};
use crate::written::{FILE, ROOT, Written, check, errno};

const THREADS: u64 = 3;
/// Steps that each does before the image is closed.
const STEPS: usize = 40;

/// Makes, writes, cuts, syncs and removes a file.
fn step(fs: &Arc<FileSystem>, random: &mut fastrand::Rng, name: &[u8]) -> mpage_ext4::Result<()> {
    let inode = fs.create(ROOT, name, &FILE)?;
    let file = fs.open_file(inode)?;
    file.write_all_at(&vec![1; random.usize(..20_000)], random.u64(..20_000))?;
    match random.u8(..4) {
        0 => file.fsync()?,
        1 => file.set_len(random.u64(..10_000))?,
        2 => file.punch_hole(0..1 + random.u64(..10_000))?,
        _ => {}
    }
    match random.bool() {
        true => fs.unlink(ROOT, name),
        false => Ok(()),
    }
}

/// How many threads have done their steps.
#[derive(Default)]
struct Ready {
    count: Mutex<u64>,
    more: Condvar,
}

/// Goes on until the image is closed.
fn work(fs: &Arc<FileSystem>, seed: u64, ready: &Ready) {
    let mut random = fastrand::Rng::with_seed(seed);
    for number in 0.. {
        if number == STEPS {
            *ready.count.lock() += 1;
            ready.more.notify_all();
        }
        let name = format!("{seed}-{number}");
        match step(fs, &mut random, name.as_bytes()) {
            Err(error) if error.kind.errno() == Errno::ROFS => return,
            done => done.unwrap(),
        }
    }
}

#[test]
fn what_is_closed_beside_changes_is_whole_and_stays_as_it_is() {
    let kinds: [&[&str]; 2] = [&["-t", "ext4", "-b", "1024"], &["-t", "ext2", "-b", "4096"]];
    for (seed, options) in (0..8).zip(kinds.into_iter().cycle()) {
        let empty = tempfile::tempdir().unwrap();
        let image = make(empty.path(), "96M", options);
        let device = Arc::new(MemoryDevice::from_contents(&image, MemoryOptions::default()));
        let how = Options { commit_interval: Duration::from_millis(1), ..Options::default() };
        let memory = mpage::Options::MEMORY_MIN;
        let options = mpage::Options { memory, ..mpage::Options::default() };
        let bytes = device.len();
        let opened = open_over(Arc::clone(&device) as _, bytes, &options, &how).unwrap();
        let ready = Arc::<Ready>::default();
        let threads = (0..THREADS).map(|number| {
            let (fs, ready) = (Arc::clone(&opened.fs), Arc::clone(&ready));
            let work = move || work(&fs, seed * THREADS + number, &ready);
            thread::spawn("work", work).unwrap()
        });
        let threads: Vec<_> = threads.collect();
        let mut count = ready.count.lock();
        while *count < THREADS {
            count = ready.more.wait(count);
        }
        drop(count);
        opened.fs.close().unwrap();
        let closed = device.contents();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        drop(opened);
        assert!(device.contents() == closed, "seed {seed}: written when it was closed");
        // A file that was removed while it was open is freed when the image is opened.
        let _image = Written::open(&closed).close();
    }
}

#[test]
fn what_could_not_be_freed_is_when_the_image_is_closed() {
    let written = Written::new("16M", &["-t", "ext4"]);
    let inode = written.fs.create(ROOT, b"file", &FILE).unwrap();
    let file = written.fs.open_file(inode).unwrap();
    file.write_all_at(&[1; 100_000], 0).unwrap();
    drop(file);
    let image = written.close();
    let memory = Arc::new(MemoryDevice::from_contents(&image, MemoryOptions::default()));
    let fault = Arc::new(Fault::new(Arc::clone(&memory) as _));
    let how = Options { commit_interval: Duration::ZERO, ..Options::default() };
    let device = Arc::clone(&fault) as _;
    let opened = open_over(device, memory.len(), &mpage::Options::default(), &how).unwrap();
    let fs = &opened.fs;
    // What the name needs is in memory then, and not what the blocks need.
    assert_eq!(fs.lookup(ROOT, b"file").unwrap(), inode);
    let _attributes = fs.attributes(inode).unwrap();
    let _rule = fault.add(Rule {
        op: Some(DeviceOp::Bio(BioOp::Read)),
        sectors: None,
        times: Times::All,
        effect: Effect::Fail(Errno::IO),
    });
    assert_eq!(errno(fs.unlink(ROOT, b"file")), Errno::IO);
    assert_eq!(errno(fs.lookup(ROOT, b"file")), Errno::NOENT);
    fault.clear();
    fs.close().unwrap();
    check(&memory.contents());
}
