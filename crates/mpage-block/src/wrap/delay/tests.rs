use std::time::Duration;

use super::*;
use crate::test_support::{Door, Results, arena, write, write_of};
use crate::wrap::{DeviceOp, Fault, Rule, Times};
use crate::{MemoryDevice, MemoryOptions};

fn memory() -> Arc<MemoryDevice> {
    let options = MemoryOptions { grows: true, ..MemoryOptions::default() };
    Arc::new(MemoryDevice::new(64 << 10, options))
}

#[test]
fn a_held_write_keeps_its_frames_and_is_not_seen_before_its_release() {
    let (memory, arena, results) = (memory(), arena(4), Results::default());
    let delay = Delay::manual(Arc::clone(&memory) as Arc<dyn BlockDevice>);
    delay.submit(results.of(write_of(&arena, 0, 1, 4096))).expect("it is taken");
    assert_eq!((arena.free_frames(), results.so_far().len()), (3, 0));
    assert!(memory.contents()[..4096] == [0; 4096]);
    assert!(delay.release_next());
    assert_eq!((arena.free_frames(), results.so_far()), (4, vec![Ok(())]));
    assert!(memory.contents()[..4096] == [1; 4096]);
    assert!(!delay.release_next());
}

#[test]
fn bios_are_released_in_any_order() {
    let (memory, arena) = (memory(), arena(4));
    let delay = Delay::manual(Arc::clone(&memory) as Arc<dyn BlockDevice>);
    for byte in 1..=3 {
        delay.submit(write_of(&arena, u64::from(byte), byte, 512)).expect("it is taken");
    }
    let sectors = || delay.held().iter().map(|held| held.sector.0).collect::<Vec<_>>();
    assert_eq!(sectors(), [1, 2, 3]);
    assert!(delay.release_nth(1));
    assert_eq!(sectors(), [1, 3]);
    assert_eq!(memory.contents()[1024], 2);
    assert_eq!(delay.release_all(), 2);
    assert_eq!(memory.contents()[512], 1);
}

#[test]
fn what_is_held_can_be_seen() {
    let (arena, delay) = (arena(4), Delay::manual(memory()));
    delay.submit(write_of(&arena, 7, 1, 1024)).expect("it is taken");
    let flags = BioFlags::default();
    let held = HeldBio { op: BioOp::Write, sector: Sector(7), bytes: 1024, flags };
    assert_eq!(delay.held(), [held]);
}

#[test]
fn only_what_the_filter_takes_is_held() {
    let (arena, delay) = (arena(4), Delay::manual(memory()));
    delay.hold_only(|bio| bio.op() == BioOp::Flush);
    write(&delay, &arena, 0, 1, 512);
    delay.submit(Bio::flush()).expect("it is taken");
    assert_eq!(delay.held().len(), 1);
}

#[test]
fn a_waiter_sees_bios_that_another_thread_submits() {
    let (arena, delay) = (arena(4), Arc::new(Delay::manual(memory())));
    let submitter = {
        let delay = Arc::clone(&delay);
        mpage_locks::thread::spawn("submitter", move || {
            for sector in 0..3 {
                delay.submit(write_of(&arena, sector, 1, 512)).expect("it is taken");
            }
        })
    };
    delay.wait_for_held(3);
    assert_eq!(delay.release_all(), 3);
    submitter.expect("a thread").join().expect("no panic");
}

#[test]
fn dropping_the_device_submits_what_is_held() {
    let (memory, arena, results) = (memory(), arena(4), Results::default());
    let delay = Delay::manual(Arc::clone(&memory) as Arc<dyn BlockDevice>);
    delay.submit(results.of(write_of(&arena, 0, 1, 512))).expect("it is taken");
    drop(delay);
    assert_eq!((results.so_far(), memory.contents()[0]), (vec![Ok(())], 1));
}

#[test]
fn a_refusal_after_the_release_is_the_result() {
    let (arena, results) = (arena(4), Results::default());
    let fault = Arc::new(Fault::new(memory()));
    let effect = crate::wrap::Effect::Refuse(Errno::AGAIN);
    let op = Some(DeviceOp::Bio(BioOp::Write));
    let _rule = fault.add(Rule { op, sectors: None, times: Times::All, effect });
    let delay = Delay::manual(fault);
    delay.submit(results.of(write_of(&arena, 0, 1, 512))).expect("it is taken");
    assert!(delay.release_next());
    assert_eq!(results.so_far(), [Err(Errno::AGAIN)]);
}

#[test]
fn a_malformed_bio_is_refused_and_not_held() {
    let delay = Delay::manual(memory());
    let refused = delay.submit(Bio::discard(Sector(0), 1)).expect_err("misaligned");
    assert_eq!((refused.error, delay.held().len()), (Errno::INVAL, 0));
}

#[test]
fn a_new_size_is_passed_on() {
    let memory = memory();
    assert_eq!(Delay::manual(Arc::clone(&memory) as Arc<dyn BlockDevice>).set_len(9), Ok(()));
    assert_eq!(memory.len(), 9);
}

#[test]
fn a_timed_bio_is_released_after_its_time_and_not_before() {
    let arena = arena(4);
    let latency = Latency { write: Duration::from_millis(30), ..Latency::default() };
    let delay = Delay::timed(memory(), latency).expect("a thread");
    let start_ns = mpage_locks::clock::now_ns();
    write(&delay, &arena, 0, 1, 512);
    let elapsed = Duration::from_nanos(mpage_locks::clock::now_ns() - start_ns);
    assert!(elapsed >= Duration::from_millis(30), "{elapsed:?}");
}

#[test]
fn times_add_up_unless_they_overlap() {
    let minute = Duration::from_secs(60);
    for (parallel, expected_s) in [(false, [60, 120, 180]), (true, [60, 60, 60])] {
        let latency = Latency { flush: minute, parallel, ..Latency::default() };
        let delay = Delay::timed(memory(), latency).expect("a thread");
        let before_ns = mpage_locks::clock::now_ns();
        for _ in 0..3 {
            delay.submit(Bio::flush()).expect("it is taken");
        }
        let due_s: Vec<u64> = delay.shared.state.lock().held.keys().map(|key| key.0).collect();
        let due_s = due_s.iter().map(|due| (due - before_ns) / 1_000_000_000);
        assert!(due_s.eq(expected_s), "parallel: {parallel}");
    }
}

#[test]
fn the_last_reference_may_go_in_a_completion_on_the_devices_own_thread() {
    let delay = Arc::new(Delay::timed(memory(), Latency::default()).expect("a thread"));
    let (alone, ended) = (Door::default(), Door::default());
    let mut bio = Bio::flush();
    let (last, alone_too, ended_too) = (Arc::clone(&delay), alone.clone(), ended.clone());
    bio.on_completion(move |_| {
        alone_too.pass();
        assert_eq!(Arc::strong_count(&last), 1);
        drop(last);
        ended_too.open();
    });
    delay.submit(bio).expect("it is taken");
    drop(delay);
    alone.open();
    ended.pass();
}
