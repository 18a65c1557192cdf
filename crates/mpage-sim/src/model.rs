//! What a file may hold: the reference that every read, and every image after a crash, is held to.
//!
//! A file is a list of changes, each with the instants between which it happened. Of two changes
//! one came first if it had ended before the other began; else either order is right. So for each
//! byte:
//!
//! 1. A read may return a change that began before the read ended, unless a second one, which came
//!    after it, had happened before the read began.
//! 2. A change that succeeded has happened by its end. One that failed has happened or not, byte by
//!    byte, and does not happen later.
//! 3. What a read has returned had happened by the end of that read: later reads do not go back.
//!    This is not so of reads past the cache: the bytes of a write that is not over may be in the
//!    cache and not dirty yet. A removal that failed may have dropped what was cached, so that
//!    older bytes are back.
//!    So has a flush that failed: what went past the cache since the last good one may be there
//!    or not, as if it had failed.
//! 4. After a crash the image holds what a read could have returned that began with the last
//!    successful sync of the byte and ended with the crash. Without a sync, that began at the
//!    beginning. Here rule 3 does not count: a sync covers the calls that had ended before it.
//!
//! Instants are numbers of a count that moves with everything that happens: no two are equal.

use std::ops::Range;

/// Never, as an instant.
const NEVER: u64 = u64::MAX;

/// What a change puts into its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    Zeros,
    /// Bytes that tell which change they are of and where they belong.
    Stamp(u64),
}

impl Content {
    /// The bytes that belong at `offset`.
    pub(crate) fn fill(self, offset: u64, to: &mut [u8]) {
        match self {
            Content::Zeros => to.fill(0),
            Content::Stamp(number) => {
                let mut at = offset;
                let mut rest = to;
                while !rest.is_empty() {
                    let skip = (at % 8) as usize;
                    let count = (8 - skip).min(rest.len());
                    let (now, later) = rest.split_at_mut(count);
                    now.copy_from_slice(&stamp(number, at / 8)[skip..skip + count]);
                    (at, rest) = (at + count as u64, later);
                }
            }
        }
    }

    /// As [`fill`](Self::fill), `len` bytes.
    pub(crate) fn bytes(self, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(len).expect("a test's file")];
        self.fill(offset, &mut bytes);
        bytes
    }
}

/// The bytes of word `word` in the version of change `number`.
fn stamp(number: u64, word: u64) -> [u8; 8] {
    let mixed = (number << 32 | word).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).to_le_bytes()
}

/// A change of a range.
#[derive(Clone, Debug)]
struct Change {
    range: Range<u64>,
    content: Content,
    began: u64,
    /// When it ended, and whether well.
    ended: Option<(u64, bool)>,
    /// What of it was read, and when that read ended.
    seen: Vec<(Range<u64>, u64)>,
    /// It took away what was cached, and then failed, or was a discard: older bytes may be back.
    uncovers: bool,
    /// It removes pages.
    removal: bool,
    /// It went past the cache: no page has it to write it again when a flush fails.
    direct: bool,
    /// A flush failed that it may be lost with.
    lost: bool,
}

impl Change {
    fn seen_by(&self, part: &Range<u64>) -> u64 {
        let covers =
            |seen: &&(Range<u64>, u64)| seen.0.start <= part.start && part.end <= seen.0.end;
        self.seen.iter().filter(covers).map(|seen| seen.1).min().unwrap_or(NEVER)
    }

    /// When it has happened in `part` for certain.
    fn happened(&self, part: &Range<u64>) -> u64 {
        self.succeeded().min(self.seen_by(part))
    }

    /// When it had succeeded.
    fn succeeded(&self) -> u64 {
        self.ended.filter(|(_, well)| *well).map_or(NEVER, |(at, _)| at)
    }

    /// From when on it does not happen any more. One that is seen and cut off by a truncate while
    /// it is under way may begin again.
    fn over(&self) -> u64 {
        self.ended.map_or(NEVER, |(at, _)| at)
    }
}

/// A size, or some that are possible, from an instant on.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    at: u64,
    low: u64,
    high: u64,
}

/// A sync that succeeded.
#[derive(Clone, Debug)]
struct Synced {
    range: Range<u64>,
    /// The size of the file is durable too.
    sized: bool,
    began: u64,
    ended: u64,
}

