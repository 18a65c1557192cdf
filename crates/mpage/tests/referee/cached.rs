//! The player that is watched: a file opened through a page cache.

use std::ops::Range;
use std::path::{Path, PathBuf};

use mpage::{Backend, CachedFile, Error, OpenOptions, Options, PageCache};

use crate::mount::STARTING;
use crate::operation::{Manner, Operation};
use crate::outcome::Outcome;

/// A cache, a file and its opens.
pub(crate) struct Cached {
    path: PathBuf,
    memory: usize,
    /// Dropped before the cache.
    opens: [Option<CachedFile>; 2],
    cache: PageCache,
    backend: Backend,
}

fn cache_of(memory: usize) -> PageCache {
    PageCache::new(&Options { memory, ..Options::default() }).unwrap()
}

fn open(
    cache: &PageCache,
    path: &Path,
    backend: Backend,
    writable: bool,
) -> Result<CachedFile, Error> {
    let _starting = STARTING.lock();
    cache.open(path, &OpenOptions { write: writable, backend, ..OpenOptions::default() })
}

impl Cached {
    pub(crate) fn new(path: PathBuf, memory: usize, backend: Backend) -> Cached {
        let cache = cache_of(memory);
        let file = open(&cache, &path, backend, true).unwrap();
        Cached { path, memory, opens: [Some(file), None], cache, backend }
    }

    /// The open `slot`.
    pub(crate) fn open(&self, slot: usize) -> &CachedFile {
        self.opens[slot].as_ref().expect("the game opens before it plays")
    }

    /// Does what `operation` says on the open `slot`.
    pub(crate) fn play(&mut self, slot: usize, operation: &Operation) -> Outcome {
        match operation {
            Operation::Close => {
                self.opens[slot] = None;
                Outcome::Done
            }
            Operation::Open { writable } => {
                self.opens[slot] = None;
                self.open_again(slot, *writable)
            }
            Operation::Restart { writable, backend } => {
                self.opens = [None, None];
                self.backend = *backend;
                self.cache = cache_of(self.memory);
                self.open_again(slot, *writable)
            }
            _ => play(self.open(slot), operation),
        }
    }

    fn open_again(&mut self, slot: usize, writable: bool) -> Outcome {
        let opened = open(&self.cache, &self.path, self.backend, writable);
        Outcome::of(opened, |file| {
            self.opens[slot] = Some(file);
            Outcome::Done
        })
    }

    /// The runs of bytes that may be something else than zeros.
    pub(crate) fn data(&self, slot: usize) -> Vec<Range<u64>> {
        let file = self.open(slot);
        let mut runs = Vec::new();
        let mut at = 0;
        while at < file.size() {
            let span = file.span_at(at).unwrap();
            at = span.bytes.end;
            if !span.hole {
                runs.push(span.bytes);
            }
        }
        runs
    }

    /// The bytes `range`, as far as the file goes.
    pub(crate) fn bytes(&self, slot: usize, range: &Range<u64>) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        let count = self.open(slot).read_at(&mut bytes, range.start).unwrap();
        bytes.truncate(count);
        bytes
    }
}

fn play(file: &CachedFile, operation: &Operation) -> Outcome {
    let done = |()| Outcome::Done;
    match operation {
        Operation::Write { at, content, manner } => write(file, *at, &content.bytes(), *manner),
        Operation::Read { at, len, manner } => read(file, *at, *len, *manner),
        Operation::WriteDirect { at, content } => {
            Outcome::of(file.write_direct_at(&content.bytes(), *at), |()| {
                Outcome::Wrote(content.len)
            })
        }
        Operation::ReadDirect { at, len } => {
            let mut bytes = vec![0; *len];
            Outcome::of(file.read_direct_at(&mut bytes, *at), |count| {
                Outcome::Read(bytes[..count].to_vec())
            })
        }
        Operation::SetLen { size } => Outcome::of(file.set_len(*size), done),
        Operation::Punch(range) => Outcome::of(file.punch_hole(range.clone()), done),
        Operation::Zero(range) => Outcome::of(file.zero_range(range.clone()), done),
        Operation::Collapse(range) => Outcome::of(file.collapse_range(range.clone()), done),
        Operation::Sync(mpage::SyncKind::All) => Outcome::of(file.fsync(), done),
        Operation::Sync(mpage::SyncKind::Data) => Outcome::of(file.fdatasync(), done),
        Operation::SyncRange(range, kind) => {
            Outcome::of(file.sync_range(range.clone(), *kind), done)
        }
        Operation::SyncSteps(range, steps) => {
            Outcome::of(file.sync_file_range(range.clone(), *steps), done)
        }
        Operation::StartWriting(range) => Outcome::of(file.start_writing(range.clone()), done),
        Operation::Invalidate(range) => {
            file.invalidate(range.clone());
            Outcome::Done
        }
        Operation::InvalidateStrict(range) => {
            Outcome::of(file.invalidate_strict(range.clone()), done)
        }
        Operation::Advise(range, advice) => Outcome::of(file.advise(range.clone(), *advice), done),
        Operation::Span { at } => Outcome::of(file.span_at(*at), Outcome::Found),
        Operation::Close | Operation::Open { .. } | Operation::Restart { .. } => Outcome::Done,
        Operation::LookAtAll => Outcome::Done,
    }
}

fn write(file: &CachedFile, at: u64, bytes: &[u8], manner: Manner) -> Outcome {
    let written = match manner {
        Manner::Plain => file.write_at(bytes, at),
        Manner::Through => file.write_through_at(bytes, at, true).map(|()| bytes.len()),
        Manner::Try => file.try_write_at(bytes, at).and_then(|done| match done < bytes.len() {
            true => Ok(done + file.write_at(&bytes[done..], at + done as u64)?),
            false => Ok(done),
        }),
    };
    Outcome::of(written, Outcome::Wrote)
}

fn read(file: &CachedFile, at: u64, len: usize, manner: Manner) -> Outcome {
    let mut bytes = vec![0; len];
    let tried = match manner {
        Manner::Try => file.try_read_at(&mut bytes, at),
        Manner::Plain | Manner::Through => None,
    };
    let result = tried.map_or_else(|| file.read_at(&mut bytes, at), Ok);
    Outcome::of(result, |count| Outcome::Read(bytes[..count].to_vec()))
}
