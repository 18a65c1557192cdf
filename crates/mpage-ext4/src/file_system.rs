//! An open image.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use mpage::units::BlockSize;
use mpage::{AddressSpace, BackingDev, CachedFile, Identity, Operations, PageCache};
use mpage_block::Errno;
use mpage_locks::Mutex;

use crate::block_map::BlockMap;
use crate::error::{Error, ErrorKind, Result};
use crate::features::RECOVER;
use crate::inode::{FileKind, Inode, InodeNumber, Timestamp};
use crate::journal;
use crate::layers::Layers;
use crate::metadata::Metadata;
use crate::superblock::{self, RawSuperblock, Superblock};
use crate::{balloc, ialloc};

/// The block size of the device file: the smallest that an image has.
const DEVICE_BLOCK: usize = 1024;

/// An open ext2, ext3 or ext4 image.
pub struct FileSystem {
    cache: Arc<PageCache>,
    dev: Arc<BackingDev>,
    pub(crate) metadata: Arc<Metadata>,
    block: BlockSize,
    /// The device's own mapping.
    device: Arc<AddressSpace>,
    /// The files that are open, by inode.
    files: Mutex<HashMap<InodeNumber, Weak<AddressSpace>>>,
}

/// What is known of a file beside its name and its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Its inode.
    pub inode: InodeNumber,
    /// What it is.
    pub kind: FileKind,
    /// Permissions and kind, as `st_mode` has them.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Names.
    pub links: u32,
    /// Room on the device, in units of 512 bytes.
    pub sectors: u64,
    /// When it was read.
    pub accessed: Timestamp,
    /// When its content was changed.
    pub modified: Timestamp,
    /// When anything of it was changed.
    pub changed: Timestamp,
    /// When it was made, where the image says so.
    pub created: Option<Timestamp>,
    /// The number of a device file, as the format has it; zero for others.
    pub device: u32,
}

impl FileSystem {
    /// Opens the image that is all of `dev`, `image_bytes` bytes long. If it was not closed, its
    /// journal is replayed first, which writes to the device.
    ///
    /// # Errors
    ///
    /// `NotExt`; `Unsupported`, with the names of the features; `Corrupt`; the device's, `EROFS`
    /// among them when the journal has to be replayed onto a device that cannot be written.
    pub fn open(
        cache: &Arc<PageCache>,
        dev: &Arc<BackingDev>,
        image_bytes: u64,
    ) -> Result<FileSystem> {
        let device_block = dev.limits().alignment.max(DEVICE_BLOCK);
        let size = BlockSize::new(device_block).ok_or_else(|| Error {
            kind: ErrorKind::Unsupported,
            detail: format!("a device with sectors of {device_block} bytes"),
        })?;
        let identity = Identity::image(dev.block().clone(), size, image_bytes);
        let ops = Operations { get_block: Some(Arc::new(identity)), ..Operations::default() };
        let device = cache.add_mapping(dev, size, image_bytes, ops)?;
        let file = CachedFile::new(Arc::clone(&device), true);
        let mut metadata = read_metadata(&file, device_block, RawSuperblock::before_recovery)?;
        if metadata.superblock().features.incompat(RECOVER) {
            journal::recover(&metadata, &file)?;
            // What the log says of the image is newer.
            metadata = read_metadata(&file, device_block, RawSuperblock::of)?;
        }
        let block = usize::try_from(metadata.superblock().block_bytes).expect("at most a page");
        let block = BlockSize::new(block).expect("checked with the superblock");
        match metadata.superblock().features.read_only() {
            Some(features) => metadata.set_read_only(format!("the image has {features}")),
            None => prepare(&metadata)?,
        }
        let metadata = Arc::new(metadata);
        let (cache, dev, files) = (Arc::clone(cache), Arc::clone(dev), Mutex::default());
        let fs = FileSystem { cache, dev, metadata, block, device, files };
        if fs.metadata.read_only().is_none() {
            match fs.finish_orphans() {
                // Then nothing is written any more.
                Err(error) if error.kind != ErrorKind::Corrupt => return Err(error),
                _ => {}
            }
        }
        Ok(fs)
    }

    /// The names of the features for which the image must not be written by this implementation;
    /// `None` if there is none.
    pub fn read_only_features(&self) -> Option<String> {
        self.metadata.superblock().features.read_only()
    }

