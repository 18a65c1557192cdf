//! The blocks of a log that are not content: descriptors, revokes and commits.

use zerocopy::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::superblock::{Journal, Sums};

/// What each of them begins with.
pub(super) const MAGIC: u32 = 0xc03b_3998;
/// Bytes that each of them begins with.
pub(super) const HEADER: usize = size_of::<RawHeader>();

/// `h_chksum_type` of a sum of a whole transaction: crc32.
const CRC32: u8 = 1;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawHeader {
    magic: U32,
    kind: U32,
    sequence: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawCommit {
    header: RawHeader,
    checksum_type: u8,
    checksum_size: u8,
    padding: [u8; 2],
    checksum: [U32; 8],
    seconds: U64,
    nanoseconds: U32,
}

const _: () = assert!(size_of::<RawCommit>() == 60);

/// Where the sum of a commit block is.
const COMMIT_SUM_AT: usize = 16;

/// What a block of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Tags of the contents behind it.
    Descriptor,
    /// Its transaction is whole.
    Commit,
    /// Blocks whose contents in the log are not to be replayed any more.
    Revoke,
}

/// What `block` is in transaction `sequence`; `None` if it is not of it.
pub(super) fn kind(block: &[u8], sequence: u32) -> Option<Kind> {
    let (header, _) = RawHeader::ref_from_prefix(block).expect("a block is longer");
    if header.magic != MAGIC || header.sequence != sequence {
        return None;
    }
    Some(match header.kind.get() {
        1 => Kind::Descriptor,
        2 => Kind::Commit,
        5 => Kind::Revoke,
        _ => return None,
    })
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Kind::Descriptor => 1,
            Kind::Commit => 2,
            Kind::Revoke => 5,
        }
    }
}

/// A block of `kind` of transaction `sequence` that says nothing else yet.
pub(super) fn begin(journal: &Journal, kind: Kind, sequence: u32) -> Vec<u8> {
    let mut block = vec![0; journal.block_bytes];
    let header =
        RawHeader { magic: MAGIC.into(), kind: kind.number().into(), sequence: sequence.into() };
    block[..HEADER].copy_from_slice(header.as_bytes());
    block
}

/// Puts the sum of a descriptor or revoke block at its end, if it has one.
pub(super) fn end(journal: &Journal, block: &mut [u8]) {
    let (body, tail) = block.split_at_mut(journal.block_bytes - journal.tail_bytes());
    if !tail.is_empty() {
        let sum = journal.seed.of(body).of(&[0; 4]);
        tail.copy_from_slice(&sum.0.to_be_bytes());
    }
}

/// The block that commits transaction `sequence`, at `time`: seconds and nanoseconds.
pub(super) fn commit(journal: &Journal, sequence: u32, time: (u64, u32)) -> Vec<u8> {
    let mut block = begin(journal, Kind::Commit, sequence);
    let (commit, _) = RawCommit::mut_from_prefix(&mut block).expect("a block is longer");
    (commit.seconds, commit.nanoseconds) = (time.0.into(), time.1.into());
    if let Sums::Each { .. } = journal.sums {
        let sum = journal.seed.of(&block).0;
        let (commit, _) = RawCommit::mut_from_prefix(&mut block).expect("a block is longer");
        commit.checksum[0] = sum.into();
    }
    block
}

/// True when the sum at the end of a descriptor or revoke block is right, or there is none.
pub(super) fn has_right_tail(journal: &Journal, block: &[u8]) -> bool {
    let (body, tail) = block.split_at(block.len() - journal.tail_bytes());
    tail.is_empty() || journal.seed.of(body).of(&[0; 4]).0.to_be_bytes() == tail
}

/// When a transaction was committed, in seconds since 1970, as its commit block says.
pub(super) fn commit_time(block: &[u8]) -> u64 {
    let (commit, _) = RawCommit::ref_from_prefix(block).expect("a block is longer");
    commit.seconds.get()
}

/// True when the sum in a commit block is right, or there is none; `contents` is the crc32 of the
/// descriptors and contents of its transaction.
pub(super) fn has_right_commit(journal: &Journal, block: &[u8], contents: u32) -> bool {
    let (commit, _) = RawCommit::ref_from_prefix(block).expect("a block is longer");
    let sum = commit.checksum[0].get();
    match journal.sums {
        Sums::None => true,
        Sums::Commit => match (commit.checksum_type, commit.checksum_size) {
            (0, 0) => sum == 0,
            (CRC32, 4) => sum == contents,
            _ => false,
        },
        Sums::Each { .. } => {
            let (head, rest) = block.split_at(COMMIT_SUM_AT);
            journal.seed.of(head).of(&[0; 4]).of(&rest[4..]).0 == sum
        }
    }
}
