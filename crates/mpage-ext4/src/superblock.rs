//! The superblock: what the image is like as a whole.
//!
//! Linux: Documentation/filesystems/ext4/super.rst; `ext4_fill_super()`, fs/ext4/super.c.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};
use crate::features::{
    CSUM_SEED, EXT_ATTR, Features, HAS_JOURNAL, LARGE_FILE, META_BG, METADATA_CSUM, ORPHAN_PRESENT,
    RECOVER, SIXTY_FOUR_BIT,
};
use crate::inode::Timestamp;

/// Where it is in the image, in bytes.
pub(crate) const OFFSET: u64 = 1024;
/// Its length in bytes.
pub(crate) const LEN: usize = 1024;

/// The `state` bit of an image that was found to be damaged.
pub(crate) const ERRORS: u16 = 0x2;

const MAGIC: u16 = 0xef53;
/// `s_state`: it was closed, and has no damage that is known.
const CLEAN: u16 = 1;
const CHECKSUM_AT: usize = LEN - 4;
/// The largest block: a page of the cache.
const BLOCK_MAX: u64 = 4096;
/// The largest number of blocks that the format can count: 48 bits.
const BLOCKS_MAX: u64 = 1 << 48;

/// The superblock as it is on the device.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(crate) struct RawSuperblock {
    pub(crate) inodes_count: U32,
    blocks_count_lo: U32,
    r_blocks_count_lo: U32,
    free_blocks_count_lo: U32,
    pub(crate) free_inodes_count: U32,
    first_data_block: U32,
    log_block_size: U32,
    log_cluster_size: U32,
    blocks_per_group: U32,
    clusters_per_group: U32,
    inodes_per_group: U32,
    pub(crate) mtime: U32,
    pub(crate) wtime: U32,
    pub(crate) mnt_count: U16,
    max_mnt_count: U16,
    magic: U16,
    pub(crate) state: U16,
    errors: U16,
    minor_rev_level: U16,
    lastcheck: U32,
    checkinterval: U32,
    creator_os: U32,
    rev_level: U32,
    def_resuid: U16,
    def_resgid: U16,
    first_ino: U32,
    inode_size: U16,
    block_group_nr: U16,
    feature_compat: U32,
    pub(crate) feature_incompat: U32,
    pub(crate) feature_ro_compat: U32,
    uuid: [u8; 16],
    volume_name: [u8; 16],
    last_mounted: [u8; 64],
    algorithm_usage_bitmap: U32,
    prealloc_blocks: u8,
    prealloc_dir_blocks: u8,
    reserved_gdt_blocks: U16,
    journal_uuid: [u8; 16],
    journal_inum: U32,
    journal_dev: U32,
    pub(crate) last_orphan: U32,
    hash_seed: [U32; 4],
    def_hash_version: u8,
    jnl_backup_type: u8,
    desc_size: U16,
    default_mount_opts: U32,
    first_meta_bg: U32,
    mkfs_time: U32,
    jnl_blocks: [U32; 17],
    blocks_count_hi: U32,
    r_blocks_count_hi: U32,
    free_blocks_count_hi: U32,
    min_extra_isize: U16,
    want_extra_isize: U16,
    flags: U32,
    raid_stride: U16,
    mmp_interval: U16,
    mmp_block: U64,
    raid_stripe_width: U32,
    log_groups_per_flex: u8,
    checksum_type: u8,
    encryption_level: u8,
    reserved_pad: u8,
    kbytes_written: U64,
    snapshots: [u8; 20],
    error_counts: [u8; 108],
    mount_opts: [u8; 64],
    usr_quota_inum: U32,
    grp_quota_inum: U32,
    overhead_blocks: U32,
    backup_bgs: [U32; 2],
    encrypt_algos: [u8; 4],
    encrypt_pw_salt: [u8; 16],
    lpf_ino: U32,
    prj_quota_inum: U32,
    checksum_seed: U32,
    times_hi: [u8; 8],
    encoding: U16,
    encoding_flags: U16,
    orphan_file_inum: U32,
    reserved: [u8; 376],
    checksum: U32,
}

const _: () = assert!(size_of::<RawSuperblock>() == LEN);

