//! Pins and the free frames under every order of two or three threads.

use std::sync::Arc;

use mpage_locks::thread;

use super::*;

fn arena(frames: usize) -> Arc<Arena> {
    Arc::new(Arena::new(&ArenaOptions { frames, reserve: 0, prefault: false }).expect("a mapping"))
}

fn alloc(arena: &Arena) -> Option<FrameId> {
    arena.alloc(Purpose::Cache, 0, None)
}

#[test]
fn racing_unpins_free_a_frame_once() {
    loom::model(|| {
        let arena = arena(1);
        let frame = alloc(&arena).expect("one free frame");
        arena.pin(frame);
        let other = {
            let arena = Arc::clone(&arena);
            thread::spawn("unpin", move || arena.unpin(frame)).expect("a thread")
        };
        let here = arena.unpin(frame);
        let there = other.join().expect("no panic");
        assert!(here != there, "freed here: {here}, freed there: {there}");
        assert_eq!(arena.free_frames(), 1);
    });
}

#[test]
fn a_pin_racing_with_an_unpin_keeps_the_frame() {
    loom::model(|| {
        let arena = arena(1);
        let frame = alloc(&arena).expect("one free frame");
        arena.pin(frame);
        let other = {
            let arena = Arc::clone(&arena);
            thread::spawn("unpin", move || arena.unpin(frame)).expect("a thread")
        };
        arena.pin(frame);
        assert!(!arena.unpin(frame), "a pin from before is left");
        assert_eq!(alloc(&arena), None);
        let there = other.join().expect("no panic");
        assert!(!there, "a pin from before is left");
        assert!(arena.unpin(frame));
    });
}

#[test]
fn alloc_racing_with_unpin_hands_out_a_frame_once() {
    loom::model(|| {
        let arena = arena(2);
        let frame = alloc(&arena).expect("two free frames");
        let other = {
            let arena = Arc::clone(&arena);
            thread::spawn("recycle", move || {
                assert!(arena.unpin(frame), "the only pin");
                alloc(&arena)
            })
            .expect("a thread")
        };
        let mine = alloc(&arena).expect("a frame was free all the time");
        let theirs = other.join().expect("no panic").expect("its own frame or the other");
        assert_ne!(mine, theirs);
        assert_eq!(arena.pins(mine), 1);
        assert_eq!(arena.pins(theirs), 1);
        assert_eq!(arena.free_frames(), 0);
    });
}

#[test]
fn a_frame_is_handed_out_only_after_its_last_unpin_took_effect() {
    loom::model(|| {
        let arena = arena(1);
        let frame = alloc(&arena).expect("one free frame");
        let other = {
            let arena = Arc::clone(&arena);
            thread::spawn("unpin", move || arena.unpin(frame)).expect("a thread")
        };
        let mine = alloc(&arena);
        assert!(other.join().expect("no panic"), "the only pin");
        match mine {
            Some(mine) => assert_eq!((arena.pins(mine), arena.free_frames()), (1, 0)),
            None => assert_eq!((arena.pins(frame), arena.free_frames()), (0, 1)),
        }
    });
}
