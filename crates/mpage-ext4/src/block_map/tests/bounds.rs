//! How many blocks a map takes for itself.

use mpage_block::Errno;

use super::*;
use crate::error::ErrorKind;

/// Puts the blocks of `pieces` in one by one, in some order: no more nodes come than was said.
fn check_bound(file: &mut Mapped, random: &mut fastrand::Rng, pieces: &[Range<u64>]) {
    let mut blocks: Vec<u64> = pieces.iter().cloned().flatten().collect();
    let most = nodes_for(file.sb(), &file.read_inode(), pieces.len() as u64, blocks.len() as u64);
    match random.u8(0..4) {
        0 => random.shuffle(&mut blocks),
        1 => blocks.reverse(),
        2 => blocks.sort_by_key(|block| block % 2),
        _ => {}
    }
    let (before, end) = (file.nodes(), file.sb().blocks);
    file.fill_each(&blocks, || random.u64(1..end));
    let nodes = file.nodes() - before;
    assert!(nodes <= most, "{nodes} nodes, not {most}, for {pieces:?} at depth {}", file.depth());
}

#[test]
fn a_tree_takes_no_more_nodes_than_it_may() {
    let mut random = fastrand::Rng::with_seed(50);
    for leaves in [0, 0, 1, 4, 5, 30] {
        let mut file = Mapped::new("40M", CHECKED);
        // Nodes that are full, and between their entries room for many.
        let singles: Vec<u64> = (0..leaves * 84).map(|n| n * 2000 + 400).collect();
        file.fill_each(&singles, || 1);
        // Unwritten runs far apart on the device, long ones and short ones behind each other.
        for n in 0..6 {
            let _count = file.fill(n * 2000 + 402, 300, false, random.u64(1..30_000));
        }
        for n in 0..150 {
            let _count = file.fill(1_000_000 + n * 2, 2, false, random.u64(1..30_000));
        }
        for _ in 0..12 {
            let mut pieces: Vec<Range<u64>> = Vec::new();
            for _ in 0..random.u64(1..5) {
                let at = random.u64(0..(leaves * 84).max(6)) * 2000;
                let len = 1 << random.u32(0..9);
                let start = match random.u8(0..4) {
                    0 => at + 402 + random.u64(0..300),
                    1 => 1_000_000 + random.u64(0..300),
                    2 => file.model.last_key_value().map_or(0, |(last, _)| last + 2),
                    _ => at + random.u64(0..1400),
                };
                let piece = start..start + len;
                let meets = |other: &Range<u64>| piece.start < other.end && other.start < piece.end;
                let written = file.model.range(piece.clone()).any(|(_, (_, written))| *written);
                if !written && !pieces.iter().any(meets) {
                    pieces.push(piece);
                }
            }
            check_bound(&mut file, &mut random, &pieces);
        }
        file.is_right();
        file.empty_and_close();
    }
}

#[test]
fn a_map_of_numbers_takes_no_more_blocks_than_it_may() {
    let mut random = fastrand::Rng::with_seed(60);
    let mut file = Mapped::new("24M", NUMBERED);
    let blocks_max = file.blocks_max();
    for _ in 0..60 {
        let power = random.u32(0..24);
        let start = random.u64(0..1 << power).min(blocks_max - 1);
        let piece = start..(start + (1 << random.u32(0..11))).min(blocks_max);
        if file.model.range(piece.clone()).next().is_none() {
            check_bound(&mut file, &mut random, &[piece]);
        }
        if file.model.len() > 10_000 {
            file.remove(0..u64::MAX);
            file.commit();
        }
    }
    file.is_right();
    file.empty_and_close();
}

#[test]
fn few_nodes_are_reserved_for_little() {
    let mut file = Mapped::new("8M", CHECKED);
    let nodes =
        |file: &Mapped, runs, blocks| nodes_for(file.sb(), &file.read_inode(), runs, blocks);
    assert_eq!([nodes(&file, 0, 0), nodes(&file, 1, 3), nodes(&file, 2, 2)], [0; 3]);
    assert_eq!([nodes(&file, 1, 4), nodes(&file, 1, 80), nodes(&file, 1, 8400)], [1, 2, 209]);
    file.fill_each(&[0, 2, 4, 6, 8], || 1);
    assert_eq!((file.depth(), nodes(&file, 1, 1), nodes(&file, 1, 8400)), (1, 2, 211));
}

#[test]
fn a_punch_that_splits_a_node_needs_room() {
    let mut file = Mapped::new("8M", CHECKED);
    for n in 0..4 {
        assert_eq!(file.fill(n * 5, 3, true, 5000), 3);
    }
    let all = {
        let mut space = file.fs.metadata().space.lock();
        let all = space.available();
        space.reserve(all).unwrap();
        all
    };
    let full = file.edit(|change, inode| remove(change, inode, 6..7));
    assert_eq!(full.expect_err("all is reserved").kind, ErrorKind::Errno(Errno::NOSPC));
    file.check_all();
    let left = file.edit(|change, inode| {
        change.allowance = 1;
        remove(change, inode, 6..7)
    });
    assert_eq!((left.unwrap(), file.model.remove(&6).is_some(), file.depth()), (None, true, 1));
    file.fs.metadata().space.lock().reserved -= all;
    file.remove(0..3);
    assert_eq!(file.depth(), 0, "four runs have room in the root");
    file.close();
}
