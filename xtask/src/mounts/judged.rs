//! Trees written through the mount and read by the kernel, and the other way round.

use std::path::Path;

use super::Run;
use super::image::{self, EXT4, EXT4_SMALL, Format};
use super::manifest::{Depth, Manifest};
use super::mounted::Mounter;
use super::tree;
use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};

const SIZE: u64 = 512 << 20;

/// Writes trees by system calls, cp, tar and rsync; e2fsck and the kernel judge what was written.
pub(super) fn judged(run: &Run) -> Result<String, Failure> {
    let old =
        [("ext2", 1024), ("ext3", 4096)].map(|(name, block_bytes)| Format { name, block_bytes });
    let formats = [EXT4, old[0], EXT4_SMALL, old[1]];
    let formats = if run.short { &formats[..2] } else { &formats[..] };
    let mut saw = Vec::new();
    for format in formats {
        let entries = one(run, *format)
            .map_err(|failure| Failure::new(format!("{}: {failure}", format.told())))?;
        saw.push(format!("{} {entries}", format.told()));
    }
    Ok(format!("entries the same in both, and clean: {}", saw.join(", ")))
}

/// Returns how many entries there were.
fn one(run: &Run, format: Format) -> Result<usize, Failure> {
    let folder = Folder::new("mounts-judged")?;
    let wide = if run.short { 600 } else { 20_000 };
    let theirs = format.image(&folder, "theirs.img", SIZE)?;
    let by_kernel = Mounter::Kernel.mount(&folder, &theirs, "kernel", &[])?;
    tree::grow(&by_kernel.path().join("tree"), wide)?;
    let _printed = output(&mut program("sync", ["--file-system", &word(by_kernel.path())]))?;
    let expected = Manifest::of(by_kernel.path())?;
    by_kernel.unmount()?;
    let from = run.mounter.mount(&folder, &theirs, "theirs", &[])?;
    expected.expect(&Manifest::of(from.path())?, Depth::Same, "the kernel's tree and our view")?;

    let ours = format.image(&folder, "ours.img", SIZE)?;
    let mounted = run.mounter.mount(&folder, &ours, "ours", &[])?;
    tree::grow(&mounted.path().join("grown"), wide)?;
    copies(&folder, &from.path().join("tree"), mounted.path())?;
    from.unmount()?;
    let written = Manifest::of(mounted.path())?;
    mounted.unmount()?;
    for image in [&theirs, &ours] {
        image::check(image)?;
    }
    let mounted = run.mounter.mount(&folder, &ours, "ours", &["--read-only"])?;
    let again = Manifest::of(mounted.path())?;
    written.expect(&again, Depth::Own, "our tree before and after mounting anew")?;
    mounted.unmount()?;
    let by_kernel = Mounter::Kernel.mount(&folder, &ours, "kernel", &[])?;
    again.expect(
        &Manifest::of(by_kernel.path())?,
        Depth::Same,
        "our tree and the kernel's view",
    )?;
    by_kernel.unmount()?;
    Ok(expected.len() + written.len())
}

/// Copies the tree `from` into folders of `to`, moves one and removes one.
fn copies(folder: &Folder, from: &Path, to: &Path) -> Result<(), Failure> {
    let tree = Manifest::of(from)?;
    let made = |name: &str| {
        let path = to.join(name);
        std::fs::create_dir(&path).map_err(|error| Failure::at(&word(&path), &error))?;
        Ok(path)
    };
    let cp = made("cp")?.join("tree");
    let _printed = output(&mut program("cp", ["--archive", &word(from), &word(&cp)]))?;
    tree.expect(&Manifest::of(&cp)?, Depth::Copy, "the tree and the copy by cp")?;

    let tar = made("tar")?;
    let archive = word(&folder.path("tree.tar"));
    let words = ["--format=posix", "--xattrs", "--xattrs-include=*", "--acls", "--sparse"];
    let create = ["--create", "--file", &archive, "--directory", &word(from), "."];
    let _printed = output(program("tar", words).args(create))?;
    let extract = ["--extract", "--same-owner", "--preserve-permissions", "--numeric-owner"];
    let extract = program("tar", words)
        .args(extract)
        .args(["--file", &archive, "--directory"])
        .arg(&tar)
        .output();
    let extract = extract.map_err(|error| Failure::at("tar", &error))?;
    if !extract.status.success() {
        return Err(Failure::new(String::from_utf8_lossy(&extract.stderr).into_owned()));
    }
    let tarred = Manifest::of(&tar)?;
    tree.clone().without('s').expect(&tarred, Depth::Copy, "the tree and the copy by tar")?;

    let rsync = made("rsync")?;
    let words = ["--archive", "--hard-links", "--acls", "--xattrs", "--sparse", "--numeric-ids"];
    let places = [format!("{}/", word(from)), word(&rsync)];
    let _printed = output(program("rsync", words).args(places))?;
    tree.expect(&Manifest::of(&rsync)?, Depth::Copy, "the tree and the copy by rsync")?;

    let moved = word(&to.join("moved"));
    let _printed = output(&mut program("mv", [word(&tar), moved]))?;
    output(&mut program("rm", ["-r", &word(&rsync)])).map(drop)
}
