//! Schedules: bios that threads submit, hold, release and drop end exactly once.

use std::sync::Arc;

use mpage_locks::atomic::{AtomicUsize, Ordering};
use mpage_locks::thread;
use mpage_mem::{Arena, ArenaOptions, PAGE_SIZE, Purpose};

use crate::wrap::{Delay, PowerCut, Trace};
use crate::{Bio, BioFlags, BlockDevice, MemoryDevice, MemoryOptions, Sector, submit_and_wait};

const SCHEDULES: usize = 2000;

fn write(arena: &Arc<Arena>, sector: u64, byte: u8) -> Bio {
    let frame = arena.alloc(Purpose::Cache, 0, None).expect("a free frame");
    arena.write(frame, 0, &[byte; PAGE_SIZE]);
    let mut bio = Bio::write(arena, Sector(sector), BioFlags::default());
    assert!(bio.push(frame, 0, PAGE_SIZE, &crate::Limits::default()));
    assert!(!arena.unpin(frame), "the bio holds it");
    bio
}

#[test]
fn every_bio_ends_once_while_threads_submit_and_release() {
    shuttle::check_random(
        || {
            let options = ArenaOptions { frames: 8, reserve: 0, prefault: false };
            let arena = Arc::new(Arena::new(&options).expect("a small arena"));
            let memory = Arc::new(MemoryDevice::new(64 << 10, MemoryOptions::default()));
            let delay = Arc::new(Delay::manual(memory));
            let trace = Arc::new(Trace::new(Arc::clone(&delay) as Arc<dyn BlockDevice>));
            let ended = Arc::new(AtomicUsize::new(0));
            let submitters: Vec<_> = (0..2_u64)
                .map(|own| {
                    let (trace, arena) = (Arc::clone(&trace), Arc::clone(&arena));
                    let ended = Arc::clone(&ended);
                    let submit = move || {
                        for sector in [16 * own, 16 * own + 8] {
                            let mut bio = write(&arena, sector, 1);
                            let ended = Arc::clone(&ended);
                            bio.on_completion(move |result| {
                                assert_eq!(result, Ok(()));
                                let _before = ended.fetch_add(1, Ordering::Relaxed);
                            });
                            trace.submit(bio).expect("it is taken");
                        }
                    };
                    thread::spawn("submitter", submit).expect("a thread")
                })
                .collect();
            delay.wait_for_held(1);
            let _one: bool = delay.release_next();
            let _some: usize = delay.release_all();
            for submitter in submitters {
                submitter.join().expect("no panic");
            }
            let _rest: usize = delay.release_all();
            assert_eq!(ended.load(Ordering::Relaxed), 4);
            assert_eq!(arena.free_frames(), 8);
            assert!(trace.take().iter().all(|event| event.result == Some(Ok(()))));
        },
        SCHEDULES,
    );
}

#[test]
fn a_flush_covers_the_writes_that_other_threads_completed_before_it() {
    shuttle::check_random(
        || {
            let options = ArenaOptions { frames: 8, reserve: 0, prefault: false };
            let arena = Arc::new(Arena::new(&options).expect("a small arena"));
            let memory = Arc::new(MemoryDevice::new(64 << 10, MemoryOptions::default()));
            let cut = Arc::new(PowerCut::new(memory, vec![0; 64 << 10]));
            let writers: Vec<_> = [(0, 1), (8, 2)]
                .into_iter()
                .map(|(sector, byte)| {
                    let (cut, bio) = (Arc::clone(&cut), write(&arena, sector, byte));
                    let write_and_flush = move || {
                        assert_eq!(submit_and_wait(&cut, bio), Ok(()));
                        assert_eq!(submit_and_wait(&cut, Bio::flush()), Ok(()));
                        let at = usize::try_from(sector * 512).expect("small");
                        assert!(cut.cut(7)[at..at + PAGE_SIZE] == [byte; PAGE_SIZE]);
                    };
                    thread::spawn("writer", write_and_flush).expect("a thread")
                })
                .collect();
            for writer in writers {
                writer.join().expect("no panic");
            }
            assert_eq!(cut.uncertain(), 0);
        },
        SCHEDULES,
    );
}
