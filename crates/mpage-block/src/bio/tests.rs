use super::*;
use crate::test_support::{Results, arena, frames, write_of};
use crate::{MemoryDevice, MemoryOptions};

fn limits(bytes_max: usize, segments_max: usize) -> Limits {
    Limits { bytes_max, segments_max, ..Limits::default() }
}

fn write(arena: &Arc<Arena>) -> Bio {
    Bio::write(arena, Sector(0), BioFlags::default())
}

#[test]
fn neighbouring_frames_are_one_vector() {
    let arena = arena(8);
    let frames = frames(&arena, 4, 0);
    let mut bio = write(&arena);
    for frame in &frames {
        assert!(bio.push(*frame, 0, PAGE_SIZE, &limits(1 << 20, 1)));
    }
    let whole = BioVec { frame: frames[0], offset: 0, len: 4 * 4096 };
    assert_eq!(bio.vecs(), [whole]);
    assert_eq!(bio.end_sector(), Sector(32));
}

#[test]
fn frames_that_do_not_follow_each_other_are_vectors_of_their_own() {
    let arena = arena(8);
    let frames = frames(&arena, 4, 0);
    let mut bio = write(&arena);
    assert!(bio.push(frames[1], 0, PAGE_SIZE, &Limits::default()));
    assert!(bio.push(frames[0], 0, PAGE_SIZE, &Limits::default()));
    assert!(bio.push(frames[2], 0, PAGE_SIZE, &Limits::default()));
    assert_eq!(bio.vecs().len(), 3);
}

#[test]
fn parts_of_one_frame_join_and_pin_it_once() {
    let arena = arena(8);
    let frame = frames(&arena, 1, 0)[0];
    let mut bio = write(&arena);
    assert!(bio.push(frame, 512, 512, &Limits::default()));
    assert!(bio.push(frame, 1024, 3072, &Limits::default()));
    assert_eq!(bio.vecs(), [BioVec { frame, offset: 512, len: 3584 }]);
    assert_eq!(arena.pins(frame), 2);
    assert!(bio.push(frame, 0, 512, &Limits::default()));
    assert_eq!(arena.pins(frame), 3, "a vector of its own has a pin of its own");
    bio.complete(Ok(()));
    assert_eq!(arena.pins(frame), 1);
}

#[test]
fn a_push_beyond_the_bytes_allowed_changes_nothing() {
    let arena = arena(8);
    let frames = frames(&arena, 2, 0);
    let mut bio = write(&arena);
    assert!(bio.push(frames[0], 0, PAGE_SIZE, &limits(6144, 9)));
    assert!(!bio.push(frames[1], 0, PAGE_SIZE, &limits(6144, 9)));
    assert_eq!((bio.bytes(), bio.vecs().len(), arena.pins(frames[1])), (4096, 1, 1));
    assert!(bio.push(frames[1], 0, 2048, &limits(6144, 9)));
}

#[test]
fn a_push_beyond_the_segments_allowed_changes_nothing() {
    let arena = arena(8);
    let frames = frames(&arena, 3, 0);
    let mut bio = write(&arena);
    assert!(bio.push(frames[0], 0, PAGE_SIZE, &limits(1 << 20, 1)));
    assert!(!bio.push(frames[2], 0, PAGE_SIZE, &limits(1 << 20, 1)));
    assert_eq!((bio.bytes(), arena.pins(frames[2])), (4096, 1));
    assert!(bio.push(frames[1], 0, PAGE_SIZE, &limits(1 << 20, 1)), "it joins");
}

#[test]
#[should_panic(expected = "ends behind its frame")]
fn a_piece_does_not_leave_its_frame() {
    let arena = arena(2);
    let frame = frames(&arena, 1, 0)[0];
    let _pushed = write(&arena).push(frame, 512, PAGE_SIZE, &Limits::default());
}

#[test]
fn frames_are_unpinned_before_the_completion_runs() {
    let arena = arena(2);
    let frame = frames(&arena, 1, 0)[0];
    let mut bio = write(&arena);
    assert!(bio.push(frame, 0, PAGE_SIZE, &Limits::default()));
    let (seen, pool) = (Results::default(), Arc::clone(&arena));
    let told = seen.of(Bio::flush());
    bio.on_completion(move |result| {
        assert_eq!(pool.pins(frame), 1);
        told.complete(result);
    });
    bio.complete(Err(Errno::NOSPC));
    assert_eq!(seen.so_far(), [Err(Errno::NOSPC)]);
}

