//! The kernel's page cache: a file on the same file system, through `pread` and `pwrite`.

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::contender::{Contender, Failed};
use crate::work::{PAGE, Work};

pub(crate) struct Kernel {
    file: File,
}

impl Kernel {
    /// A file of `bytes` in `folder`, all of it cached and on the device.
    pub(crate) fn new(folder: &Path, bytes: u64) -> Result<Kernel, Failed> {
        let path = folder.join(format!("kernel-{bytes}"));
        let file = File::options().read(true).write(true).create_new(true).open(path)?;
        for offset in (0..bytes).step_by(PAGE) {
            file.write_all_at(&[1; PAGE], offset)?;
        }
        file.sync_all()?;
        Ok(Kernel { file })
    }
}

impl Contender for Kernel {
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
        Ok(self.file.sync_data()?)
    }
}
