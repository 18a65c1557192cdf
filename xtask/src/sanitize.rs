//! Tests under the compiler's sanitizers, of the crates that hold unsafe code.
//!
//! Sanitizers are an unstable feature that the stable compiler has: `RUSTC_BOOTSTRAP` opens it.

use crate::command::{PATIENCE, cargo, run_tests, within};
use crate::failure::Failure;
use crate::workspace::{root, target};

const PLATFORM: &str = "x86_64-unknown-linux-gnu";
const ADDRESS: &str = "-Zsanitizer=address";
const THREAD: &str = "-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer";

/// Races that the thread sanitizer reports and that are none, each with the reason.
const SUPPRESSIONS: &str = "xtask/thread-sanitizer.suppressions";

/// Which crates to look at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Those that hold unsafe code, each under both sanitizers.
    Unsafe,
    /// Those, and the library that runs on them under the thread sanitizer.
    All,
}

/// Runs the tests of the crates in `scope`.
pub(crate) fn run(scope: Scope) -> Result<(), Failure> {
    for package in ["mpage-mem", "mpage-block"] {
        test("address", ADDRESS, package)?;
        test("thread", THREAD, package)?;
    }
    if scope == Scope::All {
        test("thread", THREAD, "mpage")?;
    }
    Ok(())
}

fn test(sanitizer: &str, flags: &str, package: &str) -> Result<(), Failure> {
    let mut command = cargo(["test", "--package", package, "--lib", "--tests"]);
    let _command = command
        .args(["--target", PLATFORM, "--target-dir"])
        .arg(target().join(sanitizer))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", flags)
        .env("RUST_TEST_THREADS", "1")
        .env("TSAN_OPTIONS", format!("suppressions={}", root().join(SUPPRESSIONS).display()));
    let passed = run_tests(&mut within(PATIENCE, &command))?;
    println!("sanitize: {passed} tests of {package} passed under the {sanitizer} sanitizer");
    Ok(())
}
