//! Doing what a bio asks on the calling thread, which waits for it.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{fallocate, fdatasync};

use super::Target;
use super::transfer::{Call, Transfer};
use crate::{Bio, Errno};

impl Target {
    /// Does what `bio` asks and ends it. Blocks as long as the device takes.
    pub(super) fn run(&self, bio: Bio) {
        match Transfer::of(bio, self) {
            Ok(transfer) => self.finish(transfer),
            Err(refused) => refused.bio.complete(Err(refused.error)),
        }
    }

    /// Does what is left of `transfer` and ends it.
    pub(super) fn finish(&self, mut transfer: Transfer) {
        loop {
            let answer = self.call(transfer.next(self));
            if let Some(result) = transfer.ended(self, answer) {
                return transfer.complete(result);
            }
        }
    }

    fn call(&self, call: Call<'_>) -> Result<usize, Errno> {
        let fd = self.fd.as_fd();
        match call {
            Call::Read { memory, at } => memory.read_from(fd, at),
            Call::Write { memory, at, flags } => memory.write_to(fd, at, flags),
            Call::Sync => fdatasync(fd).map(|()| 0),
            Call::Fallocate { mode, at, bytes } => fallocate(fd, mode, at, bytes).map(|()| 0),
            Call::Discard { at, bytes } => block_discard(fd, at, bytes).map(|()| 0),
        }
    }
}

/// Linux: `BLKDISCARD`, block/ioctl.c.
fn block_discard(fd: BorrowedFd<'_>, at: u64, bytes: u64) -> Result<(), Errno> {
    const BLKDISCARD: rustix::ioctl::Opcode = rustix::ioctl::opcode::none(0x12, 119);
    // SAFETY: the operation reads two 64-bit numbers, first byte and length, and nothing more.
    let discard = unsafe { rustix::ioctl::Setter::<BLKDISCARD, [u64; 2]>::new([at, bytes]) };
    // SAFETY: the operation belongs to this opcode.
    unsafe { rustix::ioctl::ioctl(fd, discard) }
}
