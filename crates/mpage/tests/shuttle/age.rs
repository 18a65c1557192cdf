//! The flusher by age, and those who dirty pages meanwhile. The clock is moved by hand.

use std::time::Duration;

use mpage::{Clock, Options};
use mpage_locks::thread;

use crate::rig::{Build, PAGE, check, part, spawn, stamp, write};

const EXPIRE: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_secs(1);

/// How often time may pass before the flusher has written what is old.
const PATIENCE: usize = 5_000;

/// Flusher x S, statement 109: whenever a file becomes dirty, also just when the flusher goes to
/// sleep because none is, it is written once it is old enough, though nobody asks for it.
///
/// Failed when the flusher looked for dirty files before it took back that it wakes by itself, and
/// when nobody told it of a file that became dirty.
#[test]
fn shuttle_flusher_writes_what_grows_old_whoever_dirties_it_meanwhile() {
    check(|| {
        let (clock, hand) = Clock::manual(Duration::from_secs(100));
        let rig = Build::pages(2).rig_with(|options| Options {
            dirty_expire: EXPIRE,
            dirty_interval: INTERVAL,
            clock,
            ..options
        });
        let file = rig.file.clone();
        let dirtier = spawn(move || {
            for version in 1..4 {
                write(&file, 0, 32, version);
                write(&file, PAGE, 32, version);
            }
        });
        for _ in 0..4 {
            hand.advance(INTERVAL);
            thread::yield_now();
        }
        dirtier.join().unwrap();
        let mut rounds = 0;
        while rig.mapping().set_counts().clean < 2 {
            assert!(rounds < PATIENCE, "the flusher sleeps while a file is dirty");
            rounds += 1;
            hand.advance(INTERVAL);
            thread::yield_now();
        }
        for page in [0, PAGE] {
            assert!(
                part(&rig.device.durable(), page, 32) == stamp(page, 32, 3),
                "clean, not written"
            );
        }
        rig.end();
    });
}
