//! One io_uring and the one thread that uses it.
//!
//! ```text
//!   submit --> queue --> slot --> io_uring_enter: all that are new go in, one that ended comes out
//!     |                   ^  |                                                  |
//!     +- eventfd, when    |  +<------------- short, interrupted ----------------+--> complete
//!        the thread waits +-- the next of the queue
//! ```
//!
//! The thread is the ring's only issuer, as `IORING_SETUP_SINGLE_ISSUER` wants it: what other
//! threads submit while it works goes to the kernel in its next call, together. A request belongs
//! to the thread that issued it, in the kernel too; so no thread of the application is interrupted
//! for one, and none that ends takes one along.
//!
//! # Invariants
//!
//! 1. A slot holds its transfer, and the transfer its memory, from the push of the entry that names
//!    them until the kernel's answer is taken, or for ever.
//! 2. There are entries in the ring for every slot and for the wake-up; so a push never finds it
//!    full, and the queue of answers, twice as large, never overflows.
//! 3. The thread says `asleep` under the lock when it found no bio that may go; whoever changes the
//!    queue afterwards wakes it. The eventfd counts: a wake-up between the word and the wait ends
//!    the wait. What is left waits for bios in flight, and is looked at when one ends.
//! 4. Nothing unwinds past a transfer in flight.
//!
//! Linux: io_uring(7), io_uring_enter(2).

use std::any::Any;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use mpage_locks::Mutex;
use mpage_locks::thread::{self, JoinHandle};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{read, retry_on_intr, write};

use super::Target;
use super::iovecs::IoVecs;
use super::queue::Queue;
use super::transfer::{Call, Transfer};
use crate::{Bio, Errno};

/// Most bios in flight, whatever the device is said to take.
const SLOTS_MAX: usize = 1024;

/// Bios in flight from which on background ones wait: enough to keep a disk busy, few enough that
/// an urgent one is not long behind them.
const CROWDED: usize = 8;

/// The device's file, by its place in the ring's table.
const FILE: types::Fixed = types::Fixed(0);

/// What the answers of the wake-up are marked with; those of a bio with the number of its slot.
const WAKE: u64 = u64::MAX;

/// What the word is marked with that no request has the file any more.
const FILE_FREE: u64 = u64::MAX - 1;

/// The bios that wait for a slot.
#[derive(Default)]
struct Waiting {
    queue: Queue,
    /// Whether the thread has to be woken: invariant 3.
    asleep: bool,
}

/// What the thread and the owner share.
struct Shared {
    waiting: Mutex<Waiting>,
    wake: OwnedFd,
}

impl Shared {
    /// Changes the queue, and wakes the thread when it waits.
    fn change(&self, change: impl FnOnce(&mut Queue)) {
        let mut waiting = self.waiting.lock();
        change(&mut waiting.queue);
        let asleep = std::mem::take(&mut waiting.asleep);
        drop(waiting);
        if asleep {
            let count = 1_u64.to_ne_bytes();
            let written = retry_on_intr(|| write(&self.wake, &count));
            assert!(written == Ok(count.len()), "an eventfd takes a count: {written:?}");
        }
    }

    /// The next bio, without a ring; waits for one. `None` when the queue is closed and empty.
    fn next(&self) -> Option<Bio> {
        loop {
            let mut waiting = self.waiting.lock();
            let bio = waiting.queue.take(false);
            if bio.is_some() || waiting.queue.is_closed() {
                return bio;
            }
            waiting.asleep = true;
            drop(waiting);
            let mut count = [0; 8];
            let woken = retry_on_intr(|| read(&self.wake, &mut count));
            assert!(woken == Ok(count.len()), "an eventfd gives its count: {woken:?}");
        }
    }
}

/// The ring. Dropping it waits until the queue is empty and the thread has ended.
pub(super) struct Ring {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Ring {
    /// Sets up a ring for `target` and starts its thread.
    ///
    /// # Errors
    ///
    /// The kernel's, when it has no such ring, forbids it or is short of memory, or cannot start
    /// another thread.
    pub(super) fn start(target: &Arc<Target>) -> io::Result<Ring> {
        let slots = target.limits.queue_depth.clamp(1, SLOTS_MAX);
        Ring::serve(set_up(target, slots)?, target, slots)
    }

