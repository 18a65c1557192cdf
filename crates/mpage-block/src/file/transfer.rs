//! A bio on its way: how far it is, and which system call comes next.
//!
//! ```text
//!   Read ----+  again while short                      Flush: Sync      Discard: Discard | Punch
//!   Write ---+------> over                             WriteZeroes:
//!     | FUA and the kernel has no RWF_DSYNC: plain       Punch --> ZeroRange --> WriteZeros
//!     +------> Sync ------> over                           where the one before is not to be had
//! ```
//!
//! Who makes the calls, and on which thread, is not its business: [`Transfer::next`] says what to
//! ask of the kernel, [`Transfer::ended`] is told the answer.

use mpage_locks::Mutex;
use rustix::fs::FallocateFlags;

use super::iovecs::IoVecs;
use super::{Kind, Target};
use crate::{Bio, BioOp, Errno, SubmitError};

/// What to ask of the kernel. The memory is that of the transfer that says it.
#[derive(Clone, Copy)]
pub(super) enum Call<'a> {
    /// Linux: preadv(2).
    Read { memory: &'a IoVecs, at: u64 },
    /// Linux: pwritev2(2).
    Write { memory: &'a IoVecs, at: u64, flags: libc::c_int },
    /// Linux: fdatasync(2).
    Sync,
    /// Linux: fallocate(2).
    Fallocate { mode: FallocateFlags, at: u64, bytes: u64 },
    /// Linux: `BLKDISCARD`, block/ioctl.c.
    Discard { at: u64, bytes: u64 },
}

/// What a transfer is at: the states of the module's picture.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Read,
    Write { flags: libc::c_int },
    Sync,
    Discard,
    Punch,
    ZeroRange,
    WriteZeros,
}

impl Step {
    fn first(bio: &Bio, target: &Target) -> Result<Step, Errno> {
        Ok(match bio.op() {
            BioOp::Read => Step::Read,
            BioOp::Write if bio.flags().fua => Step::Write { flags: libc::RWF_DSYNC },
            BioOp::Write => Step::Write { flags: 0 },
            BioOp::Flush => Step::Sync,
            BioOp::Discard if target.kind == Kind::Block => Step::Discard,
            BioOp::Discard => Step::Punch,
            BioOp::WriteZeroes => {
                let end = offset(bio) + bio.bytes();
                let inside = target.kind == Kind::Block || end <= target.len()?;
                let may_punch = inside && !bio.keeps_room() && !target.keep_room;
                if may_punch { Step::Punch } else { Step::ZeroRange }
            }
        })
    }
}

/// Bios that pin the memory of those that were abandoned, for ever.
static LOST: Mutex<Vec<Bio>> = Mutex::new(Vec::new());

/// A bio and how much of it is done.
///
/// # Invariants
///
/// 1. `memory` covers frames that `bio` pins, or static zeros. The bio is ended by
///    [`complete`](Self::complete), [`abandon`](Self::abandon) or drop, and by nothing else.
pub(super) struct Transfer {
    bio: Bio,
    memory: IoVecs,
    done: u64,
    step: Step,
    /// How long the file was when it had grown behind a read that found its end.
    grown_to: u64,
}

impl Transfer {
    /// The transfer of a bio that `target` allows.
    ///
    /// # Errors
    ///
    /// The file system's, when it does not tell the size of the file.
    pub(super) fn of(bio: Bio, target: &Target) -> Result<Transfer, SubmitError> {
        match Step::first(&bio, target) {
            // INVARIANT: 1. The bio stays here.
            Ok(step) => Ok(Transfer { memory: IoVecs::of(&bio), bio, done: 0, step, grown_to: 0 }),
            Err(error) => Err(SubmitError { bio, error }),
        }
    }

