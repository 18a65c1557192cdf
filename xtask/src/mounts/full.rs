//! No room in the image: writes are told, and syncs are not.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use super::Run;
use super::image::{self, EXT4, EXT4_SMALL, Format};
use super::mounted::Mounter;
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};
use crate::rig::image::Random;

/// The most that is written to an image.
const BYTES_MAX: usize = 96 << 20;

/// How much one write has, which is no block's size.
const PART: usize = 50_000;

/// Fills an image: ENOSPC comes from writes, syncs succeed, and all that was taken is there.
pub(super) fn full_image(run: &Run) -> Result<String, Failure> {
    let mut saw = Vec::new();
    for format in [EXT4, EXT4_SMALL] {
        let taken = filled(run, format)
            .map_err(|failure| Failure::new(format!("{}: {failure}", format.told())))?;
        saw.push(format!("{} took {} KiB", format.told(), taken >> 10));
    }
    Ok(format!("writes are told of ENOSPC and syncs are not; clean: {}", saw.join(", ")))
}

/// Returns how many bytes the image took.
fn filled(run: &Run, format: Format) -> Result<usize, Failure> {
    let folder = Folder::new("mounts-full")?;
    let image = format.image(&folder, "disk.img", 48 << 20)?;
    let mounted = run.mounter.mount(&folder, &image, "mount", &[])?;
    let mut lengths = Vec::new();
    for name in ["first", "second"] {
        let at = |error| Failure::at(name, &error);
        let mut file = File::create(mounted.path().join(name)).map_err(at)?;
        let (length, error) = fill(&mut file, BYTES_MAX);
        if error.as_ref().map(io::Error::kind) != Some(ErrorKind::StorageFull) {
            return Err(Failure::new(format!("{name}: {length} bytes, then {error:?}")));
        }
        file.sync_all().map_err(|error| Failure::at("fsync of a full image", &error))?;
        lengths.push((name, length));
    }
    mounted.unmount()?;
    image::check(&image)?;
    let kernel = Mounter::Kernel.mount(&folder, &image, "kernel", &[])?;
    for (name, length) in &lengths {
        holds(&kernel.path().join(name), *length)?;
    }
    kernel.unmount()?;
    let mounted = run.mounter.mount(&folder, &image, "mount", &[])?;
    let at = |error| Failure::at("a file after another was removed", &error);
    std::fs::remove_file(mounted.path().join("first")).map_err(at)?;
    let mut file = File::create(mounted.path().join("third")).map_err(at)?;
    file.write_all(&data(1 << 20)).and_then(|()| file.sync_all()).map_err(at)?;
    drop(file);
    mounted.unmount()?;
    image::check(&image)?;
    Ok(lengths.iter().map(|(_, length)| length).sum())
}

/// The first `length` of the bytes that every file has.
pub(super) fn data(length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    Random(5).fill(&mut data);
    data
}

/// Writes until it fails, or there is no more; returns how many bytes were taken, and the error.
pub(super) fn fill(file: &mut File, most: usize) -> (usize, Option<io::Error>) {
    let data = data(most);
    let mut taken = 0;
    while taken < data.len() {
        let end = data.len().min(taken + PART);
        match file.write(&data[taken..end]) {
            Ok(0) => break,
            Ok(length) => taken += length,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (taken, Some(error)),
        }
    }
    (taken, None)
}

/// Finds the file at `path` with so many of the bytes.
pub(super) fn holds(path: &Path, length: usize) -> Result<(), Failure> {
    let found = std::fs::read(path).map_err(|error| Failure::at(&word(path), &error))?;
    if found != data(length) {
        let found = found.len();
        return Err(Failure::new(format!(
            "{}: {found} bytes, not {length} right ones",
            word(path)
        )));
    }
    Ok(())
}
