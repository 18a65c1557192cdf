use std::fs::File;

use super::*;
use crate::file::{Backend, FileDevice, FileOptions, Kind};
use crate::test_support::{Door, Results, arena, flagged_write_of, read_of, write_of};
use crate::{BioFlags, Limits};

/// A target of which a read or a write is what `fd` makes of it.
fn target_of(fd: impl Into<OwnedFd>) -> Arc<Target> {
    Arc::new(Target {
        fd: fd.into(),
        kind: Kind::Regular,
        read_only: false,
        direct: false,
        keep_room: false,
        limits: Limits { queue_depth: 8, ..Limits::default() },
    })
}

/// A regular file of `len` bytes.
fn target(len: usize) -> (tempfile::NamedTempFile, Arc<Target>) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), vec![5; len]).expect("a file");
    let options = FileOptions { backend: Backend::Threads, threads: 1, ..FileOptions::default() };
    let device = FileDevice::open(file.path(), &options).expect("a file");
    let target = Arc::clone(&device.target);
    (file, target)
}

/// A ring that this thread issues to, call by call.
fn issuer(target: &Arc<Target>, slots: usize) -> Issuer {
    let ring = set_up(target, slots).expect("io_uring");
    ring.submitter().register_enable_rings().expect("this thread is the issuer");
    let wake = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
    let shared = Arc::new(Shared { waiting: Mutex::default(), wake });
    Issuer::new(ring, Arc::clone(target), shared, slots)
}

fn submit_and_wait(ring: &Ring, mut bio: Bio) -> Result<(), Errno> {
    let (ended, results) = (Door::default(), Results::default());
    let told = ended.clone();
    bio = results.of(bio);
    bio.intercept(move |result| {
        told.open();
        result
    });
    ring.submit(bio);
    ended.pass();
    loop {
        // The interceptor runs just before the completion that leaves the result.
        if let Some(result) = results.so_far().first() {
            return *result;
        }
        thread::yield_now();
    }
}

#[test]
fn all_that_wait_go_to_the_kernel_in_one_call() {
    let (file, target) = target(1 << 20);
    let (arena, results) = (arena(16), Results::default());
    let mut issuer = issuer(&target, 8);
    for number in 0..5 {
        let bio = results.of(write_of(&arena, 8 * number, 1, 4096));
        issuer.shared.change(|queue| queue.put(bio));
    }
    assert!(issuer.fill());
    assert_eq!(issuer.ring.submission().len(), 5);
    issuer.enter().expect("a ring that works");
    assert_eq!(issuer.ring.submission().len(), 0);
    issuer.shared.change(Queue::close);
    issuer.take_answers();
    while issuer.fill() {
        issuer.enter().expect("a ring that works");
        issuer.take_answers();
    }
    assert_eq!(results.so_far(), [Ok(()); 5]);
    assert!(std::fs::read(file.path()).expect("a file")[..5 * 4096] == [1; 5 * 4096]);
}

#[test]
fn more_bios_than_slots_wait_for_one() {
    let (_file, target) = target(1 << 20);
    let (arena, results) = (arena(16), Results::default());
    let mut issuer = issuer(&target, 8);
    for number in 0..12 {
        let bio = results.of(write_of(&arena, 8 * number, 1, 4096));
        issuer.shared.change(|queue| queue.put(bio));
    }
    assert!(issuer.fill());
    assert_eq!(issuer.in_flight(), 8);
    assert!(!issuer.shared.waiting.lock().asleep, "a bio that ends brings the next");
    issuer.shared.change(Queue::close);
    while issuer.fill() {
        issuer.enter().expect("a ring that works");
        issuer.take_answers();
    }
    assert_eq!(results.so_far(), [Ok(()); 12]);
}

#[test]
fn background_bios_leave_room_for_urgent_ones_and_all_get_their_turn() {
    let (_file, target) = target(1 << 20);
    let (arena, results) = (arena(64), Results::default());
    let mut issuer = issuer(&target, 32);
    let put = |issuer: &Issuer, sector: u64, background| {
        let flags = BioFlags { background, sync: !background, fua: false };
        let bio = results.of(flagged_write_of(&arena, 8 * sector, 1, 4096, flags));
        issuer.shared.change(|queue| queue.put(bio));
    };
    for sector in 0..12 {
        put(&issuer, sector, true);
    }
    assert!(issuer.fill());
    assert_eq!(issuer.in_flight(), CROWDED);
    put(&issuer, 12, false);
    assert!(issuer.fill());
    assert_eq!(issuer.in_flight(), CROWDED + 1);
    for sector in 13..29 {
        put(&issuer, sector, false);
    }
    assert!(issuer.fill());
    assert_eq!(issuer.in_flight(), CROWDED + 17 + 1, "one was passed over often enough");
    issuer.shared.change(Queue::close);
    while issuer.fill() {
        issuer.enter().expect("a ring that works");
        issuer.take_answers();
    }
    assert_eq!(results.so_far(), [Ok(()); 29]);
}

