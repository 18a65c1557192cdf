//! Sleeping on a page and recycling one, under every order of two or three threads.

use mpage_locks::thread::spawn;
use mpage_mem::ArenaOptions;

use super::*;
use crate::page::{DETACHED, LOCKED};

const HERE: PageIndex = PageIndex(0);

fn model(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(body);
}

fn pool(frames: usize) -> Arc<PagePool> {
    let options = ArenaOptions { frames, reserve: 0, prefault: false };
    Arc::new(PagePool::new(Arc::new(Arena::new(&options).expect("a mapping"))))
}

/// Who sleeps until a page is unlocked is woken by whoever unlocks it.
///
/// Failed when the sleeper judged the word before it set WAITERS, and when `wake` did not take the
/// bucket's lock.
#[test]
fn a_sleeper_is_woken() {
    model(|| {
        let pool = pool(1);
        let id = pool.assign(1, HERE, None).expect("a free frame");
        assert!(pool.page(id).try_set(LOCKED, 0));
        let sleeper = {
            let pool = Arc::clone(&pool);
            let body = move || loop {
                pool.wait_until(id, |word| !word.has(LOCKED));
                if pool.page(id).try_set(LOCKED, 0) {
                    pool.settle(id, pool.page(id).clear(LOCKED));
                    return;
                }
            };
            spawn("sleep", body).expect("a thread")
        };
        pool.settle(id, pool.page(id).clear(LOCKED));
        sleeper.join().expect("no panic");
    });
}

/// A page is freed once, with its frame, and its next life keeps the count of who came late.
///
/// Failed when `free` cleared the counts.
#[test]
fn a_page_is_freed_once_and_recycled_with_late_comers() {
    model(|| {
        let pool = pool(1);
        let id = pool.assign(1, HERE, None).expect("a free frame");
        let late = {
            let pool = Arc::clone(&pool);
            let body = move || {
                let _word = pool.page(id).add_pin();
                pool.unpin(id);
            };
            spawn("late", body).expect("a thread")
        };
        pool.discard(id);
        let next = pool.assign(2, HERE, None);
        late.join().expect("no panic");
        let next = next.or_else(|| pool.assign(2, HERE, None)).expect("the frame is free again");
        let page = pool.page(next);
        assert!(page.is(2, HERE) && !page.word().has(DETACHED | FROZEN), "{:?}", page.word());
        pool.discard(next);
        assert_eq!(pool.arena().free_frames(), 1);
        assert!(!page.word().has(KEEPS_PAGE), "{:?}", page.word());
    });
}
