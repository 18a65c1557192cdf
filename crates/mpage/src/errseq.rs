//! A write error is reported once to every open.
//!
//! One word per mapping holds the last error, a counter, and whether anybody has seen it. An open
//! remembers the word as it was when it last looked; a word that differs is an error it has not
//! been told.
//!
//! Invariants:
//! 1. The counter moves whenever an error is recorded after the last one was seen, so a cursor that
//!    has looked always finds the word changed.
//! 2. Recording and looking are single exchanges: neither can lose the other's.
//!
//! Linux: `errseq_t`, lib/errseq.c. Differs: 64 bits, so the counter cannot wrap in practice, and
//! the error number has 16 bits.

use mpage_block::Errno;
use mpage_locks::atomic::{AtomicU64, Ordering};

const ERRNO_MASK: u64 = 0xffff;
const SEEN: u64 = 1 << 16;
const COUNT_ONE: u64 = 1 << 17;

/// The errors of one mapping or device, for many cursors. Linux: `errseq_t`.
#[derive(Debug, Default)]
pub(crate) struct ErrSeq {
    word: AtomicU64,
    /// Moves with each error.
    recorded: AtomicU64,
}

/// What one open has been told so far. Shared by duplicates of the open.
#[derive(Debug)]
pub(crate) struct Cursor {
    last: AtomicU64,
}

impl ErrSeq {
    /// No error yet.
    pub(crate) fn new() -> ErrSeq {
        ErrSeq { word: AtomicU64::new(0), recorded: AtomicU64::new(0) }
    }

    /// Records an error. Never blocks. Linux: `errseq_set()`.
    pub(crate) fn set(&self, errno: Errno) {
        let code = u64::from(errno.raw_os_error().unsigned_abs()) & ERRNO_MASK;
        assert!(code != 0, "zero is not an error");
        let _before = self.update(|old| {
            let count = old & !(ERRNO_MASK | SEEN);
            Some(code | if old & SEEN != 0 || old == 0 { count + COUNT_ONE } else { count })
        });
        let _before = self.recorded.fetch_add(1, Ordering::SeqCst);
    }

    /// The cursor of a new open: it will be told of an error that nobody has been told of yet, and
    /// not of one that somebody has. Linux: `errseq_sample()`.
    pub(crate) fn sample(&self) -> Cursor {
        let now = self.word.load(Ordering::SeqCst);
        Cursor { last: AtomicU64::new(if now & SEEN == 0 { 0 } else { now }) }
    }

    /// The error recorded since `cursor` last looked, if any; `cursor` will not be told of it
    /// again. Linux: `errseq_check_and_advance()`.
    pub(crate) fn check_and_advance(&self, cursor: &Cursor) -> Option<Errno> {
        loop {
            let last = cursor.last.load(Ordering::SeqCst);
            if self.word.load(Ordering::SeqCst) == last {
                return None;
            }
            let seen = self.update(|old| (old != 0).then_some(old | SEEN))? | SEEN;
            if cursor.last.compare_exchange(last, seen, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            {
                return (last != seen).then(|| errno_of(seen));
            }
        }
    }

    /// What failed with the last error is dirty again. Moves [`recorded`](Self::recorded): a sync
    /// that began between the two has not seen those bytes among the dirty ones.
    pub(crate) fn is_dirty_again(&self) {
        let _before = self.recorded.fetch_add(1, Ordering::SeqCst);
    }

    /// Moves whenever an error is recorded, told or not, and when what failed is dirty again.
    pub(crate) fn recorded(&self) -> u64 {
        self.recorded.load(Ordering::SeqCst)
    }

    /// The last error recorded, told or not.
    pub(crate) fn last(&self) -> Option<Errno> {
        let now = self.word.load(Ordering::SeqCst);
        (now != 0).then(|| errno_of(now))
    }

    /// True when an error has been recorded that no open has been told of.
    pub(crate) fn has_unseen(&self) -> bool {
        let now = self.word.load(Ordering::SeqCst);
        now != 0 && now & SEEN == 0
    }

    /// Exchanges the word until it held still; returns the old one, `None` when `change` declined.
    fn update(&self, change: impl Fn(u64) -> Option<u64>) -> Option<u64> {
        let mut old = self.word.load(Ordering::SeqCst);
        loop {
            let new = change(old)?;
            match self.word.compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Some(old),
                Err(now) => old = now,
            }
        }
    }
}