/// What of the superblock stays as it is while the image is open, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) features: Features,
    pub(crate) block_bytes: u64,
    /// Blocks of the image, those before the first group included.
    pub(crate) blocks: u64,
    /// Blocks kept for the superuser.
    pub(crate) reserved_blocks: u64,
    /// The first block of group 0.
    pub(crate) first_data_block: u64,
    pub(crate) blocks_per_group: u64,
    pub(crate) inodes_per_group: u32,
    pub(crate) inodes: u32,
    /// The first inode number that is not the file system's own.
    pub(crate) first_inode: u32,
    /// Bytes of an inode on the device.
    pub(crate) inode_bytes: usize,
    /// Bytes behind the first 128 that new inodes use.
    pub(crate) extra_inode_bytes: u16,
    /// Bytes of a group descriptor.
    pub(crate) descriptor_bytes: usize,
    pub(crate) first_meta_group: u64,
    /// Blocks kept behind the group descriptors, for more of them.
    pub(crate) reserved_descriptor_blocks: u64,
    pub(crate) groups_per_flex: u64,
    pub(crate) journal_inode: u32,
    pub(crate) orphan_file_inode: u32,
    /// The groups that have copies of the superblock, with `sparse_super2`.
    pub(crate) backup_groups: [u32; 2],
    pub(crate) hash_seed: [u32; 4],
    pub(crate) hash_version: u8,
    /// Names are hashed as unsigned bytes.
    pub(crate) hash_unsigned: bool,
    pub(crate) uuid: [u8; 16],
    /// What the checksums of metadata begin with.
    pub(crate) checksum_seed: Checksum,
}

/// `s_flags`: directory hashes take names as unsigned bytes.
const UNSIGNED_HASH: u32 = 0x2;

/// The block that it is in, and the byte of that at which it begins.
pub(crate) fn place(sb: &Superblock) -> (u64, usize) {
    let at = usize::try_from(OFFSET % sb.block_bytes).expect("inside a block");
    (OFFSET / sb.block_bytes, at)
}

impl RawSuperblock {
    /// Reads one from [`LEN`] bytes.
    ///
    /// One that was torn when `needs_recovery` was cleared in it needs recovery: a device may tear
    /// it between its flags and its checksum.
    ///
    /// # Errors
    ///
    /// `NotExt`; `Corrupt` when its checksum is wrong.
    pub(crate) fn of(bytes: &[u8]) -> Result<RawSuperblock> {
        let raw = RawSuperblock::unsummed(bytes)?;
        if raw.has_right_checksum() {
            return Ok(raw);
        }
        let mut other = raw.clone();
        other.feature_incompat = (raw.feature_incompat.get() ^ RECOVER).into();
        if !other.has_right_checksum() {
            return Err(Error::corrupt("the superblock's checksum is wrong"));
        }
        other.set_needs_recovery(true);
        Ok(other)
    }

    /// As [`of`](Self::of), but one that needs recovery may have a wrong checksum: it may have been
    /// torn when it was written, and then the journal has it whole. What says where the journal is
    /// does not change, so it is the same in both parts.
    ///
    /// # Errors
    ///
    /// As [`of`](Self::of).
    pub(crate) fn before_recovery(bytes: &[u8]) -> Result<RawSuperblock> {
        let raw = RawSuperblock::unsummed(bytes)?;
        match raw.features().incompat(RECOVER) {
            true => Ok(raw),
            false => RawSuperblock::of(bytes),
        }
    }

    fn unsummed(bytes: &[u8]) -> Result<RawSuperblock> {
        let raw = RawSuperblock::read_from_bytes(bytes).expect("as long as it is");
        if raw.magic != MAGIC {
            let detail = format!("the magic number is {:#x}", raw.magic.get());
            return Err(Error { kind: ErrorKind::NotExt, detail });
        }
        Ok(raw)
    }

    fn has_right_checksum(&self) -> bool {
        !self.features().ro_compat(METADATA_CSUM) || self.checksum == self.right_checksum()
    }

    /// Says whether the journal has to be replayed, with the checksum that it then has.
    pub(crate) fn set_needs_recovery(&mut self, needs: bool) {
        let others = self.feature_incompat.get() & !RECOVER;
        self.feature_incompat = (others | if needs { RECOVER } else { 0 }).into();
        self.set_checksum();
    }

    /// Gives it the checksum that it then has.
    pub(crate) fn set_checksum(&mut self) {
        if self.features().ro_compat(METADATA_CSUM) {
            self.checksum = self.right_checksum();
        }
    }

    /// Says that the image is in use from `now` on; true when it was clean.
    pub(crate) fn begin(&mut self, now: Timestamp, journaled: bool) -> bool {
        let was_clean = self.state.get() & CLEAN != 0;
        match journaled {
            true => self.set_needs_recovery(true),
            false => self.state = (self.state.get() & !CLEAN).into(),
        }
        self.mnt_count = self.mnt_count.get().saturating_add(1).into();
        self.mtime = low_seconds(now);
        self.wtime = low_seconds(now);
        was_clean
    }

