//! Inodes: what is known of a file beside its name and its content.
//!
//! Linux: Documentation/filesystems/ext4/inodes.rst; `__ext4_iget()`, fs/ext4/inode.c.

use std::fmt;

use mpage_locks::clock;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::checksum::Checksum;
use crate::error::{Error, Result};
use crate::features::{EXTENTS, HUGE_FILE};
use crate::superblock::Superblock;

/// The number of an inode: 1 and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InodeNumber(pub u32);

impl InodeNumber {
    /// The root directory's.
    pub const ROOT: InodeNumber = InodeNumber(2);
}

impl fmt::Display for InodeNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the kind of file of its name")]
pub enum FileKind {
    Regular,
    Directory,
    SymbolicLink,
    CharacterDevice,
    BlockDevice,
    Fifo,
    Socket,
}

impl FileKind {
    /// The kind that `mode` says, as `S_IFMT` does.
    pub fn of_mode(mode: u16) -> Option<FileKind> {
        Some(match mode & 0xf000 {
            0x8000 => FileKind::Regular,
            0x4000 => FileKind::Directory,
            0xa000 => FileKind::SymbolicLink,
            0x2000 => FileKind::CharacterDevice,
            0x6000 => FileKind::BlockDevice,
            0x1000 => FileKind::Fifo,
            0xc000 => FileKind::Socket,
            _ => return None,
        })
    }

    /// What a mode says of this kind.
    pub(crate) fn mode(self) -> u16 {
        match self {
            FileKind::Regular => 0x8000,
            FileKind::Directory => 0x4000,
            FileKind::SymbolicLink => 0xa000,
            FileKind::CharacterDevice => 0x2000,
            FileKind::BlockDevice => 0x6000,
            FileKind::Fifo => 0x1000,
            FileKind::Socket => 0xc000,
        }
    }
}

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970, which may be negative.
    pub seconds: i64,
    /// Nanoseconds behind them: below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// The time of day.
    pub fn now() -> Timestamp {
        let (seconds, nanoseconds) = clock::time_of_day();
        Timestamp { seconds, nanoseconds }
    }

    /// From 32 bits of seconds, and 2 more with 30 of nanoseconds.
    fn of(seconds: U32, extra: U32) -> Timestamp {
        let epoch = i64::from(extra.get() & 3) << 32;
        let seconds = i64::from(seconds.get().cast_signed()) + epoch;
        Timestamp { seconds, nanoseconds: (extra.get() >> 2).min(999_999_999) }
    }

    /// The 32 bits of seconds, and 2 more with 30 of nanoseconds. What is too early or too late for
    /// the format becomes the first or last second that it has, which has no nanoseconds: with
    /// `extra` 2446, else 2038.
    fn raw(self, extra: bool) -> (U32, U32) {
        let first = i64::from(i32::MIN);
        let last = if extra { (3i64 << 32) + i64::from(i32::MAX) } else { i32::MAX.into() };
        let seconds = self.seconds.clamp(first, last);
        let low = (seconds & 0xffff_ffff) as u32;
        let epoch = (seconds - i64::from(low.cast_signed())) >> 32;
        let at_the_end = seconds == first || seconds == last;
        let nanoseconds = if at_the_end { 0 } else { self.nanoseconds };
        let more = (epoch & 3) as u32 | nanoseconds << 2;
        (low.into(), if extra { more.into() } else { 0.into() })
    }

    /// What the format keeps of it.
    fn kept(self, extra: bool) -> Timestamp {
        let (seconds, more) = self.raw(extra);
        Timestamp::of(seconds, more)
    }
}

/// The inode's blocks are in a tree of extents.
pub(crate) const EXTENTS_FLAG: u32 = 0x8_0000;
/// The directory has hashes.
pub(crate) const INDEX_FLAG: u32 = 0x1000;
/// Nothing of it may be changed.
pub(crate) const IMMUTABLE_FLAG: u32 = 0x10;
/// It may only grow.
pub(crate) const APPEND_FLAG: u32 = 0x20;
/// The blocks are counted in blocks.
const HUGE_FILE_FLAG: u32 = 0x4_0000;

const SHORT: usize = Inode::SHORT;

/// The root of a tree of extents that has none: a magic number, and room for four.
const EMPTY_TREE: [u8; 8] = [0x0a, 0xf3, 0, 0, 4, 0, 0, 0];

