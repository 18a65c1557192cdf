//! Small durable writes beside large syncs.

use std::sync::Arc;

use mpage_block::{Bio, BioOp, BlockDevice, Limits, MemoryDevice, MemoryOptions, SubmitError};

use crate::rig::Rig;
use crate::stack::{Stack, spawn};

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
/// Seen to fail: with as many writes at once as the device's queue is deep. Seen to hang: when who
/// waits for a place at the device keeps the turn, and when an urgent hand waits for one.
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
    stack.delay.wait_for_held(2);
    let held = stack.delay.held();
    assert!(held.iter().any(|bio| bio.sector.0 == 8 * 1001), "{held:?}");
    assert_eq!(held.len(), 2, "the large sync has one bio at the device");
    drop(open);
    urgent.join().unwrap().unwrap();
    sync.join().unwrap().unwrap();
}
