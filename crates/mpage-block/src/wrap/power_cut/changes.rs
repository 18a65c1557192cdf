//! What is certain on a medium, and the changes that are not.

/// What a change of a [`Medium`] does.
#[derive(Clone, Debug)]
pub enum What {
    /// Puts `data` at `start` bytes.
    Write {
        /// Where, in bytes.
        start: u64,
        /// What.
        data: Vec<u8>,
        /// Whether it makes a file longer that ends before.
        grows: bool,
    },
    /// Sets the size, in bytes.
    SetLen(u64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    InFlight,
    Completed,
    /// Failed: it stays uncertain even after a flush.
    Failed,
}

/// A change that is not certain.
struct Change {
    number: u64,
    what: What,
    fua: bool,
    state: State,
    /// For each block of a write, false once something newer is certain there. A new size counts
    /// as one block.
    live: Vec<bool>,
}

struct Flush {
    number: u64,
    /// The changes that had completed when it was submitted.
    covers: Vec<u64>,
}

/// What a device holds for certain, and the changes that are not certain, by the promises that
/// [`PowerCut`](super::PowerCut) tells.
///
/// # Invariants
///
/// 1. `changes` is in the order in which they completed; those in flight, which have no place yet,
///    are where they were submitted.
/// 2. Each change in it has a block that is live.
pub struct Medium {
    durable: Vec<u8>,
    block: usize,
    changes: Vec<Change>,
    flushes: Vec<Flush>,
}

impl Medium {
    /// A medium that holds `durable`, for certain. `block` bytes at their multiples are never torn.
    pub fn new(durable: Vec<u8>, block: usize) -> Medium {
        Medium { durable, block, changes: Vec::new(), flushes: Vec::new() }
    }

    /// The image with every change lost that is not certain.
    pub fn durable(&self) -> &[u8] {
        &self.durable
    }

    /// How many changes are not certain.
    pub fn uncertain(&self) -> usize {
        self.changes.len()
    }

    /// A change is submitted, under a number that no other change and no flush has.
    pub fn begin(&mut self, number: u64, what: What, fua: bool) {
        let blocks = match &what {
            What::Write { data, .. } => data.len().div_ceil(self.block),
            What::SetLen(_) => 1,
        };
        let live = vec![true; blocks];
        self.changes.push(Change { number, what, fua, state: State::InFlight, live });
    }

    /// A flush is submitted, under a number that no other flush and no change has.
    pub fn begin_flush(&mut self, number: u64) {
        let completed = self.changes.iter().filter(|change| change.state == State::Completed);
        let covers = completed.map(|change| change.number).collect();
        self.flushes.push(Flush { number, covers });
    }

    /// Submission was refused: it never was.
    pub fn forget(&mut self, number: u64) {
        self.changes.retain(|change| change.number != number);
        self.flushes.retain(|flush| flush.number != number);
    }

    /// A change or a flush has ended.
    ///
    /// # Panics
    ///
    /// When no such is in flight.
    pub fn end(&mut self, number: u64, succeeded: bool) {
        if let Some(at) = self.flushes.iter().position(|flush| flush.number == number) {
            let flush = self.flushes.swap_remove(at);
            match succeeded {
                true => self.make_certain(&flush.covers),
                false => self.doubt(),
            }
            return;
        }
        let at = self.changes.iter().position(|change| change.number == number);
        let mut change = self.changes.remove(at.expect("a change in flight is on the list"));
        change.state = if succeeded { State::Completed } else { State::Failed };
        let certain = succeeded && change.fua;
        self.changes.push(change);
        if certain {
            // The size that a write lies within is as certain as the write.
            let size = |change: &&Change| change.is_len() && change.state == State::Completed;
            let sizes = self.changes.iter().filter(size).map(|change| change.number);
            let numbers: Vec<u64> = sizes.chain([number]).collect();
            self.make_certain(&numbers);
        }
    }

    /// A flush failed: what had completed may be lost, whatever later flushes say.
    fn doubt(&mut self) {
        let completed = |change: &&mut Change| change.state == State::Completed;
        for change in self.changes.iter_mut().filter(completed) {
            change.state = State::Failed;
        }
        // Nor does a flush that is under way still cover it.
        self.flushes.iter_mut().for_each(|flush| flush.covers.clear());
    }

