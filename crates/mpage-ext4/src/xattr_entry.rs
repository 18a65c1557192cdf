//! Entries of extended attributes, as they lie in an inode or a block: entries from the front, four
//! zeros behind the last, values from the end.
//!
//! Linux: Documentation/filesystems/ext4/attributes.rst; `ext4_xattr_hash_entry()`,
//! `ext4_xattr_rehash()`, fs/ext4/xattr.c.

use mpage_block::Errno;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::error::{Error, Result};

/// The numbers of the names of access lists: of the file, and for what is made in a directory.
pub(crate) const ACCESS: u8 = 2;
pub(crate) const DEFAULT: u8 = 3;
/// The number of the names that are the users'.
pub(crate) const USER: u8 = 1;

/// The beginnings of names, which are stored as numbers.
const PREFIXES: [(u8, &[u8]); 6] = [
    (USER, b"user."),
    (ACCESS, b"system.posix_acl_access"),
    (DEFAULT, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
    (INTERNAL, b"system."),
];
/// The number of names that nobody but the file system sets.
const INTERNAL: u8 = 7;
/// Bytes of a name at most. Linux: `XATTR_NAME_MAX`.
const NAME_MAX: usize = 255;
/// Four zeros end the entries.
const END: usize = 4;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct RawEntry {
    name_len: u8,
    name_index: u8,
    value_offs: U16,
    value_inum: U32,
    value_size: U32,
    hash: U32,
}

const ENTRY: usize = size_of::<RawEntry>();

fn refused(errno: Errno, name: &[u8]) -> Error {
    Error::errno(errno, format!("'{}' as the name of an attribute", name.escape_ascii()))
}

/// Checks that an attribute may have a name as long as `name`.
///
/// # Errors
///
/// `ERANGE` of an empty one and of more than 255 bytes.
pub(crate) fn check_len(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(refused(Errno::RANGE, name));
    }
    Ok(())
}

/// The name of an attribute. They are in the order in which blocks have them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) index: u8,
    len: usize,
    /// What is behind the prefix.
    short: Vec<u8>,
}

impl Name {
    /// Of an access list.
    pub(crate) fn of_list(index: u8) -> Name {
        Name { index, len: 0, short: Vec::new() }
    }

    /// Of an attribute that is to be set, or removed.
    ///
    /// # Errors
    ///
    /// `ERANGE` of an empty one and of more than 255 bytes; `EOPNOTSUPP` when its beginning is none
    /// of those that there are; `EINVAL` of nothing but the beginning, and of one with a zero.
    pub(crate) fn to_set(whole: &[u8]) -> Result<Name> {
        let fails = |errno| Err(refused(errno, whole));
        check_len(whole)?;
        let found = PREFIXES.iter().find_map(|(index, prefix)| {
            let short = whole.strip_prefix(*prefix)?;
            let is_list = matches!(*index, ACCESS | DEFAULT);
            (*index != INTERNAL && (!is_list || short.is_empty())).then_some((*index, short))
        });
        match found {
            None => fails(Errno::OPNOTSUPP),
            Some((index, short)) if matches!(index, ACCESS | DEFAULT) => {
                debug_assert!(short.is_empty(), "a list has no more of a name");
                Ok(Name::of_list(index))
            }
            Some((_, short)) if short.is_empty() || short.contains(&0) => fails(Errno::INVAL),
            Some((index, short)) => Ok(Name { index, len: short.len(), short: short.to_vec() }),
        }
    }

    /// As programs see it; `None` of a kind that they do not.
    pub(crate) fn whole(&self) -> Option<Vec<u8>> {
        let (_, prefix) = PREFIXES.iter().find(|(index, _)| *index == self.index)?;
        Some([prefix, &self.short[..]].concat())
    }

    /// True when it is the name of an access list.
    pub(crate) fn is_list(&self) -> bool {
        matches!(self.index, ACCESS | DEFAULT)
    }
}

/// An attribute, its value as the format has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) name: Name,
    pub(crate) value: Vec<u8>,
}

impl Attribute {
    /// Bytes that it takes.
    fn room(&self) -> usize {
        self.entry_room() + self.value.len().next_multiple_of(4)
    }

    fn entry_room(&self) -> usize {
        (ENTRY + self.name.len).next_multiple_of(4)
    }

