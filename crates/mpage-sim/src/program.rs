//! Random programs: what is set up, what goes wrong, and what each thread does.

use mpage_block::Limits;

use crate::fault::{Effect, Fault, Target};
use crate::image::FORMATS;

/// Bytes of a page.
pub(crate) const PAGE: u64 = 4096;

/// How files are mapped to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One file is the device, of fixed size.
    Image,
    /// One file is the device, a regular file.
    Regular,
    /// Files of a file system that allocates late.
    Files,
    /// Files of an ext2, ext3 or ext4 image.
    Ext4,
}

/// Which calls a program makes, and what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    /// All calls; in a third of the programs anything goes wrong.
    All,
    /// Mostly removals, and syncs between them; flushes fail, and what removals need.
    Removals,
}

/// What [`Setup::op`] draws from for [`Mix::Removals`]: numbers of its calls.
const REMOVALS: [u8; 32] = [
    0, 0, 0, 0, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20, 20, 20, 23, 24, 24, 26, 27, 27, 27, 30, 30,
    30, 31, 32, 32, 36, 43, 44,
];

/// What a program runs on.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) mix: Mix,
    pub(crate) kind: Kind,
    /// Of an image: which of [`FORMATS`](crate::image::FORMATS) it is of.
    pub(crate) format: usize,
    pub(crate) files: usize,
    /// Pages of each file at the start.
    pub(crate) pages: u64,
    /// Bytes of a block.
    pub(crate) block: usize,
    /// Bytes of the cache.
    pub(crate) memory: usize,
    pub(crate) background_percent: usize,
    pub(crate) dirty_percent: usize,
    pub(crate) limits: Limits,
    pub(crate) faults: Vec<Fault>,
    /// Questions for the place of a block that fail.
    pub(crate) map_faults: u32,
    /// Files are closed at the end without a sync: what is left to do is the cache's.
    pub(crate) closes: bool,
}

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the method of its name; at and len are bytes")]
pub enum Op {
    Write { file: usize, at: u64, len: u64 },
    TryWrite { file: usize, at: u64, len: u64 },
    WriteThrough { file: usize, at: u64, len: u64, durable: bool },
    WriteDirect { file: usize, at: u64, len: u64 },
    StorePinned { file: usize, at: u64, len: u64 },
    Read { file: usize, at: u64, len: u64 },
    TryRead { file: usize, at: u64, len: u64 },
    ReadDirect { file: usize, at: u64, len: u64 },
    Fsync { file: usize },
    Fdatasync { file: usize },
    SyncRange { file: usize, at: u64, len: u64 },
    SyncFileRange { file: usize, at: u64, len: u64, steps: u8 },
    SyncDevice,
    SyncEverything,
    SetLen { file: usize, size: u64 },
    PunchHole { file: usize, at: u64, len: u64 },
    ZeroRange { file: usize, at: u64, len: u64 },
    Discard { file: usize, at: u64, len: u64 },
    StartWriting { file: usize },
    StartWritingEverything,
    Invalidate { file: usize },
    InvalidateStrict { file: usize },
    Advise { file: usize, at: u64, len: u64, advice: u8 },
    StartFetch { file: usize, at: u64, len: u64 },
    Reopen { file: usize },
    Allocate { file: usize, at: u64, len: u64, keep_size: bool },
    LetTimePass { ms: u64 },
}

/// What runs.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) setup: Setup,
    pub(crate) threads: Vec<Vec<Op>>,
}

impl Program {
    /// The program of a seed.
    pub fn random(seed: u64) -> Program {
        let mut random = fastrand::Rng::with_seed(seed);
        let setup = Setup::random(&mut random);
        Program::on(setup, &mut random)
    }

    /// The program of a seed on files of an ext2, ext3 or ext4 image.
    pub fn random_ext4(seed: u64) -> Program {
        let mut random = fastrand::Rng::with_seed(seed);
        let setup = Setup::random_ext4(&mut random);
        Program::on(setup, &mut random)
    }

