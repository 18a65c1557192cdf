//! Small durable writes beside large syncs.

use std::sync::Arc;

use mpage_block::wrap::HeldBio;
use mpage_block::{Bio, BioOp, BlockDevice, Limits, MemoryDevice, MemoryOptions, SubmitError};
use mpage_locks::thread;

use crate::rig::Rig;
use crate::stack::{Stack, spawn, still_waits, wait_until};

/// A device of which nobody knows how much it works on at once.
struct Unknown(Arc<dyn BlockDevice>);

impl BlockDevice for Unknown {
    fn limits(&self) -> Limits {
        Limits { parallel: false, fua: true, ..self.0.limits() }
    }

    fn submit(&self, bio: Bio) -> std::result::Result<(), SubmitError> {
        self.0.submit(bio)
    }
}

/// Lets go what is held, also when the test fails: before the cache is dropped, which waits for it.
struct LetGo<'a>(&'a Stack);

impl Drop for LetGo<'_> {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

/// A small durable write is at the device beside one bio of a large sync, not behind all of them.
///
/// Seen to fail: with as many writes at once as the device's queue is deep.
#[test]
fn a_durable_write_waits_for_one_bio_of_a_large_sync_at_most() {
    let options = MemoryOptions { volatile_cache: true, fua: true, ..MemoryOptions::default() };
    let stack = Stack::around(Arc::new(MemoryDevice::new(64 << 20, options)));
    let rig = Rig::over(Arc::new(Unknown(stack.top())), 4096, 64 << 20);
    for page in 0..40 {
        // Neighbours that do not touch: a bio for each.
        rig.file.write_all_at(&[1; 4096], page * 8192).unwrap();
    }
    stack.hold(BioOp::Write);
    let file = rig.file.clone();
    let sync = spawn(move || file.fsync());
    stack.delay.wait_for_held(1);
    let open = LetGo(&stack);
    let file = rig.file.clone();
    let urgent = spawn(move || file.write_through_at(&[2; 4096], 4096 * 1001, true));
    // One is at the device, and the urgent page joins those that wait for the turn.
    wait_until(|| {
        let mut bytes = [0; 4096];
        assert_eq!(rig.file.read_at(&mut bytes, 4096 * 1001).unwrap(), 4096);
        bytes == [2; 4096]
    });
    still_waits(&urgent);
    let is_urgent = |bio: &HeldBio| bio.sector.0 == 8 * 1001;
    let others = stack.delay.held().iter().filter(|bio| !is_urgent(bio)).count();
    assert_eq!(others, 1, "the large sync has one bio at the device");
    // The turn passes when that one ends, if it has not before. A thread may need a while for it.
    let is_there = || stack.delay.held().iter().any(is_urgent);
    let mut before = 0;
    while !is_there() {
        assert!(stack.delay.release_next());
        before += 1;
        stack.delay.wait_for_held(1);
        (0..3000).take_while(|_| !is_there()).for_each(|_| thread::yield_now());
    }
    assert!(before <= 3, "{before} writes of the large sync went first");
    drop(open);
    urgent.join().unwrap().unwrap();
    sync.join().unwrap().unwrap();
}
