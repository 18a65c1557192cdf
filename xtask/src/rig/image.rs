//! Disk images full of data that nobody can guess, with holes between.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::folder::word;
use crate::failure::Failure;

/// Random numbers that a seed decides (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Fills `buffer`.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for bytes in buffer.chunks_mut(8) {
            bytes.copy_from_slice(&self.next().to_le_bytes()[..bytes.len()]);
        }
    }
}

/// Writes data to a random half of the file at `path`, in extents of 512 bytes to 1 MiB.
pub(crate) fn scatter(path: &Path, size: u64, seed: u64) -> Result<(), Failure> {
    let at = |error| Failure::at(&word(path), &error);
    let file = OpenOptions::new().write(true).open(path).map_err(at)?;
    let mut random = Random(seed);
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < size {
        let sectors_max = 1 << (1 + random.below(11));
        let sectors = 1 + random.below(sectors_max);
        let bytes = (sectors * 512).min(size - offset);
        let data = &mut buffer[..usize::try_from(bytes).expect("an extent has 1 MiB at most")];
        random.fill(data);
        file.write_all_at(data, offset).map_err(at)?;
        offset += bytes + random.below(bytes * 2 / 512 + 1) * 512;
    }
    Ok(())
}

/// Fills the file at `path` with data.
pub(crate) fn fill(path: &Path, size: u64, seed: u64) -> Result<(), Failure> {
    let at = |error| Failure::at(&word(path), &error);
    let file = OpenOptions::new().write(true).open(path).map_err(at)?;
    let mut random = Random(seed);
    let mut buffer = vec![0; 1 << 20];
    for offset in (0..size).step_by(buffer.len()) {
        random.fill(&mut buffer);
        file.write_all_at(&buffer, offset).map_err(at)?;
    }
    file.sync_all().map_err(at)
}
