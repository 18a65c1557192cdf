//! One random program, played by both, and every result compared.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use mpage::Span;

use crate::cached::Cached;
use crate::chance::{Chance, SHORT};
use crate::differences::{Case, DIFFERENCES};
use crate::kernel::Kernel;
use crate::mount::Mount;
use crate::operation::Operation;
use crate::outcome::Outcome;

/// Operations of a program.
const OPERATIONS: usize = 120;

/// Operations a failure shows.
const SHOWN: usize = 25;

/// A program on its way.
pub(crate) struct Game<'a> {
    mount: &'a Mount,
    seed: u64,
    chance: Chance,
    kernel: Kernel,
    cached: Cached,
    paths: [PathBuf; 2],
    /// Of each open whether it is for writing; `None`: it is closed.
    writable: [Option<bool>; 2],
    played: Vec<String>,
    /// How often each of the expected differences was met.
    met: [usize; DIFFERENCES.len()],
}

/// Plays the program that `seed` makes; says how often it met each expected difference.
pub(crate) fn play(mount: &Mount, seed: u64) -> [usize; DIFFERENCES.len()] {
    let mut game = Game::new(mount, seed);
    for _ in 0..OPERATIONS {
        game.step();
    }
    game.end();
    game.met
}

impl<'a> Game<'a> {
    fn new(mount: &'a Mount, seed: u64) -> Game<'a> {
        let mut chance = Chance::new(seed, mount.layout);
        let paths = ["kernel", "cached"].map(|who| mount.path().join(format!("{who}-{seed}")));
        let kernel = Kernel::new(paths[0].clone());
        let cached = Cached::new(paths[1].clone(), chance.memory(), chance.backend());
        Game {
            mount,
            seed,
            chance,
            kernel,
            cached,
            paths,
            writable: [Some(true), None],
            played: Vec::new(),
            met: [0; DIFFERENCES.len()],
        }
    }

    fn step(&mut self) {
        let slot = usize::from(self.chance.rng.u8(0..4) == 0);
        let operation = self.chance.operation(self.kernel.size());
        let opens = matches!(operation, Operation::Open { .. } | Operation::Restart { .. });
        if self.writable[slot].is_none() && !opens {
            let writable = self.chance.rng.u8(0..3) > 0;
            self.do_on_both(slot, &Operation::Open { writable });
        }
        if self.writable[slot].is_some() || opens {
            self.do_on_both(slot, &operation);
        }
    }

    fn do_on_both(&mut self, slot: usize, operation: &Operation) {
        let refused = self.writable[1 - slot] == Some(false) && self.chance.rng.u8(0..64) > 0;
        let operation = &match operation {
            // Refused after some time, which would be spent often.
            Operation::Open { writable: true } if refused => Operation::Open { writable: false },
            other => other.clone(),
        };
        let size = self.kernel.size();
        self.played.push(format!("open {slot} of {size} bytes: {operation:?}"));
        let cached = self.cached.play(slot, operation);
        let kernel = self.on_kernel(slot, operation, &cached);
        let last = self.played.last_mut().expect("just pushed");
        last.push_str(&format!(" -> kernel {kernel:?}, mpage {cached:?}"));
        self.compare(slot, operation, size, &kernel, &cached);
        match operation {
            Operation::Close => self.writable[slot] = None,
            Operation::Open { writable } => {
                self.writable[slot] = (cached == Outcome::Done).then_some(*writable);
            }
            Operation::Restart { writable, .. } => {
                self.writable = [None; 2];
                self.writable[slot] = Some(*writable);
            }
            Operation::LookAtAll => self.compare_all(slot),
            _ => {}
        }
        if self.writable[slot].is_some() {
            let (kernel, cached) = (self.kernel.size(), self.cached.open(slot).size());
            assert_eq!(kernel, cached, "the sizes, kernel's and mpage's");
        }
    }

    /// What mpage cannot do is not done to the kernel's file.
    fn on_kernel(&mut self, slot: usize, operation: &Operation, cached: &Outcome) -> Outcome {
        let collapses = matches!(operation, Operation::Collapse(_));
        match collapses && cached.is(mpage_block::Errno::OPNOTSUPP) {
            true => Outcome::NotAsked,
            false => self.kernel.play(slot, operation),
        }
    }

    fn compare(
        &mut self,
        slot: usize,
        operation: &Operation,
        size: u64,
        kernel: &Outcome,
        cached: &Outcome,
    ) {
        if let (Outcome::Found(right), Outcome::Found(span)) = (kernel, cached) {
            return self.compare_spans(slot, right, span);
        }
        if kernel == cached {
            return;
        }
        let block = self.mount.layout.sector;
        let (writable, other_writable) = (self.writable[slot], self.writable[1 - slot]);
        let file_max = self.mount.layout.file_max();
        let case =
            Case { operation, writable, other_writable, size, file_max, block, kernel, cached };
        let found = DIFFERENCES.iter().position(|difference| (difference.applies)(&case));
        let Some(found) = found else {
            panic!("kernel {kernel:?}, mpage {cached:?}{}", first_difference(kernel, cached));
        };
        self.met[found] += 1;
        if let Some(instead) = (DIFFERENCES[found].instead)(&case) {
            assert_eq!(self.kernel.play(slot, &instead), Outcome::Done, "{instead:?}");
        }
    }

    /// How far a span goes, and whether zeros have room, is each one's own; that a hole of one
    /// reads as zeros in the other is not.
    fn compare_spans(&self, slot: usize, kernel: &Span, cached: &Span) {
        assert_eq!(kernel.bytes.start, cached.bytes.start, "both begin where they were asked");
        assert!(cached.bytes.start < cached.bytes.end, "a span has bytes");
        assert!(cached.bytes.end <= self.kernel.size(), "a span ends with the file");
        for data in self.kernel.data(slot) {
            let part = cut(&data, &cached.bytes);
            if cached.hole && !part.is_empty() {
                let bytes = self.kernel.bytes(slot, &part);
                assert!(bytes.iter().all(|byte| *byte == 0), "mpage's hole has data at {part:?}");
            }
        }
        for data in self.cached.data(slot) {
            let part = cut(&data, &kernel.bytes);
            if kernel.hole && !part.is_empty() {
                let bytes = self.cached.bytes(slot, &part);
                assert!(bytes.iter().all(|byte| *byte == 0), "mpage has bytes in a hole: {part:?}");
            }
        }
    }

    /// Compares all bytes, or, in a long file, where either says that it has data.
    fn compare_all(&self, slot: usize) {
        for range in self.ranges(slot) {
            let (kernel, cached) =
                (self.kernel.bytes(slot, &range), self.cached.bytes(slot, &range));
            same_bytes(&range, &kernel, &cached);
        }
    }

    fn ranges(&self, slot: usize) -> Vec<Range<u64>> {
        let size = self.kernel.size();
        let mut ranges = Vec::new();
        match size <= SHORT {
            true => ranges.push(0..size),
            false => {
                ranges.extend(self.kernel.data(slot));
                ranges.extend(self.cached.data(slot));
            }
        }
        ranges
    }

    /// Compares what is left: through both, and in the files themselves.
    fn end(&mut self) {
        if self.writable[0].is_none() {
            self.do_on_both(0, &Operation::Open { writable: false });
        }
        self.do_on_both(0, &Operation::LookAtAll);
        self.do_on_both(0, &Operation::Sync(mpage::SyncKind::All));
        let ranges = self.ranges(0);
        let backend = self.chance.backend();
        self.do_on_both(0, &Operation::Restart { writable: false, backend });
        let [kernel, cached] = self.paths.clone().map(|path| File::open(path).unwrap());
        let sizes = [&kernel, &cached].map(|file| file.metadata().unwrap().len());
        assert_eq!(sizes[0], sizes[1], "the sizes of the files, kernel's and mpage's");
        for range in ranges {
            let [kernel, cached] = [&kernel, &cached].map(|file| {
                let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
                file.read_exact_at(&mut bytes, range.start).unwrap();
                bytes
            });
            same_bytes(&range, &kernel, &cached);
        }
    }
}

impl Drop for Game<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let from = self.played.len().saturating_sub(SHOWN);
            eprintln!("MPAGE_REFEREE_SEED={} on {:?}", self.seed, self.mount.layout);
            for (n, played) in self.played.iter().enumerate().skip(from) {
                eprintln!("{n}: {played}");
            }
        }
        for path in &self.paths {
            if let Err(error) = std::fs::remove_file(path) {
                eprintln!("{}: {error}", path.display());
            }
        }
    }
}

fn cut(range: &Range<u64>, to: &Range<u64>) -> Range<u64> {
    range.start.max(to.start)..range.end.min(to.end)
}

fn same_bytes(range: &Range<u64>, kernel: &[u8], cached: &[u8]) {
    assert_eq!(kernel.len(), cached.len(), "bytes read of {range:?}");
    let other = kernel.iter().zip(cached).position(|(kernel, cached)| kernel != cached);
    if let Some(n) = other {
        let (kernel, cached) = (kernel[n], cached[n]);
        panic!("byte {}: kernel {kernel:#x}, mpage {cached:#x}", range.start + n as u64);
    }
}

fn first_difference(kernel: &Outcome, cached: &Outcome) -> String {
    let (Outcome::Read(kernel), Outcome::Read(cached)) = (kernel, cached) else {
        return String::new();
    };
    match kernel.iter().zip(cached).position(|(kernel, cached)| kernel != cached) {
        Some(n) => format!(", the first other byte is number {n}"),
        None => String::new(),
    }
}
