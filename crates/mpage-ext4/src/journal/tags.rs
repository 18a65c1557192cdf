//! The tags of a descriptor block: where each of the contents behind it belongs.
//!
//! Linux: Documentation/filesystems/ext4/journal.rst; `jbd2_do_replay()`, fs/jbd2/recovery.c.

use zerocopy::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::record::{self, HEADER, Kind};
use super::superblock::{Journal, Sums};

/// The content began with the magic number of a journal, and zeros were put there.
const ESCAPED: u32 = 0x1;
/// No UUID follows the tag.
const SAME_UUID: u32 = 0x2;
/// No tag follows.
const LAST: u32 = 0x8;
const UUID: usize = 16;
/// Bytes without meaning behind the fields of a short tag with a sum.
/// Linux: `journal_tag_bytes()`, fs/jbd2/journal.c.
const BEHIND_SUMMED: usize = 2;

/// A tag with 32 bits of flags and sum. `INCOMPAT_CSUM_V3`.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct WideTag {
    block_lo: U32,
    flags: U32,
    block_hi: U32,
    checksum: U32,
}

/// Any other; with 32-bit block numbers it ends before `block_hi`.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct NarrowTag {
    block_lo: U32,
    checksum: U16,
    flags: U16,
    block_hi: U32,
}

/// Where one content belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// The block of the image.
    pub(super) block: u64,
    /// Its first four bytes are the magic number, and are zeros in the log.
    pub(super) escaped: bool,
    checksum: u32,
}

/// The tags of a descriptor block, in the order of the contents.
///
/// A tag that would reach behind the block ends them, as the last one does. That a tag says its
/// block was deleted means nothing: nobody writes such.
pub(super) struct Tags<'a> {
    journal: &'a Journal,
    rest: &'a [u8],
}

impl<'a> Tags<'a> {
    /// Those of descriptor `block`.
    pub(super) fn of(journal: &'a Journal, block: &'a [u8]) -> Tags<'a> {
        Tags { journal, rest: &block[HEADER..block.len() - journal.tail_bytes()] }
    }
}

impl Iterator for Tags<'_> {
    type Item = Tag;

    fn next(&mut self) -> Option<Tag> {
        let (tag, flags, len) = match self.journal.sums {
            Sums::Each { wide: true } => wide(self.journal, self.rest)?,
            _ => narrow(self.journal, self.rest)?,
        };
        let uuid = if flags & SAME_UUID == 0 { UUID } else { 0 };
        self.rest = match flags & LAST {
            0 => self.rest.get(len + uuid..).unwrap_or(&[]),
            _ => &[],
        };
        Some(tag)
    }
}

/// A descriptor that is being written.
pub(super) struct Descriptor<'a> {
    journal: &'a Journal,
    sequence: u32,
    block: Vec<u8>,
    at: usize,
    /// Where the flags of the last tag begin, and how long they are.
    flags: Option<(usize, usize)>,
}

