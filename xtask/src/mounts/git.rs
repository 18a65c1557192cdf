//! A clone of the project's own repository, made, checked and compared by git and diff.

use std::path::Path;
use std::process::Command;

use super::Run;
use super::image::{self, EXT4_SMALL};
use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};
use crate::workspace::root;

/// Clones, packs anew, and finds all as it is in a clone elsewhere, after mounting anew too.
pub(super) fn git(run: &Run) -> Result<String, Failure> {
    let folder = Folder::new("mounts-git")?;
    let expected = folder.path("expected");
    clone(&expected)?;
    let image = EXT4_SMALL.image(&folder, "disk.img", 1 << 30)?;
    let mounted = run.mounter.mount(&folder, &image, "mount", &[])?;
    let cloned = mounted.path().join("clone");
    clone(&cloned)?;
    let _printed = output(git_in(&cloned).args(["repack", "-a", "-d", "-f", "--depth=4"]))?;
    same(&expected, &cloned)?;
    mounted.unmount()?;
    image::check(&image)?;
    let mounted = run.mounter.mount(&folder, &image, "mount", &[])?;
    same(&expected, &cloned)?;
    let listed = output(git_in(&cloned).args(["ls-files"]))?;
    let objects = output(git_in(&cloned).args(["rev-list", "--objects", "HEAD"]))?;
    mounted.unmount()?;
    Ok(format!(
        "{} files and {} objects, the same after git repack and mounting anew",
        listed.lines().count(),
        objects.lines().count()
    ))
}

/// git, whoever owns the repository it works in.
fn git_in(folder: &Path) -> Command {
    let mut command = program("git", ["-c", "safe.directory=*", "-C"]);
    let _command = command.arg(folder);
    command
}

fn clone(to: &Path) -> Result<(), Failure> {
    let words = ["clone", "--quiet", "--no-local", "--upload-pack"];
    let mut command = git_in(&root());
    let command = command.args(words).arg("git -c safe.directory=* upload-pack");
    output(command.arg(root()).arg(to)).map(drop)
}

fn same(expected: &Path, cloned: &Path) -> Result<(), Failure> {
    let _printed = output(git_in(cloned).args(["fsck", "--full", "--strict", "--no-progress"]))?;
    let changed = output(git_in(cloned).args(["status", "--porcelain"]))?;
    if !changed.is_empty() {
        return Err(Failure::new(format!("git finds changes:\n{changed}")));
    }
    let words = ["--recursive", "--no-dereference", "--exclude=.git"];
    let mut diff = program("diff", words);
    let _printed = output(diff.args([word(expected), word(cloned)]))?;
    let head = |folder: &Path| output(git_in(folder).args(["rev-parse", "HEAD"]));
    if head(expected)? != head(cloned)? {
        return Err(Failure::new("the clones have other heads"));
    }
    Ok(())
}