    /// Says that it is in use no more, and clean if `is_clean`.
    pub(crate) fn end(&mut self, now: Timestamp, is_clean: bool) {
        let clean = if is_clean { CLEAN } else { 0 };
        self.state = (self.state.get() | clean).into();
        self.set_needs_recovery(false);
        self.wtime = low_seconds(now);
    }

    /// Says that a file may have 2 GiB or more.
    pub(crate) fn set_large_file(&mut self) {
        self.feature_ro_compat = (self.feature_ro_compat.get() | LARGE_FILE).into();
    }

    /// True when it says that inodes may have extended attributes.
    pub(crate) fn has_ext_attr(&self) -> bool {
        self.features().compat(EXT_ATTR)
    }

    /// Says that inodes may have extended attributes. Linux: `ext4_xattr_update_super_block()`.
    pub(crate) fn set_ext_attr(&mut self) {
        self.feature_compat = (self.feature_compat.get() | EXT_ATTR).into();
    }

    /// Says how much is free.
    pub(crate) fn set_free(&mut self, blocks: u64, inodes: u64) {
        let low = |count: u64| U32::from((count & 0xffff_ffff) as u32);
        self.free_blocks_count_lo = low(blocks);
        if self.features().incompat(SIXTY_FOUR_BIT) {
            self.free_blocks_count_hi = low(blocks >> 32);
        }
        self.free_inodes_count = low(inodes);
    }

    /// As it is on the device.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    fn features(&self) -> Features {
        Features {
            compat: self.feature_compat.get(),
            incompat: self.feature_incompat.get(),
            ro_compat: self.feature_ro_compat.get(),
        }
    }

    fn right_checksum(&self) -> U32 {
        Checksum::START.of(&self.as_bytes()[..CHECKSUM_AT]).0.into()
    }

    fn wide(&self, low: U32, high: U32) -> u64 {
        let wide = self.features().incompat(SIXTY_FOUR_BIT);
        u64::from(low.get()) | if wide { u64::from(high.get()) << 32 } else { 0 }
    }
}

fn low_seconds(time: Timestamp) -> U32 {
    U32::from((time.seconds & 0xffff_ffff) as u32)
}

impl Superblock {
    /// Checks what `raw` says of an image of `image_bytes` bytes.
    ///
    /// # Errors
    ///
    /// `Unsupported`, with the names of the features; `Corrupt` for what cannot be.
    pub(crate) fn new(raw: &RawSuperblock, image_bytes: u64) -> Result<Superblock> {
        raw.features().check()?;
        let sb = Superblock::unchecked(raw)?;
        sb.check_sizes(raw)?;
        if sb.blocks * sb.block_bytes > image_bytes {
            return Err(Error::corrupt(format!(
                "the superblock says {} blocks of {} bytes, and the image has {image_bytes} bytes",
                sb.blocks, sb.block_bytes
            )));
        }
        Ok(sb)
    }

    fn unchecked(raw: &RawSuperblock) -> Result<Superblock> {
        let features = raw.features();
        let log = raw.log_block_size.get();
        if log > 6 {
            return Err(Error::corrupt(format!("the superblock has blocks of 2^{log} KiB")));
        }
        let is_old = raw.rev_level.get() == 0;
        let wide = features.incompat(SIXTY_FOUR_BIT);
        let has_seed = features.incompat(CSUM_SEED);
        Ok(Superblock {
            features,
            block_bytes: 1024 << log,
            blocks: raw.wide(raw.blocks_count_lo, raw.blocks_count_hi),
            reserved_blocks: raw.wide(raw.r_blocks_count_lo, raw.r_blocks_count_hi),
            first_data_block: raw.first_data_block.get().into(),
            blocks_per_group: raw.blocks_per_group.get().into(),
            inodes_per_group: raw.inodes_per_group.get(),
            inodes: raw.inodes_count.get(),
            first_inode: if is_old { 11 } else { raw.first_ino.get() },
            inode_bytes: if is_old { 128 } else { raw.inode_size.get().into() },
            extra_inode_bytes: raw.want_extra_isize.get().max(raw.min_extra_isize.get()),
            descriptor_bytes: if wide { raw.desc_size.get().into() } else { 32 },
            first_meta_group: match features.incompat(META_BG) {
                true => raw.first_meta_bg.get().into(),
                false => u64::MAX,
            },
            reserved_descriptor_blocks: raw.reserved_gdt_blocks.get().into(),
            groups_per_flex: 1 << raw.log_groups_per_flex.min(31),
            journal_inode: raw.journal_inum.get(),
            orphan_file_inode: raw.orphan_file_inum.get(),
            backup_groups: raw.backup_bgs.map(U32::get),
            hash_seed: raw.hash_seed.map(U32::get),
            hash_version: raw.def_hash_version,
            hash_unsigned: raw.flags.get() & UNSIGNED_HASH != 0,
            uuid: raw.uuid,
            checksum_seed: match has_seed {
                true => Checksum(raw.checksum_seed.get()),
                false => Checksum::START.of(&raw.uuid),
            },
        })
    }

