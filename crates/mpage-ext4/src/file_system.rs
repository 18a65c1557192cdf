//! An open image.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mpage::units::{BlockSize, PAGE_SIZE};
use mpage::{AddressSpace, BackingDev, CachedFile, Identity, Operations, PageCache};
use mpage_locks::Mutex;

use crate::change::Change;
use crate::committer::Committer;
use crate::error::{Error, ErrorKind, Result};
use crate::features::{HAS_JOURNAL, RECOVER};
use crate::inode::{FileKind, Inode, InodeNumber, Timestamp};
use crate::journal;
use crate::layers::Layers;
use crate::metadata::Metadata;
use crate::superblock::{self, RawSuperblock, Superblock};
use crate::{balloc, ialloc};

/// The block size of the device file: the smallest that an image has.
const DEVICE_BLOCK: usize = 1024;

/// The part of the cache's memory that a transaction may take besides.
const TRANSACTION_SHARE: usize = 16;

/// How an image is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// It is going to be written. Default: true.
    pub writable: bool,
    /// What nobody syncs is made durable this often, if it has reached the device; zero: it is not.
    /// Default: 5 s, as Linux's `commit=`.
    pub commit_interval: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options { writable: true, commit_interval: Duration::from_secs(5) }
    }
}

/// An open ext2, ext3 or ext4 image.
///
/// Dropping it does what [`close`](Self::close) does, as far as it can.
pub struct FileSystem {
    pub(crate) cache: Arc<PageCache>,
    pub(crate) dev: Arc<BackingDev>,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) block: BlockSize,
    /// The device's own mapping.
    pub(crate) device: Arc<AddressSpace>,
    /// Files that are in memory and were closed, the last one last, each once. Held for a moment.
    pub(crate) closed: Mutex<VecDeque<InodeNumber>>,
    committer: OnceLock<Committer>,
    /// It was marked as being in use, and was clean before.
    marked: Mutex<Option<bool>>,
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
    /// journal is replayed first, which writes to the device. What is to be written is marked as
    /// being in use, and the mark is durable when this returns.
    ///
    /// An image with features that must not be written is opened for reading:
    /// [`read_only`](Self::read_only) says so.
    ///
    /// An image is open once at a time: what two write at the same time is damaged, and nothing
    /// here keeps a second from being opened over the same `dev`.
    ///
    /// # Errors
    ///
    /// `NotExt`; `Unsupported`, with the names of the features; `Corrupt`; the device's, `EROFS`
    /// among them when the journal has to be replayed onto a device that cannot be written.
    pub fn open(
        cache: &Arc<PageCache>,
        dev: &Arc<BackingDev>,
        image_bytes: u64,
        options: &Options,
    ) -> Result<Arc<FileSystem>> {
        let device_block = dev.limits().alignment.max(DEVICE_BLOCK);
        let size = BlockSize::new(device_block).ok_or_else(|| Error {
            kind: ErrorKind::Unsupported,
            detail: format!("a device with sectors of {device_block} bytes"),
        })?;
        let identity = Identity::image(dev.block().clone(), size, image_bytes);
        let ops = Operations { get_block: Some(Arc::new(identity)), ..Operations::default() };
        let device = cache.add_mapping(dev, size, image_bytes, ops)?;
        let file = CachedFile::new(Arc::clone(&device), true);
        let share = cache.capacity_pages() * PAGE_SIZE / TRANSACTION_SHARE;
        let mut metadata =
            read_metadata(&file, device_block, share, RawSuperblock::before_recovery)?;
        if metadata.superblock().features.incompat(RECOVER) {
            journal::recover(&metadata, &file)?;
            // What the log says of the image is newer.
            metadata = read_metadata(&file, device_block, share, RawSuperblock::of)?;
        }
        let block = usize::try_from(metadata.superblock().block_bytes).expect("at most a page");
        let fs = Arc::new(FileSystem {
            cache: Arc::clone(cache),
            dev: Arc::clone(dev),
            metadata: Arc::new(metadata),
            block: BlockSize::new(block).expect("checked with the superblock"),
            device,
            closed: Mutex::default(),
            committer: OnceLock::new(),
            marked: Mutex::default(),
        });
        let features = fs.metadata.superblock().features.read_only();
        match (options.writable, features) {
            (_, Some(features)) => fs.metadata.set_read_only(format!("the image has {features}")),
            (false, _) => fs.metadata.set_read_only("the image was opened for reading".into()),
            (true, None) => {
                fs.begin_writing()?;
                if !options.commit_interval.is_zero() {
                    let committer = Committer::start(Arc::downgrade(&fs), options.commit_interval)?;
                    let _first = fs.committer.set(committer);
                }
            }
        }
        Ok(fs)
    }

    /// Learns what has to be known before anything is written, and marks the image.
    fn begin_writing(self: &Arc<Self>) -> Result<()> {
        self.metadata.set_zone(self.metadata.read(balloc::zone)?);
        let (free_inodes, free) = self.metadata.read(ialloc::count_free)?;
        {
            let mut space = self.metadata.space.lock();
            (space.free_inodes, space.free) = (free_inodes, free);
        }
        let journal = match self.metadata.superblock().features.compat(HAS_JOURNAL) {
            true => {
                let flush = self.cache.device_flush(&self.dev);
                Some(journal::Writer::open(&self.metadata, &self.dev, flush)?)
            }
            false => None,
        };
        let (now, journaled) = (Timestamp::now(), journal.is_some());
        let begin = |change: &mut Change<'_>| change.edit_superblock(|sb| sb.begin(now, journaled));
        *self.marked.lock() = Some(self.metadata.change(begin)?);
        // That there is something to be replayed is on the medium before there is.
        self.metadata.commit(self.metadata.running())?;
        self.metadata.set_journal(journal);
        match self.finish_orphans() {
            // Then nothing is written any more.
            Err(error) if error.kind != ErrorKind::Corrupt => Err(error),
            _ => Ok(()),
        }
    }

    /// False when the image was to be written, and its last user did not close it: e2fsck should
    /// have been run.
    pub fn was_clean(&self) -> bool {
        self.marked.lock().unwrap_or(true)
    }

    /// Why nothing may be written; `None` if it may.
    pub fn read_only(&self) -> Option<&str> {
        self.metadata.read_only()
    }

    /// Makes everything durable, and the image one that need not be checked. Waits for what others
    /// change just now. Nothing is written to it afterwards: what is tried gets `EROFS`. A file
    /// without a name that is open is freed when the image is opened again.
    ///
    /// # Errors
    ///
    /// The first met: what could be made durable was. An error that was told of writes that
    /// succeeded when they were tried again leaves a clean image all the same.
    pub fn close(&self) -> Result<()> {
        self.metadata.writers.close();
        self.unhold_all();
        let freed = self.release_all();
        let synced = self.sync().and(freed);
        let Some(was_clean) = self.marked.lock().take() else { return synced };
        let is_durable = synced.is_ok() || self.sync().is_ok();
        if is_durable && self.metadata.read_only().is_none() {
            self.metadata.close_journal()?;
            let now = Timestamp::now();
            let end = |change: &mut Change<'_>| {
                let (blocks, inodes) = {
                    let space = change.space.lock();
                    (space.free, space.free_inodes)
                };
                change.edit_superblock(|sb| {
                    sb.set_free(blocks, inodes);
                    sb.end(now, was_clean);
                })
            };
            // It is the last change.
            self.metadata.change_and(end, |(), _| self.set_closed())?;
            self.metadata.commit(self.metadata.running())?;
        }
        self.set_closed();
        synced
    }

    fn set_closed(&self) {
        self.metadata.set_read_only("the image is closed".into());
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
        Ok(self.attributes_of(self.metadata.read(|view| view.inode(inode))?))
    }
}