#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawInode {
    mode: U16,
    uid_lo: U16,
    size_lo: U32,
    atime: U32,
    ctime: U32,
    mtime: U32,
    dtime: U32,
    gid_lo: U16,
    links_count: U16,
    blocks_lo: U32,
    flags: U32,
    version_lo: U32,
    block: [u8; 60],
    generation: U32,
    file_acl_lo: U32,
    size_high: U32,
    obso_faddr: U32,
    blocks_high: U16,
    file_acl_high: U16,
    uid_high: U16,
    gid_high: U16,
    checksum_lo: U16,
    reserved: U16,
    // Behind the first 128 bytes.
    extra_isize: U16,
    checksum_hi: U16,
    ctime_extra: U32,
    mtime_extra: U32,
    atime_extra: U32,
    crtime: U32,
    crtime_extra: U32,
    version_hi: U32,
    projid: U32,
}

const WHOLE: usize = size_of::<RawInode>();
const _: () = assert!(WHOLE == 160);
const GENERATION_AT: usize = std::mem::offset_of!(RawInode, generation);
const CHECKSUM_LO_AT: usize = 0x7c;
const CHECKSUM_HI_AT: usize = 0x82;

/// An inode, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    pub(crate) number: InodeNumber,
    pub(crate) kind: FileKind,
    /// Permissions and the kind, as `st_mode` has them.
    pub(crate) mode: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) links: u16,
    /// Room on the device, in sectors of 512 bytes.
    pub(crate) sectors: u64,
    pub(crate) flags: u32,
    /// The root of its map, a short symbolic link, or a device's number.
    pub(crate) block: [u8; 60],
    pub(crate) generation: u32,
    /// When it was removed, in seconds; while it is an orphan, the next one.
    pub(crate) deleted: u32,
    /// The block of its extended attributes; zero if there is none.
    pub(crate) attribute_block: u64,
    pub(crate) accessed: Timestamp,
    pub(crate) changed: Timestamp,
    pub(crate) modified: Timestamp,
    /// When it was made; `None` where the inode is too short to say.
    pub(crate) created: Option<Timestamp>,
    /// What the checksums of its blocks begin with.
    pub(crate) checksum_seed: Checksum,
    /// What lies behind the fields: its extended attributes.
    pub(crate) behind: Vec<u8>,
}

impl Inode {
    /// Bytes of an inode, and of the fields that every one has.
    pub(crate) const SHORT: usize = 128;

    /// Reads inode `number` from its bytes.
    ///
    /// # Errors
    ///
    /// `Corrupt` when its checksum is wrong, or it is not what an inode can be. An inode that is
    /// not in use is `Corrupt` too: nothing should name it.
    pub(crate) fn of(sb: &Superblock, number: InodeNumber, bytes: &[u8]) -> Result<Inode> {
        let corrupt = |what: String| Error::corrupt(format!("inode {number} {what}"));
        let extra = match bytes.len() {
            SHORT => 0,
            _ => usize::from(u16::from_le_bytes([bytes[SHORT], bytes[SHORT + 1]])),
        };
        if !extra.is_multiple_of(4) || SHORT + extra > bytes.len() {
            return Err(corrupt(format!("has {extra} extra bytes")));
        }
        let fields = SHORT + extra;
        let mut whole = [0; WHOLE];
        let len = fields.min(WHOLE);
        whole[..len].copy_from_slice(&bytes[..len]);
        let raw = RawInode::read_from_bytes(&whole).expect("as long as it is");
        let seed = sb.checksum_seed.of(&number.0.to_le_bytes()).of(raw.generation.as_bytes());
        if sb.has_checksums() && raw.checksum(extra) != right_checksum(seed, bytes, extra) {
            return Err(corrupt("has a wrong checksum".into()));
        }
        let mode = raw.mode.get();
        let kind = FileKind::of_mode(mode);
        let kind = kind.ok_or_else(|| corrupt(format!("has mode {mode:#o}")))?;
        let is_file = kind == FileKind::Regular;
        let high = if is_file { u64::from(raw.size_high.get()) << 32 } else { 0 };
        let has_created = extra >= 0x14;
        let inode = Inode {
            number,
            kind,
            mode,
            uid: u32::from(raw.uid_lo.get()) | u32::from(raw.uid_high.get()) << 16,
            gid: u32::from(raw.gid_lo.get()) | u32::from(raw.gid_high.get()) << 16,
            size: u64::from(raw.size_lo.get()) | high,
            links: raw.links_count.get(),
            sectors: raw.sectors(sb),
            flags: raw.flags.get(),
            block: raw.block,
            generation: raw.generation.get(),
            deleted: raw.dtime.get(),
            attribute_block: u64::from(raw.file_acl_lo.get())
                | u64::from(raw.file_acl_high.get()) << 32,
            accessed: Timestamp::of(raw.atime, raw.atime_extra),
            changed: Timestamp::of(raw.ctime, raw.ctime_extra),
            modified: Timestamp::of(raw.mtime, raw.mtime_extra),
            created: has_created.then(|| Timestamp::of(raw.crtime, raw.crtime_extra)),
            checksum_seed: seed,
            behind: bytes[fields..].to_vec(),
        };
        if inode.size > inode.size_max(sb) {
            return Err(corrupt(format!("has {} bytes, more than its map holds", inode.size)));
        }
        Ok(inode)
    }

