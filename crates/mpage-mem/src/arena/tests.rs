use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::*;

fn arena(frames: usize, reserve: usize) -> Arena {
    Arena::new(&ArenaOptions { frames, reserve, prefault: false }).expect("a mapping")
}

fn alloc(arena: &Arena, slot: usize, sibling: Option<FrameId>) -> Option<FrameId> {
    arena.alloc(Purpose::Cache, slot, sibling)
}

#[track_caller]
fn assert_panics(says: &str, action: impl FnOnce()) {
    let panic = catch_unwind(AssertUnwindSafe(action)).expect_err("no panic");
    let message = panic.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(message.contains(says), "the panic says: {message}");
}

/// Joins each thread: the thread sanitizer does not see how a scope waits for them.
fn join<const N: usize>(threads: [std::thread::ScopedJoinHandle<'_, ()>; N]) {
    for thread in threads {
        thread.join().expect("no panic");
    }
}

#[test]
fn an_arena_of_impossible_size_is_refused_with_a_reason() {
    for (frames, reserve, says) in [
        (0, 0, "at least one frame"),
        (8, 8, "reserve of 8 leaves nothing of 8"),
        (8, 9, "reserve of 9 leaves nothing of 8"),
        (u32::MAX as usize, 0, "at most 4294967294 frames"),
    ] {
        let options = ArenaOptions { frames, reserve, prefault: false };
        let error = Arena::new(&options).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn frames_follow_each_other_in_memory_aligned_for_huge_pages() {
    let arena = arena(1000, 0);
    let start = arena.address(FrameId::new(0)).addr();
    assert_eq!(start % (2 << 20), 0);
    for number in 0..1000 {
        let address = arena.address(FrameId::new(number)).addr();
        assert_eq!(address, start + number as usize * PAGE_SIZE);
    }
}

#[test]
fn a_cache_allocation_leaves_the_reserve_to_writeback() {
    let arena = arena(10, 3);
    assert_eq!((arena.frames(), arena.reserve()), (10, 3));
    for taken in 0..7 {
        assert_eq!(arena.free_frames(), 10 - taken);
        assert!(alloc(&arena, 0, None).is_some());
    }
    assert_eq!(alloc(&arena, 0, None), None);
    let last: Vec<FrameId> =
        (0..3).map(|_| arena.alloc(Purpose::Writeback, 0, None).unwrap()).collect();
    assert_eq!(arena.alloc(Purpose::Writeback, 0, None), None);
    assert_eq!(arena.free_frames(), 0);

    assert!(arena.unpin(last[0]));
    assert_eq!(alloc(&arena, 0, None), None, "the first frames to come back fill the reserve");
    assert!(arena.unpin(last[1]));
    assert!(arena.unpin(last[2]));
    assert_eq!(alloc(&arena, 0, None), None);
    assert!(arena.unpin(FrameId::new(0)));
    assert_eq!(alloc(&arena, 0, None), Some(FrameId::new(0)));
}

#[test]
fn sequential_allocations_of_a_new_arena_are_consecutive() {
    let arena = arena(256, 0);
    let mut before = None;
    for number in 0..256 {
        let frame = alloc(&arena, number as usize % RUN, before).unwrap();
        assert_eq!(frame, FrameId::new(number));
        before = Some(frame);
    }
}

#[test]
fn a_frame_is_found_in_the_run_of_its_sibling_whatever_the_order() {
    let arena = arena(64, 0);
    let other = alloc(&arena, 0, None).unwrap();
    let third = alloc(&arena, 2, None).unwrap();
    assert_ne!(third.get() as usize / RUN, other.get() as usize / RUN);
    let first = alloc(&arena, 0, Some(third)).unwrap();
    let last = alloc(&arena, 3, Some(first)).unwrap();
    let second = alloc(&arena, 1, Some(last)).unwrap();
    let run = third.get() - 2;
    assert_eq!([first, second, last].map(FrameId::get), [run, run + 1, run + 3]);
}

#[test]
fn a_page_without_room_beside_its_sibling_opens_the_next_free_run() {
    let arena = arena(64, 0);
    let all: Vec<FrameId> = (0..64).map(|_| alloc(&arena, 0, None).unwrap()).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 64);
    for number in (8..12).chain(20..24).chain([30, 41]) {
        assert!(arena.unpin(FrameId::new(number)));
    }
    let opened = |sibling| alloc(&arena, 1, Some(FrameId::new(sibling))).unwrap().get();
    assert_eq!(opened(17), 21, "the first whole run behind the sibling");
    assert_eq!(opened(17), 9, "the search goes on at the beginning");
    let rest: BTreeSet<u32> =
        std::iter::from_fn(|| alloc(&arena, 1, None)).map(FrameId::get).collect();
    assert_eq!(rest, BTreeSet::from([8, 10, 11, 20, 22, 23, 30, 41]), "then any frame serves");
}

#[test]
fn an_arena_smaller_than_a_run_gives_all_its_frames() {
    for frames in 1..2 * RUN {
        let arena = arena(frames, 0);
        for _ in 0..2 {
            let all: BTreeSet<FrameId> = std::iter::from_fn(|| alloc(&arena, 3, None)).collect();
            assert_eq!(all.len(), frames);
            assert!(all.into_iter().all(|frame| arena.unpin(frame)));
        }
    }
}

#[test]
fn the_last_unpin_frees_the_frame_and_no_other() {
    let arena = arena(4, 0);
    let frame = alloc(&arena, 0, None).unwrap();
    assert_eq!(arena.pins(frame), 1);
    arena.pin(frame);
    arena.pin(frame);
    assert_eq!(arena.pins(frame), 3);
    assert!(!arena.unpin(frame));
    assert!(!arena.unpin(frame));
    assert_eq!(arena.free_frames(), 3);
    assert!(arena.unpin(frame));
    assert_eq!((arena.pins(frame), arena.free_frames()), (0, 4));
}

#[test]
fn a_pin_too_many_or_too_few_panics_and_changes_nothing() {
    let arena = arena(4, 0);
    let frame = alloc(&arena, 0, None).unwrap();
    assert!(arena.unpin(frame));
    assert_panics("unpin of frame 0, which is free", || {
        let _freed: bool = arena.unpin(frame);
    });
    assert_panics("pin of frame 0, which is free", || arena.pin(frame));
    assert_eq!((arena.pins(frame), arena.free_frames()), (0, 4));
    let all: BTreeSet<FrameId> = std::iter::from_fn(|| alloc(&arena, 0, None)).collect();
    assert_eq!(all.len(), 4);
}

#[test]
fn what_is_not_in_the_arena_or_the_frame_panics() {
    let arena = arena(4, 0);
    let (inside, outside) = (FrameId::new(3), FrameId::new(4));
    assert_panics("frame 4 of an arena of 4", || arena.pin(outside));
    assert_panics("frame 4 of an arena of 4", || arena.read(outside, 0, &mut []));
    assert_panics("frame 4 of an arena of 4", || arena.copy(inside, outside));
    assert_panics("frame 4 of an arena of 4", || {
        let _frame = alloc(&arena, 0, Some(outside));
    });
    assert_panics("slot 4 of a run of 4", || {
        let _frame = alloc(&arena, 4, None);
    });
    assert_panics("2 bytes at 4095 are not", || arena.read(inside, 4095, &mut [0; 2]));
    assert_panics("2 bytes at 4095 are not", || arena.write(inside, 4095, &[0; 2]));
    assert_panics("1 bytes at 4096 are not", || arena.zero(inside, 4096, 1));
    assert_panics("0 bytes at 4097 are not", || arena.zero(inside, 4097, 0));
    assert_panics("are not in a frame", || arena.zero(inside, usize::MAX, 2));
    assert_panics("are not in a frame", || arena.copy_range(inside, inside, 1, usize::MAX));
    arena.zero(inside, 4096, 0);
}

#[test]
fn a_prefaulted_arena_has_memory_behind_every_frame() {
    use std::os::unix::fs::FileExt;

    let backed = |arena: &Arena, number: u32| {
        let page = arena.address(FrameId::new(number)).addr() / PAGE_SIZE;
        let mut entry = [0; 8];
        let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
        pagemap.read_exact_at(&mut entry, page as u64 * 8).unwrap();
        u64::from_ne_bytes(entry) >> 63 == 1
    };
    let lazy = arena(1024, 0);
    assert!(!backed(&lazy, 0));
    assert!(!backed(&lazy, 1023));
    let options = ArenaOptions { frames: 1024, reserve: 0, prefault: true };
    let prefaulted = Arena::new(&options).unwrap();
    assert!((0..1024).all(|number| backed(&prefaulted, number)));
}

#[test]
fn racing_copies_keep_aligned_words_whole() {
    const ROUNDS: usize = if cfg!(debug_assertions) { 3_000 } else { 30_000 };
    let arena = arena(2, 0);
    let [first, second] = [FrameId::new(0), FrameId::new(1)];
    arena.zero(first, 0, PAGE_SIZE);
    arena.copy(first, second);
    // A range of whole words, of every length class.
    let range = |round: usize| {
        let len = [8, 16, 24, 56, 64, 120, 128, 136, 512, 2040, 2048, PAGE_SIZE][round % 12];
        let room = (PAGE_SIZE - len) / 8;
        (if room == 0 { 0 } else { round * 7 % room * 8 }, len)
    };
    std::thread::scope(|scope| {
        let writers = [0x11, 0x22].map(|byte| {
            let arena = &arena;
            scope.spawn(move || {
                let bytes = [byte; PAGE_SIZE + 8];
                for round in 0..ROUNDS {
                    let (offset, len) = range(round);
                    arena.write(first, offset, &bytes[round % 8..][..len]);
                    let (offset, len) = range(round + 5);
                    arena.copy_range(first, second, offset, len);
                    arena.zero(first, offset, len);
                }
            })
        });
        let mut bytes = [0; PAGE_SIZE + 8];
        for round in 0..ROUNDS {
            let (offset, len) = range(round);
            let bytes = &mut bytes[round % 8..][..len];
            arena.read([first, second][round / 8 % 2], offset, bytes);
            for word in bytes.chunks_exact(8) {
                assert!([0, 0x11, 0x22].contains(&word[0]), "{word:x?}");
                assert!(word.iter().all(|byte| *byte == word[0]), "torn word {word:x?}");
            }
        }
        join(writers);
    });
}

#[test]
fn a_long_copy_to_a_skewed_buffer_keeps_aligned_words_whole() {
    const ROUNDS: usize = if cfg!(debug_assertions) { 20_000 } else { 1_000_000 };
    const WORDS: [u64; 2] = [0x1111_1111_1111_1111, 0x2222_2222_2222_2222];
    #[repr(align(64))]
    struct Buffer([u8; PAGE_SIZE + 8]);
    let arena = arena(1, 0);
    let frame = FrameId::new(0);
    let done = std::sync::OnceLock::new();
    arena.write(frame, 0, &[0x11; PAGE_SIZE]);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            while done.get().is_none() {
                arena.write(frame, 0, &[0x22; PAGE_SIZE]);
                arena.write(frame, 0, &[0x11; PAGE_SIZE]);
            }
        });
        let mut buffer = Buffer([0; PAGE_SIZE + 8]);
        let mut torn = None;
        for round in 0..ROUNDS {
            let bytes = &mut buffer.0[[3, 4][round % 2]..][..PAGE_SIZE];
            arena.read(frame, 0, bytes);
            let words = bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word));
            torn = torn.or(words.into_iter().find(|word| !WORDS.contains(word)));
        }
        done.set(()).expect("set once");
        join([writer]);
        assert_eq!(torn, None);
    });
}

