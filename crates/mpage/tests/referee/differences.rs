//! Where mpage gives another result than the kernel, and why.

use mpage_block::Errno;

use crate::operation::Operation;
use crate::outcome::Outcome;

/// One operation and both results.
pub(crate) struct Case<'a> {
    pub(crate) operation: &'a Operation,
    /// Whether this open is for writing; `None` when it is closed.
    pub(crate) writable: Option<bool>,
    /// The same of the other open.
    pub(crate) other_writable: Option<bool>,
    /// The file's size before.
    pub(crate) size: u64,
    /// The largest file of the file system, in bytes.
    pub(crate) file_max: u64,
    /// What mpage says direct I/O is aligned to, in bytes.
    pub(crate) block: u64,
    pub(crate) kernel: &'a Outcome,
    pub(crate) cached: &'a Outcome,
}

/// A difference that is expected.
pub(crate) struct Difference {
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) applies: fn(&Case<'_>) -> bool,
    /// What the kernel has to do for its file to be the same again.
    pub(crate) instead: fn(&Case<'_>) -> Option<Operation>,
}

/// The largest offset the kernel counts to.
const KERNEL_MAX: u64 = i64::MAX as u64;

fn nothing(_: &Case<'_>) -> Option<Operation> {
    None
}

/// The expected differences: all there are.
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "read-only set_len",
        reason: "ftruncate(2) may say EBADF or EINVAL of a file not open for writing; \
                 mpage says EBADF as for every change",
        applies: |case| {
            let asked = matches!(case.operation, Operation::SetLen { .. });
            asked && case.only_reads() && case.both(Errno::INVAL, Errno::BADF)
        },
        instead: nothing,
    },
    Difference {
        name: "read-only and wrong",
        reason: "of two errors mpage tells first that the file is open for reading only",
        applies: |case| {
            case.only_reads() && case.is_wrong() && case.both(Errno::INVAL, Errno::BADF)
        },
        instead: nothing,
    },
    Difference {
        name: "empty range",
        reason: "fallocate(2) refuses lengths of zero and less; an empty range is nothing to do",
        applies: |case| {
            case.removed().is_some_and(|range| range.start >= range.end)
                && case.writable == Some(true)
                && case.kernel.is(Errno::INVAL)
                && *case.cached == Outcome::Done
        },
        instead: nothing,
    },
    Difference {
        name: "range behind the largest file",
        reason: "the kernel refuses a range that no file can have; mpage cuts it to the file",
        applies: |case| {
            let refused = case.kernel.is(Errno::INVAL) || case.kernel.is(Errno::FBIG);
            case.removed().is_some_and(|range| range.start < range.end && range.end > case.size)
                && case.writable == Some(true)
                && refused
                && *case.cached == Outcome::Done
        },
        instead: |case| {
            let range = case.removed()?;
            let range = range.start..range.end.min(case.size);
            (range.start < range.end).then_some(match case.operation {
                Operation::Punch(_) => Operation::Punch(range),
                _ => Operation::Zero(range),
            })
        },
    },
    Difference {
        name: "write behind signed offsets",
        reason: "an offset is unsigned: no range of it is negative, and so it is too large",
        applies: |case| {
            case.end_of_write().is_some_and(|end| end.is_none_or(|end| end > KERNEL_MAX))
                && case.writable == Some(true)
                && case.both(Errno::INVAL, Errno::FBIG)
        },
        instead: nothing,
    },
    Difference {
        name: "write of nothing behind the largest file",
        reason: "an offset no byte can have is refused, however many bytes are written there",
        applies: |case| {
            let far = |end: Option<u64>| end.is_some_and(|end| end > case.file_max);
            case.end_of_write().is_some_and(far)
                && case.writable == Some(true)
                && *case.kernel == Outcome::Wrote(0)
                && case.cached.is(Errno::FBIG)
        },
        instead: nothing,
    },
    Difference {
        name: "write across the largest size",
        reason: "the kernel writes what fits, and refuses the rest when it is tried; mpage refuses \
                 all of it",
        applies: |case| {
            let wrote = match case.kernel {
                Outcome::Wrote(count) => *count as u64,
                _ => return false,
            };
            let at = case.start_of_write().unwrap_or(u64::MAX);
            case.writable == Some(true)
                && wrote > 0
                && case.size <= at
                && at.checked_add(wrote) == Some(case.file_max)
                && case.end_of_write().flatten().is_some_and(|end| end > case.file_max)
                && case.cached.is(Errno::FBIG)
        },
        instead: |case| Some(Operation::SetLen { size: case.size }),
    },
    Difference {
        name: "read behind signed offsets",
        reason: "an offset is unsigned: behind the end of the file there is nothing to read",
        applies: |case| {
            let end = match case.operation {
                Operation::Read { at, len, .. } | Operation::ReadDirect { at, len } => {
                    at.checked_add(*len as u64)
                }
                _ => return false,
            };
            end.is_none_or(|end| end > KERNEL_MAX)
                && case.kernel.is(Errno::INVAL)
                && *case.cached == Outcome::Read(Vec::new())
        },
        instead: nothing,
    },
    Difference {
        name: "direct read across the largest size",
        reason: "ext4 has no block number for what lies behind the largest file, and refuses to \
                 look for it; mpage asks only up to the end of the file",
        applies: |case| {
            let (at, end) = match case.operation {
                Operation::ReadDirect { at, len } => (*at, at.saturating_add(*len as u64)),
                _ => return false,
            };
            let left = case.size.saturating_sub(at);
            let read = matches!(case.cached, Outcome::Read(bytes) if bytes.len() as u64 == left);
            end > case.file_max && case.kernel.is(Errno::INVAL) && read
        },
        instead: nothing,
    },
    Difference {
        name: "misaligned direct I/O",
        reason: "the kernel looks at the alignment only of what it moves, an extent at a time: not \
                 in holes, nor of what lies behind the end; mpage always does",
        applies: |case| {
            let let_through = match (case.operation, case.kernel) {
                (Operation::ReadDirect { .. }, Outcome::Read(_)) => true,
                (Operation::WriteDirect { .. }, Outcome::Wrote(count)) => *count == 0,
                (Operation::WriteDirect { .. }, Outcome::Failed(errno)) => *errno == Errno::FBIG,
                _ => return false,
            };
            let_through && case.is_misaligned() && case.cached.is(Errno::INVAL)
        },
        instead: nothing,
    },
    Difference {
        name: "span behind the end",
        reason: "mpage has no error of its own for ENXIO, and documents InvalidInput",
        applies: |case| {
            let behind = matches!(case.operation, Operation::Span { at } if *at >= case.size);
            behind && case.both(Errno::NXIO, Errno::INVAL)
        },
        instead: nothing,
    },
    Difference {
        name: "advice for an offset behind signed ones",
        reason: "advice about what no file can have is advice about nothing",
        applies: |case| {
            let asked = matches!(
                case.operation,
                Operation::Advise(..) | Operation::Invalidate(_) | Operation::InvalidateStrict(_)
            );
            asked && case.kernel.is(Errno::INVAL) && *case.cached == Outcome::Done
        },
        instead: nothing,
    },
    Difference {
        name: "open for writing beside one for reading",
        reason: "opens share the file below, which the first of them opened for reading only",
        applies: |case| {
            let asked = matches!(case.operation, Operation::Open { writable: true });
            asked
                && case.other_writable == Some(false)
                && *case.kernel == Outcome::Done
                && case.cached.is(Errno::BUSY)
        },
        instead: |_| Some(Operation::Close),
    },
    Difference {
        name: "collapse",
        reason: "a file that is its own device cannot be collapsed: its block map is fixed",
        applies: |case| {
            let asked = matches!(case.operation, Operation::Collapse(_));
            asked && *case.kernel == Outcome::NotAsked && case.cached.is(Errno::OPNOTSUPP)
        },
        instead: nothing,
    },
    Difference {
        name: "collapse behind the largest file",
        reason: "mpage says of every range that does not end before the end of the file that it is \
                 wrong, also of one that no file can have",
        applies: |case| {
            let asked = matches!(case.operation, Operation::Collapse(_));
            asked && case.both(Errno::FBIG, Errno::INVAL)
        },
        instead: nothing,
    },
    Difference {
        name: "range of a sync",
        reason: "the kernel has no sync of a range that makes it durable; both sync it all",
        applies: |case| *case.kernel == Outcome::NotAsked && *case.cached == Outcome::Done,
        instead: nothing,
    },
];