    /// A new inode without names, content or attributes, made `now` of `mode`.
    pub(crate) fn new(
        sb: &Superblock,
        number: InodeNumber,
        generation: u32,
        mode: u16,
        now: Timestamp,
    ) -> Inode {
        let kind = FileKind::of_mode(mode).expect("a mode has a kind");
        let seed = sb.checksum_seed.of(&number.0.to_le_bytes()).of(&generation.to_le_bytes());
        let extra = if sb.inode_bytes == SHORT { 0 } else { sb.extra_inode_bytes.into() };
        let mut inode = Inode {
            number,
            kind,
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            links: 0,
            sectors: 0,
            flags: 0,
            block: [0; 60],
            generation,
            deleted: 0,
            attribute_block: 0,
            accessed: now,
            changed: now,
            modified: now,
            created: (extra >= 0x14).then_some(now),
            checksum_seed: seed,
            behind: vec![0; sb.inode_bytes - SHORT - extra],
        };
        if matches!(kind, FileKind::Regular | FileKind::Directory) {
            inode.set_empty_map(sb);
        }
        inode
    }

    /// Gives it a map without blocks.
    pub(crate) fn set_empty_map(&mut self, sb: &Superblock) {
        self.block = [0; 60];
        if sb.features.incompat(EXTENTS) {
            self.block[..EMPTY_TREE.len()].copy_from_slice(&EMPTY_TREE);
            self.flags |= EXTENTS_FLAG;
        }
    }

    /// Writes what changes of it into `bytes`, of an inode that was read from there or is new, with
    /// its checksum.
    pub(crate) fn store(&self, sb: &Superblock, bytes: &mut [u8]) {
        let fields = bytes.len() - self.behind.len();
        let extra = fields - SHORT;
        let mut whole = [0; WHOLE];
        let len = fields.min(WHOLE);
        whole[..len].copy_from_slice(&bytes[..len]);
        let raw = RawInode::mut_from_bytes(&mut whole).expect("as long as it is");
        self.store_fields(sb, raw, extra);
        bytes[..len].copy_from_slice(&whole[..len]);
        bytes[fields..].copy_from_slice(&self.behind);
        if sb.has_checksums() {
            let sum = right_checksum(self.checksum_seed, bytes, extra).to_le_bytes();
            bytes[CHECKSUM_LO_AT..CHECKSUM_LO_AT + 2].copy_from_slice(&sum[..2]);
            if extra >= 4 {
                bytes[CHECKSUM_HI_AT..CHECKSUM_HI_AT + 2].copy_from_slice(&sum[2..]);
            }
        }
    }

    /// Sets the time at which its content was changed, as it will say it when it is read again.
    pub(crate) fn set_modified(&mut self, sb: &Superblock, modified: Timestamp) {
        let extra = sb.inode_bytes - self.behind.len() - SHORT;
        self.modified = modified.kept(extra >= 0x0c);
        // Something else may have changed since then.
        self.changed = self.changed.max(self.modified);
    }

    fn store_fields(&self, sb: &Superblock, raw: &mut RawInode, extra: usize) {
        let low = |number: u64| U32::from((number & 0xffff_ffff) as u32);
        let half = |number: u32| U16::from((number & 0xffff) as u16);
        raw.mode = self.mode.into();
        (raw.uid_lo, raw.uid_high) = (half(self.uid), half(self.uid >> 16));
        (raw.gid_lo, raw.gid_high) = (half(self.gid), half(self.gid >> 16));
        raw.size_lo = low(self.size);
        if self.kind == FileKind::Regular || self.size >> 32 != 0 {
            raw.size_high = low(self.size >> 32);
        }
        raw.links_count = self.links.into();
        raw.block = self.block;
        raw.generation = self.generation.into();
        raw.dtime = self.deleted.into();
        raw.file_acl_lo = low(self.attribute_block);
        raw.file_acl_high = half((self.attribute_block >> 32 & 0xffff) as u32);
        raw.flags = (self.flags & !HUGE_FILE_FLAG).into();
        raw.blocks_lo = low(self.sectors);
        if sb.features.ro_compat(HUGE_FILE) {
            let too_many = self.sectors >> 48 != 0;
            let count = if too_many { self.sectors / (sb.block_bytes / 512) } else { self.sectors };
            raw.blocks_lo = low(count);
            raw.blocks_high = half((count >> 32) as u32);
            raw.flags = (raw.flags.get() | if too_many { HUGE_FILE_FLAG } else { 0 }).into();
        }
        if extra >= 4 {
            raw.extra_isize = u16::try_from(extra).expect("inside an inode").into();
        }
        (raw.ctime, raw.ctime_extra) = self.changed.raw(extra >= 0x08);
        (raw.mtime, raw.mtime_extra) = self.modified.raw(extra >= 0x0c);
        (raw.atime, raw.atime_extra) = self.accessed.raw(extra >= 0x10);
        if let Some(created) = self.created {
            (raw.crtime, raw.crtime_extra) = created.raw(extra >= 0x18);
        }
    }

