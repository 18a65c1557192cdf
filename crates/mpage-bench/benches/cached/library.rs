//! The library: a file through a [`PageCache`].

use std::hint::black_box;
use std::path::Path;
use std::time::Duration;

use mpage::units::PAGE_BYTES;
use mpage::{CachedFile, OpenOptions, Options, PageCache};

use crate::contender::{Contender, Failed};
use crate::work::{PAGE, Work};

pub(crate) struct Library {
    file: CachedFile,
    /// Goes last: it writes what is dirty.
    _cache: PageCache,
}

impl Library {
    /// A file of `bytes` in `folder`, all of it cached and on the device.
    ///
    /// The cache has room for the whole file, and so high a limit on dirty pages that it writes
    /// nothing by itself.
    pub(crate) fn new(folder: &Path, bytes: u64) -> Result<Library, Failed> {
        let options = Options {
            memory: usize::try_from(bytes + bytes * 3 / 10)?,
            dirty_background_percent: 90,
            dirty_percent: 100,
            dirty_interval: Duration::ZERO,
            prefault: true,
            ..Options::default()
        };
        let cache = PageCache::new(&options)?;
        let file = cache.open(folder.join(format!("library-{bytes}")), &OpenOptions::default())?;
        for offset in (0..bytes).step_by(PAGE) {
            file.write_all_at(&[1; PAGE], offset)?;
        }
        file.fsync()?;
        assert_eq!(file.size() / PAGE_BYTES, bytes / PAGE_BYTES);
        Ok(Library { file, _cache: cache })
    }
}

impl Contender for Library {
    fn run(&self, work: &Work) -> Result<(), Failed> {
        let mut buffer = [7; PAGE];
        let buffer = &mut buffer[..work.operation.len()];
        for offset in work.offsets() {
            let done = if work.operation.writes() {
                self.file.write_at(black_box(buffer), offset)?
            } else {
                self.file.read_at(black_box(buffer), offset)?
            };
            assert_eq!(done, buffer.len(), "the file is long enough");
        }
        Ok(())
    }

    fn clean(&self) -> Result<(), Failed> {
        Ok(self.file.fdatasync()?)
    }
}
