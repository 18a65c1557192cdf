use std::sync::Arc;

use mpage_locks::thread::{self, JoinHandle};

use super::*;

const CLEANING: Rank = Rank { cleaning: true, pages_left: 1 };
const LARGE: Rank = Rank { cleaning: false, pages_left: 1000 };
const SMALL: Rank = Rank { cleaning: false, pages_left: 2 };

/// A thread that takes the turn, notes its rank, and gives the turn up; it waits for it already.
fn walker(turn: &Arc<Turn>, order: &Arc<Mutex<Vec<Rank>>>, rank: Rank) -> JoinHandle<()> {
    let waiting = turn.state.lock().waiting.len();
    let handle = {
        let (turn, order) = (Arc::clone(turn), Arc::clone(order));
        thread::spawn("walker", move || {
            let _turn = turn.take(rank);
            order.lock().push(rank);
        })
        .expect("a thread")
    };
    while turn.state.lock().waiting.len() == waiting {
        thread::yield_now();
    }
    handle
}

/// Statements 71 and 108: whoever cleans gives way to a sync that came later, and a large sync to a
/// small one.
///
/// Seen to fail: with the turn passing in the order of arrival.
#[test]
fn an_integrity_walk_goes_before_cleaning() {
    let (turn, order) = (Arc::new(Turn::default()), Arc::default());
    let held = turn.take(CLEANING);
    let walkers = [CLEANING, LARGE, SMALL].map(|rank| walker(&turn, &order, rank));
    drop(held);
    walkers.into_iter().for_each(|walker| walker.join().expect("no panic"));
    assert_eq!(*order.lock(), [SMALL, LARGE, CLEANING]);
}