    /// The metadata of the image.
    pub(crate) fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What is known of `inode`.
    ///
    /// # Errors
    ///
    /// `Corrupt`; the device's.
    pub fn attributes(&self, inode: InodeNumber) -> Result<Attributes> {
        let inode = self.metadata.read(|view| view.inode(inode))?;
        Ok(Attributes {
            inode: inode.number,
            kind: inode.kind,
            mode: inode.mode,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            links: inode.links.into(),
            sectors: inode.sectors,
            accessed: inode.accessed,
            modified: inode.modified,
            changed: inode.changed,
            created: inode.created,
            device: inode.device(),
        })
    }

    /// Opens regular file `inode`. All opens share what is cached of it.
    ///
    /// # Errors
    ///
    /// `EISDIR` of a directory, `EINVAL` of anything else that has no content; `Corrupt`; the
    /// device's.
    pub fn open_file(&self, inode: InodeNumber) -> Result<CachedFile> {
        let inode = self.metadata.read(|view| view.inode(inode))?;
        let errno = match inode.kind {
            FileKind::Regular => return Ok(CachedFile::new(self.mapping(&inode)?, false)),
            FileKind::Directory => Errno::ISDIR,
            _ => Errno::INVAL,
        };
        Err(Error::errno(errno, format!("inode {}", inode.number)))
    }

    /// The mapping of a regular file: there is one at a time.
    fn mapping(&self, inode: &Inode) -> Result<Arc<AddressSpace>> {
        let mut files = self.files.lock();
        if let Some(mapping) = files.get(&inode.number).and_then(Weak::upgrade) {
            return Ok(mapping);
        }
        let map = BlockMap::new(&self.metadata, inode.number);
        let ops = Operations {
            get_block: Some(Arc::new(map)),
            alias: Some(Arc::clone(&self.device)),
            ..Operations::default()
        };
        let mapping = self.cache.add_mapping(&self.dev, self.block, inode.size, ops)?;
        files.retain(|_, open| open.strong_count() > 0);
        let _closed = files.insert(inode.number, Arc::downgrade(&mapping));
        Ok(mapping)
    }

    /// True when somebody has `inode` open.
    pub(crate) fn is_open(&self, inode: InodeNumber) -> bool {
        self.files.lock().get(&inode).is_some_and(|open| open.strong_count() > 0)
    }

    /// Makes everything durable, and the image such that it need not be checked.
    ///
    /// # Errors
    ///
    /// The device's; `EROFS`.
    pub fn close(&self) -> Result<()> {
        let (blocks, inodes) = {
            let space = self.metadata.space.lock();
            (space.free, space.free_inodes)
        };
        self.metadata.change(|change| change.edit_superblock(|sb| sb.set_free(blocks, inodes)))?;
        self.metadata.commit(self.metadata.running())
    }
}

/// Learns what has to be known before anything is written.
fn prepare(metadata: &Metadata) -> Result<()> {
    metadata.set_zone(metadata.read(balloc::zone)?);
    let (free_inodes, free) = metadata.read(ialloc::count_free)?;
    let mut space = metadata.space.lock();
    (space.free_inodes, space.free) = (free_inodes, free);
    Ok(())
}

/// The metadata of the image that `file`, on a device of sectors of `device_block` bytes, is all
/// of; `read` reads its superblock.
fn read_metadata(
    file: &CachedFile,
    device_block: usize,
    read: impl FnOnce(&[u8]) -> Result<RawSuperblock>,
) -> Result<Metadata> {
    let mut bytes = [0; superblock::LEN];
    if file.read_at(&mut bytes, superblock::OFFSET)? < bytes.len() {
        let detail = format!("{} bytes are too few", file.size());
        return Err(Error { kind: ErrorKind::NotExt, detail });
    }
    let sb = Superblock::new(&read(&bytes)?, file.size())?;
    let block = usize::try_from(sb.block_bytes).expect("at most a page");
    if block < device_block {
        return Err(Error {
            kind: ErrorKind::Unsupported,
            detail: format!("blocks of {block} bytes on sectors of {device_block}"),
        });
    }
    let block = BlockSize::new(block).expect("checked with the superblock");
    Ok(Metadata::new(sb, Layers::new(file.clone(), block), 0))
}
