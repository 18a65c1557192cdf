//! Extended attributes: behind the fields of the inode, and in a block that inodes may share.
//!
//! Linux: Documentation/filesystems/ext4/attributes.rst; `ext4_xattr_get()`, fs/ext4/xattr.c.

use std::ops::Range;
use std::sync::Arc;

use mpage_block::Errno;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::change::Change;
use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::inode::{Inode, InodeNumber};
use crate::layers::Attempt;
use crate::view::View;
use crate::{acl, balloc};

const MAGIC: u32 = 0xea02_0000;
/// Bytes before the entries of a block.
const BLOCK_HEADER: usize = 32;
/// Where the header says how many inodes have the block.
const USERS_AT: Range<usize> = 4..8;
/// Where the checksum of a block is.
const CHECKSUM_AT: Range<usize> = 0x10..0x14;

/// The beginnings of names, which are stored as numbers.
const PREFIXES: [(u8, &[u8]); 6] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
    (7, b"system."),
];

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

/// An attribute: its whole name, and its value as the format has it.
struct Attribute {
    index: u8,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Attribute {
    /// Its value as programs see it.
    fn value(self, inode: InodeNumber) -> Result<Vec<u8>> {
        match self.index {
            2 | 3 => acl::to_program(&self.value)
                .ok_or_else(|| Error::corrupt(format!("an access list of inode {inode} is none"))),
            _ => Ok(self.value),
        }
    }
}

impl FileSystem {
    /// The value of extended attribute `name` of `inode`. Access lists are as `getxattr(2)` has
    /// them.
    ///
    /// # Errors
    ///
    /// `ENODATA` when there is none; `Corrupt`; the device's.
    pub fn extended_attribute(&self, inode: InodeNumber, name: &[u8]) -> Result<Vec<u8>> {
        let found = self.metadata().read(|view| of_inode(view, &view.inode(inode)?))?;
        let found = found.into_iter().find(|attribute| attribute.name == name);
        let none = || {
            let name = String::from_utf8_lossy(name);
            Error::errno(Errno::NODATA, format!("attribute {name} of inode {inode}"))
        };
        found.ok_or_else(none)?.value(inode)
    }

    /// The names of the extended attributes of `inode`.
    ///
    /// # Errors
    ///
    /// `Corrupt`; the device's.
    pub fn extended_attribute_names(&self, inode: InodeNumber) -> Result<Vec<Vec<u8>>> {
        let found = self.metadata().read(|view| of_inode(view, &view.inode(inode)?))?;
        Ok(found.into_iter().map(|attribute| attribute.name).collect())
    }
}

/// All attributes of `inode`: those in it, then those in its block.
fn of_inode(view: &View<'_>, inode: &Inode) -> Attempt<Vec<Attribute>> {
    let mut found = Vec::new();
    let behind = &inode.behind;
    if behind.len() > 4 && behind[..4] == MAGIC.to_le_bytes() {
        let name = || format!("inode {}", inode.number);
        read(&behind[4..], 0, name, &mut found)?;
    }
    if inode.attribute_block != 0 {
        let number = inode.attribute_block;
        let name = || format!("block {number}, of attributes of inode {}", inode.number);
        let block = view.block(number, name)?;
        check(view, number, &block)?;
        read(&block, BLOCK_HEADER, name, &mut found)?;
    }
    Ok(found)
}

/// Takes the block of attributes from `inode`, which is the caller's to write: frees it, unless
/// other inodes have it too.
///
/// # Errors
///
/// `Corrupt`.
pub(crate) fn drop_block(change: &mut Change<'_>, inode: &mut Inode) -> Attempt<()> {
    let number = std::mem::take(&mut inode.attribute_block);
    if number == 0 {
        return Ok(());
    }
    inode.sectors = inode.sectors.saturating_sub(change.sb.block_bytes / 512);
    let name = || format!("block {number}, of attributes of inode {}", inode.number);
    let mut block = change.block(number, name)?;
    check(change, number, &block)?;
    let users = u32::from_le_bytes(block[USERS_AT].try_into().expect("four bytes"));
    if users <= 1 {
        return balloc::free(change, number..number + 1);
    }
    let bytes = Arc::make_mut(&mut block);
    bytes[USERS_AT].copy_from_slice(&(users - 1).to_le_bytes());
    if change.sb.has_checksums() {
        let sum = right_sum(change, number, bytes);
        bytes[CHECKSUM_AT].copy_from_slice(&sum);
    }
    change.put(number, block);
    Ok(())
}

/// Checks the header of a block of attributes.
fn check(view: &View<'_>, number: u64, block: &[u8]) -> Result<()> {
    let wrong = |what: &str| Err(Error::corrupt(format!("block {number}, of attributes, {what}")));
    if block[..4] != MAGIC.to_le_bytes() || block[8..12] != 1u32.to_le_bytes() {
        return wrong("is none");
    }
    if !view.sb.has_checksums() {
        return Ok(());
    }
    match block[CHECKSUM_AT] == right_sum(view, number, block) {
        true => Ok(()),
        false => wrong("has a wrong checksum"),
    }
}

/// The checksum that block `number`, of attributes, has to have.
fn right_sum(view: &View<'_>, number: u64, block: &[u8]) -> [u8; 4] {
    let (head, tail) = (&block[..CHECKSUM_AT.start], &block[CHECKSUM_AT.end..]);
    let seed = view.sb.checksum_seed;
    seed.of(&number.to_le_bytes()).of(head).of(&[0; 4]).of(tail).0.to_le_bytes()
}

fn to_usize(inside: u64) -> usize {
    usize::try_from(inside).expect("inside a block")
}

/// Adds the attributes whose entries are from `first` on in `bytes`, in which their values are too.
fn read(
    bytes: &[u8],
    first: usize,
    name: impl Fn() -> String,
    found: &mut Vec<Attribute>,
) -> Result<()> {
    let corrupt = |what: &str| Error::corrupt(format!("{}: an attribute {what}", name()));
    let mut at = first;
    // Four zeros end the entries.
    while bytes.get(at..at + 4).is_some_and(|end| end != [0; 4]) {
        let rest = &bytes[at..];
        let (entry, rest) =
            RawEntry::ref_from_prefix(rest).map_err(|_| corrupt("leaves its room"))?;
        let len = usize::from(entry.name_len);
        let short = rest.get(..len).ok_or_else(|| corrupt("has a name that leaves its room"))?;
        let prefix = PREFIXES.iter().find(|(index, _)| *index == entry.name_index);
        let (index, prefix) = prefix.ok_or_else(|| corrupt("has an unknown kind of name"))?;
        if entry.value_inum != 0 {
            return Err(corrupt("has its value in an inode, without feature ea_inode"));
        }
        let start = usize::from(entry.value_offs.get());
        let end = start as u64 + u64::from(entry.value_size.get());
        let value = (end <= bytes.len() as u64).then(|| bytes.get(start..to_usize(end))).flatten();
        let value = value.ok_or_else(|| corrupt("has a value that leaves its room"))?;
        let (name, value) = ([prefix, short].concat(), value.to_vec());
        found.push(Attribute { index: *index, name, value });
        at += (ENTRY + len).next_multiple_of(4);
    }
    Ok(())
}