    fn on(setup: Setup, random: &mut fastrand::Rng) -> Program {
        let threads = 1 + random.usize(..3);
        let longest = if threads == 1 { 24 } else { 10 };
        let threads = (0..threads).map(|_| {
            let count = 2 + random.usize(..longest);
            (0..count).map(|_| setup.op(random)).collect()
        });
        let threads = threads.collect();
        Program { setup, threads }
    }

    /// Calls in all.
    pub fn ops(&self) -> usize {
        self.threads.iter().map(Vec::len).sum()
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{:#?}", self.setup)?;
        for (number, ops) in self.threads.iter().enumerate() {
            writeln!(f, "thread {number}:")?;
            for op in ops {
                writeln!(f, "    {op:?}")?;
            }
        }
        Ok(())
    }
}

impl Setup {
    fn random(random: &mut fastrand::Rng) -> Setup {
        let kind = [Kind::Image, Kind::Regular, Kind::Files, Kind::Files][random.usize(..4)];
        let (files, pages) = match kind {
            Kind::Image => (1, random.u64(2..10)),
            Kind::Regular => (1, random.u64(1..6)),
            Kind::Files | Kind::Ext4 => (random.usize(1..3), random.u64(1..4)),
        };
        let block = [512, 1024, 4096][random.usize(..3)];
        let mix = if random.u8(..6) == 0 { Mix::Removals } else { Mix::All };
        let volatile_cache = mix == Mix::Removals || random.u8(..4) > 0;
        let mut setup = Setup {
            mix,
            kind,
            format: 0,
            files,
            pages,
            block,
            memory: random.usize(56..160) << 10,
            background_percent: [0, 30, 60][random.usize(..3)],
            dirty_percent: [60, 80, 100][random.usize(..3)],
            limits: Limits {
                bytes_max: [4096, 8192, 1 << 20][random.usize(..3)],
                segments_max: [1, 4, 16][random.usize(..3)],
                alignment: 512,
                queue_depth: random.usize(1..8),
                parallel: random.bool(),
                volatile_cache,
                fua: volatile_cache && random.bool(),
                discard: random.bool(),
                write_zeroes: random.bool(),
                capacity: None,
            },
            faults: Vec::new(),
            map_faults: 0,
            // A file system has to be asked to commit.
            closes: kind != Kind::Files && random.bool(),
        };
        setup.limits.capacity = match kind {
            Kind::Image => Some(pages * PAGE),
            Kind::Regular => None,
            Kind::Files | Kind::Ext4 => Some(setup.device_bytes()),
        };
        if mix == Mix::Removals || random.u8(..3) == 0 {
            setup.faults = (0..random.usize(1..4)).map(|_| setup.fault(random)).collect();
        }
        if kind == Kind::Files && random.u8(..4) == 0 {
            setup.map_faults = random.u32(1..5);
        }
        setup
    }

    /// As [`random`](Self::random), of an image.
    fn random_ext4(random: &mut fastrand::Rng) -> Setup {
        let mut setup = Setup::random(random);
        (setup.kind, setup.closes) = (Kind::Ext4, false);
        (setup.files, setup.pages) = (random.usize(1..4), random.u64(1..4));
        setup.block = [1024, 2048, 4096][random.usize(..3)];
        setup.format = random.usize(..FORMATS.len());
        setup.map_faults = 0;
        setup.limits.capacity = Some(setup.device_bytes());
        setup
    }

    /// Bytes of the device at the start.
    pub(crate) fn device_bytes(&self) -> u64 {
        match self.kind {
            Kind::Image | Kind::Regular => self.pages * PAGE,
            Kind::Files => (self.files as u64 * self.pages + 8) * PAGE,
            // Enough for the file system's own blocks, and for little more.
            Kind::Ext4 => 256 * self.block as u64,
        }
    }

