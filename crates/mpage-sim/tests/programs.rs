//! Programs on the engine: under the seeded scheduler when built for it, else with the system's
//! threads.

use mpage_sim::{Program, run_program, shrink};

#[test]
fn random_programs_find_nothing() {
    for seed in 1..=40 {
        let ran = run_program(&Program::random(seed), seed);
        assert!(ran.is_ok(), "seed {seed}: {}", ran.expect_err("it failed"));
    }
}

#[test]
fn a_seed_is_one_program() {
    assert_eq!(Program::random(5).to_string(), Program::random(5).to_string());
    assert_ne!(Program::random(5).to_string(), Program::random(6).to_string());
}

/// What the digest of a run stands for depends on every result and every turn.
#[cfg(mpage_shuttle)]
#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1..=40 {
        let program = Program::random(seed);
        assert_eq!(run_program(&program, seed), run_program(&program, seed));
    }
}

#[test]
fn a_program_shrinks_to_what_fails() {
    let program = Program::random(3);
    let fails = |program: &Program, _| (program.ops() >= 2).then(|| "two calls".to_owned());
    let (smallest, _, failure) = shrink(&program, 3, "two calls".into(), fails);
    assert_eq!((smallest.ops(), failure.as_str()), (2, "two calls"));
    assert!(program.ops() > 2);
}
