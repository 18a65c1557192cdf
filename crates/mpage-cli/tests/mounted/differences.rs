//! Where mpage may give another result than the kernel, and why.

use rustix::fs::{FallocateFlags, FileType, OFlags, RenameFlags, SeekFrom};
use rustix::io::Errno;

use crate::call::Call;
use crate::outcome::Outcome;
use crate::seen::Seen;

/// Something that is not the same on both mounts.
pub(crate) struct Case<'a> {
    pub(crate) call: &'a Call,
    pub(crate) what: What<'a>,
    /// Whether files of the image have extents.
    pub(crate) has_extents: bool,
    /// Whether the kernel's file was made as it was before, where only it was written.
    pub(crate) was_undone: bool,
    /// Whether a user without privileges was refused a change of content, in this step or before.
    pub(crate) was_refused: bool,
}

/// What is not the same: the kernel's first.
pub(crate) enum What<'a> {
    Result(&'a Outcome, &'a Outcome),
    /// What is seen of a file, and by which of its attributes it differs.
    Seen {
        attribute: &'static str,
        kernel: &'a Seen,
        other: &'a Seen,
    },
}

/// A difference that is expected.
pub(crate) struct Difference {
    pub(crate) name: &'static str,
    pub(crate) reason: &'static str,
    /// Whether mpage's answer means that the kernel must not be asked, so that the files stay the
    /// same; true: files have extents.
    pub(crate) refused: fn(&Call, &Outcome, bool) -> bool,
    /// Whether it explains what is not the same.
    pub(crate) explains: fn(&Case<'_>) -> bool,
}

fn never(_: &Call, _: &Outcome, _: bool) -> bool {
    false
}

/// What the largest file of each format that is compared can be longer than, in bytes.
const LARGEST: u64 = 1 << 40;

/// Blocks of 512 bytes that the maps of two small files differ by at most.
const MAP_BLOCKS: u64 = 16;

const PRIVILEGES: u32 = 0o6000;
const SETGID: u32 = 0o2000;
const SETGID_AND_EXECUTE: u32 = 0o2010;

/// The expected differences: all there are.
pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "ranges that move",
        reason: "FUSE hands on no fallocate(2) that collapses, inserts or unshares",
        refused: |call, outcome, _| {
            let moves = FallocateFlags::COLLAPSE_RANGE
                | FallocateFlags::INSERT_RANGE
                | FallocateFlags::UNSHARE_RANGE;
            let asked = matches!(call, Call::Allocate { mode, .. } if mode.intersects(moves));
            asked && outcome.is(Errno::OPNOTSUPP)
        },
        explains: |_| false,
    },
    Difference {
        name: "files without a name",
        reason: "the library for FUSE hands on no O_TMPFILE",
        refused: |call, outcome, _| {
            let asked = matches!(call, Call::Open { flags, .. } if flags.contains(OFlags::TMPFILE));
            asked && outcome.is(Errno::OPNOTSUPP)
        },
        explains: |_| false,
    },
    Difference {
        name: "whiteouts",
        reason: "mpage-ext4 leaves none behind when it renames",
        refused: |call, outcome, _| {
            let asked = matches!(
                call,
                Call::Rename { flags, .. } if flags.contains(RenameFlags::WHITEOUT)
            );
            asked && outcome.is(Errno::INVAL)
        },
        explains: |_| false,
    },
    Difference {
        name: "seek behind the largest file",
        reason: "FUSE does not tell the kernel how large a file may be: a write there fails",
        refused: never,
        explains: |case| {
            let far = |place: &Outcome| matches!(place, Outcome::Number(at) if *at > LARGEST);
            let asked = matches!(case.call, Call::Seek { .. });
            asked && case.kernel_failed(Errno::INVAL, far)
        },
    },
    Difference {
        name: "data and holes before the start",
        reason: "the kernel says ENXIO of a negative offset, and EINVAL before FUSE is asked",
        refused: never,
        explains: |case| {
            let asked =
                matches!(case.call, Call::Seek { to: SeekFrom::Data(_) | SeekFrom::Hole(_), .. });
            asked && case.kernel_failed(Errno::NXIO, |other| other.is(Errno::INVAL))
        },
    },
    Difference {
        name: "copy of nothing behind the largest file",
        reason: "the kernel looks at the place before it looks whether there is something to copy",
        refused: never,
        explains: |case| {
            let nothing = |outcome: &Outcome| *outcome == Outcome::Number(0);
            matches!(case.call, Call::Copy { .. }) && case.kernel_failed(Errno::FBIG, nothing)
        },
    },
    Difference {
        name: "setgid where the group executes nothing",
        reason: "FUSE has it taken from a file that is written only where the group executes; the \
                 kernel takes it from those who are not in the group, and FUSE tells no groups",
        refused: never,
        explains: |case| match case.what {
            What::Seen { attribute: "mode", kernel, other } => {
                kernel.kind == FileType::RegularFile
                    && other.mode & SETGID_AND_EXECUTE == SETGID
                    && kernel.mode == other.mode & !SETGID
            }
            _ => false,
        },
    },
    Difference {
        name: "room for a file without extents",
        reason: "the kernel refuses it too, but has set the times by then",
        refused: |call, outcome, has_extents| {
            let asked = matches!(call, Call::Allocate { .. });
            asked && !has_extents && outcome.is(Errno::OPNOTSUPP)
        },
        explains: |_| false,
    },
    Difference {
        name: "size of a removed directory",
        reason: "the kernel says nothing, mpage what it had when it was removed",
        refused: never,
        explains: |case| match case.what {
            What::Seen { attribute: "size", kernel, other } => {
                let removed = kernel.kind == FileType::Directory && other.links == 0;
                removed && kernel.size == 0
            }
            _ => false,
        },
    },
    Difference {
        name: "blocks of a map",
        reason: "a run that one has in two parts, the other may have in one",
        refused: never,
        explains: |case| match case.what {
            What::Seen { attribute: "blocks", kernel, other } => {
                case.has_extents && kernel.blocks.abs_diff(other.blocks) <= MAP_BLOCKS
            }
            _ => false,
        },
    },
    Difference {
        name: "privileges of a file that cannot be changed so",
        reason: "FUSE has them taken before it is known that a write fails",
        refused: never,
        explains: |case| match case.what {
            What::Seen { attribute: "mode", kernel, other } => {
                case.was_refused && other.mode == kernel.mode & !PRIVILEGES
            }
            What::Seen { attribute: "moved change time", .. } => case.was_refused,
            What::Seen { .. } | What::Result(..) => false,
        },
    },
    Difference {
        name: "data behind a long hole without extents",
        reason: "the kernel does not find what lies 4 GiB behind the start of a hole",
        refused: never,
        explains: |case| {
            let asked = matches!(case.call, Call::Seek { to: SeekFrom::Data(_), .. });
            let found = |outcome: &Outcome| matches!(outcome, Outcome::Number(_));
            asked && !case.has_extents && case.kernel_failed(Errno::NXIO, found)
        },
    },
    Difference {
        name: "chown that changes nothing",
        reason: "FUSE asks for it as it does before a write: the privileges of another user's \
                 file stay, and it is no error",
        refused: never,
        explains: |case| {
            let nothing = matches!(case.call, Call::Chown { uid: None, gid: None, .. });
            let done = |outcome: &Outcome| *outcome == Outcome::Done;
            nothing && case.kernel_failed(Errno::PERM, done)
        },
    },
    Difference {
        name: "write across the largest size",
        reason: "the kernel writes what fits, and refuses the rest when it is tried; mpage refuses \
                 all of it",
        refused: never,
        explains: |case| {
            let far = matches!(case.call, Call::Write { .. } | Call::Copy { .. });
            let wrote = |outcome: &Outcome| matches!(outcome, Outcome::Number(1..));
            far && match case.what {
                What::Result(kernel, other) => wrote(kernel) && other.is(Errno::FBIG),
                What::Seen { attribute, .. } => case.was_undone && attribute.starts_with("moved"),
            }
        },
    },
];

/// The place in [`DIFFERENCES`] of what mpage refuses.
pub(crate) fn refused(call: &Call, outcome: &Outcome, has_extents: bool) -> Option<usize> {
    DIFFERENCES.iter().position(|difference| (difference.refused)(call, outcome, has_extents))
}

/// The place in [`DIFFERENCES`] of what explains `case`.
pub(crate) fn explained(case: &Case<'_>) -> Option<usize> {
    DIFFERENCES.iter().position(|difference| (difference.explains)(case))
}

impl Case<'_> {
    /// Whether the kernel said `errno`, and mpage something of its own.
    fn kernel_failed(&self, errno: Errno, other: impl Fn(&Outcome) -> bool) -> bool {
        matches!(self.what, What::Result(kernel, second) if kernel.is(errno) && other(second))
    }
}
