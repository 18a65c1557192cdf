//! Random programs over a device whose power fails: what a sync covered is there, and nothing is
//! that was never written.
//!
//! The image that a cut leaves is looked at between steps, and at each operation that reaches the
//! device in the middle of a step.

use std::ops::Range;
use std::sync::Arc;

use mpage::units::BlockSize;
use mpage::{CachedFile, Identity, Operations, PageCache, SyncKind};
use mpage_block::wrap::PowerCut;
use mpage_block::{Bio, BlockDevice, Limits, MemoryDevice, MemoryOptions, SubmitError};
use mpage_locks::Mutex;

use crate::rig::options;

const BYTES: usize = 48 << 10;
const SEEDS: u64 = 45;
const STEPS: usize = 60;

/// For each byte of the device the value it has in the cache, and those the device may hold.
struct Model {
    now: Vec<u8>,
    allowed: Vec<[u64; 4]>,
}

impl Model {
    fn new() -> Model {
        Model { now: vec![0; BYTES], allowed: vec![only(0); BYTES] }
    }

    /// The device may hold `byte` in `range` from now on.
    fn allow(&mut self, range: Range<usize>, byte: u8) {
        let bits = only(byte);
        for allowed in &mut self.allowed[range.clone()] {
            (0..4).for_each(|n| allowed[n] |= bits[n]);
        }
        self.now[range].fill(byte);
    }

    /// The device holds what the cache holds in `range`.
    fn synced(&mut self, range: Range<usize>) {
        for at in range {
            self.allowed[at] = only(self.now[at]);
        }
    }

    fn check(&self, image: &[u8], seed: u64) {
        for (at, byte) in image.iter().enumerate() {
            let is_allowed = self.allowed[at][usize::from(byte / 64)] >> (byte % 64) & 1 == 1;
            assert!(is_allowed, "seed {seed}: byte {at} is {byte} after a power cut");
        }
    }
}

fn only(byte: u8) -> [u64; 4] {
    let mut bits = [0; 4];
    bits[usize::from(byte / 64)] = 1 << (byte % 64);
    bits
}

/// Numbers by a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % limit
    }
}

/// Cuts the power, in thought, at each operation.
struct CutAtEach {
    power: Arc<PowerCut>,
    model: Arc<Mutex<Model>>,
    seed: u64,
    cuts: Mutex<u64>,
    wrong: Mutex<Option<String>>,
}

impl CutAtEach {
    fn cut(&self) {
        let mut cuts = self.cuts.lock();
        *cuts += 1;
        let image = self.power.cut(self.seed * 1000 + *cuts);
        drop(cuts);
        self.model.lock().check(&image, self.seed);
    }
}

impl BlockDevice for CutAtEach {
    fn limits(&self) -> Limits {
        self.power.limits()
    }

    fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
        let cut = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.cut()));
        if cut.is_err() {
            *self.wrong.lock() = Some(format!("at a {:?} of {} bytes", bio.op(), bio.bytes()));
        }
        self.power.submit(bio)
    }
}

struct Program {
    file: CachedFile,
    cache: PageCache,
    device: Arc<CutAtEach>,
    model: Arc<Mutex<Model>>,
    random: Random,
}

impl Program {
    fn new(seed: u64, block: usize) -> Program {
        let memory_options =
            MemoryOptions { fua: seed.is_multiple_of(2), ..MemoryOptions::default() };
        let memory = Arc::new(MemoryDevice::new(BYTES as u64, memory_options));
        let power = Arc::new(PowerCut::new(memory, vec![0; BYTES]));
        let model = Arc::new(Mutex::new(Model::new()));
        let device = Arc::new(CutAtEach {
            power,
            model: Arc::clone(&model),
            seed,
            cuts: Mutex::default(),
            wrong: Mutex::default(),
        });
        let cache = PageCache::new(&options()).unwrap();
        let dev = cache.add_device(device.clone()).unwrap();
        let block = BlockSize::new(block).unwrap();
        let map = Arc::new(Identity::new(device.clone(), block));
        let ops = Operations { get_block: Some(map), ..Operations::default() };
        let mapping = cache.add_mapping(&dev, block, 0, ops).unwrap();
        let file = CachedFile::new(mapping, true);
        Program { file, cache, device, model, random: Random(seed) }
    }

    fn range(&mut self) -> Range<u64> {
        let at = self.random.below(BYTES as u64);
        let len = 1 + match self.random.below(3) {
            0 => self.random.below(600),
            1 => self.random.below(5000),
            _ => self.random.below(30_000),
        };
        at..(at + len).min(BYTES as u64)
    }

    fn bytes_to_write(&mut self) -> (Range<u64>, Vec<u8>) {
        let range = self.range();
        let byte = u8::try_from(1 + self.random.below(255)).unwrap();
        self.model.lock().allow(usizes(&range), byte);
        let len = usizes(&range).len();
        (range, vec![byte; len])
    }

    fn step(&mut self) {
        match self.random.below(16) {
            0..7 => {
                let (range, bytes) = self.bytes_to_write();
                self.file.write_all_at(&bytes, range.start).unwrap();
            }
            7 | 8 => {
                let (range, bytes) = self.bytes_to_write();
                let durable = self.random.below(2) == 0;
                self.file.write_through_at(&bytes, range.start, durable).unwrap();
                if durable {
                    self.model.lock().synced(usizes(&range));
                }
            }
            9 => {
                self.file.fsync().unwrap();
                self.model.lock().synced(0..BYTES);
            }
            10 | 11 => {
                let range = self.range();
                self.file.sync_range(range.clone(), SyncKind::Data).unwrap();
                self.model.lock().synced(usizes(&range));
            }
            12 => {
                let size = self.random.below(BYTES as u64);
                let cut = usizes(&(size..self.file.size().max(size)));
                self.model.lock().allow(cut, 0);
                self.file.set_len(size).unwrap();
            }
            13 => {
                let range = self.range();
                let inside = range.start..range.end.min(self.file.size()).max(range.start);
                self.model.lock().allow(usizes(&inside), 0);
                self.file.punch_hole(range).unwrap();
            }
            14 => {
                self.cache.sync().unwrap();
                self.model.lock().synced(0..BYTES);
            }
            _ => {
                self.file.start_writing(0..BYTES as u64).unwrap();
                self.file.invalidate(0..BYTES as u64);
            }
        }
    }

    fn read_back(&self) {
        let mut bytes = vec![0; BYTES];
        let size = self.file.read_at(&mut bytes, 0).unwrap();
        assert!(bytes[..size] == self.model.lock().now[..size]);
    }
}

fn usizes(range: &Range<u64>) -> Range<usize> {
    usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()
}

/// Statements 53, 58, 60 and 133. Fails when a sync leaves its flush out, or flushes before its
/// data completed.
#[test]
fn power_cut_loses_nothing_a_sync_covered_and_invents_nothing() {
    for seed in 0..SEEDS {
        let mut program = Program::new(seed, 512 << (seed % 4));
        for _ in 0..STEPS {
            program.step();
            program.device.cut();
            assert_eq!(*program.device.wrong.lock(), None, "seed {seed}");
        }
        program.read_back();
        program.file.fsync().unwrap();
        let now = program.model.lock().now.clone();
        assert!(program.device.power.durable() == now, "seed {seed}: fsync left bytes out");
    }
}
