//! What all targets are made of.

use std::alloc::System;
use std::path::Path;
use std::sync::OnceLock;

use cap::Cap;
use mpage_fuzz::{Base, Case, Target, limit};

/// Where the folder of the bases is told.
const BASES: &str = "MPAGE_FUZZ_BASES";

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// Runs the case of `target` that `bytes` are.
pub(crate) fn run(target: Target, bytes: &[u8]) {
    static ALL: OnceLock<Vec<Base>> = OnceLock::new();
    let bases = ALL.get_or_init(|| {
        let folder = std::env::var_os(BASES).expect("cargo xtask fuzz says where the bases are");
        let bases = target.read_bases(Path::new(&folder)).unwrap_or_else(|error| panic!("{error}"));
        limit(&MEMORY);
        bases
    });
    Case::of_input(target, bases, bytes).run();
}

/// Makes the program the fuzzer of one target.
macro_rules! target {
    ($target:expr) => {
        libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $crate::fuzzed::run($target, bytes));
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max: usize, seed: u32| {
            mpage_fuzz::mutate($target, data, (size, max), seed, libfuzzer_sys::fuzzer_mutate)
        });
    };
}
pub(crate) use target;
