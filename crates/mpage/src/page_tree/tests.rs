use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

const ALL: [Mark; 5] = [Mark::Present, Mark::Dirty, Mark::ToWrite, Mark::ToSync, Mark::Writeback];

fn tree(nodes: u32) -> PageTree {
    PageTree::new(Arc::new(NodePool::new(nodes)))
}

fn free_nodes(tree: &PageTree) -> usize {
    tree.nodes().free.lock().len()
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64),
    Remove(u64),
    Set(u64, usize),
    Clear(u64, usize),
    Copy(u64, u64, usize, usize),
}

fn indices() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..130u64,
        4000..4200u64,
        (0..8u64).prop_map(|n| n << 40),
        (0..4u64).prop_map(|n| u64::MAX - n),
        (0..4u64).prop_map(|n| PageIndex::MAX.0 - n),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => indices().prop_map(Op::Insert),
        2 => indices().prop_map(Op::Remove),
        4 => (indices(), 1..5usize).prop_map(|(i, m)| Op::Set(i, m)),
        2 => (indices(), 1..5usize).prop_map(|(i, m)| Op::Clear(i, m)),
        1 => (indices(), indices(), 1..5usize, 1..5usize)
            .prop_map(|(a, b, f, t)| Op::Copy(a.min(b), a.max(b), f, t)),
    ]
}

type Model = BTreeMap<u64, (u32, [bool; 5])>;

fn apply(tree: &mut PageTree, model: &mut Model, page: u32, op: &Op) {
    match *op {
        Op::Insert(i) => {
            if let std::collections::btree_map::Entry::Vacant(slot) = model.entry(i) {
                tree.insert(PageIndex(i), PageId(page)).expect("enough nodes");
                let _new = slot.insert((page, [true, false, false, false, false]));
            }
        }
        Op::Remove(i) => {
            if model.remove(&i).is_some() {
                tree.remove(PageIndex(i));
            }
        }
        Op::Set(i, m) => {
            if let Some((_, marks)) = model.get_mut(&i) {
                assert_eq!(tree.set_mark(PageIndex(i), ALL[m]), !marks[m]);
                marks[m] = true;
            }
        }
        Op::Clear(i, m) => {
            let had = model.get_mut(&i).is_some_and(|(_, marks)| std::mem::take(&mut marks[m]));
            assert_eq!(tree.clear_mark(PageIndex(i), ALL[m]), had);
        }
        Op::Copy(first, end, from, to) => {
            let mut copied = 0;
            for (_, marks) in model.range_mut(first..end).map(|(_, page)| page) {
                copied += usize::from(marks[from] && !marks[to]);
                marks[to] |= marks[from];
            }
            assert_eq!(tree.copy_mark(first..end, ALL[from], ALL[to]), copied);
        }
    }
}

fn walk(tree: &PageTree, from: u64, mark: Mark) -> Vec<(u64, u32)> {
    let mut found = Vec::new();
    let mut at = from;
    while let Some((index, page)) = tree.next(at..u64::MAX, mark) {
        found.push((index.0, page.0));
        at = index.0 + 1;
    }
    found
}

proptest! {
    #[test]
    fn the_tree_agrees_with_an_ordered_map(ops in proptest::collection::vec(ops(), 1..200)) {
        let mut tree = tree(3000);
        let mut model = Model::new();
        for (n, op) in ops.iter().enumerate() {
            apply(&mut tree, &mut model, u32::try_from(n).unwrap(), op);
        }
        for (m, mark) in ALL.into_iter().enumerate() {
            let expected: Vec<_> = model
                .iter()
                .filter(|(i, (_, marks))| marks[m] && **i != u64::MAX)
                .map(|(i, (page, _))| (*i, *page))
                .collect();
            prop_assert_eq!(walk(&tree, 0, mark), expected);
        }
        for (i, (page, _)) in &model {
            prop_assert_eq!(tree.get(PageIndex(*i)), Some(PageId(*page)));
        }
        for i in model.keys().copied().collect::<Vec<_>>() {
            tree.remove(PageIndex(i));
        }
        prop_assert_eq!(free_nodes(&tree), 3000);
    }
}

#[test]
fn an_insertion_without_nodes_changes_nothing() {
    let mut tree = tree(3);
    tree.insert(PageIndex(5), PageId(7)).unwrap();
    assert_eq!(tree.insert(PageIndex(1 << 30), PageId(8)), Err(NoNodes));
    assert_eq!(tree.get(PageIndex(5)), Some(PageId(7)));
    assert_eq!(free_nodes(&tree), 2);
}

#[test]
fn a_search_ends_at_the_end_of_its_range() {
    let mut tree = tree(10);
    for i in [3, 64, 65] {
        tree.insert(PageIndex(i), PageId(1)).unwrap();
        let _new = tree.set_mark(PageIndex(i), Mark::Dirty);
    }
    assert_eq!(tree.next(4..64, Mark::Dirty), None);
    assert_eq!(tree.next(4..65, Mark::Dirty).unwrap().0, PageIndex(64));
    assert_eq!(tree.next(4..4, Mark::Dirty), None);
    assert_eq!(tree.next(1 << 40..u64::MAX, Mark::Dirty), None);
}
