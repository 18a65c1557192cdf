//! Lookups against changes, under every order of two threads.
//!
//! The reader is the spawned thread: loom runs it after the changes, and lets each of its loads see
//! any value that the orderings allow, the oldest included.

use mpage_locks::thread::spawn;
use mpage_mem::FrameId;

use super::*;
use crate::page::Page;

fn model(body: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(body);
}

/// A page that stays is found while the tree grows above it and shrinks beside it.
///
/// Failed when the new root was published before it had the old one in its first slot, and when the
/// slot or the root was published without a release.
#[test]
fn growing_loses_nobody() {
    model(|| {
        let mut tree = PageTree::new(Arc::new(NodePool::new(3)));
        tree.insert(PageIndex(0), PageId(7)).expect("a node");
        let reader = tree.reader();
        let looker = move || {
            assert_eq!(reader.lookup(PageIndex(0)), Some(PageId(7)));
            let found = reader.lookup(PageIndex(5));
            assert!(found.is_none_or(|id| id == PageId(8)), "{found:?}");
        };
        let looker = spawn("look", looker).expect("a thread");
        tree.insert(PageIndex(5), PageId(8)).expect("a node");
        looker.join().expect("no panic");
    });
}

/// A reader finds its page, or nothing, or a page that says it is another's: also when the nodes it
/// walks through went to another tree.
///
/// Failed when the reader trusted the slot and did not compare.
#[test]
fn a_recycled_node_leads_to_a_page_that_says_whose_it_is() {
    model(|| {
        let nodes = Arc::new(NodePool::new(2));
        let pages = Arc::new([Page::free(), Page::free()]);
        let mut mine = PageTree::new(Arc::clone(&nodes));
        let index = PageIndex(5);
        pages[0].assign(1, index, FrameId::new(0));
        mine.insert(index, PageId(0)).expect("nodes");
        let reader = mine.reader();
        let seen = Arc::clone(&pages);
        let looker = move || {
            if let Some(PageId(id)) = reader.lookup(index) {
                let ours = seen[id as usize].is(1, index);
                assert!(id == 0 || !ours, "another's page passed for ours");
            }
        };
        let looker = spawn("look", looker).expect("a thread");
        mine.remove(index);
        let _frame = pages[0].take_frame();
        let mut other = PageTree::new(nodes);
        pages[1].assign(2, index, FrameId::new(1));
        other.insert(index, PageId(1)).expect("nodes");
        looker.join().expect("no panic");
        assert_eq!(mine.get(index), None);
        assert_eq!(other.get(index), Some(PageId(1)));
    });
}
