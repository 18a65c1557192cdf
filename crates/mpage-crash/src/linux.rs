//! What Linux makes of an image: it replays the journal when it mounts it.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::facts::{Fact, State};
use crate::judge::differs;

/// A mount, until it is dropped.
struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{}", self.0.display());
    }
}

/// Judges `image` by what Linux finds in it.
///
/// # Errors
///
/// What is not as it was promised.
///
/// # Panics
///
/// When it cannot be mounted: that needs root, and a free loop device.
pub fn judge(image: &[u8], facts: &[&Fact]) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("a folder");
    let [file, point] = ["image", "mount"].map(|name| folder.path().join(name));
    fs::write(&file, image).expect("an image");
    fs::create_dir(&point).expect("a folder");
    let output = Command::new("mount").args(["-o", "loop"]).args([&file, &point]).output();
    let output = output.expect("mount of Debian's package mount");
    if !output.status.success() {
        return Err(format!("it cannot be mounted: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let mounted = Mounted(&point);
    let judged = facts.iter().try_for_each(|fact| {
        check(&point, fact).map_err(|wrong| format!("{}: {wrong}", fact.path.replace('\0', " ")))
    });
    drop(mounted);
    judged
}

fn check(point: &Path, fact: &Fact) -> Result<(), String> {
    let path = point.join(fact.path.split('\0').next().unwrap_or_default());
    let read = || fs::read(&path).map_err(|error| error.to_string());
    match &fact.state {
        State::File(content) => differs(&read()?, &[content]),
        State::OneOf(contents) => differs(&read()?, &contents.iter().collect::<Vec<_>>()),
        State::Directory if path.is_dir() => Ok(()),
        State::Directory => Err("it is no directory".into()),
        State::Absent if path.symlink_metadata().is_err() => Ok(()),
        State::Absent => Err("it is there".into()),
        State::Attribute(name, value) => {
            let mut found = vec![0; 4096];
            let count = rustix::fs::lgetxattr(&path, *name, &mut found[..]);
            let count = count.map_err(|error| error.to_string())?;
            if found[..count] == value[..] { Ok(()) } else { Err("it has another value".into()) }
        }
    }
}