impl<'a> Descriptor<'a> {
    /// One of transaction `sequence`, without tags.
    pub(super) fn new(journal: &'a Journal, sequence: u32) -> Descriptor<'a> {
        let block = record::begin(journal, Kind::Descriptor, sequence);
        Descriptor { journal, sequence, block, at: HEADER, flags: None }
    }

    /// Tags that fit into one at least, of a journal with blocks of `block_bytes`.
    pub(super) fn tags_min(block_bytes: usize) -> usize {
        (block_bytes - HEADER - UUID - 4) / size_of::<WideTag>()
    }

    /// Adds the tag of `content`, as it is in the log, of block `number` of the image; false when
    /// there is no room for it.
    pub(super) fn push(&mut self, number: u64, content: &[u8], is_escaped: bool) -> bool {
        let is_first = self.flags.is_none();
        let low = U32::from((number & 0xffff_ffff) as u32);
        let high = U32::from((number >> 32) as u32);
        let escaped = if is_escaped { ESCAPED } else { 0 };
        let flags = escaped | if is_first { 0 } else { SAME_UUID };
        let sum = || self.journal.seed.of(&self.sequence.to_be_bytes()).of(content);
        let (bytes, flags_at) = match self.journal.sums {
            Sums::Each { wide: true } => {
                let tag = WideTag {
                    block_lo: low,
                    flags: flags.into(),
                    block_hi: high,
                    checksum: sum().0.into(),
                };
                (tag.as_bytes().to_vec(), (4, 4))
            }
            sums => {
                let checksum = if sums == Sums::None { 0 } else { sum().low() };
                let tag = NarrowTag {
                    block_lo: low,
                    checksum: checksum.into(),
                    flags: ((flags & 0xffff) as u16).into(),
                    block_hi: high,
                };
                let fields = size_of::<NarrowTag>() - if self.journal.wide { 0 } else { 4 };
                let mut bytes = tag.as_bytes()[..fields].to_vec();
                if self.journal.tail_bytes() > 0 {
                    bytes.extend([0; BEHIND_SUMMED]);
                }
                (bytes, (6, 2))
            }
        };
        let uuid = if is_first { UUID } else { 0 };
        let end = self.at + bytes.len() + uuid;
        if end > self.journal.block_bytes - self.journal.tail_bytes() {
            return false;
        }
        self.block[self.at..self.at + bytes.len()].copy_from_slice(&bytes);
        if is_first {
            self.block[end - UUID..end].copy_from_slice(&self.journal.uuid);
        }
        self.flags = Some((self.at + flags_at.0, flags_at.1));
        self.at = end;
        true
    }

    /// The whole block.
    pub(super) fn end(mut self) -> Vec<u8> {
        let (at, len) = self.flags.expect("it has a tag");
        // All flags are in the lowest byte.
        self.block[at + len - 1] |= LAST.to_le_bytes()[0];
        record::end(self.journal, &mut self.block);
        self.block
    }
}

/// A tag, its flags and its length, at the front of `bytes`.
fn wide(journal: &Journal, bytes: &[u8]) -> Option<(Tag, u32, usize)> {
    let raw = WideTag::ref_from_bytes(bytes.get(..size_of::<WideTag>())?);
    let raw = raw.expect("as long as it is");
    let flags = raw.flags.get();
    let tag = Tag {
        block: number(journal, raw.block_lo, raw.block_hi),
        escaped: flags & ESCAPED != 0,
        checksum: raw.checksum.get(),
    };
    Some((tag, flags, size_of::<WideTag>()))
}

/// As [`wide`], of the short form.
fn narrow(journal: &Journal, bytes: &[u8]) -> Option<(Tag, u32, usize)> {
    let fields = size_of::<NarrowTag>() - if journal.wide { 0 } else { 4 };
    let len = fields + if journal.tail_bytes() == 0 { 0 } else { BEHIND_SUMMED };
    let mut whole = [0; size_of::<NarrowTag>()];
    whole[..fields].copy_from_slice(&bytes.get(..len)?[..fields]);
    let raw = NarrowTag::read_from_bytes(&whole).expect("as long as it is");
    let flags = u32::from(raw.flags.get());
    let tag = Tag {
        block: number(journal, raw.block_lo, raw.block_hi),
        escaped: flags & ESCAPED != 0,
        checksum: raw.checksum.get().into(),
    };
    Some((tag, flags, len))
}

fn number(journal: &Journal, low: U32, high: U32) -> u64 {
    u64::from(low.get()) | if journal.wide { u64::from(high.get()) << 32 } else { 0 }
}

impl Tag {
    /// True when `content`, as it is in the log in transaction `sequence`, has the sum that the tag
    /// says, or tags have none.
    pub(super) fn is_of(&self, journal: &Journal, sequence: u32, content: &[u8]) -> bool {
        let sum = || journal.seed.of(&sequence.to_be_bytes()).of(content);
        match journal.sums {
            Sums::Each { wide: true } => sum().0 == self.checksum,
            Sums::Each { wide: false } => u32::from(sum().low()) == self.checksum,
            Sums::None | Sums::Commit => true,
        }
    }
}