    /// The hash of its name and its value.
    fn hash(&self) -> u32 {
        let of_name =
            self.name.short.iter().fold(0u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
        self.value.chunks(4).fold(of_name, |hash, part| {
            let mut word = [0; 4];
            word[..part.len()].copy_from_slice(part);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

/// The hash of a block with `attributes`.
pub(crate) fn block_hash(attributes: &[Attribute]) -> u32 {
    let hashes = attributes.iter().map(Attribute::hash);
    // One without a hash leaves the block without one.
    let sum = |all: u32, hash: u32| (hash != 0).then(|| all.rotate_left(16) ^ hash);
    hashes.into_iter().try_fold(0, sum).unwrap_or(0)
}

/// Bytes that `attributes` take, with the end of their entries.
pub(crate) fn room(attributes: &[Attribute]) -> usize {
    END + attributes.iter().map(Attribute::room).sum::<usize>()
}

/// Fills `bytes` from `first` on, where there is [`room`] for all, with `attributes`. Those of a
/// block have hashes.
pub(crate) fn pack(attributes: &[Attribute], bytes: &mut [u8], first: usize, are_hashed: bool) {
    assert!(room(attributes) <= bytes.len() - first, "attributes without room");
    bytes[first..].fill(0);
    let (mut at, mut end) = (first, bytes.len());
    for attribute in attributes {
        let (name, value) = (&attribute.name, &attribute.value);
        end -= value.len().next_multiple_of(4);
        let start = if value.is_empty() { 0 } else { end };
        let entry = RawEntry {
            name_len: u8::try_from(name.len).expect("checked when it was read or set"),
            name_index: name.index,
            value_offs: u16::try_from(start).expect("inside a block").into(),
            value_inum: 0.into(),
            value_size: u32::try_from(value.len()).expect("inside a block").into(),
            hash: if are_hashed { attribute.hash() } else { 0 }.into(),
        };
        bytes[at..at + ENTRY].copy_from_slice(entry.as_bytes());
        bytes[at + ENTRY..at + ENTRY + name.len].copy_from_slice(&name.short);
        bytes[end..end + value.len()].copy_from_slice(value);
        at += attribute.entry_room();
    }
}

/// The attributes whose entries are from `first` on in `bytes`, in which their values are too.
///
/// # Errors
///
/// `Corrupt`, of what `place` says.
pub(crate) fn read(
    bytes: &[u8],
    first: usize,
    place: impl Fn() -> String,
) -> Result<Vec<Attribute>> {
    let corrupt = |what: &str| Error::corrupt(format!("{}: an attribute {what}", place()));
    let mut found = Vec::new();
    let mut at = first;
    while bytes.get(at..at + END).is_some_and(|end| end != [0; END]) {
        let rest = &bytes[at..];
        let (entry, rest) =
            RawEntry::ref_from_prefix(rest).map_err(|_| corrupt("leaves its room"))?;
        let len = usize::from(entry.name_len);
        let short = rest.get(..len).ok_or_else(|| corrupt("has a name that leaves its room"))?;
        if entry.value_inum != 0 {
            return Err(corrupt("has its value in an inode, without feature ea_inode"));
        }
        let start = usize::from(entry.value_offs.get());
        let end = start as u64 + u64::from(entry.value_size.get());
        let end = usize::try_from(end).unwrap_or(usize::MAX);
        let value = bytes.get(start..end);
        let value = value.ok_or_else(|| corrupt("has a value that leaves its room"))?.to_vec();
        let name = Name { index: entry.name_index, len, short: short.to_vec() };
        found.push(Attribute { name, value });
        at += (ENTRY + len).next_multiple_of(4);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(name: &[u8], value: &[u8]) -> Attribute {
        Attribute { name: Name::to_set(name).unwrap(), value: value.to_vec() }
    }

    /// Attributes as Linux has them in a block, which has this hash; theirs are in it.
    fn examples() -> ([Attribute; 3], u32, [u32; 3]) {
        let attributes = [
            attribute(b"user.odd", b"abcde"),
            attribute(b"user.long", &[b'l'; 500]),
            attribute(b"user.empty", b""),
        ];
        (attributes, 0x085c_47d0, [0x6260_d4e2, 0xddcb_6c5b, 0x0667_4ef9])
    }

    #[test]
    fn hashes_and_order_are_those_of_linux() {
        let (attributes, of_block, of_entries) = examples();
        assert!(attributes.is_sorted_by_key(|attribute| &attribute.name));
        assert_eq!(attributes.each_ref().map(Attribute::hash), of_entries);
        assert_eq!(block_hash(&attributes), of_block);
        assert_eq!(block_hash(&[]), 0);
    }

    #[test]
    fn what_is_packed_is_read_again() {
        let (attributes, ..) = examples();
        let exact = room(&attributes);
        assert_eq!(exact, 4 + (20 + 8) + (20 + 500) + 24);
        for (len, first) in [(exact, 0), (exact + 32, 32), (4096, 32)] {
            let mut bytes = vec![0xff; len];
            pack(&attributes, &mut bytes, first, true);
            assert_eq!(bytes[..first], vec![0xff; first]);
            assert_eq!(read(&bytes, first, String::new).unwrap(), attributes);
        }
    }

    #[test]
    fn damaged_entries_are_an_error_or_attributes() {
        let (attributes, ..) = examples();
        let mut packed = vec![0; room(&attributes)];
        pack(&attributes, &mut packed, 0, true);
        let mut random = fastrand::Rng::with_seed(1);
        let mut refused = 0;
        for _ in 0..10_000 {
            let mut bytes = packed.clone();
            for _ in 0..random.usize(1..5) {
                bytes[random.usize(..76)] = random.u8(..);
            }
            match read(&bytes, 0, String::new) {
                Ok(read) => assert!(read.len() < bytes.len() / ENTRY),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 1000 && refused < 10_000, "{refused}");
    }

    #[test]
    fn a_name_that_cannot_be_is_refused() {
        let errno = |name: &[u8]| Name::to_set(name).unwrap_err().kind.errno();
        assert_eq!(errno(b""), Errno::RANGE);
        assert_eq!(errno(&[b"user.".to_vec(), vec![b'x'; 251]].concat()), Errno::RANGE);
        for name in ["user", "system.data", "system.", "system.posix_acl_accessx", "other.x"] {
            assert_eq!(errno(name.as_bytes()), Errno::OPNOTSUPP, "{name}");
        }
        assert_eq!(errno(b"user."), Errno::INVAL);
        assert_eq!(errno(b"user.a\0b"), Errno::INVAL);
        for name in ["user.x", "trusted.x", "security.x", "system.posix_acl_default"] {
            let whole = Name::to_set(name.as_bytes()).unwrap().whole();
            assert_eq!(whole.as_deref(), Some(name.as_bytes()));
        }
    }
}
