//! All ways to end a mount: each leaves everything on the image, and says so.

use std::path::Path;

use super::Run;
use super::image::{self, EXT4};
use super::mounted::Mounter;
use super::served::{self, Served, is_mounted, mpage};
use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};
use crate::rig::image::fill;

/// How a mount is ended.
enum End {
    Signal(&'static str),
    /// By a program with the mount's folder for its last argument.
    Program(&'static [&'static str]),
    /// By `mpage umount`.
    Own,
}

const ENDS: &[(&str, End)] = &[
    ("SIGINT", End::Signal("INT")),
    ("SIGTERM", End::Signal("TERM")),
    ("umount", End::Program(&["umount"])),
    ("fusermount3 -u", End::Program(&["fusermount3", "-u"])),
    ("mpage umount", End::Own),
];

const BYTES: u64 = 8 << 20;

/// Writes without a sync, ends the mount, and finds all of it on a clean image.
pub(super) fn ends(run: &Run) -> Result<String, Failure> {
    if run.mounter == Mounter::Kernel {
        return Ok("the kernel's mounts end in one way".to_owned());
    }
    for (name, end) in ENDS {
        one(end).map_err(|failure| Failure::new(format!("{name}: {failure}")))?;
    }
    background()?;
    read_only()?;
    let names: Vec<&str> = ENDS.iter().map(|(name, _)| *name).collect();
    Ok(format!("{}; in the background, created, read-only too", names.join(", ")))
}

fn one(end: &End) -> Result<(), Failure> {
    let folder = Folder::new("mounts-ends")?;
    let image = EXT4.image(&folder, "disk.img", 64 << 20)?;
    let data = data(&folder)?;
    let served = Served::start(&folder, &image, folder.path("mount"), &[])?;
    let place = served.path().to_owned();
    let _printed = output(&mut program("cp", [word(&data), word(&place.join("data"))]))?;
    let printed = served.printed()?;
    if printed.lines().count() != 1 {
        return Err(Failure::new(format!("it printed more than that it is ready:\n{printed}")));
    }
    match end {
        End::Signal(name) => {
            served.signal(name)?;
            served.ended()?;
        }
        End::Program(words) => {
            let _printed = output(program(words[0], &words[1..]).arg(&place))?;
            served.ended()?;
        }
        End::Own => served.unmount()?,
    }
    holds(&folder, &image, &data)
}

/// `mpage mount --background --create` returns when the mount is there.
fn background() -> Result<(), Failure> {
    let folder = Folder::new("mounts-background")?;
    let (image, place) = (folder.path("disk.img"), folder.path("mount"));
    std::fs::create_dir(&place).map_err(|error| Failure::at(&word(&place), &error))?;
    let data = data(&folder)?;
    let words = ["mount", "--background", "--create", "64M", &word(&image), &word(&place)];
    let log = folder.path("background.log");
    let file = std::fs::File::create(&log).map_err(|error| Failure::at(&word(&log), &error))?;
    let mut command = mpage(&words);
    let status = command.stdout(file).status().map_err(|error| Failure::at("mpage", &error))?;
    let copied = output(&mut program("cp", [word(&data), word(&place.join("data"))]));
    let mounted = is_mounted(&place)?;
    let ended = output(&mut served::unmount(&place));
    if is_mounted(&place)? {
        let _printed = output(&mut program("umount", ["--lazy", &word(&place)]))?;
    }
    let all = copied.and(ended);
    if !status.success() || !mounted || all.is_err() {
        return Err(Failure::new(format!("--background: {status}, {mounted}, {all:?}")));
    }
    holds(&folder, &image, &data)
}

/// `mpage mount --read-only` refuses writes, and leaves the image as it is to the byte.
fn read_only() -> Result<(), Failure> {
    let folder = Folder::new("mounts-read-only")?;
    let image = EXT4.image(&folder, "disk.img", 64 << 20)?;
    let kernel = Mounter::Kernel.mount(&folder, &image, "kernel", &[])?;
    let data = data(&folder)?;
    let _printed = output(&mut program("cp", [word(&data), word(&kernel.path().join("data"))]))?;
    kernel.unmount()?;
    let copy = folder.path("copy.img");
    let _printed = output(&mut program("cp", ["--sparse=always", &word(&image), &word(&copy)]))?;
    let served = Served::start(&folder, &image, folder.path("mount"), &["--read-only"])?;
    let _printed = output(&mut program("cmp", [word(&served.path().join("data")), word(&data)]))?;
    let made = std::fs::File::create(served.path().join("new"));
    if made.as_ref().err().map(std::io::Error::kind) != Some(std::io::ErrorKind::ReadOnlyFilesystem)
    {
        return Err(Failure::new(format!("--read-only: a file was made: {made:?}")));
    }
    served.unmount()?;
    output(&mut program("cmp", [word(&image), word(&copy)])).map(drop)
}

fn data(folder: &Folder) -> Result<std::path::PathBuf, Failure> {
    let path = folder.file("data", BYTES)?;
    fill(&path, BYTES, 9)?;
    Ok(path)
}

/// Finds the file on the clean image with the kernel.
fn holds(folder: &Folder, image: &Path, data: &Path) -> Result<(), Failure> {
    image::check(image)?;
    let kernel = Mounter::Kernel.mount(folder, image, "kernel", &[])?;
    let _printed = output(&mut program("cmp", [word(&kernel.path().join("data")), word(data)]))?;
    kernel.unmount()
}