    fn serve(ring: IoUring, target: &Arc<Target>, slots: usize) -> io::Result<Ring> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC)?;
        let shared = Arc::new(Shared { waiting: Mutex::default(), wake });
        let (served, target) = (Arc::clone(&shared), Arc::clone(target));
        let body = move || Issuer::new(ring, target, served, slots).serve();
        let thread = thread::spawn("mpage-uring", body)?;
        Ok(Ring { shared, thread: Some(thread) })
    }

    /// Queues `bio`. Never waits.
    pub(super) fn submit(&self, bio: Bio) {
        self.shared.change(|queue| queue.put(bio));
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.shared.change(Queue::close);
        super::pool::join(self.thread.take());
    }
}

/// A ring of which the first thread that enables it is the issuer, with the file in its table.
fn set_up(target: &Target, slots: usize) -> io::Result<IoUring> {
    // INVARIANT: 2. The kernel rounds up, and makes room for two answers an entry.
    let entries = u32::try_from(slots + 1).expect("at most 1025");
    let ring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_submit_all()
        .setup_r_disabled()
        .build(entries)?;
    register_file(&ring, target)?;
    Ok(ring)
}

/// Puts the file into the ring's table, and asks for the word `FILE_FREE` once it is out of it and
/// of all requests. Linux: `IORING_REGISTER_FILES2`, io_uring_register(2).
fn register_file(ring: &IoUring, target: &Target) -> io::Result<()> {
    #[repr(C)]
    struct Register {
        files: u32,
        flags: u32,
        reserved: u64,
        data: *const i32,
        tags: *const u64,
    }
    const REGISTER_FILES2: u32 = 13;
    let (file, tag) = (target.fd.as_raw_fd(), FILE_FREE);
    let register = Register { files: 1, flags: 0, reserved: 0, data: &file, tags: &tag };
    // SAFETY: the kernel reads one file and one tag, which live until the call returns.
    let registered = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_FILES2,
            &raw const register,
            size_of::<Register>(),
        )
    };
    if registered == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A transfer that the kernel has.
struct InFlight {
    transfer: Transfer,
    /// Given to a thread of the kernel that may wait, since it could not be done without.
    may_wait: bool,
}

/// The thread's own.
struct Issuer {
    ring: IoUring,
    target: Arc<Target>,
    shared: Arc<Shared>,
    slots: Vec<Option<InFlight>>,
    /// Slots that hold nothing.
    free: Vec<usize>,
    /// No request has the file.
    file_free: bool,
    /// The first panic of a completion: the others have a right to their results.
    panic: Option<Box<dyn Any + Send>>,
}

impl Issuer {
    fn new(ring: IoUring, target: Arc<Target>, shared: Arc<Shared>, slots: usize) -> Issuer {
        Issuer {
            ring,
            target,
            shared,
            slots: (0..slots).map(|_| None).collect(),
            free: (0..slots).collect(),
            file_free: false,
            panic: None,
        }
    }

    /// Serves until the queue is closed and everything is done.
    fn serve(mut self) {
        if let Err(error) = self.serve_by_ring() {
            self.give_up(&error);
            while let Some(bio) = self.shared.next() {
                let target = Arc::clone(&self.target);
                self.guard(move || target.run(bio));
            }
        }
        let panic = self.panic.take();
        drop(self);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }

    fn serve_by_ring(&mut self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()?;
        self.listen();
        while self.fill() {
            self.enter()?;
            self.take_answers();
        }
        self.free_file()
    }

    /// Waits until no request has the file. One that has been answered may have it yet, and a ring
    /// is taken down behind our back: the lock on the file would outlive the device.
    fn free_file(&mut self) -> io::Result<()> {
        let none = -1;
        let _one: usize = self.ring.submitter().register_files_update(0, &[none])?;
        while !self.file_free {
            self.enter()?;
            self.take_answers();
        }
        Ok(())
    }