impl FileSystem {
    /// What is known of `inode`, which was read.
    pub(crate) fn attributes_of(&self, mut inode: Inode) -> Attributes {
        self.add_what_is_newer(&mut inode);
        Attributes {
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
        }
    }

    /// What is known in memory of `inode` that the inode does not say yet.
    fn add_what_is_newer(&self, inode: &mut Inode) {
        let open = self.metadata.open.lock().get(&inode.number).cloned();
        let Some(open) = open else { return };
        if let Some(file) = open.file() {
            inode.size = file.size();
        }
        let state = open.lock();
        inode.sectors += state.unmapped() * (self.metadata.superblock().block_bytes / 512);
        if let Some(modified) = state.modified {
            inode.set_modified(self.metadata.superblock(), modified);
        }
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        // Who wants to know calls it before.
        let _unknown = self.close();
        // A file in memory and what is cached of it keep each other.
        let all = std::mem::take(&mut *self.metadata.open.lock());
        for (_, open) in all {
            drop(open.set_file(None));
        }
    }
}

/// The metadata of the image that `file`, on a device of sectors of `device_block` bytes, is all
/// of; `read` reads its superblock. Transactions take `transaction_bytes` at most.
fn read_metadata(
    file: &CachedFile,
    device_block: usize,
    transaction_bytes: usize,
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
    let blocks_max = transaction_bytes / block;
    let block = BlockSize::new(block).expect("checked with the superblock");
    Ok(Metadata::new(sb, Layers::new(file.clone(), block), blocks_max))
}
