//! The protocols of the entry word under every order of two or three threads.

use std::sync::Arc;

use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use mpage_locks::thread::{JoinHandle, spawn, yield_now};
use mpage_locks::{Mutex, atomic};

use super::*;

const SECTOR: SectorMask = SectorMask(1);
const HERE: PageIndex = PageIndex(0);

/// Runs `body` in every order, with few changes of thread where a thread could have gone on.
fn model(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(body);
}

fn thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    spawn("loom", body).expect("a thread")
}

fn frame(n: u32) -> FrameId {
    FrameId::new(n)
}

/// A page of mapping 1 with one pin.
fn page() -> Arc<Page> {
    let page = Page::free();
    page.assign(1, HERE, frame(0));
    Arc::new(page)
}

/// A page nobody is in, with its sectors up to date and those of `dirty` dirty.
fn idle(dirty: SectorMask) -> Arc<Page> {
    let page = page();
    page.set_uptodate(SectorMask::ALL);
    if !dirty.is_empty() {
        let _before = page.set_dirty(dirty, 0);
    }
    let left = page.drop_pin();
    assert!(!left.frees);
    page.reset(REFERENCED);
    page
}

/// What the pool does to a page that is freed, and what an insertion does to it then.
fn free_and_assign(page: &Page) {
    let _frame = page.take_frame();
    page.reset(!(FROZEN | KEEPS_PAGE));
    page.assign(2, HERE, frame(1));
}

/// Protocols 1 and 7: one of those who leave a detached page frees it, and a late comer's count
/// survives the page's next life.
///
/// Failed when `detach` or `leave` did not take DETACHED away with the last one out, and when
/// `assign` began with fresh counts.
#[test]
fn last_one_out_frees_once_and_late_comers_survive() {
    model(|| {
        let page = page();
        let freed = Arc::new(AtomicUsize::new(0));
        let leave = |page: &Page, left: Left, freed: &AtomicUsize| {
            if left.frees {
                let _before = freed.fetch_add(1, Ordering::Relaxed);
                free_and_assign(page);
            }
        };
        let storer = {
            let (page, freed) = (Arc::clone(&page), Arc::clone(&freed));
            thread(move || {
                let word = page.add_store();
                let mine = !word.has(FROZEN) && page.is(1, HERE);
                if mine {
                    assert!(page.is(1, HERE) || page.word().has(FROZEN), "entered, then recycled");
                }
                leave(&page, page.drop_store(), &freed);
            })
        };
        let holder = {
            let (page, freed) = (Arc::clone(&page), Arc::clone(&freed));
            thread(move || leave(&page, page.drop_pin(), &freed))
        };
        let (_, left) = page.detach();
        leave(&page, left, &freed);
        storer.join().expect("no panic");
        holder.join().expect("no panic");
        assert_eq!(freed.load(Ordering::Relaxed), 1, "freed once");
        let word = page.word();
        assert!(!word.has_stores() && word.0 & PINS == PIN, "{word:?}");
        assert!(page.is(2, HERE) && !word.has(FROZEN | DETACHED), "{word:?}");
    });
}

/// Protocols 2, 3 and 4: a store that a write did not take is dirty when both are over, and a write
/// that reads the page's own frame reads what holds still.
///
/// Failed when SHARED was set with a store in progress, when the dirty bits were cleared after
/// sampling, and when the store marked before it stored.
#[test]
fn a_store_is_sampled_or_dirty() {
    model(|| {
        let page = idle(SECTOR);
        let (data, lock) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(())));
        let storer = {
            let (page, data, lock) = (Arc::clone(&page), Arc::clone(&data), Arc::clone(&lock));
            thread(move || {
                if page.add_store().has(SHARED) {
                    // It would copy the frame first: not this test's.
                    let _left = page.drop_store();
                    return false;
                }
                data.store(1, Ordering::Relaxed);
                if page.drop_store_into_dirty(SECTOR).is_none() {
                    let guard = lock.lock();
                    let _before = page.set_dirty(SECTOR, REFERENCED);
                    drop(guard);
                    let _left = page.drop_store();
                }
                true
            })
        };
        let guard = lock.lock();
        let start = page.start_writeback(SECTOR, SECTOR, true);
        drop(guard);
        let Start::Started { own_frame, .. } = start else { panic!("{start:?}") };
        let sampled = data.load(Ordering::Relaxed);
        if own_frame {
            yield_now();
            assert_eq!(data.load(Ordering::Relaxed), sampled, "it changed on its way");
        }
        let guard = lock.lock();
        let _ended = page.end_writeback(SectorMask::NONE);
        drop(guard);
        let stored = storer.join().expect("no panic");
        let dirty = !page.word().dirty().is_empty();
        assert!(dirty || !stored || sampled == 1, "a store was lost: {:?}", page.word());
        assert!(!page.word().has(WRITEBACK | SHARED) && !page.word().has_stores());
    });
}