#[test]
fn the_last_pin_may_be_the_bios() {
    let arena = arena(2);
    let bio = write_of(&arena, 0, 1, 2 * PAGE_SIZE);
    assert_eq!(arena.free_frames(), 0);
    bio.complete(Ok(()));
    assert_eq!(arena.free_frames(), 2);
}

#[test]
fn a_completion_runs_once() {
    let results = Results::default();
    results.of(Bio::flush()).complete(Ok(()));
    assert_eq!(results.so_far(), [Ok(())]);
}

#[test]
fn a_dropped_bio_unpins_and_ends_with_an_error() {
    let arena = arena(2);
    let results = Results::default();
    drop(results.of(write_of(&arena, 0, 1, PAGE_SIZE)));
    assert_eq!(results.so_far(), [Err(Errno::IO)]);
    assert_eq!(arena.free_frames(), 2);
}

#[test]
fn a_completion_replaces_the_one_before() {
    let (first, second) = (Results::default(), Results::default());
    second.of(first.of(Bio::flush())).complete(Ok(()));
    assert_eq!((first.so_far().len(), second.so_far().len()), (0, 1));
}

#[test]
fn interceptors_run_from_the_last_to_the_first_and_then_the_completion() {
    let results = Results::default();
    let mut bio = results.of(Bio::flush());
    bio.intercept(|result| if result == Err(Errno::AGAIN) { Err(Errno::NOSPC) } else { result });
    bio.intercept(|result| if result == Ok(()) { Err(Errno::AGAIN) } else { result });
    bio.complete(Ok(()));
    assert_eq!(results.so_far(), [Err(Errno::NOSPC)]);
}

#[test]
fn a_cancelled_interceptor_does_not_run() {
    let results = Results::default();
    let mut bio = results.of(Bio::flush());
    bio.intercept(|_| Err(Errno::PERM));
    bio.intercept(|_| panic!("cancelled"));
    bio.cancel_interceptor();
    bio.complete(Ok(()));
    assert_eq!(results.so_far(), [Err(Errno::PERM)]);
}

#[test]
fn a_refused_bio_comes_back_as_it_was() {
    let arena = arena(4);
    let device = MemoryDevice::new(4096, MemoryOptions::default());
    let results = Results::default();
    let bio = results.of(write_of(&arena, 1, 1, 4096));
    let refused = bio.submit(&device).expect_err("it ends behind the device");
    assert_eq!(refused.error, Errno::NOSPC);
    assert!(results.so_far().is_empty(), "nobody was told");
    assert_eq!(refused.bio.bytes(), 4096);
    refused.bio.complete(Ok(()));
    assert_eq!(results.so_far(), [Ok(())]);
}

#[test]
fn copies_follow_the_vectors_across_frames_at_any_offset() {
    let arena = arena(8);
    let frames = frames(&arena, 4, 0);
    let mut bio = write(&arena);
    for (frame, offset, len) in [(3, 512, 512), (0, 3584, 512), (1, 0, 4096), (2, 1024, 1024)] {
        assert!(bio.push(frames[frame], offset, len, &Limits::default()));
    }
    let bytes: Vec<u8> = (0..6144_u32).map(|at| u8::try_from(at % 251).expect("small")).collect();
    bio.copy_in(0, &bytes);
    for (from, len) in [(0, 6144), (511, 2), (1000, 4200), (6143, 1), (3, 0)] {
        let mut copy = vec![0; len];
        bio.copy_out(from, &mut copy);
        assert_eq!(copy, bytes[from..from + len]);
    }
    let mut second = [0; 1];
    arena.read(frames[1], 0, &mut second);
    assert_eq!(second[0], bytes[1024]);
}

#[test]
fn the_head_of_a_write_has_its_first_bytes_and_pins_of_its_own() {
    let arena = arena(8);
    let bio = write_of(&arena, 8, 7, 3 * PAGE_SIZE);
    let head = bio.head(4608);
    assert_eq!((head.sector(), head.bytes(), head.vecs().len()), (Sector(8), 4608, 1));
    drop(bio);
    assert_eq!(arena.free_frames(), 6);
    drop(head);
    assert_eq!(arena.free_frames(), 8);
}
