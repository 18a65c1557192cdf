//! The player that is right: a plain file of the kernel.

use std::fs::File;
use std::io::IoSlice;
use std::ops::Range;
use std::path::{Path, PathBuf};

use mpage::units::PAGE_SIZE;
use mpage::{Advice, Span};
use mpage_block::Errno;
use rustix::fs::{FallocateFlags, Mode, OFlags, SeekFrom, fallocate, seek};
use rustix::io::{ReadWriteFlags, pread, pwrite, pwritev2};

use crate::operation::{Manner, Operation};
use crate::outcome::Outcome;

/// A file and its opens.
pub(crate) struct Kernel {
    path: PathBuf,
    opens: [Option<Open>; 2],
}

/// One open, twice: through the kernel's cache and past it.
struct Open {
    file: File,
    direct: File,
}

impl Open {
    fn new(path: &Path, writable: bool) -> Open {
        let access = if writable { OFlags::RDWR | OFlags::CREATE } else { OFlags::RDONLY };
        let open = |flags| File::from(rustix::fs::open(path, flags, Mode::RUSR).unwrap());
        let access = access | OFlags::CLOEXEC;
        Open { file: open(access), direct: open(access | OFlags::DIRECT) }
    }
}

impl Kernel {
    pub(crate) fn new(path: PathBuf) -> Kernel {
        let open = Open::new(&path, true);
        Kernel { path, opens: [Some(open), None] }
    }

    fn open(&self, slot: usize) -> &Open {
        self.opens[slot].as_ref().expect("the game opens before it plays")
    }

    pub(crate) fn size(&self) -> u64 {
        std::fs::metadata(&self.path).unwrap().len()
    }

    /// Does what `operation` says on the open `slot`.
    pub(crate) fn play(&mut self, slot: usize, operation: &Operation) -> Outcome {
        match operation {
            Operation::Close => {
                self.opens[slot] = None;
                Outcome::Done
            }
            Operation::Open { writable } => {
                self.opens[slot] = Some(Open::new(&self.path, *writable));
                Outcome::Done
            }
            Operation::Restart { writable, .. } => {
                self.opens = [None, None];
                self.opens[slot] = Some(Open::new(&self.path, *writable));
                Outcome::Done
            }
            _ => play(self.open(slot), operation),
        }
    }

    /// The runs of bytes that may be something else than zeros.
    pub(crate) fn data(&self, slot: usize) -> Vec<Range<u64>> {
        let (size, file) = (self.size(), &self.open(slot).file);
        let mut runs = Vec::new();
        let mut at = 0;
        while at < size {
            let span = span_at(file, at).unwrap();
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
        let count = pread(&self.open(slot).file, &mut bytes[..], range.start).unwrap();
        bytes.truncate(count);
        bytes
    }
}

fn play(Open { file, direct }: &Open, operation: &Operation) -> Outcome {
    let done = |()| Outcome::Done;
    match operation {
        // The call takes the last offset for the place in the file that a seek moves.
        Operation::Write { at, content, manner: Manner::Through } if *at != u64::MAX => {
            let bytes = content.bytes();
            let bytes = [IoSlice::new(&bytes)];
            Outcome::of(pwritev2(file, &bytes, *at, ReadWriteFlags::DSYNC), Outcome::Wrote)
        }
        Operation::Write { at, content, .. } => {
            Outcome::of(pwrite(file, &content.bytes(), *at), Outcome::Wrote)
        }
        Operation::Read { at, len, .. } => read(file, *at, &mut vec![0; *len]),
        Operation::WriteDirect { at, content } => {
            let mut aligned = Aligned::new(content.len);
            aligned.bytes().copy_from_slice(&content.bytes());
            Outcome::of(pwrite(direct, aligned.bytes(), *at), Outcome::Wrote)
        }
        Operation::ReadDirect { at, len } => read(direct, *at, Aligned::new(*len).bytes()),
        Operation::SetLen { size } => Outcome::of(rustix::fs::ftruncate(file, *size), done),
        Operation::Punch(range) => {
            let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Outcome::of(allocate(file, mode, range), done)
        }
        Operation::Zero(range) => {
            let mode = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            Outcome::of(allocate(file, mode, range), done)
        }
        Operation::Collapse(range) => {
            Outcome::of(allocate(file, FallocateFlags::COLLAPSE_RANGE, range), done)
        }
        Operation::Sync(mpage::SyncKind::All) => Outcome::of(rustix::fs::fsync(file), done),
        Operation::Sync(mpage::SyncKind::Data) => Outcome::of(rustix::fs::fdatasync(file), done),
        Operation::SyncRange(..) | Operation::SyncSteps(..) | Operation::StartWriting(_) => {
            Outcome::NotAsked
        }
        Operation::Invalidate(range) | Operation::InvalidateStrict(range) => {
            Outcome::of(advise(file, range, Advice::DontNeed), done)
        }
        Operation::Advise(range, advice) => Outcome::of(advise(file, range, *advice), done),
        Operation::Span { at } => Outcome::of(span_at(file, *at), Outcome::Found),
        Operation::Close | Operation::Open { .. } | Operation::Restart { .. } => Outcome::Done,
        Operation::LookAtAll => Outcome::Done,
    }
}

/// Memory for direct I/O.
struct Aligned {
    memory: Vec<u8>,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        Aligned { memory: vec![0; len + PAGE_SIZE], len }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let start = self.memory.as_ptr().align_offset(PAGE_SIZE);
        &mut self.memory[start..start + self.len]
    }
}

fn read(file: &File, at: u64, to: &mut [u8]) -> Outcome {
    match pread(file, &mut *to, at) {
        Ok(count) => Outcome::Read(to[..count].to_vec()),
        Err(errno) => Outcome::Failed(errno),
    }
}

/// A range whose end lies before its start has a negative length.
fn allocate(file: &File, mode: FallocateFlags, range: &Range<u64>) -> Result<(), Errno> {
    fallocate(file, mode, range.start, range.end.wrapping_sub(range.start))
}

fn advise(file: &File, range: &Range<u64>, advice: Advice) -> Result<(), Errno> {
    let advice = match advice {
        Advice::Normal => rustix::fs::Advice::Normal,
        Advice::Random => rustix::fs::Advice::Random,
        Advice::Sequential => rustix::fs::Advice::Sequential,
        Advice::WillNeed => rustix::fs::Advice::WillNeed,
        Advice::DontNeed => rustix::fs::Advice::DontNeed,
        Advice::NoReuse => rustix::fs::Advice::NoReuse,
    };
    let len = range.end.saturating_sub(range.start);
    rustix::fs::fadvise(file, range.start, std::num::NonZeroU64::new(len), advice)
}

fn span_at(file: &File, at: u64) -> Result<Span, Errno> {
    let size = file.metadata().unwrap().len();
    match seek(file, SeekFrom::Data(at)) {
        Ok(data) if data == at => {
            let end = seek(file, SeekFrom::Hole(at))?;
            Ok(Span { bytes: at..end, hole: false })
        }
        Ok(data) => Ok(Span { bytes: at..data, hole: true }),
        Err(Errno::NXIO) if at < size => Ok(Span { bytes: at..size, hole: true }),
        Err(errno) => Err(errno),
    }
}