    /// True when its blocks are in a tree of extents.
    pub(crate) fn has_extents(&self) -> bool {
        self.flags & EXTENTS_FLAG != 0
    }

    /// The number of a device file, in one of two forms; zero for others. Linux: `old_encode_dev()`
    /// and `new_encode_dev()`, include/linux/kdev_t.h.
    pub(crate) fn device(&self) -> u32 {
        let number =
            |at: usize| u32::from_le_bytes(self.block[at..at + 4].try_into().expect("four bytes"));
        match (self.kind, number(0)) {
            (FileKind::CharacterDevice | FileKind::BlockDevice, 0) => number(4),
            (FileKind::CharacterDevice | FileKind::BlockDevice, old) => {
                (old >> 8 & 0xff) << 8 | old & 0xff
            }
            _ => 0,
        }
    }

    /// Makes `number` be that of this device file.
    pub(crate) fn set_device(&mut self, number: u32) {
        let at = if number >> 16 == 0 { 0 } else { 4 };
        self.block[at..at + 4].copy_from_slice(&number.to_le_bytes());
    }

    /// True when it has a map: it is a file with content, a directory, or a long symbolic link.
    pub(crate) fn has_map(&self, sb: &Superblock) -> bool {
        match self.kind {
            FileKind::Regular | FileKind::Directory => true,
            FileKind::SymbolicLink => !self.is_short_link(sb),
            _ => false,
        }
    }

    /// True when this symbolic link has its target in the inode: it has no room of its own. Linux:
    /// `ext4_inode_is_fast_symlink()`.
    pub(crate) fn is_short_link(&self, sb: &Superblock) -> bool {
        let of_attributes = if self.attribute_block == 0 { 0 } else { sb.block_bytes / 512 };
        self.sectors == of_attributes
    }

    /// The most bytes that its map can hold, and its count of sectors. Linux: `ext4_max_size()` and
    /// `ext4_max_bitmap_size()`, fs/ext4/super.c.
    pub(crate) fn size_max(&self, sb: &Superblock) -> u64 {
        let block = sb.block_bytes;
        let in_block = block / 4;
        let (numbers, of_map) = match self.has_extents() {
            true => (u64::from(u32::MAX), 0),
            false => {
                let levels =
                    [1, 2, 3].map(|level| (0..level).map(|n| in_block.pow(n)).sum::<u64>());
                (12 + in_block + in_block.pow(2) + in_block.pow(3), levels.iter().sum())
            }
        };
        let counted = match sb.features.ro_compat(HUGE_FILE) {
            true => u64::MAX,
            false => u64::from(u32::MAX) / (block / 512) - of_map,
        };
        numbers.min(u32::MAX.into()).min(counted) * block
    }
}

impl RawInode {
    fn checksum(&self, extra: usize) -> u32 {
        let high = if extra >= 4 { u32::from(self.checksum_hi.get()) << 16 } else { 0 };
        u32::from(self.checksum_lo.get()) | high
    }

    /// Room on the device in sectors of 512 bytes.
    fn sectors(&self, sb: &Superblock) -> u64 {
        if !sb.features.ro_compat(HUGE_FILE) {
            return self.blocks_lo.get().into();
        }
        let count = u64::from(self.blocks_lo.get()) | u64::from(self.blocks_high.get()) << 32;
        let in_blocks = self.flags.get() & HUGE_FILE_FLAG != 0;
        if in_blocks { count * (sb.block_bytes / 512) } else { count }
    }
}

/// The generation of the inode in `bytes`, which may hold anything.
pub(crate) fn generation(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[GENERATION_AT..GENERATION_AT + 4].try_into().expect("four bytes"))
}

/// The checksum of an inode, begun with its own `seed`.
fn right_checksum(seed: Checksum, bytes: &[u8], extra: usize) -> u32 {
    let (low, high) = (CHECKSUM_LO_AT, CHECKSUM_HI_AT);
    let sum = seed.of(&bytes[..low]).of(&[0; 2]).of(&bytes[low + 2..SHORT]);
    if bytes.len() == SHORT {
        return sum.low().into();
    }
    if extra < 4 {
        return sum.of(&bytes[SHORT..]).low().into();
    }
    sum.of(&bytes[SHORT..high]).of(&[0; 2]).of(&bytes[high + 2..]).0
}
