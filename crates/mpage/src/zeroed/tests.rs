use super::Room::{Freed, Kept};
use super::*;

fn ranges(zeroed: &Zeroed) -> Vec<(u64, u64)> {
    zeroed.state.lock().ranges.iter().map(|(start, zeros)| (*start, zeros.end)).collect()
}

/// All that is lost.
fn lost(zeroed: &Zeroed, flushed: u64) -> Vec<Range<u64>> {
    zeroed.lost(&(0..u64::MAX), flushed).into_iter().map(|(range, _)| range).collect()
}

#[test]
fn ranges_that_touch_are_one() {
    let zeroed = Zeroed::default();
    for range in [0..10, 20..30, 10..20, 50..60, 25..55] {
        assert!(zeroed.note(&range, Freed, (1, false), 0));
    }
    assert_eq!(ranges(&zeroed), [(0, 60)]);
}

#[test]
fn written_bytes_are_zeroed_no_more() {
    let zeroed = Zeroed::default();
    assert!(zeroed.note(&(0..30), Freed, (1, false), 0));
    assert!(zeroed.note(&(40..70), Freed, (2, false), 0));
    let _lost = zeroed.overwritten(&(10..20));
    let _lost = zeroed.overwritten(&(25..50));
    assert_eq!(ranges(&zeroed), [(0, 10), (20, 25), (50, 70)]);
    let _lost = zeroed.overwritten(&(0..100));
    assert_eq!(ranges(&zeroed), []);
}

#[test]
fn a_flush_that_covers_the_last_removal_forgets_all() {
    let zeroed = Zeroed::default();
    assert!(zeroed.note(&(0..10), Freed, (1, false), 0));
    zeroed.flush_failed(1);
    assert_eq!(lost(&zeroed, 1), []);
    assert!(zeroed.note(&(20..30), Freed, (2, false), 1));
    assert!(zeroed.note(&(40..50), Freed, (3, false), 1));
    assert_eq!(lost(&zeroed, 1), [], "no flush failed");
    zeroed.flush_failed(2);
    let behind = "a good flush behind the failed one proves nothing";
    assert_eq!(lost(&zeroed, 3), [20..30, 40..50], "{behind}");
}

#[test]
fn a_byte_is_zeros_up_to_where_its_range_ends_and_others_to_where_one_begins() {
    let zeroed = Zeroed::default();
    assert_eq!(zeroed.at(5, 0), (false, u64::MAX));
    assert!(zeroed.note(&(10..20), Freed, (1, false), 0));
    assert!(zeroed.note(&(30..40), Freed, (2, false), 0));
    assert_eq!(zeroed.at(5, 0), (false, 10));
    assert_eq!(zeroed.at(10, 0), (true, 20));
    assert_eq!(zeroed.at(19, 0), (true, 20));
    assert_eq!(zeroed.at(20, 1), (false, 30));
    assert_eq!(zeroed.at(40, 1), (false, u64::MAX));
}

#[test]
fn a_read_behind_a_flush_or_with_all_overwritten_forgets_and_asks_for_no_lock_again() {
    let zeroed = Zeroed::default();
    assert!(zeroed.note(&(0..10), Freed, (1, false), 0));
    assert_eq!(zeroed.at(0, 1), (false, u64::MAX));
    assert!(!zeroed.any.load(Ordering::SeqCst));
    assert!(zeroed.note(&(0..10), Freed, (2, false), 1));
    zeroed.flush_failed(1);
    assert!(zeroed.has_lost() && zeroed.overwritten(&(0..10)));
    assert!(!zeroed.has_lost());
    assert_eq!(zeroed.at(0, 1), (false, u64::MAX));
    assert!(!zeroed.any.load(Ordering::SeqCst));
}

#[test]
fn zeros_written_while_a_flush_failed_are_lost() {
    let zeroed = Zeroed::default();
    assert!(zeroed.note(&(0..10), Freed, (1, true), 1));
    let later = "a flush that came later need not cover them";
    assert!(lost(&zeroed, 1).into_iter().eq(std::iter::once(0..10)), "{later}");
}

#[test]
fn the_last_removal_of_a_range_says_what_became_of_its_room() {
    let zeroed = Zeroed::default();
    assert!(zeroed.note(&(0..20), Freed, (1, false), 0));
    assert!(zeroed.note(&(20..40), Kept, (2, false), 0));
    assert!(zeroed.note(&(10..15), Kept, (3, false), 0));
    assert!(zeroed.note(&(25..30), Freed, (4, false), 0));
    zeroed.flush_failed(0);
    let each = [(0..10, Freed), (10..15, Kept), (15..20, Freed), (20..25, Kept), (25..30, Freed)];
    let lost = zeroed.lost(&(0..u64::MAX), 0);
    assert_eq!(lost[..5], each);
    assert_eq!(lost[5..].to_vec(), vec![(30..40, Kept)]);
}

#[test]
fn what_is_zeroed_again_is_lost_no_more_and_its_neighbours_are() {
    let zeroed = Zeroed::default();
    assert!(zeroed.note(&(0..40), Freed, (1, false), 0));
    zeroed.flush_failed(0);
    assert!(zeroed.note(&(10..20), Freed, (2, false), 0));
    assert_eq!(ranges(&zeroed), [(0, 10), (10, 20), (20, 40)]);
    assert_eq!(lost(&zeroed, 1), [0..10, 20..40]);
    assert_eq!(zeroed.lost(&(5..25), 1), [(5..10, Freed), (20..25, Freed)], "no more than asked");
    assert_eq!(lost(&zeroed, 2), [0..10, 20..40]);
    assert_eq!(ranges(&zeroed), [(0, 10), (20, 40)], "a flush has covered the rest");
    assert!(zeroed.note(&(10..20), Freed, (3, false), 2));
    zeroed.flush_failed(2);
    assert_eq!(ranges(&zeroed), [(0, 40)]);
}

#[test]
fn too_many_ranges_ask_for_a_flush() {
    let zeroed = Zeroed::default();
    let apart = |n: u64| n * 10..n * 10 + 5;
    let most = RANGES_MAX as u64;
    assert!((0..most).all(|n| zeroed.note(&apart(n), Freed, (n + 1, false), 0)));
    assert!(!zeroed.note(&apart(most), Freed, (most + 1, false), 0));
    assert!(zeroed.note(&apart(0), Freed, (most + 2, false), most + 1), "the flush covered them");
}
