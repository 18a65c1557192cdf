use super::*;
use crate::test_support::{Results, arena, write_of};
use crate::wrap::Delay;
use crate::{MemoryDevice, MemoryOptions};

#[test]
fn waiting_returns_the_result_of_a_completion_on_another_thread() {
    let arena = arena(4);
    let memory = Arc::new(MemoryDevice::new(8192, MemoryOptions::default()));
    let delay = Arc::new(Delay::manual(memory));
    let waiter = {
        let (delay, bio) = (Arc::clone(&delay), write_of(&arena, 0, 1, 4096));
        mpage_locks::thread::spawn("waiter", move || submit_and_wait(&delay, bio))
    };
    delay.wait_for_held(1);
    assert!(delay.release_next());
    assert_eq!(waiter.expect("a thread").join().expect("no panic"), Ok(()));
}

#[test]
fn waiting_for_a_refused_bio_returns_why() {
    let device = MemoryDevice::new(4096, MemoryOptions::default());
    let bio = write_of(&arena(4), 8, 1, 4096);
    assert_eq!(submit_and_wait(&device, bio), Err(Errno::NOSPC));
}

#[test]
fn waiting_runs_no_completion_but_its_own() {
    let results = Results::default();
    let device = MemoryDevice::new(4096, MemoryOptions::default());
    assert_eq!(submit_and_wait(&device, results.of(Bio::flush())), Ok(()));
    assert!(results.so_far().is_empty());
}

#[test]
fn a_device_of_fixed_size_refuses_a_new_size() {
    let device: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(4096, MemoryOptions::default()));
    assert_eq!(device.set_len(0), Err(Errno::OPNOTSUPP));
    assert_eq!(device.limits().capacity, Some(4096));
}
