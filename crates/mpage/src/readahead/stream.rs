//! How far ahead: the streams of one open, and the windows they ask for. No I/O, no pages.

use std::ops::Range;

/// Streams of one open that stay ahead side by side.
const STREAMS: usize = 8;

/// Misses of no stream that are remembered: the next page of one of them is a second step.
const MISSES: usize = 16;

/// Pages to start to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) pages: Range<u64>,
    /// How many of them, from the first on, somebody waits for.
    pub(super) asked: u64,
    /// The page that starts the next window when it is read. `None`: the window is no stream's.
    pub(super) marker: Option<u64>,
}

impl Window {
    /// What was asked for and nothing else.
    pub(super) fn only(asked: &Range<u64>) -> Window {
        Window { pages: asked.clone(), asked: asked.end - asked.start, marker: None }
    }
}

/// A reader that goes forward.
#[derive(Clone, Debug, Default)]
struct Stream {
    /// The window started last; empty where there was no memory for it.
    window: Range<u64>,
    /// Where the window before it began: the reader is somewhere from there on.
    since: u64,
    /// Most pages of a window.
    pages_max: u64,
    /// The reader waited for a page of the window in flight.
    waited: bool,
    /// When it went on last, in steps of all streams; zero: it is nobody's.
    used: u64,
}

impl Stream {
    fn len(&self) -> u64 {
        self.window.end - self.window.start
    }

    /// True when page `index` is in the window, or in the one before.
    fn holds(&self, index: u64) -> bool {
        self.used > 0 && self.since <= index && index < self.window.end
    }

    /// True when page `index` is the first behind the window that is not cached.
    fn reaches(&self, index: u64, next_missing: &impl Fn(u64) -> Option<u64>) -> bool {
        let behind = self.used > 0 && self.window.end <= index;
        behind && next_missing(self.window.end) == Some(index)
    }

    /// Pages of the window after one of `len` pages.
    fn next_len(&self, len: u64) -> u64 {
        let factor = if len < self.pages_max / 16 { 4 } else { 2 };
        (len * factor).clamp(1, self.pages_max)
    }
}

/// The streams of one open.
#[derive(Debug)]
pub(super) struct Streams {
    streams: [Stream; STREAMS],
    /// The pages behind the last misses of no stream.
    missed: [u64; MISSES],
    misses: usize,
    uses: u64,
    /// Where a stream's longest window begins to grow, and where it ends, in pages.
    pages_max: Range<u64>,
}

impl Streams {
    /// No stream. Windows grow up to `pages_max.start` pages, and up to `pages_max.end` for readers
    /// that have to wait for the device.
    pub(super) fn new(pages_max: Range<u64>) -> Streams {
        Streams {
            streams: Default::default(),
            missed: [u64::MAX; MISSES],
            misses: 0,
            uses: 0,
            pages_max,
        }
    }

    /// Pages `asked` are read, and the first of them is not cached. `next_missing` says which page
    /// from one on, not much farther, is not cached.
    pub(super) fn on_miss(
        &mut self,
        asked: &Range<u64>,
        next_missing: impl Fn(u64) -> Option<u64>,
    ) -> Window {
        let (first, count) = (asked.start, asked.end - asked.start);
        let (n, len) = match self.find(first, &next_missing) {
            Some(n) if first < self.streams[n].window.end => {
                // Read ahead, and dropped before it was read: that was too far ahead.
                let len = (self.streams[n].len() / 2).max(1);
                self.streams[n].pages_max = len;
                (n, len)
            }
            Some(n) => (n, self.streams[n].next_len(self.streams[n].len().max(count))),
            None if first == 0 || self.missed.contains(&first) => {
                let n = self.replace_oldest();
                (n, (count.next_power_of_two() * 4).min(self.streams[n].pages_max))
            }
            None => {
                self.missed[self.misses % MISSES] = asked.end;
                self.misses += 1;
                return Window::only(asked);
            }
        };
        let pages = first..first + len.max(count);
        let marker = if len > count { first + count } else { first };
        self.begin(n, pages.clone());
        Window { pages, asked: count, marker: Some(marker) }
    }

    /// The marked page `index` was read.
    pub(super) fn on_marker(
        &mut self,
        index: u64,
        next_missing: impl Fn(u64) -> Option<u64>,
    ) -> Option<Window> {
        let (n, first, len) = match self.streams.iter().position(|stream| stream.holds(index)) {
            Some(n) => (n, self.streams[n].window.end, self.streams[n].len()),
            None => {
                // The mark of another open, or of a stream that was given up.
                let hole = next_missing(index + 1)?;
                let n = self.find(hole, &next_missing).unwrap_or_else(|| self.replace_oldest());
                (n, hole, hole - index)
            }
        };
        let pages = first..first + self.streams[n].next_len(len);
        self.begin(n, pages.clone());
        Some(Window { pages, asked: 0, marker: Some(first) })
    }

    /// A reader waits for page `index`, which is being read: windows of its stream are too short.
    /// True when it is a stream's.
    pub(super) fn on_wait(&mut self, index: u64) -> bool {
        let most = self.pages_max.end;
        let stream = self.streams.iter_mut().find(|stream| stream.holds(index));
        let Some(stream) = stream else { return false };
        if !stream.waited {
            stream.waited = true;
            stream.pages_max = (stream.pages_max * 2).min(most);
        }
        true
    }

    /// The reading of `window` went no farther than page `end`, excluded.
    pub(super) fn stopped(&mut self, window: &Window, end: u64) {
        let same = |stream: &&mut Stream| stream.window == window.pages;
        if let Some(stream) = self.streams.iter_mut().find(same) {
            stream.window.end = end;
        }
    }

    fn begin(&mut self, n: usize, pages: Range<u64>) {
        self.uses += 1;
        let stream = &mut self.streams[n];
        let before = if stream.used > 0 { stream.window.start } else { pages.start };
        stream.since = before.min(pages.start);
        stream.window = pages;
        stream.waited = false;
        stream.used = self.uses;
    }

    /// The stream that page `index` continues: one whose window holds it before others.
    fn find(&self, index: u64, next_missing: &impl Fn(u64) -> Option<u64>) -> Option<usize> {
        let reaches = |stream: &Stream| stream.reaches(index, next_missing);
        let holds = self.streams.iter().position(|stream| stream.holds(index));
        holds.or_else(|| self.streams.iter().position(reaches))
    }

    /// A stream to begin anew: the one that went on least lately.
    fn replace_oldest(&mut self) -> usize {
        let used = |n: &usize| self.streams[*n].used;
        let oldest = (0..STREAMS).min_by_key(used).expect("there are streams");
        self.streams[oldest] = Stream { pages_max: self.pages_max.start, ..Stream::default() };
        oldest
    }
}
