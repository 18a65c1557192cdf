//! The engine of mpage under a simulator: what is meant to refute it.
//!
//! A random [`Program`] of threads that write, read, sync, cut and punch files runs on the whole
//! engine, on a simulated device, clock and scheduler. Every result is held to a model of what it
//! may be, and every state of the device that a power cut could have left, at every instant, to
//! what was promised by then.
//!
//! | part | what it is | for a device, block map or file system of one's own |
//! |---|---|---|
//! | [`simulate`] | a seeded scheduler around any test | run it in there |
//! | [`SimDevice`] | I/O later, in any order, with faults | the device below |
//! | [`explore`] | every state after a crash | with a [`Judge`] of one's own |
//! | [`run_program`], [`shrink`] | random programs on the engine itself | |
//!
//! Built with `--cfg mpage_shuttle`, as `cargo xtask sim` does it, the same seed gives the same
//! run. Built without, threads are the system's.

#![forbid(unsafe_code)]

mod books;
mod client;
mod crash;
mod device;
mod fault;
mod fs;
mod image;
mod instants;
mod model;
mod program;
mod run;
mod shrink;
mod simulate;

pub use crash::{Change, Event, Judge, explore};
pub use device::{OnFailedFlush, OnFailedWrite, SimDevice, SimOptions};
pub use fault::{Effect, Fault, Target};
pub use instants::Instants;
pub use program::{Op, Program};
pub use run::Ran;
pub use shrink::shrink;
pub use simulate::simulate;

/// Runs `program`, its threads taking turns by `seed`.
///
/// # Errors
///
/// What is not as it has to be.
pub fn run_program(program: &Program, seed: u64) -> Result<Ran, String> {
    let program = program.clone();
    let start = run::content(&program.setup);
    simulate(seed, move || run::run(&program, seed, start.clone()))
}
