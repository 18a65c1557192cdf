use std::collections::BinaryHeap;

use super::*;

const MS: u64 = 1_000_000;
const MIB: u64 = 1 << 20;

/// Keeps a device as busy as allowed with `count` writes; `took(n, in_flight, now)` says when write
/// `n` ends. Returns the largest and the last depth.
fn run(depth: &Depth, count: u64, ends_at: impl Fn(u64, u64) -> u64) -> (usize, usize) {
    let mut in_flight: BinaryHeap<std::cmp::Reverse<(u64, u64)>> = BinaryHeap::new();
    let mut writes = Vec::new();
    let (mut now, mut last_end, mut most) = (0, 0, 0);
    for _ in 0..count {
        while in_flight.len() >= depth.now() {
            let std::cmp::Reverse((end, n)) = in_flight.pop().expect("it is full");
            now = end;
            let (write, began): (Submitted, u64) = writes[usize::try_from(n).expect("few")];
            depth.ended(write, MIB, now - began);
        }
        let write = depth.submitted(in_flight.len() + 1);
        last_end = ends_at(now, last_end);
        in_flight.push(std::cmp::Reverse((last_end, writes.len() as u64)));
        writes.push((write, now));
        most = most.max(in_flight.len());
    }
    (most, depth.now())
}

/// Fails when a slow device that does one after the other gets more than an attempt.
#[test]
fn a_slow_device_that_does_one_at_a_time_gets_one_at_a_time() {
    let depth = Depth::new(64, false);
    let (most, last) = run(&depth, 200, |now, last_end| now.max(last_end) + 150 * MS);
    assert!(most <= 2 && last <= 2, "{most} {last}");
    let (most, _) = run(&Depth::new(64, false), 16, |now, last_end| now.max(last_end) + 150 * MS);
    assert_eq!(most, 1, "a short sync is no time to try");
}

/// Fails when the time a write takes counts by itself.
#[test]
fn a_slow_device_that_works_on_many_gets_many() {
    let depth = Depth::new(64, false);
    let (most, last) = run(&depth, 500, |now, _| now + 50 * MS);
    assert_eq!((most, last), (64, 64));
}

/// Fails when writes that end quickly are compared with the fastest.
#[test]
fn a_quick_device_gets_many_though_it_does_one_at_a_time() {
    let depth = Depth::new(16, false);
    let (most, last) = run(&depth, 500, |now, last_end| now.max(last_end) + MS / 4);
    assert_eq!((most, last), (16, 16));
}

/// Fails when the fastest write is that of all times.
#[test]
fn a_device_that_became_slower_is_measured_anew() {
    let depth = Depth::new(32, false);
    let (most, _) = run(&depth, 500, |now, _| now + 10 * MS);
    assert_eq!(most, 32);
    let (_, last) = run(&depth, 4 * u64::from(EPOCH), |now, _| now + 40 * MS);
    assert_eq!(last, 32);
}