/// What was dirtied after a walk chose sectors is not taken out of a snapshot: the walk is told.
///
/// Failed when `start_writeback` took what the caller had seen whatever was dirty besides.
#[test]
fn a_write_takes_the_page_as_it_was_seen() {
    model(|| {
        let page = idle(SECTOR);
        let storer = {
            let page = Arc::clone(&page);
            thread(move || {
                let word = page.add_store();
                let into_dirty = page.drop_store_into_dirty(SectorMask(2));
                (word.has(SHARED), into_dirty.is_some())
            })
        };
        let seen = page.word().dirty();
        let start = page.start_writeback(seen, seen, true);
        let (_, into_dirty) = storer.join().expect("no panic");
        match start {
            Start::Started { still_dirty, .. } => assert!(!still_dirty, "left what it took"),
            _ => assert!(into_dirty, "nobody changed it: {start:?}"),
        }
    });
}

/// Protocol 2: of two stores into a page on its way one gives it a fresh frame, whenever the write
/// ends, and neither stores into the frame that the write reads.
///
/// Failed when COPYING was set whoever had it, and when `end_writeback` left SHARED.
#[test]
fn copy_on_write_against_completion() {
    model(|| {
        let page = idle(SECTOR);
        let start = page.start_writeback(SECTOR, SECTOR, false);
        assert!(matches!(start, Start::Started { own_frame: true, .. }));
        let copies = Arc::new(AtomicUsize::new(0));
        let storers = [1, 2].map(|n| {
            let (page, copies) = (Arc::clone(&page), Arc::clone(&copies));
            thread(move || {
                let entered = page.add_store();
                while entered.has(SHARED | COPYING) && page.word().has(SHARED | COPYING) {
                    if !page.try_set(COPYING, FILLING) {
                        yield_now();
                        continue;
                    }
                    let shared = page.word().has(SHARED);
                    if shared {
                        let _old = page.replace_frame(frame(n));
                        let _before = copies.fetch_add(1, Ordering::Relaxed);
                    }
                    let _left = page.clear(if shared { COPYING | SHARED } else { COPYING });
                }
                let word = page.word();
                assert!(!word.has(SHARED | COPYING), "a store into a frame on its way: {word:?}");
                let _before = page.set_dirty(SECTOR, 0);
                let _left = page.drop_store();
            })
        });
        let _ended = page.end_writeback(SectorMask::NONE);
        storers.into_iter().for_each(|storer| storer.join().expect("no panic"));
        assert!(copies.load(Ordering::Relaxed) <= 1, "copied twice");
        assert!(!page.word().has(WRITEBACK | SHARED | COPYING), "{:?}", page.word());
    });
}

/// Protocol 6: a page is frozen only if nobody is in it and nothing stored is left in it, and who
/// comes later sees it.
///
/// Failed when freezing tested the word and set FROZEN by another exchange.
#[test]
fn freezing_against_stores_and_pins() {
    model(|| {
        let page = idle(SectorMask::NONE);
        let storer = {
            let page = Arc::clone(&page);
            thread(move || {
                let stored = !page.add_store().has(FROZEN);
                if stored {
                    assert!(!page.word().has(FROZEN), "frozen with a store in it");
                    let _before = page.set_dirty(SECTOR, 0);
                }
                let _left = page.drop_store();
                stored
            })
        };
        let holder = {
            let page = Arc::clone(&page);
            thread(move || {
                let held = !page.add_pin().has(FROZEN);
                assert!(!held || !page.word().has(FROZEN), "frozen with a pin on it");
                let _left = page.drop_pin();
            })
        };
        let frozen = page.try_freeze();
        let stored = storer.join().expect("no panic");
        holder.join().expect("no panic");
        assert!(!(frozen && stored), "a store was dropped");
    });
}