    /// Puts changes on the image, in order. Some of `numbers` may be there already.
    fn make_certain(&mut self, numbers: &[u64]) {
        let mut before: Vec<Change> = Vec::new();
        for change in std::mem::take(&mut self.changes) {
            if !numbers.contains(&change.number) {
                before.push(change);
                continue;
            }
            change.apply(&mut self.durable, self.block, |_| true);
            // What was over when this completed cannot come out on top of it.
            for older in &mut before {
                older.bury(&change, self.block);
            }
            before.retain(|older| older.live.contains(&true));
        }
        self.changes = before;
    }

    /// The image that is left when of the changes that are not certain, in order, those blocks are
    /// kept of which `keeps` is true: of the number of the change from 0 on, and of the block in
    /// it.
    pub fn image(&self, keeps: impl Fn(usize, usize) -> bool) -> Vec<u8> {
        let mut image = self.durable.clone();
        for (number, change) in self.changes.iter().enumerate() {
            change.apply(&mut image, self.block, |block| keeps(number, block));
        }
        image
    }

    /// One of the images that may be left, by `seed`.
    pub fn cut(&self, seed: u64) -> Vec<u8> {
        let mut random = Random(seed);
        let mut image = self.durable.clone();
        // A later change may be kept where an earlier one is lost: no order is left to choose.
        for change in &self.changes {
            change.apply_in_part(&mut image, self.block, &mut random);
        }
        image
    }
}

impl Change {
    fn is_len(&self) -> bool {
        matches!(self.what, What::SetLen(_))
    }

    /// Puts the live blocks that `keeps` is true of on `image`.
    fn apply(&self, image: &mut Vec<u8>, block: usize, mut keeps: impl FnMut(usize) -> bool) {
        let (start, data, grows) = match &self.what {
            What::SetLen(bytes) if keeps(0) => return image.resize(to_usize(*bytes), 0),
            What::SetLen(_) => return,
            What::Write { start, data, grows } => (to_usize(*start), data, *grows),
        };
        for (index, bytes) in data.chunks(block).enumerate() {
            if !self.live[index] || !keeps(index) {
                continue;
            }
            let at = start + index * block;
            let end = at + bytes.len();
            if grows && image.len() < end {
                image.resize(end, 0);
            }
            let end = end.min(image.len());
            if at < end {
                image[at..end].copy_from_slice(&bytes[..end - at]);
            }
        }
    }

    /// Keeps the change, loses it, or tears it: the first blocks of it, or any.
    fn apply_in_part(&self, image: &mut Vec<u8>, block: usize, random: &mut Random) {
        let blocks = self.live.len();
        match random.below(4) {
            0 => {}
            1 => self.apply(image, block, |_| true),
            2 => {
                let first = random.below(blocks + 1);
                self.apply(image, block, |index| index < first);
            }
            _ => self.apply(image, block, |_| random.below(2) == 1),
        }
    }

    /// Takes the blocks out that `newer`, which is certain, has decided; unless this is in flight
    /// still, and may yet come out on top.
    fn bury(&mut self, newer: &Change, block: usize) {
        if self.state == State::InFlight {
            return;
        }
        match (&mut self.what, &newer.what) {
            (What::SetLen(_), What::SetLen(_)) => self.live.fill(false),
            // A write made the file longer since then.
            (What::SetLen(bytes), What::Write { start, data, grows }) => {
                let is_longer = *grows && start + data.len() as u64 > *bytes;
                self.live[0] &= !is_longer;
            }
            (What::Write { start, data, .. }, What::SetLen(bytes)) => {
                data.truncate(to_usize(bytes.saturating_sub(*start)));
                self.live.truncate(data.len().div_ceil(block));
            }
            (What::Write { start, .. }, What::Write { start: newer, data, .. }) => {
                let decided = *newer..*newer + data.len() as u64;
                for (index, live) in self.live.iter_mut().enumerate() {
                    *live &= !decided.contains(&(*start + (index * block) as u64));
                }
            }
        }
    }
}

/// Numbers by a seed: SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a usize")
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("an image in memory")
}
