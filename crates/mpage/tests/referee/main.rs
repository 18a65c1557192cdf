//! The referee: random programs on a file through the cache and on a plain file of the kernel, with
//! every result compared.
//!
//! Each program comes from a seed. An ordinary run plays some whose seeds are always the same, and
//! some fresh ones. `MPAGE_REFEREE_PROGRAMS=N` plays N fresh ones instead, `MPAGE_REFEREE_SEED=S`
//! the one that a failure names. What is expected to differ stands in `differences`.
//!
//! Seen to fail: when a truncate does not zero the rest of the new last page; when a read goes on
//! to the end of the last sector; when a punch frees a block too many.

#![cfg(not(any(mpage_loom, mpage_shuttle)))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod cached;
mod chance;
mod differences;
mod game;
mod kernel;
mod mount;
mod operation;
mod outcome;

use crate::differences::DIFFERENCES;
use crate::game::play;
use crate::mount::{Layout, Mount};

/// Programs of an ordinary run whose seeds are always the same.
const FIXED: u64 = 10;

/// Programs of an ordinary run whose seeds are new.
const FRESH: usize = 5;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")))
}

/// The seeds to play.
fn seeds() -> Vec<u64> {
    if let Some(seed) = number("MPAGE_REFEREE_SEED") {
        return vec![seed];
    }
    let fresh = |count: usize| (0..count).map(|_| fastrand::u64(..)).collect::<Vec<_>>();
    if let Some(count) = number("MPAGE_REFEREE_PROGRAMS") {
        return fresh(usize::try_from(count).unwrap());
    }
    let fresh = fresh(FRESH);
    println!("fresh seeds: {fresh:?}");
    (0..FIXED).chain(fresh).collect()
}

fn referee(layout: Layout) {
    let mount = Mount::new(layout);
    let mut met = [0; DIFFERENCES.len()];
    let seeds = seeds();
    for seed in &seeds {
        for (sum, met) in met.iter_mut().zip(play(&mount, *seed)) {
            *sum += met;
        }
    }
    println!("{layout:?}: {} programs", seeds.len());
    for (difference, met) in DIFFERENCES.iter().zip(met) {
        println!("{met:6} times: {}: {}", difference.name, difference.reason);
    }
}

#[test]
fn every_result_is_the_kernels_on_small_blocks() {
    referee(Layout { block: 1024, sector: 512 });
}

#[test]
fn every_result_is_the_kernels_on_blocks_of_a_page() {
    referee(Layout { block: 4096, sector: 512 });
}

#[test]
fn every_result_is_the_kernels_on_sectors_of_a_page() {
    referee(Layout { block: 4096, sector: 4096 });
}
