//! The books of a run: the model of each file, what each open is owed, and what was promised when.

use std::ops::Range;
use std::sync::Arc;

use mpage_locks::{Mutex, MutexGuard};

use crate::instants::Instants;
use crate::model::FileModel;

/// Kept while a program runs; read by the judge behind it.
pub(crate) struct Books {
    pub(crate) instants: Arc<Instants>,
    pages: Mutex<Pages>,
}

/// What the books hold.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) files: Vec<FileModel>,
    opens: Vec<OpenBook>,
    /// When something was promised.
    pub(crate) promises: Vec<u64>,
    /// What results were like: the same for the same seed.
    pub(crate) digest: u64,
    /// What is written past the cache now: a write that fails there is told to its caller alone.
    past_cache: Vec<(usize, Range<u64>)>,
    /// The calls that ended, with their instants.
    pub(crate) calls: Vec<String>,
}

#[derive(Debug)]
struct OpenBook {
    file: usize,
    /// When it was opened: what had failed before may have been told to others.
    opened: u64,
    /// When a write failed that this open was not told of.
    owed: Option<u64>,
    /// When it was told of an error last.
    told: u64,
}

impl Books {
    pub(crate) fn new(instants: Arc<Instants>, files: Vec<FileModel>) -> Books {
        let pages = Pages {
            files,
            opens: Vec::new(),
            promises: Vec::new(),
            digest: 0,
            past_cache: Vec::new(),
            calls: Vec::new(),
        };
        Books { instants, pages: Mutex::new(pages) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock()
    }

    /// An open of `file`; its number.
    pub(crate) fn open(&self, file: usize) -> usize {
        let opened = self.instants.next();
        let mut pages = self.pages.lock();
        pages.opens.push(OpenBook { file, opened, owed: None, told: 0 });
        pages.opens.len() - 1
    }

    /// Whether byte `at` of `file` is written past the cache now.
    pub(crate) fn is_past_cache(&self, file: usize, at: u64) -> bool {
        let pages = self.pages.lock();
        pages.past_cache.iter().any(|(other, range)| *other == file && range.contains(&at))
    }

    /// A write of `file` failed at `since`, and by now those above the device know.
    pub(crate) fn write_failed(&self, file: usize, since: u64) {
        let mut pages = self.pages.lock();
        let now = self.instants.next();
        for open in pages.opens.iter_mut().filter(|open| open.file == file) {
            if open.told < since && open.opened < since {
                open.owed = open.owed.or(Some(now));
            }
        }
    }

    /// A sync of `open` that began at `began` ended, `well` or not.
    pub(crate) fn told(&self, open: usize, began: u64, well: bool) {
        let mut pages = self.pages.lock();
        let now = self.instants.next();
        let calls = pages.calls.join("\n");
        let book = &mut pages.opens[open];
        if !well {
            book.told = now;
        }
        let Some(since) = book.owed else { return };
        assert!(
            !well || since > began,
            "an open was not told at {began} of the write that failed at {since}\n{calls}"
        );
        // Of one that failed meanwhile it may have been told, or will be.
        if !well && since < now {
            book.owed = None;
        }
    }
}

impl Pages {
    /// Bytes `range` of `file` are going to be written past the cache.
    pub(crate) fn begin_past_cache(&mut self, file: usize, range: Range<u64>) {
        self.past_cache.push((file, range));
    }

    /// They were.
    pub(crate) fn end_past_cache(&mut self, file: usize, range: &Range<u64>) {
        let at = self.past_cache.iter().position(|(other, past)| *other == file && past == range);
        let _ended = self.past_cache.swap_remove(at.expect("it had begun"));
    }

    /// Notes a result.
    pub(crate) fn note(&mut self, result: u64) {
        self.digest = (self.digest ^ result).wrapping_mul(0x0100_0000_01b3).rotate_left(17);
    }
}
