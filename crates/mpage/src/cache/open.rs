//! Files of the operating system through a cache.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};

use mpage_block::{Backend, BlockDevice, Errno, FileDevice, FileOptions, OpenError};
use mpage_locks::Mutex;

use super::PageCache;
use crate::address_space::{AddressSpace, Operations};
use crate::error::{Error, ErrorKind, Result};
use crate::file::CachedFile;
use crate::identity::Identity;
use crate::units::BlockSize;

/// The mappings of open files, by device and inode number.
pub(super) type OpenFiles = Mutex<HashMap<(u64, u64), OpenFile>>;

pub(super) struct OpenFile {
    space: Weak<AddressSpace>,
    /// Its device can be written.
    writable: bool,
}

/// How to open a file.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// For writing too. Default: true.
    pub write: bool,
    /// Make it if it does not exist. Default: true.
    pub create: bool,
    /// Direct I/O below the cache. Without it the kernel caches the file a second time, and its
    /// write errors may be told to somebody else. Default: true.
    pub direct: bool,
    /// The file is a disk image: its size stays what it is, and is whole blocks. A write behind its
    /// end has no space. Default: false.
    pub image: bool,
    /// Get room for all of a regular file at once, and give none of it back, so that no write
    /// inside it meets a full file system. Default: false.
    pub keep_room: bool,
    /// Who does the I/O. Default: io_uring where it is to be had, else threads.
    pub backend: Backend,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions {
            write: true,
            create: true,
            direct: true,
            image: false,
            keep_room: false,
            backend: Backend::Auto,
        }
    }
}

impl PageCache {
    /// Opens a regular file or block device through the cache. Opens of one file share its pages,
    /// and what the first opened below: while that is for reading only, none opens it for writing.
    ///
    /// # Errors
    ///
    /// What keeps the file from being opened: missing, in use by somebody else, mounted, without
    /// direct I/O; `EBUSY` for writing beside opens for reading only. The message names the path
    /// and the remedy.
    pub fn open(&self, path: impl AsRef<Path>, options: &OpenOptions) -> Result<CachedFile> {
        let path = path.as_ref();
        let mut files = self.files.lock();
        let known = identity_of(path).and_then(|key| files.get(&key));
        let only_read = known.is_some_and(|known| !known.writable) && options.write;
        // A mapping that cannot be written may have no open any more and live until a read in
        // flight ends: opening the device waits for that.
        if let Some(space) = known.filter(|_| !only_read).and_then(|known| known.space.upgrade()) {
            return Ok(CachedFile::new(space, options.write));
        }
        let file_options = FileOptions {
            read_only: !options.write,
            create: options.create && options.write,
            direct: options.direct,
            keep_room: options.keep_room,
            backend: options.backend,
            ..FileOptions::default()
        };
        let opened = FileDevice::open(path, &file_options).map_err(|error| match error {
            OpenError::Held { .. } | OpenError::Busy { .. } if only_read => only_for_reading(path),
            other => open_error(other),
        })?;
        let size = opened.len().map_err(|errno| Error::new(ErrorKind::Device(errno), "open"))?;
        let fixed = opened.limits().capacity.is_some();
        let failed = |errno| Error::new(ErrorKind::Device(errno), "open");
        let size_max = opened.len_max().map_err(failed)?;
        let key = opened.identity().map_err(failed)?;
        let device: Arc<dyn BlockDevice> = Arc::new(opened);
        let block_size = BlockSize::new(device.limits().alignment).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, "open")
                .because("the device's sectors are larger than a page")
        })?;
        if options.image && !size.is_multiple_of(block_size.bytes()) {
            return Err(not_whole_blocks(path, size, block_size));
        }
        let map = match fixed {
            true => Identity::new(Arc::clone(&device), block_size),
            false if options.image => Identity::image(Arc::clone(&device), block_size, size),
            false => Identity::resizable(Arc::clone(&device), block_size, size).up_to(size_max),
        };
        let ops = Operations { get_block: Some(Arc::new(map)), ..Operations::default() };
        let (dev, flusher) = self.start_flusher(device)?;
        let space = self.new_mapping(&dev, block_size, size, ops, Some(Box::new(flusher)))?;
        files.retain(|_, file| file.space.strong_count() > 0);
        let file = OpenFile { space: Arc::downgrade(&space), writable: options.write };
        let _closed = files.insert(key, file);
        drop(files);
        Ok(CachedFile::new(space, options.write))
    }
}

fn not_whole_blocks(path: &Path, size: u64, block_size: BlockSize) -> Error {
    let block = block_size.bytes();
    Error::new(ErrorKind::InvalidInput, "open").because(format!(
        "{}: its size, {size} bytes, is no multiple of the {block} bytes that direct I/O moves: \
         make it {} bytes with truncate(1)",
        path.display(),
        size.next_multiple_of(block)
    ))
}

fn identity_of(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    // A path that cannot be looked at is reported by opening it.
    let metadata = std::fs::metadata(path);
    metadata.map_or(None, |metadata| Some((metadata.dev(), metadata.ino())))
}

fn only_for_reading(path: &Path) -> Error {
    Error::new(ErrorKind::Device(Errno::BUSY), "open").because(format!(
        "{}: is in use by this cache, for reading only: close those opens, or open the file for \
         writing first",
        path.display()
    ))
}

fn open_error(error: OpenError) -> Error {
    use OpenError as E;
    let errno = match &error {
        E::EmptyPath | E::Missing { .. } => Errno::NOENT,
        E::Permission { .. } => Errno::ACCESS,
        E::ReadOnly { .. } => Errno::ROFS,
        E::Directory { .. } => Errno::ISDIR,
        E::Held { .. } | E::Busy { .. } => Errno::BUSY,
        _ => Errno::INVAL,
    };
    Error::new(ErrorKind::Device(errno), "open").because(error.to_string())
}