/// Protocol 5: a fill has stale sectors for itself.
///
/// Failed when a fill began with stores in progress.
#[test]
fn filling_keeps_stores_away() {
    model(|| {
        let page = page();
        let data = Arc::new(AtomicU64::new(0));
        let storer = {
            let (page, data) = (Arc::clone(&page), Arc::clone(&data));
            thread(move || {
                let entered = page.add_store();
                let may = !entered.has(FILLING) || entered.uptodate().contains(SECTOR);
                if may {
                    data.store(1, Ordering::Relaxed);
                    let _before = page.set_dirty(SECTOR, 0);
                }
                let _left = page.drop_store();
                may
            })
        };
        if page.try_fill() {
            if !page.word().uptodate().contains(SECTOR) {
                data.store(7, Ordering::Relaxed);
                page.set_uptodate(SECTOR);
            }
            let _left = page.clear(FILLING);
        }
        let stored = storer.join().expect("no panic");
        let now = data.load(Ordering::Relaxed);
        assert!(!stored || now == 1, "a fill wrote over a store: {now}");
    });
}

/// The words of two frames, as a copy sees them.
struct Frames([[AtomicU64; 2]; 2]);

impl Frames {
    fn new(first: u64) -> Arc<Frames> {
        let frame = |value| [AtomicU64::new(value), AtomicU64::new(value)];
        Arc::new(Frames([frame(first), frame(0)]))
    }

    /// As a copy into the arena: a release fence, then relaxed words.
    fn write(&self, frame: FrameId, value: u64) {
        fence(atomic::Ordering::Release);
        for word in &self.0[frame.get() as usize] {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// As a copy out of the arena: relaxed words, then an acquire fence.
    fn read(&self, frame: FrameId) -> [u64; 2] {
        let words =
            self.0[frame.get() as usize].each_ref().map(|word| word.load(Ordering::Relaxed));
        fence(atomic::Ordering::Acquire);
        words
    }
}

const FOREIGN: u64 = 99;

/// What a reader that takes nothing got, if the version said that it was the page's.
fn read(page: &Page, frames: &Frames) -> Option<[u64; 2]> {
    let seen = page.begin_read(1, HERE)?;
    let words = frames.read(seen.frame);
    page.end_read(seen).then_some(words)
}

/// The version: a page that was copied on write gives its old frame away, and no reader takes the
/// next owner's bytes for the page's.
///
/// Failed when `replace_frame` did not move the version, when it moved it before the new frame was
/// in place, and when `end_read` came before the fence.
#[test]
fn a_reader_never_takes_a_replaced_frame() {
    model(|| {
        let (page, frames) = (idle(SectorMask::NONE), Frames::new(10));
        let writer = {
            let (page, frames) = (Arc::clone(&page), Arc::clone(&frames));
            thread(move || {
                frames.write(frame(1), 11);
                let old = page.replace_frame(frame(1));
                frames.write(old, FOREIGN);
            })
        };
        if let Some(words) = read(&page, &frames) {
            let good = words == [10, 10] || words == [11, 11];
            assert!(good, "a reader got {words:?}");
        }
        writer.join().expect("no panic");
    });
}

/// The version: a freed page's frame goes to another page, and no reader takes its bytes for the
/// first's; nor does it when the page itself comes back with another frame.
///
/// Failed when `take_frame` did not move the version.
#[test]
fn a_reader_never_takes_a_freed_frame() {
    model(|| {
        let (page, frames) = (idle(SectorMask::NONE), Frames::new(10));
        let writer = {
            let (page, frames) = (Arc::clone(&page), Arc::clone(&frames));
            thread(move || {
                assert!(page.try_freeze());
                let old = page.take_frame();
                page.reset(!(FROZEN | KEEPS_PAGE));
                frames.write(old, FOREIGN);
                frames.write(frame(1), 11);
                page.assign(1, HERE, frame(1));
            })
        };
        if let Some(words) = read(&page, &frames) {
            let good = words == [10, 10] || words == [11, 11];
            assert!(good, "a reader got {words:?}");
        }
        writer.join().expect("no panic");
    });
}