impl Case<'_> {
    fn only_reads(&self) -> bool {
        self.writable == Some(false)
    }

    fn both(&self, kernel: Errno, cached: Errno) -> bool {
        self.kernel.is(kernel) && self.cached.is(cached)
    }

    /// The range that is to become zeros.
    fn removed(&self) -> Option<std::ops::Range<u64>> {
        match self.operation {
            Operation::Punch(range) | Operation::Zero(range) => Some(range.clone()),
            _ => None,
        }
    }

    /// Where a write ends; `Some(None)` behind all numbers. A size that is set is a write there.
    fn end_of_write(&self) -> Option<Option<u64>> {
        match self.operation {
            Operation::Write { at, content, .. } | Operation::WriteDirect { at, content } => {
                Some(at.checked_add(content.len as u64))
            }
            Operation::SetLen { size } => Some(Some(*size)),
            _ => None,
        }
    }

    fn start_of_write(&self) -> Option<u64> {
        match self.operation {
            Operation::Write { at, .. } | Operation::WriteDirect { at, .. } => Some(*at),
            _ => None,
        }
    }

    /// Whether a change is wrong besides that the file is open for reading.
    fn is_wrong(&self) -> bool {
        if let Operation::Collapse(range) = self.operation {
            return range.start >= range.end || range.end > KERNEL_MAX;
        }
        let wrong = self.removed().is_some_and(|range| range.start >= range.end)
            || self.removed().is_some_and(|range| range.end > KERNEL_MAX);
        wrong || self.end_of_write().is_some_and(|end| end.is_none_or(|end| end > KERNEL_MAX))
    }

    fn is_misaligned(&self) -> bool {
        let (at, len) = match self.operation {
            Operation::WriteDirect { at, content } => (*at, content.len),
            Operation::ReadDirect { at, len } => (*at, *len),
            _ => return false,
        };
        !at.is_multiple_of(self.block) || !(len as u64).is_multiple_of(self.block)
    }
}
