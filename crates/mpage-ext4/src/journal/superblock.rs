//! The superblock of a journal: where its log begins and ends, and how it is written.
//!
//! It is the first block of the journal's file. All numbers of a journal are big endian.
//!
//! Linux: Documentation/filesystems/ext4/journal.rst; `journal_load_superblock()`,
//! fs/jbd2/journal.c.

use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::record::MAGIC;
use crate::checksum::Checksum;
use crate::error::{Error, ErrorKind, Result};

/// Its length in bytes.
pub(super) const LEN: usize = 1024;

/// The kinds of block that are a superblock: one without, and one with features.
const VERSION_1: u32 = 3;
const VERSION_2: u32 = 4;

/// The only feature that may be ignored: each commit block has a sum of what it commits.
const CHECKSUM: u32 = 0x1;

const REVOKE: u32 = 0x1;
const SIXTY_FOUR_BIT: u32 = 0x2;
const ASYNC_COMMIT: u32 = 0x4;
const CSUM_V2: u32 = 0x8;
const CSUM_V3: u32 = 0x10;
const FAST_COMMIT: u32 = 0x20;
const SUPPORTED: u32 = REVOKE | SIXTY_FOUR_BIT | ASYNC_COMMIT | CSUM_V2 | CSUM_V3;

/// `s_checksum_type`: crc32c.
const CRC32C: u8 = 4;

/// The superblock as it is in the journal.
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct RawJournal {
    pub(super) magic: U32,
    pub(super) kind: U32,
    pub(super) header_sequence: U32,
    pub(super) block_size: U32,
    pub(super) max_len: U32,
    pub(super) first: U32,
    pub(super) sequence: U32,
    pub(super) start: U32,
    pub(super) errno: U32,
    pub(super) feature_compat: U32,
    pub(super) feature_incompat: U32,
    pub(super) feature_ro_compat: U32,
    pub(super) uuid: [u8; 16],
    pub(super) users_count: U32,
    pub(super) dynamic: U32,
    pub(super) max_transaction: U32,
    pub(super) max_transaction_data: U32,
    pub(super) checksum_type: u8,
    pub(super) padding: [u8; 3],
    pub(super) fast_commit_blocks: U32,
    pub(super) head: U32,
    pub(super) reserved: [U32; 40],
    pub(super) checksum: U32,
    pub(super) users: [u8; 768],
}

const _: () = assert!(size_of::<RawJournal>() == LEN);

/// How the blocks of a log are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sums {
    /// Not at all.
    None,
    /// The commit block has a crc32 of all descriptors and contents. `COMPAT_CHECKSUM`.
    Commit,
    /// Each block has a crc32c, those of contents are in their tags: 16 bits of them, or with
    /// `wide` all. `INCOMPAT_CSUM_V2` and `INCOMPAT_CSUM_V3`.
    Each { wide: bool },
}

/// What of a journal's superblock its log is read by, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Journal {
    /// Bytes of a block.
    pub(super) block_bytes: usize,
    /// The first block of the log's ring, and the block behind its last.
    pub(super) first: u32,
    pub(super) end: u32,
    /// The block that the log begins with; `None` if it is empty.
    pub(super) start: Option<u32>,
    /// The number of its first transaction.
    pub(super) sequence: u32,
    /// Block numbers have 64 bits.
    pub(super) wide: bool,
    /// A commit block may reach the medium before what it commits.
    pub(super) async_commit: bool,
    pub(super) sums: Sums,
    /// What sums begin with.
    pub(super) seed: Checksum,
    /// The journal's own.
    pub(super) uuid: [u8; 16],
}

impl RawJournal {
    /// Reads one from [`LEN`] bytes.
    ///
    /// # Errors
    ///
    /// `Unsupported`, with the names of the features; `Corrupt` when it is none, its checksum is
    /// wrong, or its features exclude each other.
    pub(super) fn of(bytes: &[u8]) -> Result<RawJournal> {
        let raw = RawJournal::read_from_bytes(bytes).expect("as long as it is");
        if raw.magic != MAGIC || ![VERSION_1, VERSION_2].contains(&raw.kind.get()) {
            return Err(Error::corrupt("the journal has no superblock"));
        }
        raw.check_features()?;
        if raw.is_summed() && raw.checksum_type != CRC32C {
            let detail = format!("the journal has checksums of kind {}", raw.checksum_type);
            return Err(Error::corrupt(detail));
        }
        if raw.is_summed() && raw.checksum != raw.right_checksum() {
            return Err(Error::corrupt("the checksum of the journal's superblock is wrong"));
        }
        Ok(raw)
    }

