//! What a schedule checker gets to see of copies.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use mpage_locks::thread;

use super::*;

#[test]
fn some_schedule_tears_a_copy_and_none_tears_a_word() {
    let torn = Arc::new(OnceLock::new());
    let whole = Arc::new(OnceLock::new());
    let seen = (Arc::clone(&torn), Arc::clone(&whole));
    shuttle::check_random(
        move || {
            let options = ArenaOptions { frames: 1, reserve: 0, prefault: false };
            let arena = Arc::new(Arena::new(&options).expect("a mapping"));
            let frame = arena.alloc(Purpose::Cache, 0, None).expect("one free frame");
            arena.zero(frame, 0, PAGE_SIZE);
            let writer = {
                let arena = Arc::clone(&arena);
                thread::spawn("write", move || arena.write(frame, 0, &[1; 24])).expect("a thread")
            };
            let mut bytes = [0; 24];
            arena.read(frame, 0, &mut bytes);
            writer.join().expect("no panic");
            for word in bytes.chunks(8) {
                let values: BTreeSet<&u8> = word.iter().collect();
                assert_eq!(values.len(), 1, "torn word {word:?}");
            }
            let values: BTreeSet<&u8> = bytes.iter().collect();
            let _first: Result<(), ()> = if values.len() > 1 { &seen.0 } else { &seen.1 }.set(());
        },
        1000,
    );
    assert!(torn.get().is_some(), "no schedule tore a copy");
    assert!(whole.get().is_some(), "no schedule left a copy whole");
}