/// What may be done to a size.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resize {
    /// To exactly so much.
    To(u64),
    /// To at least so much.
    AtLeast(u64),
}

/// One file, and all that happened to it.
#[derive(Debug)]
pub(crate) struct FileModel {
    changes: Vec<Change>,
    sizes: Vec<Sizes>,
    resizes_under_way: u32,
    /// More than one resize was under way at once, or one failed: only looking tells the size.
    size_unclear: bool,
    syncs: Vec<Synced>,
}

/// Something that is not as it has to be.
pub(crate) type Wrong = String;

impl FileModel {
    /// A file of `size` bytes stamped with `number`, or of zeros.
    pub(crate) fn new(size: u64, content: Content) -> FileModel {
        let change = |range, content, began| Change {
            range,
            content,
            began,
            ended: Some((began + 1, true)),
            seen: Vec::new(),
            uncovers: false,
            removal: false,
            direct: false,
            lost: false,
        };
        FileModel {
            changes: vec![change(0..NEVER, Content::Zeros, 0), change(0..size, content, 2)],
            sizes: vec![Sizes { at: 0, low: size, high: size }],
            resizes_under_way: 0,
            size_unclear: false,
            syncs: vec![Synced { range: 0..NEVER, sized: true, began: 4, ended: 5 }],
        }
    }

    /// A change of `range` begins; its number.
    pub(crate) fn begin(&mut self, range: Range<u64>, content: Content, now: u64) -> usize {
        let (ended, seen) = (None, Vec::new());
        let (uncovers, removal, direct, lost) = (false, false, false, false);
        let began = now;
        let change = Change { range, content, began, ended, seen, uncovers, removal, direct, lost };
        self.changes.push(change);
        self.changes.len() - 1
    }

    /// As [`begin`](Self::begin), of a change that removes pages.
    pub(crate) fn begin_removal(&mut self, range: Range<u64>, now: u64) -> usize {
        let change = self.begin(range, Content::Zeros, now);
        self.changes[change].removal = true;
        change
    }

    /// As [`begin`](Self::begin), of a write past the cache.
    pub(crate) fn begin_direct(&mut self, range: Range<u64>, content: Content, now: u64) -> usize {
        let change = self.begin(range, content, now);
        self.changes[change].direct = true;
        change
    }

    /// A change ends.
    pub(crate) fn end(&mut self, change: usize, well: bool, now: u64) {
        let change = &mut self.changes[change];
        change.ended = Some((now, well && !change.lost));
        change.uncovers &= !well;
    }

    /// A flush of the device failed; the last good one began at `flushed`. What went past the cache
    /// since then may have gone.
    pub(crate) fn flush_failed(&mut self, flushed: u64) {
        let is_durable =
            |change: &Change| change.ended.is_some_and(|(at, well)| well && at < flushed);
        let lost = self.changes.iter_mut().filter(|change| change.direct && !is_durable(change));
        for change in lost {
            change.lost = true;
            change.seen.clear();
            change.ended = change.ended.map(|(at, _)| (at, false));
        }
    }

    /// A removal fails, after what was cached there has gone.
    pub(crate) fn uncover(&mut self, change: usize, now: u64) {
        self.changes[change].ended = Some((now, false));
        self.changes[change].uncovers = true;
    }

    /// A removal that is under way may have failed already, and its caller not have heard of it.
    fn removals_may_have_failed(&mut self) {
        let removals = self.changes.iter_mut().filter(|change| change.removal);
        removals.filter(|it| it.ended.is_none()).for_each(|removal| removal.uncovers = true);
    }

    /// A change turns out to be one of its first `len` bytes alone; the rest of their page may have
    /// been changed all the same.
    pub(crate) fn cut(&mut self, change: usize, len: u64, page: u64, now: u64) {
        let change = &mut self.changes[change];
        let (middle, end) = (change.range.start + len, change.range.end);
        change.range.end = middle;
        let mut rest = change.clone();
        rest.range = middle..end.min((middle / page + 1) * page);
        rest.ended = Some((now, false));
        self.changes.push(rest);
    }

    /// The sizes the file may have now.
    pub(crate) fn size(&self) -> Range<u64> {
        let last = self.sizes.last().expect("a file has a size");
        last.low..last.high + 1
    }