    fn check_sizes(&self, raw: &RawSuperblock) -> Result<()> {
        let wrong = |what: &str, is: u64| {
            Err(Error::corrupt(format!("the superblock says {what} {is}, which cannot be")))
        };
        if self.block_bytes > BLOCK_MAX {
            let detail = format!("blocks of {} bytes, more than a page", self.block_bytes);
            return Err(Error { kind: ErrorKind::Unsupported, detail });
        }
        let bits = self.block_bytes * 8;
        if !self.blocks_per_group.is_multiple_of(8) || !(8..=bits).contains(&self.blocks_per_group)
        {
            return wrong("blocks per group:", self.blocks_per_group);
        }
        let inode_bytes = self.inode_bytes as u64;
        if !inode_bytes.is_power_of_two() || !(128..=self.block_bytes).contains(&inode_bytes) {
            return wrong("bytes of an inode:", inode_bytes);
        }
        let extra = u64::from(self.extra_inode_bytes);
        if !extra.is_multiple_of(4) || extra > inode_bytes - 128 {
            return wrong("extra bytes of an inode:", extra);
        }
        let per_block = self.block_bytes / inode_bytes;
        let inodes = u64::from(self.inodes_per_group);
        if !(per_block..=bits).contains(&inodes) {
            return wrong("inodes per group:", inodes);
        }
        let descriptor = self.descriptor_bytes as u64;
        if !descriptor.is_power_of_two() || !(32..=self.block_bytes).contains(&descriptor) {
            return wrong("bytes of a group descriptor:", descriptor);
        }
        if self.first_data_block != u64::from(self.block_bytes == 1024) {
            return wrong("first data block:", self.first_data_block);
        }
        if self.blocks <= self.first_data_block || self.blocks > BLOCKS_MAX {
            return wrong("blocks:", self.blocks);
        }
        if u64::from(self.inodes) != self.groups() * inodes {
            return wrong("inodes:", self.inodes.into());
        }
        if self.first_inode < 11 || self.first_inode > self.inodes {
            return wrong("first inode:", self.first_inode.into());
        }
        if self.features.compat(HAS_JOURNAL) && self.journal_inode > self.inodes {
            return wrong("inode of the journal:", self.journal_inode.into());
        }
        if self.features.ro_compat(ORPHAN_PRESENT) && self.orphan_file_inode > self.inodes {
            return wrong("inode of the orphan file:", self.orphan_file_inode.into());
        }
        if self.reserved_descriptor_blocks > self.block_bytes / 4 {
            return wrong("reserved blocks of descriptors:", self.reserved_descriptor_blocks);
        }
        if self.has_checksums() && raw.checksum_type != 1 {
            return wrong("kind of checksums:", raw.checksum_type.into());
        }
        Ok(())
    }

    /// Groups of the image.
    pub(crate) fn groups(&self) -> u64 {
        (self.blocks - self.first_data_block).div_ceil(self.blocks_per_group)
    }

    /// The first block of `group`.
    pub(crate) fn first_block_of(&self, group: u64) -> u64 {
        self.first_data_block + group * self.blocks_per_group
    }

    /// Blocks of `group`: the last may have fewer.
    pub(crate) fn blocks_of(&self, group: u64) -> u64 {
        (self.blocks - self.first_block_of(group)).min(self.blocks_per_group)
    }

    /// True when `count` blocks from `first` on are blocks of the image that can hold anything.
    pub(crate) fn has_blocks(&self, first: u64, count: u64) -> bool {
        let end = first.checked_add(count);
        first > self.first_data_block && end.is_some_and(|end| end <= self.blocks)
    }

    /// True when metadata has crc32c checksums.
    pub(crate) fn has_checksums(&self) -> bool {
        self.features.ro_compat(METADATA_CSUM)
    }
}

#[cfg(test)]
mod tests;