    /// What to ask of the kernel now.
    pub(super) fn next(&self, target: &Target) -> Call<'_> {
        let (at, bytes) = (offset(&self.bio), self.bio.bytes());
        let here = at + self.done;
        match self.step {
            Step::Read => Call::Read { memory: &self.memory, at: here },
            Step::Write { flags } => Call::Write { memory: &self.memory, at: here, flags },
            Step::WriteZeros => Call::Write { memory: &self.memory, at: here, flags: 0 },
            Step::Sync => Call::Sync,
            Step::Discard => Call::Discard { at, bytes },
            Step::Punch => {
                let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Call::Fallocate { mode, at, bytes }
            }
            Step::ZeroRange => {
                let size = match target.kind {
                    Kind::Regular => FallocateFlags::empty(),
                    Kind::Block => FallocateFlags::KEEP_SIZE,
                };
                Call::Fallocate { mode: FallocateFlags::ZERO_RANGE | size, at, bytes }
            }
        }
    }

    /// Takes the kernel's answer: bytes moved, or an error.
    ///
    /// The bio's result when it is over; `None` when there is more to ask. An error of a flush is
    /// never turned into anything else.
    pub(super) fn ended(
        &mut self,
        target: &Target,
        answer: Result<usize, Errno>,
    ) -> Option<Result<(), Errno>> {
        match self.advance(target, answer) {
            Ok(true) => Some(Ok(())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Ends the bio.
    pub(super) fn complete(self, result: Result<(), Errno>) {
        self.bio.complete(result);
    }

    /// Ends the bio with `error` while the kernel may still use its memory, which from then on is
    /// nobody else's.
    ///
    /// The vectors themselves go: the kernel has copied those it took, which is what
    /// `IORING_FEAT_SUBMIT_STABLE` says.
    pub(super) fn abandon(self, error: Errno) {
        if !self.bio.vecs().is_empty() {
            LOST.lock().push(self.bio.head(self.bio.bytes()));
        }
        self.bio.complete(Err(error));
    }

    /// True when it is over.
    fn advance(&mut self, target: &Target, answer: Result<usize, Errno>) -> Result<bool, Errno> {
        let unsupported = matches!(answer, Err(Errno::OPNOTSUPP | Errno::NOSYS));
        let zeroes = self.bio.op() == BioOp::WriteZeroes;
        match (self.step, answer) {
            (_, Err(Errno::INTR)) => Ok(false),
            (Step::Write { flags: libc::RWF_DSYNC }, Err(_)) if unsupported => {
                self.step = Step::Write { flags: 0 };
                Ok(false)
            }
            (Step::Punch, Err(Errno::OPNOTSUPP)) if zeroes => {
                self.step = Step::ZeroRange;
                Ok(false)
            }
            (Step::ZeroRange, Err(Errno::OPNOTSUPP)) => {
                self.step = Step::WriteZeros;
                self.memory = IoVecs::zeros(self.bio.bytes());
                Ok(false)
            }
            (_, Err(error)) => Err(error),
            (Step::Read, Ok(bytes)) => self.was_read(target, bytes),
            (Step::Write { flags }, Ok(bytes)) => {
                let over = self.was_written(target, bytes)?;
                let unsynced = self.bio.flags().fua && flags & libc::RWF_DSYNC == 0;
                if over && unsynced {
                    self.step = Step::Sync;
                }
                Ok(over && !unsynced)
            }
            (Step::WriteZeros, Ok(bytes)) => {
                let over = self.was_written(target, bytes)?;
                self.memory = IoVecs::zeros(self.bio.bytes() - self.done);
                Ok(over)
            }
            (Step::Sync | Step::Discard | Step::Punch | Step::ZeroRange, Ok(_)) => Ok(true),
        }
    }

    /// Goes on behind `read` bytes; with zeros where a regular file has ended. Where it had ended
    /// and has grown since, it is read again, as often as it grows.
    fn was_read(&mut self, target: &Target, read: usize) -> Result<bool, Errno> {
        let whole = target.whole(read);
        let end = self.done + read as u64;
        let short = whole < read || read == 0;
        if short && target.kind == Kind::Regular {
            let len = target.len()?;
            if offset(&self.bio) + end >= len {
                super::iovecs::zero(&self.bio, end);
                return Ok(true);
            }
            if whole == 0 && len > self.grown_to {
                self.grown_to = len;
                return Ok(false);
            }
        }
        self.moved(whole)
    }

    fn was_written(&mut self, target: &Target, written: usize) -> Result<bool, Errno> {
        self.moved(target.whole(written))
    }

    fn moved(&mut self, bytes: usize) -> Result<bool, Errno> {
        if bytes == 0 {
            return Err(Errno::IO);
        }
        self.memory.advance(bytes);
        self.done += bytes as u64;
        Ok(self.done == self.bio.bytes())
    }
}

impl Target {
    /// The bytes of a transfer of `bytes` after which the next one may begin.
    fn whole(&self, bytes: usize) -> usize {
        if self.direct { bytes - bytes % self.limits.alignment } else { bytes }
    }
}

fn offset(bio: &Bio) -> u64 {
    bio.sector().offset_bytes().expect("a checked bio")
}

#[cfg(test)]
mod tests;