    /// A change of the size begins.
    pub(crate) fn begin_resize(&mut self, resize: Resize, now: u64) {
        let Sizes { low, high, .. } = *self.sizes.last().expect("a file has a size");
        let (low, high) = match resize {
            Resize::To(size) => (low.min(size), high.max(size)),
            Resize::AtLeast(size) => (low, high.max(size)),
        };
        self.sizes.push(Sizes { at: now, low, high });
        self.size_unclear |= self.resizes_under_way > 0;
        self.resizes_under_way += 1;
    }

    /// A change of the size ends, `well` or not. `look` tells the file's size.
    pub(crate) fn end_resize(
        &mut self,
        resize: Resize,
        well: bool,
        now: u64,
        look: impl FnOnce() -> u64,
    ) -> Result<(), Wrong> {
        self.resizes_under_way -= 1;
        self.size_unclear |= !well;
        if self.resizes_under_way > 0 {
            return Ok(());
        }
        let before = self.sizes.iter().rev().nth(1).expect("the size before it began").low;
        let may_be = self.size();
        let size = match (self.size_unclear, resize) {
            (true, _) => look(),
            (false, Resize::To(size)) => size,
            (false, Resize::AtLeast(size)) => size.max(before),
        };
        if !may_be.contains(&size) {
            return Err(format!("the size is {size}, and not one of {may_be:?}"));
        }
        self.size_unclear = false;
        self.sizes.push(Sizes { at: now, low: size, high: size });
        Ok(())
    }

    /// A sync of `range`, and of the size if `sized`, that began at `began` succeeded.
    pub(crate) fn synced(&mut self, range: Range<u64>, sized: bool, began: u64, now: u64) {
        self.syncs.push(Synced { range, sized, began, ended: now });
    }

    /// The least and the greatest size between two instants.
    fn sizes_between(&self, since: u64, until: u64) -> (u64, u64) {
        let last_before = self.sizes.iter().rposition(|sizes| sizes.at < since).unwrap_or(0);
        let during = self.sizes[last_before..].iter().take_while(|sizes| sizes.at < until);
        during.fold((NEVER, 0), |(low, high), sizes| (low.min(sizes.low), high.max(sizes.high)))
    }

    /// A read that asked for `asked` bytes from `offset` on returned `bytes`: all that there are,
    /// or fewer if it was `stopped` by an error behind them. Rule 3 holds if it is `cached`.
    pub(crate) fn read(
        &mut self,
        offset: u64,
        asked: u64,
        (bytes, stopped, cached): (&[u8], bool, bool),
        began: u64,
        now: u64,
    ) -> Result<(), Wrong> {
        let (low, high) = self.sizes_between(began, now);
        if stopped {
            self.removals_may_have_failed();
        }
        let count = bytes.len() as u64;
        let most = asked.min(high.saturating_sub(offset));
        let least = if stopped { 0 } else { asked.min(low.saturating_sub(offset)) };
        if count < least || count > most {
            return Err(format!("{count} bytes were read at {offset}, not {least} to {most}"));
        }
        let read = |_: &Range<u64>| began;
        let happened = if cached {
            Change::happened
        } else {
            |change: &Change, _: &Range<u64>| change.succeeded()
        };
        let found = self.check(offset, bytes, read, now, happened)?;
        for (change, part) in found {
            // What the device has lost may be in the cache for a while.
            if !self.changes[change].lost {
                self.changes[change].seen.push((part, now));
            }
        }
        Ok(())
    }

    /// `bytes` is what the file holds after a crash at instant `crash`; its size may be rounded up
    /// to a multiple of `unit`.
    pub(crate) fn after_crash(&self, bytes: &[u8], unit: u64, crash: u64) -> Result<(), Wrong> {
        let syncs: Vec<_> = self.syncs.iter().filter(|sync| sync.ended < crash).collect();
        let since =
            syncs.iter().filter(|sync| sync.sized).map(|sync| sync.began).max().unwrap_or(0);
        let size = bytes.len() as u64;
        let untils = self.sizes.iter().skip(1).map(|next| next.at).chain([NEVER]);
        let fits = self.sizes.iter().zip(untils).any(|(sizes, until)| {
            let highest = sizes.high.next_multiple_of(unit);
            sizes.at < crash && until > since && (sizes.low..=highest).contains(&size)
        });
        if !fits {
            return Err(format!("the size is {size}, which it was not since the last sync"));
        }
        let since = |part: &Range<u64>| {
            let covers =
                |sync: &&&Synced| sync.range.start <= part.start && part.end <= sync.range.end;
            syncs.iter().filter(covers).map(|sync| sync.began).max().unwrap_or(0)
        };
        self.check(0, bytes, since, crash, |change, _| change.succeeded()).map(drop)
    }

