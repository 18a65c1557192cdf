//! Writes a file through the cache in small pieces, and tells what the device saw of it.
//!
//! ```text
//! cargo run --release -p mpage --example cached_file [PATH]
//! ```
//!
//! Without a path the file is in a temporary folder and gone afterwards.

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use mpage::{OpenOptions, Options, PageCache, StatsSnapshot};

const FILE_BYTES: usize = 16 << 20;

/// A length that neither pages nor sectors are multiples of.
const PIECE_BYTES: usize = 1000;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match arguments.as_slice() {
        [] => in_temporary_folder(),
        [path] => run(Path::new(path)),
        _ => Err("give one path, or none".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cached_file: {error}");
            ExitCode::FAILURE
        }
    }
}

fn in_temporary_folder() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    run(&folder.path().join("data"))
}

fn run(path: &Path) -> Result<(), Box<dyn Error>> {
    if path.try_exists()? {
        return Err(format!("{} exists: give a path that does not", path.display()).into());
    }
    let content: Vec<u8> = (0..=250).cycle().take(FILE_BYTES).collect();
    let seen = write(path, &content)?;
    let read = std::fs::read(path)?;
    if read != content {
        return Err(format!("{} differs from what was written", path.display()).into());
    }
    report(path, &seen);
    Ok(())
}

/// Writes `content` through a cache and syncs it; returns what the device saw.
fn write(path: &Path, content: &[u8]) -> Result<StatsSnapshot, Box<dyn Error>> {
    // Background writing would begin at a tenth of the memory; here the sync writes everything.
    let options = Options { dirty_background_percent: 50, dirty_percent: 60, ..Options::default() };
    let cache = PageCache::new(&options)?;
    let file = cache.open(path, &OpenOptions::default())?;
    for (number, piece) in content.chunks(PIECE_BYTES).enumerate() {
        file.write_all_at(piece, (number * PIECE_BYTES) as u64)?;
    }
    file.fsync()?;
    Ok(cache.stats())
}

fn report(path: &Path, seen: &StatsSnapshot) {
    let pieces = FILE_BYTES.div_ceil(PIECE_BYTES);
    let per_write_kib = (seen.bytes_written >> 10) / seen.write_bios.max(1);
    println!("wrote:    {FILE_BYTES} bytes in {pieces} pieces of {PIECE_BYTES}, then fsync");
    println!("device:   {} bytes in {} writes", seen.bytes_written, seen.write_bios);
    println!("          {per_write_kib} KiB a write, {} flushes", seen.device_flushes);
    println!("checked:  {} has the same bytes, read outside the cache", path.display());
    println!();
    println!("next:     the same through your own block map, or onto your own device:");
    println!("          cargo run --release -p mpage --example own_get_block");
    println!("          cargo run --release -p mpage --example own_device");
}