#[test]
fn racing_threads_never_hold_the_same_frame() {
    const ROUNDS: u64 = if cfg!(debug_assertions) { 5_000 } else { 50_000 };
    let arena = arena(6, 1);
    std::thread::scope(|scope| {
        let holders = [1_u64, 2, 3].map(|thread| {
            let arena = &arena;
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let Some(frame) = alloc(arena, 0, None) else { continue };
                    let mark = (thread << 32 | round).to_ne_bytes();
                    arena.write(frame, 0, &mark);
                    arena.pin(frame);
                    let mut seen = [0; 8];
                    arena.read(frame, 0, &mut seen);
                    assert_eq!(seen, mark);
                    assert!(!arena.unpin(frame));
                    assert!(arena.unpin(frame));
                }
            })
        });
        join(holders);
    });
    assert_eq!(arena.free_frames(), 6);
}

proptest! {
    #[test]
    fn bytes_come_back_as_they_were_written(
        steps in prop::collection::vec(
            (0..4_u8, 0..3_u32, 0..3_u32, 0..=PAGE_SIZE, 0..=PAGE_SIZE, any::<u8>()),
            1..40,
        ),
    ) {
        let arena = arena(3, 0);
        let mut model = vec![[0; PAGE_SIZE]; 3];
        for number in 0..3 {
            arena.zero(FrameId::new(number), 0, PAGE_SIZE);
        }
        for (step, frame, other, from, to, byte) in steps {
            let (from, to) = (from.min(to), from.max(to));
            let (this, that) = (frame as usize, other as usize);
            match step {
                0 => arena.zero(FrameId::new(frame), from, to - from),
                1 => {
                    let bytes: Vec<u8> = (from..to).map(|at| at.to_le_bytes()[0] ^ byte).collect();
                    arena.write(FrameId::new(frame), from, &bytes);
                    model[this][from..to].copy_from_slice(&bytes);
                }
                2 => arena.copy(FrameId::new(frame), FrameId::new(other)),
                _ => arena.copy_range(FrameId::new(frame), FrameId::new(other), from, to - from),
            }
            match step {
                0 => model[this][from..to].fill(0),
                2 => model[that] = model[this],
                3 => model[that] = {
                    let mut bytes = model[that];
                    bytes[from..to].copy_from_slice(&model[this][from..to]);
                    bytes
                },
                _ => {}
            }
            let mut bytes = vec![0; to - from];
            arena.read(FrameId::new(other), from, &mut bytes);
            prop_assert!(bytes == model[that][from..to]);
        }
        for (number, wanted) in (0..3).zip(&model) {
            let mut bytes = [0; PAGE_SIZE];
            arena.read(FrameId::new(number), 0, &mut bytes);
            prop_assert!(bytes == *wanted);
        }
    }

    #[test]
    fn a_frame_has_the_best_place_there_is(
        frames in 1..70_usize,
        steps in prop::collection::vec(
            (any::<bool>(), 0..RUN, any::<prop::sample::Index>(), any::<bool>()),
            1..300,
        ),
    ) {
        let arena = arena(frames, 0);
        let mut taken = BTreeSet::new();
        for (take, slot, index, has_sibling) in steps {
            let number = index.index(frames);
            if !take {
                let frame = FrameId::from_index(number);
                if taken.remove(&number) {
                    prop_assert!(arena.unpin(frame));
                }
                continue;
            }
            let beside = number / RUN * RUN + slot;
            let beside_is_free = has_sibling && beside < frames && !taken.contains(&beside);
            let some_run_is_free =
                (0..frames / RUN).any(|run| (0..RUN).all(|at| !taken.contains(&(run * RUN + at))));
            let sibling = has_sibling.then(|| FrameId::from_index(number));
            let Some(frame) = alloc(&arena, slot, sibling) else {
                prop_assert_eq!(taken.len(), frames);
                continue;
            };
            let got = frame.index();
            if beside_is_free {
                prop_assert_eq!(got, beside);
            } else if some_run_is_free {
                prop_assert_eq!(got % RUN, slot);
                let run = got / RUN * RUN;
                prop_assert!(taken.range(run..run + RUN).next().is_none());
            }
            prop_assert!(taken.insert(got), "frame {} given out twice", got);
            prop_assert_eq!(arena.free_frames(), frames - taken.len());
        }
    }
}
