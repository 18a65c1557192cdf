//! Files of a mounted image behave as the kernel's do: random programs of calls on two mounts of
//! one image, the kernel's and that of `mpage mount`, with every result compared, and all that can
//! be seen of the files.
//!
//! Each program comes from a seed. An ordinary run plays some whose seeds are always the same, and
//! some fresh ones. `MPAGE_MOUNTED_PROGRAMS=N` plays N fresh ones instead,
//! `MPAGE_MOUNTED_SEED=S` the one that a failure names. `MPAGE_MOUNTED_BY=kernel` or `=fuse2fs`
//! puts another server in mpage's place. What is expected to differ stands in `differences`.
//!
//! Seen to fail: with fuse2fs, within the first programs. Seen to pass: with the kernel twice.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod acl;
mod call;
mod chance;
mod content;
mod differences;
mod game;
mod mount;
mod outcome;
mod player;
mod seen;
mod shrink;
mod user;

use std::collections::BTreeMap;

use mpage_locks::Mutex;

use crate::chance::program;
use crate::differences::DIFFERENCES;
use crate::game::{Pair, Trouble, play};
use crate::mount::{Layout, Mount, Server, image};
use crate::shrink::shrink;

/// Programs of an ordinary run whose seeds are always the same.
const FIXED: u64 = 35;

/// Programs of an ordinary run whose seeds are new.
const FRESH: usize = 15;

/// Kinds of differences that a run looks for before it stops.
const KINDS: usize = 12;

/// Held by a test while it runs: programs set the process's umask.
static UMASK: Mutex<()> = Mutex::new(());

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// The seeds to play.
fn seeds() -> Vec<u64> {
    if let Some(seed) = number("MPAGE_MOUNTED_SEED") {
        return vec![seed];
    }
    let fresh = |count: usize| (0..count).map(|_| fastrand::u64(..)).collect::<Vec<_>>();
    if let Some(count) = number("MPAGE_MOUNTED_PROGRAMS") {
        return fresh(usize::try_from(count).unwrap());
    }
    let fresh = fresh(FRESH);
    println!("fresh seeds: {fresh:?}");
    (0..FIXED).chain(fresh).collect()
}

fn server() -> Server {
    match std::env::var("MPAGE_MOUNTED_BY").as_deref() {
        Ok("kernel") => Server::Kernel,
        Ok("fuse2fs") => Server::Fuse2fs,
        Ok("mpage") | Err(_) => Server::Mpage,
        Ok(other) => panic!("MPAGE_MOUNTED_BY={other}: kernel, fuse2fs or mpage"),
    }
}

/// Two mounts of copies of a new image: the kernel's, and `server`'s.
fn mounts(layout: &Layout, server: Server) -> [Mount; 2] {
    let folder = tempfile::tempdir().unwrap();
    let image = image(layout, folder.path());
    [Server::Kernel, server].map(|server| Mount::new(server, &image))
}

fn compare(layout: Layout) {
    let _alone = UMASK.lock();
    let _mask = rustix::process::umask(rustix::fs::Mode::empty());
    let server = server();
    let [kernel, other] = mounts(&layout, server);
    let pair = Pair {
        kernel: kernel.path(),
        other: other.path(),
        equal: server == Server::Kernel,
        has_extents: layout.has_extents,
        fine_times: layout.fine_times,
    };
    let (mut met, mut failed) = ([0; DIFFERENCES.len()], BTreeMap::new());
    let seeds = seeds();
    for (index, seed) in seeds.iter().enumerate() {
        match play(&pair, &format!("program-{index}"), *seed, &program(*seed)) {
            Ok(more) => met.iter_mut().zip(more).for_each(|(sum, more)| *sum += more),
            Err(trouble) => {
                let found = failed.entry(trouble.kind.clone()).or_insert_with(Vec::new);
                found.push((*seed, trouble));
            }
        }
        if failed.len() >= KINDS {
            break;
        }
    }
    println!("{}: {} programs", layout.name, seeds.len());
    for (difference, met) in DIFFERENCES.iter().zip(met) {
        println!("{met:6} times: {}: {}", difference.name, difference.reason);
    }
    for found in failed.values() {
        let (seed, trouble) = &found[0];
        tell(&pair, *seed, trouble, found.len());
    }
    assert!(failed.is_empty(), "{} kinds of differences on {}", failed.len(), layout.name);
    other.end();
    kernel.end();
}

/// Tells the smallest program found that fails in this way.
fn tell(pair: &Pair<'_>, seed: u64, trouble: &Trouble, count: usize) {
    let mut round = 0;
    let (steps, trouble) = shrink(program(seed), trouble.clone(), |steps| {
        round += 1;
        play(pair, &format!("shrunk-{seed}-{round}"), seed, steps).err()
    });
    eprintln!("== {}: in {count} programs; MPAGE_MOUNTED_SEED={seed}", trouble.kind);
    eprintln!("{}", trouble.words);
    for step in &steps {
        eprintln!("    user {}: {:?}", step.user, step.call);
    }
}

const EXT4: Layout = Layout {
    name: "ext4",
    make: &["-t", "ext4", "-b", "4096"],
    has_extents: true,
    fine_times: true,
};

/// Small blocks and small inodes.
const SMALL: Layout = Layout {
    name: "ext4, blocks of 1 KiB",
    make: &["-t", "ext4", "-b", "1024", "-I", "128"],
    has_extents: true,
    fine_times: false,
};

const EXT2: Layout = Layout {
    name: "ext2",
    make: &["-t", "ext2", "-b", "4096"],
    has_extents: false,
    fine_times: true,
};

#[test]
fn every_result_is_the_kernels_on_ext4() {
    compare(EXT4);
}

#[test]
fn a_mount_that_gives_new_files_other_groups_is_found() {
    let _alone = UMASK.lock();
    let _mask = rustix::process::umask(rustix::fs::Mode::empty());
    let [kernel, other] = mounts(&EXT4, Server::OtherGroups);
    let pair = Pair {
        kernel: kernel.path(),
        other: other.path(),
        equal: true,
        has_extents: true,
        fine_times: true,
    };
    let found =
        (0..20).find_map(|seed| play(&pair, &format!("{seed}"), seed, &program(seed)).err());
    let kind = found.expect("one of the programs finds it").kind;
    assert!(kind.starts_with("gid after"), "{kind}");
}

#[test]
fn every_result_is_the_kernels_on_small_blocks_and_inodes() {
    compare(SMALL);
}

#[test]
fn every_result_is_the_kernels_on_ext2() {
    compare(EXT2);
}
