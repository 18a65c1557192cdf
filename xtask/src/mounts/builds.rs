//! A small crate made, built and tested by cargo.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::Run;
use super::image::{self, EXT4};
use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};

/// The crate's code, with the tests that are to pass.
const CODE: &str = "\
/// Adds.
pub fn sum(numbers: &[u64]) -> u64 {
    numbers.iter().sum()
}

#[test]
fn nothing_is_zero() {
    assert_eq!(sum(&[]), 0);
}

#[test]
fn a_program_of_the_mount_writes_beside_itself() {
    let path = std::env::current_exe().unwrap().with_extension(\"written\");
    std::fs::write(&path, \"words\").unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), \"words\");
}
";

/// Builds it within the mount, runs its tests, and runs them again when it is mounted anew.
pub(super) fn build(run: &Run) -> Result<String, Failure> {
    let folder = Folder::new("mounts-build")?;
    let image = EXT4.image(&folder, "disk.img", 512 << 20)?;
    let mounted = run.mounter.mount(&folder, &image, "mount", &[])?;
    let sample = mounted.path().join("sample");
    let _printed =
        output(cargo(mounted.path()).args(["new", "--quiet", "--lib", "--vcs=none"]).arg(&sample))?;
    let code = sample.join("src/lib.rs");
    fs::write(&code, CODE).map_err(|error| Failure::at(&word(&code), &error))?;
    tested(&sample)?;
    mounted.unmount()?;
    image::check(&image)?;
    let mounted = run.mounter.mount(&folder, &image, "mount", &[])?;
    tested(&sample)?;
    mounted.unmount()?;
    image::check(&image)?;
    Ok("made, built and tested by cargo, and tested after mounting anew".to_owned())
}

fn tested(sample: &Path) -> Result<(), Failure> {
    let printed = output(cargo(sample).args(["test", "--offline", "--lib"]))?;
    let passed = printed.lines().any(|line| line.starts_with("test result: ok. 2 passed"));
    passed.then_some(()).ok_or_else(|| Failure::new(printed))
}

/// cargo in `folder`, with its own target folder there.
fn cargo(folder: &Path) -> Command {
    let mut command = program("cargo", [""; 0]);
    for name in ["CARGO_TARGET_DIR", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        let _command = command.env_remove(name);
    }
    let _command = command.current_dir(folder);
    command
}