    fn fault(&self, random: &mut fastrand::Rng) -> Fault {
        use Target::{Flushes, Reads, SetLen, Writes, Zeroes};
        let targets = match self.mix {
            Mix::All => [Writes, Writes, Reads, Flushes, Flushes, Zeroes, SetLen],
            Mix::Removals => [Writes, Flushes, Flushes, Flushes, Flushes, Zeroes, SetLen],
        };
        let target = targets[random.usize(..targets.len())];
        let effect = match target {
            Target::Flushes => Effect::Fails,
            _ => [Effect::Fails, Effect::DoneButFails, Effect::Torn, Effect::Refused]
                [random.usize(..4)],
        };
        Fault { target, after: random.u32(..8), times: random.u32(1..4), effect }
    }

    fn op(&self, random: &mut fastrand::Rng) -> Op {
        let file = random.usize(..self.files);
        let (at, len) = self.range(random);
        let block = self.block as u64;
        let (block_at, block_len) = (at / block * block, len.next_multiple_of(block));
        let whole = (block_at, block_len.min(self.longest() / block * block - block_at));
        let direct = whole.1 > 0;
        let drawn = match self.mix {
            Mix::All => random.u8(..48),
            Mix::Removals => REMOVALS[random.usize(..REMOVALS.len())],
        };
        match drawn {
            0..10 => Op::Write { file, at, len },
            10 => Op::TryWrite { file, at, len },
            11 | 12 => Op::WriteThrough { file, at, len, durable: random.bool() },
            13 if direct && !self.loses_blocks() => {
                Op::WriteDirect { file, at: whole.0, len: whole.1 }
            }
            14 => Op::StorePinned { file, at, len },
            13 | 15..18 => Op::Read { file, at, len },
            18 => Op::TryRead { file, at, len },
            19 if direct => Op::ReadDirect { file, at: whole.0, len: whole.1 },
            19..23 => Op::Fsync { file },
            23 => Op::Fdatasync { file },
            24 | 25 => Op::SyncRange { file, at, len },
            26 => Op::SyncEverything,
            27..30 if self.kind != Kind::Image => Op::SetLen { file, size: self.offset(random) },
            30 | 31 => Op::PunchHole { file, at, len },
            32 => Op::ZeroRange { file, at, len },
            27..34 => Op::StartWriting { file },
            34 => Op::StartWritingEverything,
            35 => Op::Invalidate { file },
            36 => Op::InvalidateStrict { file },
            37 => Op::Reopen { file },
            38 | 39 => Op::Advise { file, at, len, advice: random.u8(..6) },
            40 => Op::StartFetch { file, at, len },
            41 | 42 => Op::SyncFileRange { file, at, len, steps: random.u8(..8) },
            43 => Op::SyncDevice,
            46 | 47 if self.kind == Kind::Ext4 => {
                Op::Allocate { file, at, len, keep_size: random.bool() }
            }
            44 => Op::Discard { file, at, len },
            _ => Op::LetTimePass { ms: random.u64(1..120) },
        }
    }

    /// Whether what a direct write put into a fresh block can be lost, so that the block holds what
    /// nobody wrote: the file system has stopped then, but its files are read still.
    fn loses_blocks(&self) -> bool {
        let loses = |fault: &Fault| fault.target == Target::Flushes;
        matches!(self.kind, Kind::Files | Kind::Ext4) && self.faults.iter().any(loses)
    }

    /// The longest that a file becomes.
    fn longest(&self) -> u64 {
        match self.kind {
            Kind::Image => self.pages * PAGE,
            Kind::Regular | Kind::Files => (self.pages + 3) * PAGE,
            Kind::Ext4 => (self.pages + 20) * PAGE,
        }
    }

    fn offset(&self, random: &mut fastrand::Rng) -> u64 {
        let at = random.u64(..self.longest());
        match random.u8(..4) {
            0 => at / PAGE * PAGE,
            1 => at / 512 * 512,
            _ => at,
        }
    }

    fn range(&self, random: &mut fastrand::Rng) -> (u64, u64) {
        let at = self.offset(random);
        let len = [1 + random.u64(..600), PAGE, 1 + random.u64(..3 * PAGE)][random.usize(..3)];
        (at, len.min(self.longest() - at))
    }
}
