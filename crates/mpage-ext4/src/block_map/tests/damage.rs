//! Maps that cannot be, and what no map can have.

use mpage_block::Errno;

use super::*;
use crate::error::ErrorKind;
use crate::layers::Stop;
use crate::space::no_space;

#[test]
fn what_a_map_cannot_have_is_refused() {
    let failed = |file: &Mapped, run: Extent| {
        let result = file.edit(|change, inode| insert(change, inode, &run));
        result.expect_err("it cannot be").kind
    };
    let file = Mapped::new("8M", CHECKED);
    let last = FILE_BLOCKS - 2;
    let too_big = ErrorKind::Errno(Errno::FBIG);
    assert_eq!(failed(&file, extent(last, 6000..6002, true)), too_big);
    let numbered = Mapped::new("8M", NUMBERED);
    let end = 12 + 256 + 256 * 256 + 256 * 256 * 256;
    assert_eq!(failed(&numbered, extent(end - 1, 6000..6002, true)), too_big);
    let unsupported = ErrorKind::Errno(Errno::OPNOTSUPP);
    assert_eq!(failed(&numbered, extent(0, 6000..6001, false)), unsupported);
    let unwritten = numbered.edit(|change, inode| unwrite(change, inode, 0..1));
    assert_eq!(unwritten.expect_err("it has no such blocks").kind, unsupported);
    for mut file in [file, numbered] {
        assert_eq!(file.fill(last.min(end - 2), 2, true, 6000), if last > end { 2 } else { 1 });
        file.close();
    }
}

#[test]
fn a_map_does_not_have_what_is_the_file_systems_own() {
    for options in [CHECKED, NUMBERED] {
        let mut file = Mapped::new("8M", options);
        assert_eq!(file.fill(0, 5, true, 5000), 5);
        let metadata = file.fs.metadata();
        let bitmap = metadata.read(|view| view.group(0)).unwrap().block_bitmap;
        let run = extent(7, bitmap..bitmap + 1, true);
        file.edit(|change, inode| insert(change, inode, &run)).unwrap();
        let error = metadata.read(|view| find(view, &view.inode(file.inode)?, 7));
        assert_eq!(error.expect_err("it is a bitmap").kind, ErrorKind::Corrupt);
    }
    let file = Mapped::new("24M", NUMBERED);
    let resize = |view: &View<'_>| {
        let inode = view.inode(InodeNumber(7))?;
        let mut last = None;
        for block in (0..inode.size_max(view.sb) / 1024).step_by(256).take(1024) {
            last =
                find(view, &inode, 12 + 256 + block)?.device_block(FileBlock(268 + block)).or(last);
        }
        Ok(last)
    };
    assert!(file.fs.metadata().read(resize).unwrap().is_some(), "descriptors to come are its own");
}

/// The blocks that nodes fill below `bytes`, which is a node of a tree, or of numbers `level`
/// levels above the file's blocks.
fn nodes_below(
    view: &View<'_>,
    bytes: &[u8],
    level: Option<u32>,
    nodes: &mut Vec<u64>,
) -> Attempt<()> {
    let number = |bytes: &[u8]| u64::from(u32::from_le_bytes(bytes.try_into().unwrap()));
    let below: Vec<u64> = match level {
        Some(0) => return Ok(()),
        Some(_) => bytes.chunks_exact(4).map(number).filter(|number| *number != 0).collect(),
        None if bytes[6] == 0 => return Ok(()),
        None => {
            let entries = bytes[12..].chunks_exact(12).take(bytes[2].into());
            entries.map(|entry| number(&entry[4..8])).collect()
        }
    };
    for block in below {
        nodes.push(block);
        nodes_below(view, &view.look(block)?, level.map(|level| level - 1), nodes)?;
    }
    Ok(())
}

fn nodes_of(file: &Mapped) -> Vec<u64> {
    let nodes = file.fs.metadata().read(|view| {
        let inode = view.inode(file.inode)?;
        let mut nodes = Vec::new();
        if inode.has_extents() {
            nodes_below(view, &inode.block, None, &mut nodes)?;
            return Ok(nodes);
        }
        for level in 1..=3 {
            let at = 11 + level as usize;
            let number = &inode.block[at * 4..at * 4 + 4];
            if number != [0; 4] {
                nodes.push(u32::from_le_bytes(number.try_into().unwrap()).into());
                nodes_below(view, &view.look(nodes[nodes.len() - 1])?, Some(level), &mut nodes)?;
            }
        }
        Ok(nodes)
    });
    nodes.unwrap()
}

/// Does something random to a map, part of which is not as it should be.
fn misuse(change: &mut Change<'_>, inode: &mut Inode, seed: u64, first: u64) -> Attempt<()> {
    let mut random = fastrand::Rng::with_seed(seed);
    let blocks = first..first + (1 << random.u32(0..14));
    match random.u8(0..4) {
        0 => find(change, inode, first).map(drop),
        1 => insert(change, inode, &extent(first, 9000..9001 + random.u64(0..9), random.bool())),
        operation => {
            let mut end = blocks.end;
            loop {
                let left = match operation {
                    2 => remove(change, inode, blocks.start..end)?,
                    _ => unwrite(change, inode, blocks.start..end)?,
                };
                match left {
                    Some(left) if left < end && change.written() < 500 => {
                        end = left;
                        continue;
                    }
                    Some(left) => assert!(left < end, "it does not get on"),
                    None => {}
                }
                return Ok(());
            }
        }
    }
}

/// Lets random operations meet random damage, of which nothing is kept.
fn meet_damage(file: &Mapped, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let nodes = nodes_of(file);
    let mut found = 0;
    for _ in 0..2000 {
        let target = random.choice(nodes.iter().copied()).filter(|_| random.u8(..) < 200);
        let range = if random.bool() { 60 } else { 1024 };
        let count = random.usize(1..4);
        let edits: Vec<(usize, u8)> =
            (0..count).map(|_| (random.usize(0..range), random.u8(..))).collect();
        let seed = random.u64(..);
        let first = random.choice(file.model.keys()).unwrap() + random.u64(0..3);
        let mut damaged = false;
        let result: Result<()> = file.fs.metadata().change(|change| {
            let mut inode = change.inode(file.inode)?;
            for (at, byte) in &edits {
                match target {
                    Some(block) => change.edit(block)?[*at] = *byte,
                    None => inode.block[at % 60] = *byte,
                }
            }
            match misuse(change, &mut inode, seed, first) {
                Err(Stop::Failed(error)) => damaged = error.kind == ErrorKind::Corrupt,
                Err(stop) => return Err(stop),
                Ok(()) => {}
            }
            Err(no_space().into())
        });
        assert_eq!(result.expect_err("it is given up").kind, ErrorKind::Errno(Errno::NOSPC));
        found += usize::from(damaged);
    }
    assert!(found > 100, "{found} times damage was found");
    file.check_all();
}

#[test]
fn damage_of_a_map_is_met_and_does_no_harm() {
    let mut file = Mapped::new("24M", UNCHECKED);
    let blocks: Vec<u64> = (0..700).rev().map(|n| n * 2 + 1).collect();

    file.fill_each(&blocks, || 1);
    file.unwrite(200..600);
    meet_damage(&file, 80);
    file.is_right();
    let mut file = Mapped::new("24M", NUMBERED);
    for block in (0..600).chain(66_000..66_300) {
        let _count = file.fill(block, 1, true, 1 + block * 7 % 20_000);
    }
    meet_damage(&file, 81);
    file.is_right();
}
