//! The system calls that a bio comes to. The kernel is handed frame addresses here, and only here.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use rustix::io::{pwrite, retry_on_intr};

use super::{Kind, Target};
use crate::{Bio, BioVec, Errno};

/// Bytes of zeros written at once where the file system cannot zero a range by itself.
const ZEROS: usize = 64 << 10;

/// A page-aligned buffer of zeros, as direct I/O wants it.
#[repr(align(4096))]
struct Zeros([u8; ZEROS]);

static ZERO_PAGES: Zeros = Zeros([0; ZEROS]);

/// The memory that a bio lends to the kernel, described as the kernel wants it.
///
/// # Invariants
///
/// 1. Each vector covers bytes of frames that the bio pins, or is empty. The borrow keeps the bio,
///    the bio its pins and the arena, the arena the mapping.
pub(super) struct IoVecs<'a> {
    vecs: Vec<libc::iovec>,
    /// Vectors before this one are used up.
    first: usize,
    _bio: &'a Bio,
}

impl<'a> IoVecs<'a> {
    pub(super) fn of(bio: &'a Bio) -> IoVecs<'a> {
        let arena = bio.arena().expect("a checked read or write has memory");
        let iovec = |vec: &BioVec| libc::iovec {
            iov_base: arena.address(vec.frame).wrapping_add(vec.offset as usize).cast(),
            iov_len: vec.len as usize,
        };
        // INVARIANT: 1. Frames that follow each other in number do so in memory.
        IoVecs { vecs: bio.vecs().iter().map(iovec).collect(), first: 0, _bio: bio }
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

    fn read_from(&mut self, fd: BorrowedFd<'_>, offset: libc::off_t) -> Result<usize, Errno> {
        let vecs = self.rest().as_ptr();
        // SAFETY: the vectors are memory that stays while this runs (invariant 1); no reference to
        // frame memory exists, so the kernel may write it.
        result(unsafe { libc::preadv(fd.as_raw_fd(), vecs, self.count(), offset) })
    }

    fn write_to(
        &mut self,
        fd: BorrowedFd<'_>,
        offset: libc::off_t,
        flags: libc::c_int,
    ) -> Result<usize, Errno> {
        let vecs = self.rest().as_ptr();
        // SAFETY: the vectors are memory that stays while this runs (invariant 1).
        result(unsafe { libc::pwritev2(fd.as_raw_fd(), vecs, self.count(), offset, flags) })
    }
}

impl Target {
    /// Fills the frames of `bio`; with zeros where a regular file has ended.
    pub(super) fn read(&self, bio: &Bio) -> Result<(), Errno> {
        let (start, total) = (offset(bio), length(bio));
        let mut memory = IoVecs::of(bio);
        let mut done = 0;
        while done < total {
            let at = start + done as u64;
            let read = retry_on_intr(|| memory.read_from(self.as_fd(), to_off_t(at)))?;
            let whole = self.whole(read);
            if whole == read && read > 0 {
                memory.advance(read);
                done += read;
            } else if self.kind == Kind::Regular && at + read as u64 >= self.len()? {
                zero(bio, done + read);
                return Ok(());
            } else if whole > 0 {
                memory.advance(whole);
                done += whole;
            } else {
                return Err(Errno::IO);
            }
        }
        Ok(())
    }

    /// Writes the frames of `bio`; durably when it is a FUA write.
    pub(super) fn write(&self, bio: &Bio) -> Result<(), Errno> {
        if !bio.flags().fua {
            return self.write_with(bio, 0);
        }
        match self.write_with(bio, libc::RWF_DSYNC) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                self.write_with(bio, 0)?;
                self.flush()
            }
            other => other,
        }
    }

    fn write_with(&self, bio: &Bio, flags: libc::c_int) -> Result<(), Errno> {
        let (start, total) = (offset(bio), length(bio));
        let mut memory = IoVecs::of(bio);
        let mut done = 0;
        while done < total {
            let at = to_off_t(start + done as u64);
            let written = retry_on_intr(|| memory.write_to(self.as_fd(), at, flags))?;
            let whole = self.whole(written);
            if whole == 0 {
                return Err(Errno::IO);
            }
            memory.advance(whole);
            done += whole;
        }
        Ok(())
    }

