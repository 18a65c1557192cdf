//! Who reads the whole file, from its first byte to its last, none of it cached.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;

use mpage::OpenOptions;
use mpage_locks::thread;

use crate::{DIRECT, FILE_BYTES, Failed, Ground, HUGE, MIB};

/// Reads with `depth` requests of 1 MiB at the device.
pub(crate) fn raw(ground: &Ground, depth: usize) -> Result<(), Failed> {
    let file = Arc::new(File::options().read(true).custom_flags(DIRECT).open(&ground.path)?);
    let mut threads = Vec::new();
    for first in 0..depth {
        let file = Arc::clone(&file);
        threads.push(thread::spawn("raw", move || -> Result<(), Failed> {
            let mut memory = vec![0; 2 * HUGE];
            let aligned = memory.as_ptr().align_offset(HUGE);
            let buffer = &mut memory[aligned..aligned + MIB];
            for n in (first..FILE_BYTES / MIB).step_by(depth) {
                file.read_exact_at(buffer, (n * MIB) as u64)?;
                let _used = black_box(&*buffer);
            }
            Ok(())
        })?);
    }
    for thread in threads {
        thread.join().map_err(|_| "a reader panicked")??;
    }
    Ok(())
}

/// Reads through the cache, `step` bytes at a time.
pub(crate) fn library(ground: &Ground, step: usize) -> Result<(), Failed> {
    let options = OpenOptions { write: false, ..OpenOptions::default() };
    let file = ground.cache.open(&ground.path, &options)?;
    let mut buffer = vec![0; step];
    for offset in (0..FILE_BYTES).step_by(step) {
        assert_eq!(file.read_at(&mut buffer, offset as u64)?, step, "the file is long enough");
        let _used = black_box(&buffer);
    }
    Ok(())
}
