//! Writes a file into an ext4 image, without a mount, and tells what the image's file saw of it.
//!
//! ```text
//! cargo run --release -p mpage-ext4 --example in_image [IMAGE]
//! ```
//!
//! `IMAGE` is one that `mke2fs` made; it gets a folder `mpage`. Without it one is made in a
//! temporary folder, with `mke2fs`, checked with `e2fsck`, and gone afterwards.

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use mpage::{PageCache, StatsSnapshot};
use mpage_block::{FileDevice, FileOptions};
use mpage_ext4::{FileKind, FileSystem, InodeNumber, New, Options};

const FILE_BYTES: usize = 16 << 20;

/// A length that neither pages nor blocks are multiples of.
const PIECE_BYTES: usize = 1000;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match arguments.as_slice() {
        [] => in_temporary_folder(),
        [image] => write(Path::new(image)),
        _ => Err("give one image, or none".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("in_image: {error}");
            ExitCode::FAILURE
        }
    }
}

fn in_temporary_folder() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let image = folder.path().join("image");
    let _report = run(Command::new("mke2fs").args(["-q", "-t", "ext4"]).arg(&image).arg("64M"))?;
    write(&image)?;
    let report = run(Command::new("e2fsck").arg("-fn").arg(&image))?;
    println!("checked:  {}", report.lines().last().unwrap_or_default());
    Ok(())
}

/// What `command`, a program of e2fsprogs, prints.
fn run(command: &mut Command) -> Result<String, Box<dyn Error>> {
    let program = command.get_program().display().to_string();
    let output = command
        .output()
        .map_err(|error| format!("{program} (Debian's package e2fsprogs): {error}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program}: {}: {words}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

fn write(image: &Path) -> Result<(), Box<dyn Error>> {
    let cache = Arc::new(PageCache::new(&mpage::Options::default())?);
    let device = FileDevice::open(image, &FileOptions::default())?;
    let bytes = device.len()?;
    let dev = cache.add_device(Arc::new(device))?;
    let fs = FileSystem::open(&cache, &dev, bytes, &Options::default())?;
    if let Some(reason) = fs.read_only() {
        return Err(format!("{}: {reason}", image.display()).into());
    }
    let before = cache.stats();
    write_file(&fs)?;
    report(image, &before, &cache.stats());
    fs.close()?;
    Ok(())
}

/// Makes `mpage/data`, and makes it durable.
fn write_file(fs: &Arc<FileSystem>) -> Result<(), Box<dyn Error>> {
    let folder = fs.mkdir(InodeNumber::ROOT, b"mpage", 0o755, (0, 0))?;
    let new = New { kind: FileKind::Regular, permissions: 0o644, uid: 0, gid: 0, device: 0 };
    let file = fs.open_file(fs.create(folder, b"data", &new)?)?;
    let content: Vec<u8> = (0..=250).cycle().take(FILE_BYTES).collect();
    for (number, piece) in content.chunks(PIECE_BYTES).enumerate() {
        file.write_all_at(piece, (number * PIECE_BYTES) as u64)?;
    }
    file.fsync()?;
    let mut read = vec![0; FILE_BYTES];
    if file.read_at(&mut read, 0)? != FILE_BYTES || read != content {
        return Err("the file differs from what was written".into());
    }
    Ok(())
}

fn report(image: &Path, before: &StatsSnapshot, now: &StatsSnapshot) {
    let pieces = FILE_BYTES.div_ceil(PIECE_BYTES);
    let (bytes, bios) =
        (now.bytes_written - before.bytes_written, now.write_bios - before.write_bios);
    println!("wrote:    {FILE_BYTES} bytes in {pieces} pieces of {PIECE_BYTES}, then fsync");
    println!("image:    {}, which has mpage/data now", image.display());
    println!("device:   {bytes} bytes in {bios} writes, metadata included");
}