fn errno_of(word: u64) -> Errno {
    let code = i32::try_from(word & ERRNO_MASK).expect("sixteen bits fit an i32");
    Errno::from_raw_os_error(code)
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn each_cursor_is_told_of_each_error_once() {
        let errors = ErrSeq::new();
        let (a, b) = (errors.sample(), errors.sample());
        errors.set(Errno::NOSPC);
        assert_eq!(errors.check_and_advance(&a), Some(Errno::NOSPC));
        assert_eq!(errors.check_and_advance(&a), None);
        assert_eq!(errors.check_and_advance(&b), Some(Errno::NOSPC));
        errors.set(Errno::IO);
        errors.set(Errno::DQUOT);
        assert_eq!(errors.check_and_advance(&a), Some(Errno::DQUOT));
        assert_eq!(errors.check_and_advance(&b), Some(Errno::DQUOT));
    }

    #[test]
    fn a_later_open_is_told_of_an_unseen_error_and_not_of_a_seen_one() {
        let errors = ErrSeq::new();
        errors.set(Errno::IO);
        let first = errors.sample();
        assert!(errors.has_unseen());
        assert_eq!(errors.check_and_advance(&first), Some(Errno::IO));
        assert!(!errors.has_unseen());
        assert_eq!(errors.check_and_advance(&errors.sample()), None);
    }

    #[test]
    fn the_same_error_again_is_a_new_error_to_who_saw_the_first() {
        let errors = ErrSeq::new();
        let cursor = errors.sample();
        for _ in 0..3 {
            errors.set(Errno::IO);
            assert_eq!(errors.check_and_advance(&cursor), Some(Errno::IO));
        }
    }

    #[test]
    fn every_error_number_survives() {
        let errors = ErrSeq::new();
        let cursor = errors.sample();
        for code in 1..=4095 {
            errors.set(Errno::from_raw_os_error(code));
            assert_eq!(errors.check_and_advance(&cursor).unwrap().raw_os_error(), code);
        }
    }
}

#[cfg(all(test, mpage_loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    /// The same error again, after the first was told, is a new one.
    ///
    /// Failed when `set` did not move the counter after SEEN.
    #[test]
    fn loom_error_set_and_check_never_lose_one() {
        loom::model(|| {
            let errors = Arc::new(ErrSeq::new());
            let cursor = errors.sample();
            errors.set(Errno::IO);
            let setter = {
                let errors = Arc::clone(&errors);
                loom::thread::spawn(move || {
                    let first_was_told = !errors.has_unseen();
                    errors.set(Errno::IO);
                    first_was_told
                })
            };
            let first = errors.check_and_advance(&cursor);
            let first_was_told = setter.join().unwrap();
            let second = errors.check_and_advance(&cursor);
            assert_eq!(first, Some(Errno::IO));
            assert!(!first_was_told || second == Some(Errno::IO));
        });
    }

    /// Two duplicates share a cursor: one of them is told, and never neither.
    #[test]
    fn loom_duplicates_of_an_open_are_told_once_between_them() {
        loom::model(|| {
            let errors = Arc::new(ErrSeq::new());
            let cursor = Arc::new(errors.sample());
            errors.set(Errno::IO);
            let other = {
                let (errors, cursor) = (Arc::clone(&errors), Arc::clone(&cursor));
                loom::thread::spawn(move || errors.check_and_advance(&cursor).is_some())
            };
            let here = errors.check_and_advance(&cursor).is_some();
            let there = other.join().unwrap();
            assert!(here ^ there);
        });
    }
}

#[cfg(all(test, mpage_shuttle))]
mod shuttle_tests {
    use std::sync::Arc;

    use mpage_locks::thread::spawn;

    use super::*;

    /// As `loom_error_set_and_check_never_lose_one`. Loom tries no order in which a look loads the
    /// word twice, and an error is set in between.
    ///
    /// Failed when the cursor was set to what a second load of the word gave.
    #[test]
    fn shuttle_error_set_and_check_never_lose_one() {
        let schedules = std::env::var("MPAGE_SCHEDULES");
        let schedules = schedules.map_or(2000, |count| count.parse().expect("a number"));
        shuttle::check_random(
            || {
                let errors = Arc::new(ErrSeq::new());
                let cursor = errors.sample();
                errors.set(Errno::IO);
                let setter = {
                    let errors = Arc::clone(&errors);
                    spawn("setter", move || {
                        let first_was_told = !errors.has_unseen();
                        errors.set(Errno::IO);
                        first_was_told
                    })
                };
                let first = errors.check_and_advance(&cursor);
                let first_was_told = setter.expect("a thread").join().expect("no panic");
                let second = errors.check_and_advance(&cursor);
                assert_eq!(first, Some(Errno::IO));
                assert!(!first_was_told || second == Some(Errno::IO));
            },
            schedules,
        );
    }
}
