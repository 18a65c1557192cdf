//! Makes a program that fails smaller, as long as it still fails.

use crate::program::Program;

/// Smaller programs are tried under so many schedules each.
const SCHEDULES: u64 = 30;

/// The smallest program found that fails, with the seed of its schedule and how it fails. `fails`
/// runs a program under a schedule.
///
/// The same for the same program and seed.
pub fn shrink(
    program: &Program,
    seed: u64,
    first: String,
    mut fails: impl FnMut(&Program, u64) -> Option<String>,
) -> (Program, u64, String) {
    let mut best = (program.clone(), seed, first);
    loop {
        let smaller = candidates(&best.0).into_iter().find_map(|candidate| {
            let seeds = std::iter::once(best.1).chain((1..SCHEDULES).map(|n| seed.wrapping_add(n)));
            let failed = seeds
                .into_iter()
                .find_map(|seed| fails(&candidate, seed).map(|failure| (seed, failure)));
            failed.map(|(seed, failure)| (candidate, seed, failure))
        });
        match smaller {
            Some(smaller) => best = smaller,
            None => return best,
        }
    }
}

/// Programs one step smaller, the largest steps first.
fn candidates(program: &Program) -> Vec<Program> {
    let mut found = Vec::new();
    let mut without = |change: &dyn Fn(&mut Program)| {
        let mut smaller = program.clone();
        change(&mut smaller);
        found.push(smaller);
    };
    for thread in 0..program.threads.len() {
        if program.threads.len() > 1 {
            without(&|program| program.threads.retain(at_not(thread)));
        }
    }
    for thread in 0..program.threads.len() {
        let count = program.threads[thread].len();
        if count > 3 {
            without(&|program| program.threads[thread].truncate(count / 2));
            without(&|program| {
                program.threads[thread] = program.threads[thread].split_off(count / 2)
            });
        }
    }
    for fault in 0..program.setup.faults.len() {
        without(&|program| program.setup.faults.retain(at_not(fault)));
    }
    if program.setup.map_faults > 0 {
        without(&|program| program.setup.map_faults -= 1);
    }
    for thread in 0..program.threads.len() {
        for op in 0..program.threads[thread].len() {
            if program.threads[thread].len() > 1 {
                without(&|program| program.threads[thread].retain(at_not(op)));
            }
        }
    }
    found
}

/// For `retain`: false at place `place` alone.
fn at_not<T>(place: usize) -> impl FnMut(&T) -> bool {
    let mut places = 0..;
    move |_| places.next() != Some(place)
}
