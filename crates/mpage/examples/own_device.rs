//! A device of one's own under the cache: a mirror that keeps every byte in two files.
//!
//! ```text
//! cargo run --release -p mpage --example own_device
//! ```

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use mpage::units::BlockSize;
use mpage::{CachedFile, Identity, Operations, Options, PageCache};
use mpage_block::{Bio, BioOp, BlockDevice, Errno, Limits, SubmitError};

const DEVICE_BYTES: u64 = 1 << 20;

const NAMES: [&str; 2] = ["left", "right"];

/// Writes go to both files, reads come from the first that has the bytes.
struct Mirror {
    files: [File; 2],
}

impl Mirror {
    fn open(folder: &Path) -> io::Result<Mirror> {
        let open = |name| File::options().read(true).write(true).open(folder.join(name));
        Ok(Mirror { files: [open(NAMES[0])?, open(NAMES[1])?] })
    }

    /// Does what the bio asks.
    fn run(&self, bio: &Bio) -> io::Result<()> {
        let offset = bio.sector().offset_bytes().expect("the limits were checked");
        let mut bytes = vec![0; usize::try_from(bio.bytes()).expect("the limits were checked")];
        let [left, right] = &self.files;
        match bio.op() {
            BioOp::Read => {
                left.read_exact_at(&mut bytes, offset)
                    .or_else(|_| right.read_exact_at(&mut bytes, offset))?;
                bio.copy_in(0, &bytes);
                Ok(())
            }
            BioOp::Write => {
                bio.copy_out(0, &mut bytes);
                left.write_all_at(&bytes, offset)?;
                right.write_all_at(&bytes, offset)
            }
            BioOp::Flush => left.sync_data().and_then(|()| right.sync_data()),
            BioOp::Discard | BioOp::WriteZeroes => unreachable!("the limits exclude it"),
        }
    }
}

impl BlockDevice for Mirror {
    fn limits(&self) -> Limits {
        Limits { capacity: Some(DEVICE_BYTES), volatile_cache: true, ..Limits::default() }
    }

    fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
        let bio = SubmitError::unless_allowed(bio, &self.limits())?;
        // The bio is done before this returns. A device with threads would keep it until it is.
        let result = self.run(&bio).map_err(|error| Errno::from_io_error(&error));
        bio.complete(result.map_err(|errno| errno.unwrap_or(Errno::IO)));
        Ok(())
    }
}

/// The mirror in `folder` as one file, through a new cache. The cache must outlive the file.
fn open(folder: &Path) -> Result<(CachedFile, PageCache), Box<dyn Error>> {
    let device: Arc<dyn BlockDevice> = Arc::new(Mirror::open(folder)?);
    let cache = PageCache::new(&Options { memory: 16 << 20, ..Options::default() })?;
    let dev = cache.add_device(Arc::clone(&device))?;
    let block_size = BlockSize::new(512).ok_or("no block size")?;
    let map = Arc::new(Identity::new(device, block_size));
    let ops = Operations { get_block: Some(map), ..Operations::default() };
    let mapping = cache.add_mapping(&dev, block_size, DEVICE_BYTES, ops)?;
    Ok((CachedFile::new(mapping, true), cache))
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for name in NAMES {
        File::create(folder.path().join(name))?.set_len(DEVICE_BYTES)?;
    }
    let text = b"kept twice";

    let (file, cache) = open(folder.path())?;
    for copy in 0..1000 {
        file.write_all_at(text, copy * text.len() as u64)?;
    }
    file.fsync()?;
    let stats = cache.stats();
    println!("1000 writes into the cache, {} to the mirror", stats.write_bios);
    assert_eq!(stats.write_bios, 1);
    drop(file);
    drop(cache);
    let [left, right] = NAMES.map(|name| std::fs::read(folder.path().join(name)));
    assert_eq!(left?, right?);
    println!("both files have the same {DEVICE_BYTES} bytes");

    let _emptied = File::create(folder.path().join(NAMES[0]))?;
    let (file, _cache) = open(folder.path())?;
    let mut read = vec![0; text.len()];
    assert_eq!(file.read_at(&mut read, 9990)?, text.len());
    assert_eq!(read, text);
    println!("the left file lost everything, and the cache reads from the right one");
    Ok(())
}
