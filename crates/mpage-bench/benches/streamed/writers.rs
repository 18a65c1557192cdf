//! Who writes the whole file, from its first byte to its last, and makes it durable.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;

use mpage::OpenOptions;
use mpage_locks::thread;

use crate::{DIRECT, FILE_BYTES, Failed, Ground, HUGE, MIB};

/// Writes with `depth` requests of 1 MiB at the device, and flushes it.
pub(crate) fn raw(ground: &Ground, depth: usize) -> Result<(), Failed> {
    let file = Arc::new(File::options().write(true).custom_flags(DIRECT).open(&ground.path)?);
    let mut threads = Vec::new();
    for first in 0..depth {
        let file = Arc::clone(&file);
        threads.push(thread::spawn("raw", move || -> Result<(), Failed> {
            let mut memory = vec![1; 2 * HUGE];
            let aligned = memory.as_ptr().align_offset(HUGE);
            let buffer = &mut memory[aligned..aligned + MIB];
            for n in (first..FILE_BYTES / MIB).step_by(depth) {
                buffer[0] = n.to_le_bytes()[0];
                file.write_all_at(buffer, (n * MIB) as u64)?;
            }
            Ok(())
        })?);
    }
    for thread in threads {
        thread.join().map_err(|_| "a writer panicked")??;
    }
    Ok(file.sync_data()?)
}

/// Writes through the kernel's page cache, `step` bytes at a time, and syncs.
pub(crate) fn kernel(ground: &Ground, step: usize) -> Result<(), Failed> {
    let file = File::options().write(true).open(&ground.path)?;
    let buffer = vec![2; step];
    for offset in (0..FILE_BYTES).step_by(step) {
        file.write_all_at(&buffer, offset as u64)?;
    }
    Ok(file.sync_data()?)
}

/// Writes through a cache, `step` bytes at a time, and syncs.
pub(crate) fn library(ground: &Ground, step: usize) -> Result<(), Failed> {
    let file = ground.cache.open(&ground.path, &OpenOptions::default())?;
    let buffer = vec![3; step];
    for offset in (0..FILE_BYTES).step_by(step) {
        file.write_all_at(&buffer, offset as u64)?;
    }
    Ok(file.fdatasync()?)
}