#[test]
fn a_thread_that_sleeps_is_woken_once_and_one_that_works_never() {
    let (_file, target) = target(4096);
    let mut issuer = issuer(&target, 8);
    let wakeups = |issuer: &Issuer| {
        let mut count = [0; 8];
        let flags = rustix::io::ReadWriteFlags::NOWAIT;
        let bufs = &mut [io::IoSliceMut::new(&mut count)];
        match rustix::io::preadv2(&issuer.shared.wake, bufs, u64::MAX, flags) {
            Ok(_) => u64::from_ne_bytes(count),
            Err(error) => {
                assert_eq!(error, Errno::AGAIN);
                0
            }
        }
    };
    issuer.shared.change(|queue| queue.put(Bio::flush()));
    assert_eq!(wakeups(&issuer), 0);
    assert!(issuer.fill());
    for _ in 0..3 {
        issuer.shared.change(|queue| queue.put(Bio::flush()));
    }
    assert_eq!(wakeups(&issuer), 1);
    issuer.shared.change(Queue::close);
    while issuer.fill() {
        issuer.enter().expect("a ring that works");
        issuer.shared.change(|_| ());
        assert_eq!(wakeups(&issuer), 0);
        issuer.take_answers();
    }
}

#[test]
fn what_would_block_is_asked_once_more_of_a_thread_that_may_wait() {
    let (_file, target) = target(4096);
    let results = Results::default();
    let mut issuer = issuer(&target, 8);
    let flush = results.of(Bio::flush());
    issuer.shared.change(|queue| queue.put(flush));
    assert!(issuer.fill());
    let slot = issuer.slots.iter().position(Option::is_some).expect("a slot is taken");
    let would_block = -Errno::AGAIN.raw_os_error();
    issuer.answered(slot, would_block);
    assert!(issuer.slots[slot].as_ref().is_some_and(|own| own.may_wait));
    assert_eq!(issuer.ring.submission().len(), 2);
    issuer.answered(slot, would_block);
    assert_eq!(results.so_far(), [Err(Errno::AGAIN)]);
}

#[test]
fn an_error_of_the_kernel_is_the_bios_result() {
    let (file, _target) = target(4096);
    let target = target_of(File::open(file.path()).expect("a file to read"));
    let ring = Ring::start(&target).expect("io_uring");
    assert_eq!(submit_and_wait(&ring, write_of(&arena(4), 0, 1, 4096)), Err(Errno::BADF));
    assert_eq!(submit_and_wait(&ring, Bio::write_zeroes(crate::Sector(8), 512)), Err(Errno::BADF));
    assert_eq!(submit_and_wait(&ring, Bio::flush()), Ok(()));
}

#[test]
fn a_panic_in_a_completion_takes_no_other_bio_along() {
    let (_file, target) = target(1 << 20);
    let (arena, results) = (arena(16), Results::default());
    let ring = Ring::start(&target).expect("io_uring");
    let mut bio = write_of(&arena, 0, 1, 4096);
    bio.on_completion(|_| panic!("a completion that panics"));
    ring.submit(bio);
    for number in 1..12 {
        ring.submit(results.of(write_of(&arena, 8 * number, 1, 4096)));
    }
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(ring)));
    assert!(dropped.is_err(), "the panic comes out where the device goes");
    assert_eq!(results.so_far(), [Ok(()); 11]);
    assert_eq!(arena.free_frames(), 16);
}

/// Puts `other` in the place of the open file `fd`.
fn replace(fd: i32, other: &File) {
    // SAFETY: changes what a number stands for that only a test's ring uses.
    let replaced = unsafe { libc::dup2(other.as_raw_fd(), fd) };
    assert_eq!(replaced, fd);
}

#[test]
fn every_bio_ends_when_the_ring_fails_and_memory_in_flight_stays_pinned() {
    let (reader, _writer) = rustix::pipe::pipe().expect("a pipe");
    let target = target_of(reader);
    let (arena, results) = (arena(4), Results::default());
    let uring = set_up(&target, 8).expect("io_uring");
    let number = uring.as_raw_fd();
    let ring = Ring::serve(uring, &target, 8).expect("a thread");
    assert_eq!(submit_and_wait(&ring, Bio::flush()), Err(Errno::INVAL), "the ring works");
    let (blocked, frames) = read_of(&arena, 0, 4096);
    ring.submit(results.of(blocked));
    replace(number, &File::open("/dev/null").expect("a null device"));
    let woken = submit_and_wait(&ring, Bio::flush());
    assert!([Err(Errno::IO), Err(Errno::INVAL)].contains(&woken), "lost with the ring, or later");
    let (served, others) = read_of(&arena, 0, 4096);
    let by_a_call = submit_and_wait(&ring, served);
    assert_eq!(by_a_call, Err(Errno::SPIPE), "preadv's answer for a pipe");
    drop(ring);
    assert_eq!(results.so_far(), [Err(Errno::IO)]);
    assert_eq!(arena.pins(frames[0]), 2, "the kernel may write there yet");
    assert_eq!(arena.pins(others[0]), 1);
}
