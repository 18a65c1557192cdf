//! Memory as the kernel wants it described. Frame addresses are given out here, and only here.

use std::os::fd::{AsRawFd, BorrowedFd};

use crate::{Bio, BioVec, Errno};

/// Bytes of zeros written at once where the file system cannot zero a range by itself.
const ZEROS: usize = 64 << 10;

/// A page-aligned buffer of zeros, as direct I/O wants it.
#[repr(align(4096))]
struct Zeros([u8; ZEROS]);

static ZERO_PAGES: Zeros = Zeros([0; ZEROS]);

/// The memory that a bio lends to the kernel, or zeros to write.
///
/// # Invariants
///
/// 1. Each vector covers bytes of frames that a bio pins, or of `ZERO_PAGES`, or is empty. Who made
///    this keeps the bio: the bio keeps its pins and the arena, the arena the mapping.
pub(super) struct IoVecs {
    vecs: Vec<libc::iovec>,
    /// Vectors before this one are used up.
    first: usize,
}

impl IoVecs {
    /// The memory of `bio`, which the caller keeps as long as the kernel may use this.
    pub(super) fn of(bio: &Bio) -> IoVecs {
        let address = |vec: &BioVec| {
            let arena = bio.arena().expect("a bio with vectors has an arena");
            arena.address(vec.frame).wrapping_add(vec.offset as usize)
        };
        let iovec =
            |vec: &BioVec| libc::iovec { iov_base: address(vec).cast(), iov_len: vec.len as usize };
        // INVARIANT: 1. Frames that follow each other in number do so in memory.
        IoVecs { vecs: bio.vecs().iter().map(iovec).collect(), first: 0 }
    }

    /// Zeros to write: at most `bytes`, and no more than one call should.
    pub(super) fn zeros(bytes: u64) -> IoVecs {
        let iovec = libc::iovec {
            iov_base: (&raw const ZERO_PAGES).cast_mut().cast(),
            iov_len: usize::try_from(bytes).unwrap_or(ZEROS).min(ZEROS),
        };
        // INVARIANT: 1. Static memory, which a write only reads.
        IoVecs { vecs: vec![iovec], first: 0 }
    }

    /// Uses up the first `bytes` bytes.
    pub(super) fn advance(&mut self, mut bytes: usize) {
        while bytes > 0 {
            let vec = &mut self.vecs[self.first];
            let used = bytes.min(vec.iov_len);
            vec.iov_base = vec.iov_base.wrapping_byte_add(used);
            vec.iov_len -= used;
            bytes -= used;
            if vec.iov_len == 0 {
                self.first += 1;
            }
        }
    }

    pub(super) fn rest(&self) -> &[libc::iovec] {
        &self.vecs[self.first..]
    }

    fn count(&self) -> libc::c_int {
        libc::c_int::try_from(self.rest().len()).expect("limits keep vectors within IOV_MAX")
    }

    /// Linux: preadv(2).
    pub(super) fn read_from(&self, fd: BorrowedFd<'_>, at: u64) -> Result<usize, Errno> {
        let vecs = self.rest().as_ptr();
        // SAFETY: the vectors are memory that stays while this runs (invariant 1), of a bio, as
        // reads have no other; no reference to frame memory exists, so the kernel may write it.
        result(unsafe { libc::preadv(fd.as_raw_fd(), vecs, self.count(), to_off_t(at)) })
    }

    /// Linux: pwritev2(2).
    pub(super) fn write_to(
        &self,
        fd: BorrowedFd<'_>,
        at: u64,
        flags: libc::c_int,
    ) -> Result<usize, Errno> {
        let vecs = self.rest().as_ptr();
        // SAFETY: the vectors are memory that stays while this runs (invariant 1).
        result(unsafe { libc::pwritev2(fd.as_raw_fd(), vecs, self.count(), to_off_t(at), flags) })
    }
}

/// Fills what is behind the first `from` bytes of the bio's frames with zeros.
pub(super) fn zero(bio: &Bio, from: u64) {
    let to_usize = |bytes| usize::try_from(bytes).expect("a bio's memory");
    let (mut at, end) = (to_usize(from), to_usize(bio.bytes()));
    while at < end {
        let len = ZEROS.min(end - at);
        bio.copy_in(at, &ZERO_PAGES.0[..len]);
        at += len;
    }
}

fn result(returned: libc::ssize_t) -> Result<usize, Errno> {
    usize::try_from(returned).map_err(|_| {
        let error = std::io::Error::last_os_error();
        Errno::from_io_error(&error).expect("the system's last error has a number")
    })
}

fn to_off_t(offset_bytes: u64) -> libc::off_t {
    libc::off_t::try_from(offset_bytes).expect("a checked bio")
}

#[cfg(test)]
mod tests;
