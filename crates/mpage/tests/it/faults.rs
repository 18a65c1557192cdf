//! Every operation of the device fails once, in every way: no sync lies, no byte is lost.
//!
//! A run without faults counts the operations of a workload. Then, for each of them and each way to
//! fail, the workload runs again over a device that fails that one, and forgets what was not
//! flushed when a flush fails. Whatever fails is tried again, and has to succeed then.

use std::ops::Range;
use std::sync::Arc;

use mpage::units::BlockSize;
use mpage::{CachedFile, Identity, Operations, Options, PageCache, SyncKind};
use mpage_block::wrap::{Effect, Fault, Rule, Times};
use mpage_block::{BlockDevice, Errno, MemoryDevice, MemoryOptions};

use crate::rig::{options, pattern};
use crate::stack::{Forgetful, bytes_of};

const DEVICE_BYTES: u64 = 1 << 20;

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u64, usize),
    WriteThrough(u64, usize, bool),
    Read(u64, usize),
    Sync,
    SyncRange(u64, u64),
    StartWriting,
    SetLen(u64),
    Punch(u64, u64),
    Invalidate,
    SyncAll,
}

use Step::*;

const MIXED: &[Step] = &[
    Write(0, 5000),
    Write(9000, 100),
    Sync,
    Write(4000, 300),
    Write(20_000, 9000),
    SyncRange(4096, 4096),
    Invalidate,
    Read(0, 30_000),
    Write(3, 10),
    Write(25_001, 2),
    StartWriting,
    Write(70_000, 513),
    Sync,
];

const CUT: &[Step] = &[
    Write(0, 40_000),
    Sync,
    Invalidate,
    SetLen(10_123),
    Write(30_000, 700),
    Sync,
    Punch(1000, 8000),
    Read(0, 30_700),
    SetLen(20_480),
    SyncAll,
    SetLen(100),
    SetLen(9000),
    Sync,
];

const THROUGH: &[Step] = &[
    Write(0, 10_000),
    WriteThrough(4096, 4096, true),
    WriteThrough(100, 200, false),
    WriteThrough(12_000, 5000, true),
    StartWriting,
    WriteThrough(13_000, 512, true),
    SyncRange(0, 4096),
    Write(8192, 1),
    Sync,
    Sync,
];

/// How an operation fails.
const EFFECTS: &[Effect] = &[
    Effect::Fail(Errno::IO),
    Effect::Refuse(Errno::NOSPC),
    Effect::DoneButFail(Errno::IO),
    Effect::Torn { sectors: 1, error: Errno::IO },
];

/// A run of a workload: the file, what it has to hold, and the device.
struct Run {
    file: CachedFile,
    witness: CachedFile,
    model: Vec<u8>,
    seed: u64,
    fault: Arc<Fault>,
    device: Arc<Forgetful>,
    memory: Arc<MemoryDevice>,
    cache: PageCache,
}

impl Run {
    fn new(options: &Options, block: usize, fault_at: Option<(u64, Effect)>) -> Run {
        let memory = Arc::new(MemoryDevice::new(DEVICE_BYTES, MemoryOptions::default()));
        let fault = Arc::new(Fault::new(memory.clone()));
        if let Some((nth, effect)) = fault_at {
            let times = Times::Nth(nth);
            let _id = fault.add(Rule { op: None, sectors: None, times, effect });
        }
        let device = Arc::new(Forgetful::new(fault.clone(), Arc::clone(&memory)));
        let top: Arc<dyn BlockDevice> = device.clone();
        let cache = PageCache::new(options).unwrap();
        let dev = cache.add_device(Arc::clone(&top)).unwrap();
        let block = BlockSize::new(block).unwrap();
        let map = Arc::new(Identity::new(top, block));
        let ops = Operations { get_block: Some(map), ..Operations::default() };
        let mapping = cache.add_mapping(&dev, block, 0, ops).unwrap();
        let file = CachedFile::new(Arc::clone(&mapping), true);
        let witness = CachedFile::new(mapping, true);
        Run { file, witness, model: Vec::new(), seed: 0, fault, device, memory, cache }
    }

    /// Bytes `range` of the model, and zeros where it has none.
    fn expected(&self, range: Range<u64>) -> Vec<u8> {
        let byte = |n: u64| self.model.get(index(n)).copied().unwrap_or(0);
        range.map(byte).collect()
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let end = index(at) + bytes.len();
        self.model.resize(self.model.len().max(end), 0);
        self.model[index(at)..end].copy_from_slice(bytes);
    }

    fn check_durable(&self, range: Range<u64>) {
        let range = range.start.min(self.file.size())..range.end.min(self.file.size());
        let durable = &self.device.durable()[index(range.start)..index(range.end)];
        assert!(durable == self.expected(range), "a sync lied");
    }

    /// Tries twice: at most one operation fails.
    fn twice(&self, what: impl Fn() -> mpage::Result<()>) {
        if let Err(error) = what() {
            what().unwrap_or_else(|again| panic!("{error}, and again {again}"));
        }
    }

