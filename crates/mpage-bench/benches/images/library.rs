//! The library, without anything above it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mpage::PageCache;
use mpage_block::{FileDevice, FileOptions};
use mpage_ext4::{FileKind, FileSystem, InodeNumber, New, Options};

use crate::{Contender, FILE_BYTES, FILES, Failed, LARGE_BYTES, NAMES, PIECE_BYTES};

/// Bytes of the cache.
const MEMORY: usize = 256 << 20;
const OWNER: (u32, u32) = (0, 0);
const FILE: New = New { kind: FileKind::Regular, permissions: 0o644, uid: 0, gid: 0, device: 0 };

/// An image that the library has open.
pub(crate) struct Library {
    fs: Arc<FileSystem>,
    names: Option<InodeNumber>,
}

impl Library {
    pub(crate) fn open(image: &Path) -> Result<Library, Failed> {
        let options = mpage::Options { memory: MEMORY, ..mpage::Options::default() };
        let cache = Arc::new(PageCache::new(&options)?);
        let device = FileDevice::open(image, &FileOptions::default())?;
        let bytes = device.len()?;
        let dev = cache.add_device(Arc::new(device))?;
        let how = Options { commit_interval: Duration::from_secs(5), ..Options::default() };
        Ok(Library { fs: FileSystem::open(&cache, &dev, bytes, &how)?, names: None })
    }

    fn write(
        &self,
        parent: InodeNumber,
        name: &str,
        pieces: usize,
        bytes: &[u8],
    ) -> Result<(), Failed> {
        let inode = self.fs.create(parent, name.as_bytes(), &FILE)?;
        let file = self.fs.open_file(inode)?;
        for piece in 0..pieces {
            file.write_all_at(bytes, (piece * bytes.len()) as u64)?;
        }
        Ok(())
    }
}

impl Contender for Library {
    fn create(&mut self) -> Result<(), Failed> {
        let names = self.fs.mkdir(InodeNumber::ROOT, b"names", 0o755, OWNER)?;
        for number in 0..NAMES {
            let _inode = self.fs.create(names, format!("name-{number}").as_bytes(), &FILE)?;
        }
        self.names = Some(names);
        Ok(self.fs.sync()?)
    }

    fn look_up(&mut self) -> Result<(), Failed> {
        let names = self.names.ok_or("the names are made first")?;
        for number in 0..NAMES {
            let inode = self.fs.lookup(names, format!("name-{number}").as_bytes())?;
            let _attributes = self.fs.attributes(inode)?;
        }
        Ok(())
    }

    fn write_small(&mut self) -> Result<(), Failed> {
        let small = self.fs.mkdir(InodeNumber::ROOT, b"small", 0o755, OWNER)?;
        for number in 0..FILES {
            self.write(small, &format!("file-{number}"), 1, &[7; FILE_BYTES])?;
        }
        Ok(self.fs.sync()?)
    }

    fn write_large(&mut self) -> Result<(), Failed> {
        let pieces = LARGE_BYTES / PIECE_BYTES;
        self.write(InodeNumber::ROOT, "large", pieces, &vec![7; PIECE_BYTES])?;
        Ok(self.fs.sync()?)
    }
}
