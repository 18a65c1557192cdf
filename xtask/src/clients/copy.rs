//! Whole images through the export, by nbdcopy and by qemu-img.

use std::fs::OpenOptions;
use std::path::Path;

use super::Run;
use super::server::Server;
use crate::command::{self, output, program};
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};
use crate::rig::image::scatter;

/// Copies a sparse image in over other data, and out again, with nbdcopy.
pub(super) fn nbdcopy(run: &Run) -> Result<String, Failure> {
    let folder = Folder::new("nbdcopy")?;
    let (source, image, size) = images(run, &folder)?;
    let server = Server::start(run.program, &folder, &image, &[])?;
    let out = folder.file("out.img", 0)?;
    let _printed = output(&mut program("nbdcopy", ["--flush", &word(&source), &server.uri()]))?;
    let _printed = output(&mut program("nbdcopy", ["--flush", &server.uri(), &word(&out)]))?;
    same(&source, &out)?;
    server.stop()?;
    same(&source, &image)?;
    Ok(format!(
        "{} MiB in and out; the copy and the stopped server's image are the same",
        size >> 20
    ))
}

/// Converts a sparse image, raw and as qcow2, into the export, and compares, with qemu-img.
pub(super) fn qemu_img(run: &Run) -> Result<String, Failure> {
    let folder = Folder::new("qemu-img")?;
    let (source, image, size) = images(run, &folder)?;
    let server = Server::start(run.program, &folder, &image, &[])?;
    let packed = word(&folder.path("source.qcow2"));
    let qemu_img = |arguments: &[&str]| output(&mut program("qemu-img", arguments));
    let (source_word, uri) = (word(&source), server.uri());
    let _printed = qemu_img(&["convert", "-f", "raw", "-O", "qcow2", &source_word, &packed])?;
    for (format, from) in [("raw", &source_word), ("qcow2", &packed)] {
        let _printed = qemu_img(&["convert", "-n", "-f", format, "-O", "raw", from, &uri])?;
        let printed = qemu_img(&["compare", "-f", format, "-F", "raw", from, &uri])?;
        if printed.trim() != "Images are identical." {
            return Err(Failure::new(printed));
        }
    }
    server.stop()?;
    same(&source, &image)?;
    Ok(format!(
        "{} MiB from raw and from qcow2; qemu-img compare and cmp find no difference",
        size >> 20
    ))
}

/// A source with data and holes, and an image of its size with other data, other holes.
fn images(
    run: &Run,
    folder: &Folder,
) -> Result<(std::path::PathBuf, std::path::PathBuf, u64), Failure> {
    let size = if run.short { 64 << 20 } else { 1 << 30 };
    let source = folder.file("source.img", size)?;
    scatter(&source, size, 1)?;
    let image = folder.file("disk.img", size)?;
    scatter(&image, size, 2)?;
    Ok((source, image, size))
}

/// Finds two files the same, read from the device where the file system can.
fn same(one: &Path, other: &Path) -> Result<(), Failure> {
    for path in [one, other] {
        let file = OpenOptions::new().read(true).open(path);
        let synced = file.and_then(|file| file.sync_all());
        synced.map_err(|error| Failure::at(&word(path), &error))?;
    }
    command::run(&mut program("cmp", [one, other]))
}