    /// The bytes of a transfer of `bytes` after which the next one may begin.
    fn whole(&self, bytes: usize) -> usize {
        if self.direct { bytes - bytes % self.limits.alignment } else { bytes }
    }

    /// Makes what has completed durable. An error is never turned into anything else.
    pub(super) fn flush(&self) -> Result<(), Errno> {
        retry_on_intr(|| fdatasync(&self.fd))
    }

    /// Gives the room of the range back; the size of a regular file stays.
    pub(super) fn discard(&self, bio: &Bio) -> Result<(), Errno> {
        match self.kind {
            Kind::Regular => {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                retry_on_intr(|| fallocate(&self.fd, hole, offset(bio), bio.bytes()))
            }
            Kind::Block => retry_on_intr(|| block_discard(self.as_fd(), offset(bio), bio.bytes())),
        }
    }

    /// Makes the range read as zeros, as a write of zeros would: a regular file may grow. Gives the
    /// room back where it may.
    pub(super) fn write_zeroes(&self, bio: &Bio) -> Result<(), Errno> {
        let end = offset(bio) + bio.bytes();
        let inside = self.kind == Kind::Block || end <= self.len()?;
        if inside && !bio.keeps_room() && !self.keep_room {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match retry_on_intr(|| fallocate(&self.fd, hole, offset(bio), bio.bytes())) {
                Err(Errno::OPNOTSUPP) => {}
                other => return other,
            }
        }
        let flags = match self.kind {
            Kind::Regular => FallocateFlags::ZERO_RANGE,
            Kind::Block => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        };
        match retry_on_intr(|| fallocate(&self.fd, flags, offset(bio), bio.bytes())) {
            Err(Errno::OPNOTSUPP) => self.write_zero_pages(offset(bio), bio.bytes()),
            other => other,
        }
    }

    pub(super) fn write_zero_pages(&self, start: u64, bytes: u64) -> Result<(), Errno> {
        let mut done = 0;
        while done < bytes {
            let left = usize::try_from(bytes - done).unwrap_or(ZEROS).min(ZEROS);
            let zeros = &ZERO_PAGES.0[..left];
            let written = self.whole(retry_on_intr(|| pwrite(&self.fd, zeros, start + done))?);
            if written == 0 {
                return Err(Errno::IO);
            }
            done += written as u64;
        }
        Ok(())
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.fd)
    }
}

/// Fills what is behind the first `from` bytes of the bio's frames with zeros.
fn zero(bio: &Bio, from: usize) {
    let mut at = from;
    while at < length(bio) {
        let len = ZEROS.min(length(bio) - at);
        bio.copy_in(at, &ZERO_PAGES.0[..len]);
        at += len;
    }
}

/// Linux: `BLKDISCARD`, block/ioctl.c.
fn block_discard(fd: BorrowedFd<'_>, start: u64, bytes: u64) -> Result<(), Errno> {
    const BLKDISCARD: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(0x12, 119);
    // SAFETY: the operation reads two 64-bit numbers, first byte and length, and nothing more.
    let discard = unsafe { rustix::ioctl::Setter::<BLKDISCARD, [u64; 2]>::new([start, bytes]) };
    // SAFETY: the operation belongs to this opcode.
    unsafe { rustix::ioctl::ioctl(fd, discard) }
}

fn result(returned: libc::ssize_t) -> Result<usize, Errno> {
    usize::try_from(returned).map_err(|_| {
        let error = std::io::Error::last_os_error();
        Errno::from_io_error(&error).expect("the system's last error has a number")
    })
}

fn offset(bio: &Bio) -> u64 {
    bio.sector().offset_bytes().expect("a checked bio")
}

fn length(bio: &Bio) -> usize {
    usize::try_from(bio.bytes()).expect("a checked bio")
}

fn to_off_t(offset_bytes: u64) -> libc::off_t {
    libc::off_t::try_from(offset_bytes).expect("a checked bio")
}
