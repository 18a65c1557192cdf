//! Random operations, with a liking for edges.

use std::ops::Range;

use fastrand::Rng;
use mpage::units::{FILE_SIZE_MAX, PAGE_BYTES};
use mpage::{Advice, Backend, RangeSteps, SyncKind};

use crate::mount::Layout;
use crate::operation::{Content, Manner, Operation};

/// Where most of a file lies: more than a small cache holds.
const SPAN: u64 = 384 << 10;

/// Files longer than this are looked at where they have data, and are never given room as a whole.
pub(crate) const SHORT: u64 = 4 << 20;

/// Makes operations from a seed.
pub(crate) struct Chance {
    pub(crate) rng: Rng,
    layout: Layout,
}

impl Chance {
    pub(crate) fn new(seed: u64, layout: Layout) -> Chance {
        Chance { rng: Rng::with_seed(seed), layout }
    }

    /// The memory of a cache, in bytes.
    pub(crate) fn memory(&mut self) -> usize {
        self.rng.choice([256 << 10, 512 << 10, 1 << 20]).unwrap()
    }

    pub(crate) fn backend(&mut self) -> Backend {
        self.rng.choice([Backend::Auto, Backend::Threads]).unwrap()
    }

    /// What is done next with a file of `size` bytes.
    pub(crate) fn operation(&mut self, size: u64) -> Operation {
        match self.rng.u8(0..100) {
            0..=24 => {
                let at = self.offset(size);
                let mut content = self.content();
                content.len = self.cut(size, at, content.len);
                Operation::Write { at, content, manner: self.manner() }
            }
            25..=44 => {
                let at = self.offset(size);
                Operation::Read { at, len: self.len(), manner: self.manner() }
            }
            45..=49 => {
                let (at, len) = self.aligned(size);
                let sector = self.layout.sector;
                // The kernel may have written a part before it comes to the end that is wrong.
                let late = at.is_multiple_of(sector) && !(len as u64).is_multiple_of(sector);
                let len = if late { len % usize::try_from(sector).unwrap() } else { len };
                let len = self.cut(size, at, len);
                Operation::WriteDirect { at, content: Content { seed: self.rng.u64(..), len } }
            }
            50..=54 => {
                let (at, len) = self.aligned(size);
                Operation::ReadDirect { at, len }
            }
            55..=61 => Operation::SetLen { size: self.offset(size) },
            62..=67 => Operation::Punch(self.range(size)),
            68..=72 => Operation::Zero(self.range(size)),
            73 => Operation::Collapse(self.range(size)),
            74..=76 => Operation::Sync(self.sync_kind()),
            77 => Operation::SyncRange(self.range(size), self.sync_kind()),
            78..=79 => {
                let steps = RangeSteps {
                    wait_before: self.rng.bool(),
                    write: self.rng.bool(),
                    wait_after: self.rng.bool(),
                };
                Operation::SyncSteps(self.range(size), steps)
            }
            80 => Operation::StartWriting(self.range(size)),
            81..=82 => Operation::Invalidate(self.range(size)),
            83..=84 => Operation::InvalidateStrict(self.range(size)),
            85..=86 => Operation::Advise(self.range(size), self.advice()),
            87..=91 => Operation::Span { at: self.offset(size) },
            92 => Operation::Close,
            93..=94 => Operation::Open { writable: self.rng.u8(..3) > 0 },
            95..=96 => {
                Operation::Restart { writable: self.rng.u8(..3) > 0, backend: self.backend() }
            }
            _ => Operation::LookAtAll,
        }
    }

    /// The length of a write to a file of `size` bytes: what the kernel alone writes before the
    /// largest size can be taken back only behind the end.
    fn cut(&self, size: u64, at: u64, len: usize) -> usize {
        let file_max = self.layout.file_max();
        match at < size.min(file_max) {
            true => len.min(usize::try_from(file_max - at).unwrap()),
            false => len,
        }
    }

    fn sync_kind(&mut self) -> SyncKind {
        self.rng.choice([SyncKind::All, SyncKind::Data]).unwrap()
    }

    fn manner(&mut self) -> Manner {
        self.rng.choice([Manner::Plain, Manner::Plain, Manner::Try, Manner::Through]).unwrap()
    }

    fn advice(&mut self) -> Advice {
        let all = [
            Advice::Normal,
            Advice::Random,
            Advice::Sequential,
            Advice::WillNeed,
            Advice::DontNeed,
            Advice::NoReuse,
        ];
        self.rng.choice(all).unwrap()
    }

    fn content(&mut self) -> Content {
        Content { seed: self.rng.u64(..), len: self.len() }
    }

    fn unit(&mut self) -> u64 {
        self.rng.choice([512, self.layout.sector, self.layout.block, PAGE_BYTES]).unwrap()
    }

    fn near(&mut self, place: u64) -> u64 {
        let step = match self.rng.u8(0..3) {
            0 => 0,
            1 => self.rng.u64(0..3),
            _ => self.rng.u64(0..3) * self.unit(),
        };
        match self.rng.bool() {
            true => place.wrapping_add(step),
            false => place.wrapping_sub(step),
        }
    }

    fn offset(&mut self, size: u64) -> u64 {
        match self.rng.u8(0..40) {
            0..=11 => self.rng.u64(0..SPAN),
            12..=19 => self.near(size.min(FILE_SIZE_MAX)).min(FILE_SIZE_MAX),
            20..=27 => self.rng.u64(0..SPAN / PAGE_BYTES) * PAGE_BYTES,
            28..=31 => {
                let unit = self.unit();
                self.rng.u64(0..SPAN / unit) * unit
            }
            32..=35 => {
                let page = self.rng.u64(1..SPAN / PAGE_BYTES) * PAGE_BYTES;
                self.near(page)
            }
            36 | 37 => self.rng.u64(0..3 * PAGE_BYTES),
            38 => {
                let place = 1 << self.rng.u32(20..41);
                self.near(place)
            }
            _ => {
                let far = [self.layout.file_max(), FILE_SIZE_MAX, i64::MAX as u64, 1 << 63, 0];
                let place = self.rng.choice(far).unwrap();
                self.near(place)
            }
        }
    }

    fn len(&mut self) -> usize {
        let unit = self.unit();
        let len = match self.rng.u8(0..20) {
            0 => 0,
            1..=4 => self.rng.u64(1..64),
            5..=9 => self.rng.u64(1..3 * PAGE_BYTES),
            10..=14 => self.rng.u64(1..9) * unit,
            15..=17 => self.near(4 * unit) % SPAN,
            _ => self.rng.u64(1..100 << 10),
        };
        usize::try_from(len).unwrap()
    }

    /// A place for direct I/O: mostly one that lies on the device's sectors.
    fn aligned(&mut self, size: u64) -> (u64, usize) {
        let (at, len) = (self.offset(size), self.len());
        if self.rng.u8(0..6) == 0 {
            return (at, len);
        }
        let sector = self.layout.sector;
        let len = usize::try_from((len as u64).next_multiple_of(sector)).unwrap();
        (at / sector * sector, len)
    }

    /// A range, sometimes empty or reversed.
    fn range(&mut self, size: u64) -> Range<u64> {
        let start = self.offset(size);
        match self.rng.u8(0..20) {
            0 => start..self.offset(size).min(start),
            1 if size <= SHORT => start..self.near(0),
            _ => start..start.wrapping_add(self.len() as u64),
        }
    }
}