    /// Gives waiting bios to free slots. False when all is over.
    fn fill(&mut self) -> bool {
        loop {
            let mut waiting = self.shared.waiting.lock();
            let crowded = self.in_flight() >= CROWDED;
            let bio = if self.free.is_empty() { None } else { waiting.queue.take(crowded) };
            let Some(bio) = bio else {
                waiting.asleep = !self.free.is_empty();
                return self.in_flight() > 0 || !waiting.queue.is_closed();
            };
            drop(waiting);
            match Transfer::of(bio, &self.target) {
                Ok(transfer) => {
                    let slot = self.free.pop().expect("looked at above");
                    self.issue(slot, InFlight { transfer, may_wait: false });
                }
                Err(refused) => self.guard(|| refused.bio.complete(Err(refused.error))),
            }
        }
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts the next call of a transfer into the ring.
    fn issue(&mut self, slot: usize, own: InFlight) {
        let flags = if own.may_wait { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
        let entry = entry(own.transfer.next(&self.target)).flags(flags).user_data(slot as u64);
        // INVARIANT: 1. It comes out again in `answered` and `give_up` alone.
        self.slots[slot] = Some(own);
        self.push(&entry);
    }

    /// Asks to be told of each wake-up: one request, many answers.
    fn listen(&mut self) {
        let wake = types::Fd(self.shared.wake.as_raw_fd());
        let readable = u32::try_from(libc::POLLIN).expect("a flag");
        self.push(&opcode::PollAdd::new(wake, readable).multi(true).build().user_data(WAKE));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        let mut submission = self.ring.submission();
        // SAFETY: the memory that the entry names stays until its answer (invariant 1).
        let pushed = unsafe { submission.push(entry) };
        assert!(pushed.is_ok(), "the ring has an entry for each slot (invariant 2)");
    }

    /// Gives the kernel what is new and waits for an answer.
    fn enter(&mut self) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) => match Errno::from_io_error(&error) {
                Some(Errno::INTR) => {}
                // The kernel is short of memory: what it has not taken stays in the ring.
                Some(Errno::AGAIN | Errno::BUSY | Errno::NOMEM) => thread::yield_now(),
                _ => return Err(error),
            },
        }
        self.shared.waiting.lock().asleep = false;
        Ok(())
    }

    fn take_answers(&mut self) {
        loop {
            let Some(answer) = self.ring.completion().next() else { return };
            match answer.user_data() {
                WAKE if cqueue::more(answer.flags()) => {}
                WAKE => self.listen(),
                FILE_FREE => self.file_free = true,
                slot => {
                    let slot = usize::try_from(slot).expect("the number of a slot");
                    self.answered(slot, answer.result());
                }
            }
        }
    }

    /// Takes the kernel's answer to a slot's call: ends the transfer, or asks for more.
    fn answered(&mut self, slot: usize, answer: i32) {
        let mut own = self.slots[slot].take().expect("a call that was made (invariant 1)");
        let result = usize::try_from(answer).map_err(|_| Errno::from_raw_os_error(-answer));
        if result == Err(Errno::AGAIN) && !own.may_wait {
            own.may_wait = true;
            return self.issue(slot, own);
        }
        match own.transfer.ended(&self.target, result) {
            None => self.issue(slot, own),
            Some(result) => {
                self.free.push(slot);
                self.guard(|| own.transfer.complete(result));
            }
        }
    }

    /// Calls what runs a completion, and keeps its panic for later: invariant 4.
    fn guard(&mut self, tell: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(tell)) {
            let _first = self.panic.get_or_insert(panic);
        }
    }

    /// Ends what is in flight, for the kernel answers no more: whoever forbids `io_uring_enter`
    /// to a process that runs brings this about.
    fn give_up(&mut self, error: &io::Error) {
        let in_flight = self.in_flight();
        tracing::error!(%error, in_flight, "io_uring failed: one thread goes on without");
        for slot in 0..self.slots.len() {
            if let Some(own) = self.slots[slot].take() {
                self.free.push(slot);
                self.guard(|| own.transfer.abandon(Errno::IO));
            }
        }
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        if self.in_flight() > 0 {
            // A broken invariant unwinds: the kernel would go on in memory that is somebody else's.
            std::process::abort();
        }
    }
}

/// The request for `call`.
fn entry(call: Call<'_>) -> squeue::Entry {
    let count = |memory: &IoVecs| u32::try_from(memory.rest().len()).expect("within IOV_MAX");
    match call {
        Call::Read { memory, at } => {
            opcode::Readv::new(FILE, memory.rest().as_ptr(), count(memory)).offset(at).build()
        }
        Call::Write { memory, at, flags } => {
            opcode::Writev::new(FILE, memory.rest().as_ptr(), count(memory))
                .offset(at)
                .rw_flags(flags)
                .build()
        }
        Call::Sync => opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC).build(),
        Call::Fallocate { mode, at, bytes } => {
            let mode = i32::try_from(mode.bits()).expect("small flags");
            opcode::Fallocate::new(FILE, bytes).offset(at).mode(mode).build()
        }
        Call::Discard { .. } => unreachable!("threads discard on block devices"),
    }
}

#[cfg(test)]
mod tests;