    /// Holds `bytes` at `offset` to rule 1, for a read that began at `since` and ended at `until`.
    /// Returns which change each part is of, where only one can be.
    fn check(
        &self,
        offset: u64,
        bytes: &[u8],
        since: impl Fn(&Range<u64>) -> u64,
        until: u64,
        happened: fn(&Change, &Range<u64>) -> u64,
    ) -> Result<Vec<(usize, Range<u64>)>, Wrong> {
        let end = offset + bytes.len() as u64;
        let mut found = Vec::new();
        for part in self.parts(offset..end) {
            let from = usize::try_from(part.start - offset).expect("inside the buffer");
            let len = usize::try_from(part.end - part.start).expect("inside the buffer");
            let held = &bytes[from..from + len];
            let may_be = self.possible(&part, since(&part), until, happened);
            let mut equal = Vec::new();
            let mut expected = vec![0; len];
            let mut unexplained = vec![true; len];
            for change in may_be.iter().copied() {
                self.changes[change].content.fill(part.start, &mut expected);
                if held == expected {
                    equal.push(change);
                }
                for (left, (a, b)) in unexplained.iter_mut().zip(held.iter().zip(&expected)) {
                    *left &= a != b;
                }
            }
            if let [change] = equal[..] {
                found.push((change, part.clone()));
            } else if let Some(at) = unexplained.iter().position(|left| *left) {
                return Err(self.explain(part.start + at as u64, held[at], &part, &may_be));
            }
        }
        Ok(found)
    }

    /// `range` cut where any change, sync, or part that was read begins or ends.
    fn parts(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let of_changes =
            self.changes.iter().flat_map(|change| [change.range.start, change.range.end]);
        let seen = self.changes.iter().flat_map(|change| &change.seen);
        let of_reads = seen.flat_map(|(part, _)| [part.start, part.end]);
        let of_syncs = self.syncs.iter().flat_map(|sync| [sync.range.start, sync.range.end]);
        let inside = |at: &u64| range.start < *at && *at < range.end;
        let mut cuts: Vec<u64> =
            of_changes.chain(of_reads).chain(of_syncs).filter(inside).collect();
        cuts.extend([range.start, range.end]);
        cuts.sort_unstable();
        cuts.dedup();
        cuts.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }

    /// The changes that a read of `part` may return (rule 1).
    fn possible(
        &self,
        part: &Range<u64>,
        since: u64,
        until: u64,
        happened: fn(&Change, &Range<u64>) -> u64,
    ) -> Vec<usize> {
        let covers =
            |change: &Change| change.range.start <= part.start && part.end <= change.range.end;
        let there: Vec<usize> = (0..self.changes.len())
            .filter(|n| covers(&self.changes[*n]) && self.changes[*n].began < until)
            .collect();
        let uncovered = there.iter().map(|n| &self.changes[*n]).filter(|change| change.uncovers);
        let uncovered = uncovered.map(|change| change.over()).max().unwrap_or(0);
        let replaced = |n: &usize| {
            let over = self.changes[*n].over();
            let mut others = there.iter().map(|other| &self.changes[*other]);
            others.any(|other| {
                happened(other, part) < since && over < other.began && uncovered <= other.began
            })
        };
        there.iter().copied().filter(|n| !replaced(n)).collect()
    }

    fn explain(&self, at: u64, byte: u8, part: &Range<u64>, may_be: &[usize]) -> Wrong {
        let mut is = String::from("which nobody wrote there");
        for (number, change) in self.changes.iter().enumerate() {
            let mut one = [0];
            change.content.fill(at, &mut one);
            if one[0] == byte && change.range.contains(&at) {
                is = format!("as change {number} has it, {change:?}");
            }
        }
        let expected: Vec<_> = may_be.iter().map(|n| (n, &self.changes[*n])).collect();
        format!("byte {at} is {byte:#x}, {is}; {part:?} may be of {expected:?}")
    }
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
