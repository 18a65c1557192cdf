//! What e2fsck says, and makes of a journal.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// What it says of an image that was replayed, and of no other: the superblock counts what is free
/// when the image is closed.
const COUNTS: [&str; 2] = ["Free blocks count wrong (", "Free inodes count wrong ("];

fn run(arguments: &[&str], image: &Path) -> Output {
    let output = Command::new("e2fsck").args(arguments).arg(image).output();
    output.unwrap_or_else(|error| panic!("e2fsck of Debian's package e2fsprogs: {error}"))
}

fn words(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}

/// Replays the journal of `image`, and does nothing else.
///
/// # Errors
///
/// What it says, when it cannot.
pub fn replay(image: &[u8]) -> Result<Vec<u8>, String> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), image).expect("an image");
    let output = run(&["-y", "-E", "journal_only"], file.path());
    match output.status.code() {
        Some(0 | 1) => Ok(fs::read(file.path()).expect("an image")),
        _ => Err(format!("e2fsck cannot replay it: {}", words(&output))),
    }
}

/// Judges `image`, which was closed, or replayed.
///
/// # Errors
///
/// What it finds.
pub fn check(image: &[u8], is_closed: bool) -> Result<(), String> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), image).expect("an image");
    let output = run(&["-fn"], file.path());
    let text = words(&output);
    let expected = if is_closed { &[] } else { &COUNTS[..] };
    let is_expected = |line: &&str| expected.iter().any(|begin| line.starts_with(begin));
    let answers = text.lines().filter(|line| *line == "Fix? no").count();
    let counted = text.lines().filter(is_expected).count();
    // A tree of extents may be larger than it has to be.
    let is_harmless = |line: &&str| *line == "Fix? no" || line.ends_with("Optimize? no");
    let others = text.lines().filter(|line| !is_expected(line) && !is_harmless(line));
    let wrong = ["?", "wrong", "differences", "IGNORED"];
    let is_wrong = |line: &str| wrong.iter().any(|word| line.contains(word));
    let found = others.filter(|line| is_wrong(line)).count();
    match output.status.code() {
        Some(0) if found == 0 && answers <= counted => Ok(()),
        _ => Err(format!("e2fsck finds: {text}")),
    }
}