    /// Syncs till it succeeds: once for an old error, once for what fails now.
    fn sync(&self, what: impl Fn() -> mpage::Result<()>, range: Range<u64>) {
        let failures = (0..4).take_while(|_| what().is_err()).count();
        assert!(failures < 3, "one fault, {failures} failures");
        self.check_durable(range);
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        let mut done = 0;
        let mut failures = 0;
        while done < bytes.len() {
            match self.file.write_at(&bytes[done..], at + done as u64) {
                Ok(count) => {
                    self.put(at + done as u64, &bytes[done..done + count]);
                    done += count;
                }
                Err(error) => {
                    failures += 1;
                    assert!(failures < 2, "one fault, and again {error}");
                }
            }
        }
    }

    fn read(&self, at: u64, len: usize) {
        let mut buffer = vec![0; len];
        let (mut done, mut failures) = (0, 0);
        while done < len {
            match self.file.read_at(&mut buffer[done..], at + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) => {
                    failures += 1;
                    assert!(failures < 2, "one fault, and again {error}");
                }
            }
        }
        let end = (at + len as u64).min(self.model.len() as u64).max(at);
        assert!(buffer[..done] == self.expected(at..end), "wrong bytes from the cache");
    }

    /// A truncate that failed has set the size, and the bytes cut off are undefined till another
    /// succeeds.
    fn set_len(&mut self, size: u64) {
        let before = self.file.size();
        if self.file.set_len(size).is_err() {
            self.file.set_len(before.max(size)).unwrap();
            self.file.set_len(size).unwrap();
        }
        self.model.resize(index(size), 0);
    }

    fn apply(&mut self, step: Step) {
        self.seed += 1;
        let end = self.file.size();
        match step {
            Write(at, len) => self.write(at, &pattern(self.seed, at, len)),
            WriteThrough(at, len, durable) => {
                let bytes = pattern(self.seed, at, len);
                self.twice(|| self.file.write_through_at(&bytes, at, durable));
                self.put(at, &bytes);
                let written = at..at + len as u64;
                assert!(bytes_of(&self.memory, written.clone()) == bytes, "not written through");
                if durable {
                    self.check_durable(written);
                }
            }
            Read(at, len) => self.read(at, len),
            Sync => self.sync(|| self.file.fsync(), 0..end),
            SyncRange(at, len) => {
                let range = at..at + len;
                self.sync(|| self.file.sync_range(range.clone(), SyncKind::Data), range.clone());
            }
            SyncAll => self.sync(|| self.cache.sync(), 0..end),
            StartWriting => self.twice(|| self.file.start_writing(0..DEVICE_BYTES)),
            SetLen(size) => self.set_len(size),
            Punch(at, len) => {
                self.twice(|| self.file.punch_hole(at..at + len));
                let end = index(at + len).min(self.model.len());
                self.model[index(at)..end].fill(0);
            }
            Invalidate => self.file.invalidate(0..DEVICE_BYTES),
        }
        assert_eq!(self.file.size(), self.model.len() as u64);
    }

    /// What holds at the end, whatever failed.
    fn finish(self) {
        self.fault.clear();
        self.read(0, self.model.len());
        let failures = (0..4).take_while(|_| self.file.fsync().is_err()).count();
        assert!(failures < 2, "the fault is gone, and a sync fails again");
        self.check_durable(0..self.file.size());
        let failed = self.cache.stats().write_errors > 0;
        assert_eq!(self.witness.fsync().is_err(), failed, "an open is told of each error");
        self.witness.fsync().unwrap();
        self.file.invalidate(0..DEVICE_BYTES);
        self.read(0, self.model.len());
    }
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

fn run(options: &Options, block: usize, steps: &[Step], fault: Option<(u64, Effect)>) -> u64 {
    let mut run = Run::new(options, block, fault);
    for step in steps {
        run.apply(*step);
    }
    let operations = run.fault.operations();
    run.finish();
    operations
}

/// Fails each operation of `steps` in each way.
fn exhaust(options: &Options, steps: &[Step], effects: &[Effect]) {
    for block in [512, 1024, 4096] {
        let operations = run(options, block, steps, None);
        assert!(operations > 5, "a workload without I/O tests nothing");
        for nth in 1..=operations {
            for effect in effects {
                let what = format!("block {block}, operation {nth}, {effect:?}");
                let tried =
                    std::panic::catch_unwind(|| run(options, block, steps, Some((nth, *effect))));
                assert!(tried.is_ok(), "{what}");
            }
        }
    }
}

/// Statements 67, 74, 79, 82 and 83.
#[test]
fn no_single_fault_makes_a_sync_lie_or_loses_a_byte() {
    exhaust(&options(), MIXED, EFFECTS);
}

/// The same with truncated and punched files.
#[test]
fn no_single_fault_makes_a_sync_of_a_truncated_file_lie() {
    exhaust(&options(), CUT, EFFECTS);
}

/// Statement 133 as well.
#[test]
fn no_single_fault_makes_a_write_through_lie() {
    exhaust(&options(), THROUGH, EFFECTS);
}

/// With less memory than data, so that pages are evicted and read back: what was evicted survives a
/// flush that fails.
#[test]
fn no_single_fault_loses_a_byte_that_was_evicted() {
    let least = Options { memory: Options::MEMORY_MIN, ..options() };
    let steps: Vec<Step> = (0..9)
        .flat_map(|n| [Write(n * 32_768, 32_768), Read((n / 2) * 32_768, 20_000)])
        .chain([Sync, Write(5000, 100), Read(0, 9 * 32_768), Sync])
        .collect();
    exhaust(&least, &steps, &EFFECTS[..1]);
}