    fn check_features(&self) -> Result<()> {
        let mut unknown = Vec::new();
        let incompat = self.incompat() & !SUPPORTED;
        if incompat & FAST_COMMIT != 0 {
            unknown.push("fast_commit".to_owned());
        }
        if incompat & !FAST_COMMIT != 0 {
            unknown.push(format!("features {:#x}", incompat & !FAST_COMMIT));
        }
        if self.has_features() && self.feature_ro_compat != 0 {
            unknown.push(format!("read-only features {:#x}", self.feature_ro_compat));
        }
        if !unknown.is_empty() {
            let detail = format!("the journal has {}", unknown.join(", "));
            return Err(Error { kind: ErrorKind::Unsupported, detail });
        }
        let kinds = [self.incompat() & CSUM_V2, self.incompat() & CSUM_V3, self.has_commit_sums()];
        if kinds.iter().filter(|kind| **kind != 0).count() > 1 {
            return Err(Error::corrupt("the journal has checksums of more than one kind"));
        }
        Ok(())
    }

    fn has_features(&self) -> bool {
        self.kind == VERSION_2
    }

    fn incompat(&self) -> u32 {
        if self.has_features() { self.feature_incompat.get() } else { 0 }
    }

    fn has_commit_sums(&self) -> u32 {
        if self.has_features() { self.feature_compat.get() & CHECKSUM } else { 0 }
    }

    fn is_summed(&self) -> bool {
        self.incompat() & (CSUM_V2 | CSUM_V3) != 0
    }

    fn right_checksum(&self) -> U32 {
        let mut raw = self.clone();
        raw.checksum = 0.into();
        Checksum::START.of(raw.as_bytes()).0.into()
    }

    /// As it is in the journal.
    pub(super) fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    /// Says that the log begins at block `start` with transaction `sequence`.
    pub(super) fn begin_at(&mut self, start: u32, sequence: u32) {
        self.start = start.into();
        self.sequence = sequence.into();
        self.sum();
    }

    /// Has an empty log written as Linux would with an image like this: with block numbers of 64
    /// bits if `wide`, and with sums of each block if `summed`. Linux: `ext4_load_journal()`,
    /// `set_journal_csum_feature_set()`, fs/ext4/super.c.
    pub(super) fn set_features(&mut self, wide: bool, summed: bool) {
        if !self.has_features() {
            self.kind = VERSION_2.into();
            self.feature_compat = 0.into();
            self.feature_incompat = 0.into();
            self.feature_ro_compat = 0.into();
        }
        let wide = if wide { SIXTY_FOUR_BIT } else { 0 };
        let summed = if summed { CSUM_V3 } else { 0 };
        let others = self.feature_incompat.get() & !(ASYNC_COMMIT | CSUM_V2 | CSUM_V3);
        self.feature_incompat = (others | REVOKE | wide | summed).into();
        self.feature_compat = (self.feature_compat.get() & !CHECKSUM).into();
        self.checksum_type = if summed == 0 { 0 } else { CRC32C };
        self.sum();
    }

    /// Says that the log is empty, and that the next transaction is `sequence`.
    pub(super) fn empty(&mut self, sequence: u32) {
        self.start = 0.into();
        self.sequence = sequence.into();
        self.sum();
    }

    /// Makes the checksum right again.
    pub(super) fn sum(&mut self) {
        if self.is_summed() {
            self.checksum = self.right_checksum();
        }
    }
}

impl Journal {
    /// Checks what `raw` says of a journal of `blocks` blocks of `block_bytes` bytes.
    ///
    /// # Errors
    ///
    /// `Corrupt` for what cannot be.
    pub(super) fn new(raw: &RawJournal, block_bytes: usize, blocks: u64) -> Result<Journal> {
        let (first, end, start) = (raw.first.get(), raw.max_len.get(), raw.start.get());
        if raw.block_size.get() as usize != block_bytes {
            let detail = format!("the journal has blocks of {} bytes", raw.block_size);
            return Err(Error::corrupt(detail));
        }
        if first == 0 || first >= end || u64::from(end) > blocks {
            let detail = format!("the journal's log is {first} to {end} of {blocks} blocks");
            return Err(Error::corrupt(detail));
        }
        if start != 0 && !(first..end).contains(&start) {
            let detail = format!("the journal begins at block {start} of {first} to {end}");
            return Err(Error::corrupt(detail));
        }
        let incompat = raw.incompat();
        let sums = match raw.is_summed() {
            true => Sums::Each { wide: incompat & CSUM_V3 != 0 },
            false if raw.has_commit_sums() != 0 => Sums::Commit,
            false => Sums::None,
        };
        Ok(Journal {
            block_bytes,
            first,
            end,
            start: (start != 0).then_some(start),
            sequence: raw.sequence.get(),
            wide: incompat & SIXTY_FOUR_BIT != 0,
            async_commit: incompat & ASYNC_COMMIT != 0,
            sums,
            seed: Checksum::START.of(&raw.uuid),
            uuid: raw.uuid,
        })
    }

    /// Bytes at the end of a descriptor or revoke block that are its sum.
    pub(super) fn tail_bytes(&self) -> usize {
        if matches!(self.sums, Sums::Each { .. }) { 4 } else { 0 }
    }
}
