//! What e2fsck says of an image that was never damaged.

use std::fs;
use std::process::Command;

use crate::image::Image;

/// Words with which e2fsck tells what is wrong, though it ends well.
pub(crate) const WRONG: [&str; 5] = ["Fix?", "wrong", "differences", "Clear?", "IGNORED"];

/// Lets e2fsck look at `image`.
///
/// # Panics
///
/// When it finds anything, or is not there.
pub(crate) fn check(image: &Image) {
    let file = tempfile::NamedTempFile::new().expect("a scratch file");
    fs::write(file.path(), image.bytes()).expect("there is room");
    let output = Command::new("e2fsck").arg("-fn").arg(file.path()).output();
    let output = output.expect("e2fsck of e2fsprogs");
    let text = String::from_utf8_lossy(&output.stdout);
    let is_well = output.status.success() && !WRONG.iter().any(|word| text.contains(word));
    assert!(is_well, "{text}");
}
