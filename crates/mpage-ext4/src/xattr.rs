//! Extended attributes: behind the fields of the inode, and in a block that inodes may share.
//!
//! 1. An attribute is in one of the two places: in the inode, if there is room for it.
//! 2. A block that several inodes have is never changed. Who changes one of its attributes gets a
//!    block of its own.
//! 3. No block is without attributes.
//!
//! Linux: Documentation/filesystems/ext4/attributes.rst; `ext4_xattr_get()`,
//! `ext4_xattr_set_handle()`, fs/ext4/xattr.c; `xattr_permission()`, fs/xattr.c.

use std::ops::Range;
use std::sync::Arc;

use mpage_block::Errno;

use crate::change::Change;
use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::inode::{APPEND_FLAG, FileKind, IMMUTABLE_FLAG, Inode, InodeNumber, Timestamp};
use crate::layers::{Attempt, Block};
use crate::superblock::{RawSuperblock, Superblock};
use crate::view::View;
use crate::xattr_entry::{self, ACCESS, Attribute, DEFAULT, Name, USER};
use crate::{acl, balloc, ialloc, names};

const MAGIC: u32 = 0xea02_0000;
/// Bytes before the entries in an inode: the magic number.
const INODE_HEADER: usize = 4;
/// Bytes before the entries of a block.
const BLOCK_HEADER: usize = 32;
/// Where the header says how many inodes have the block.
const USERS_AT: Range<usize> = 4..8;
/// Where it counts blocks: one.
const BLOCKS_AT: Range<usize> = 8..12;
/// Where the hash of a block is.
const HASH_AT: Range<usize> = 12..16;
/// Where the checksum of a block is.
const CHECKSUM_AT: Range<usize> = 0x10..0x14;
/// Bytes of a value at most, whatever room there is. Linux: `XATTR_SIZE_MAX`.
const VALUE_MAX: usize = 65536;

/// When an attribute is set: the flags of `setxattr(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XattrFlags {
    /// Whether it is there or not.
    #[default]
    None,
    /// If it is not there: `XATTR_CREATE`.
    Create,
    /// If it is there: `XATTR_REPLACE`.
    Replace,
}

impl FileSystem {
    /// The value of extended attribute `name` of `inode`. Access lists are as `getxattr(2)` has
    /// them.
    ///
    /// # Errors
    ///
    /// `ENODATA` when there is none; `Corrupt`; the device's.
    pub fn extended_attribute(&self, inode: InodeNumber, name: &[u8]) -> Result<Vec<u8>> {
        let found = self.metadata.read(|view| of_inode(view, &view.inode(inode)?))?;
        let is_it = |attribute: &Attribute| attribute.name.whole().is_some_and(|it| it == name);
        let Some(found) = found.into_iter().find(is_it) else {
            let detail = format!("attribute {} of inode {inode}", name.escape_ascii());
            return Err(Error::errno(Errno::NODATA, detail));
        };
        match found.name.is_list() {
            true => acl::to_program(&found.value).ok_or_else(|| acl::is_none(inode)),
            false => Ok(found.value),
        }
    }

    /// The names of the extended attributes of `inode`.
    ///
    /// # Errors
    ///
    /// `Corrupt`; the device's.
    pub fn extended_attribute_names(&self, inode: InodeNumber) -> Result<Vec<Vec<u8>>> {
        let found = self.metadata.read(|view| of_inode(view, &view.inode(inode)?))?;
        Ok(found.into_iter().filter_map(|attribute| attribute.name.whole()).collect())
    }

    /// Gives `inode` extended attribute `name` with `value`, if `flags` do not forbid it.
    ///
    /// Access lists are as `setxattr(2)` takes them, and `flags` do not matter: one without entries
    /// is removed, and `system.posix_acl_access` changes the permissions, or nothing but these if
    /// they say the same. Who may set which attribute is the caller's to check, and so is whether
    /// bit setgid has to go with a new list.
    ///
    /// # Errors
    ///
    /// `EEXIST`, `ENODATA` as `flags` say; `ENOSPC` when neither the inode nor a block has room;
    /// `E2BIG` of more than 64 KiB; `ERANGE` of a name that is empty or longer than 255 bytes;
    /// `EOPNOTSUPP` of an unknown kind of name, and of access lists of symbolic links; `EINVAL` of
    /// a name that cannot be, and of no access list; `EACCES` of `system.posix_acl_default` but of
    /// directories; `EPERM` of `user.` but of files and directories, and when the flags of `inode`
    /// forbid it; `ENOENT` when it was removed; `EROFS`; `Corrupt`; the device's.
    pub fn set_extended_attribute(
        &self,
        inode: InodeNumber,
        name: &[u8],
        value: &[u8],
        flags: XattrFlags,
    ) -> Result<()> {
        xattr_entry::check_len(name)?;
        if value.len() > VALUE_MAX {
            let detail = format!("an attribute of {} bytes", value.len());
            return Err(Error::errno(Errno::TOOBIG, detail));
        }
        let name = Name::to_set(name)?;
        if name.is_list() {
            let list = acl::from_program(value)?;
            return self.change_attributes(inode, &name, |change, inode| {
                acl::set(change, inode, name.index, list.as_ref())
            });
        }
        self.change_attributes(inode, &name, |change, inode| {
            set(change, inode, &name, Some(value), flags)
        })
    }

    /// Takes extended attribute `name` from `inode`. Permissions stay.
    ///
    /// # Errors
    ///
    /// `ENODATA` when there is none, unless it is an access list; else as
    /// [`set_extended_attribute`](Self::set_extended_attribute).
    pub fn remove_extended_attribute(&self, inode: InodeNumber, name: &[u8]) -> Result<()> {
        let name = Name::to_set(name)?;
        self.change_attributes(inode, &name, |change, inode| match name.is_list() {
            true => acl::set(change, inode, name.index, None),
            false => set(change, inode, &name, None, XattrFlags::Replace),
        })
    }

    /// Has `make` change attribute `name` of `inode`; it says whether it did.
    fn change_attributes(
        &self,
        inode: InodeNumber,
        name: &Name,
        make: impl Fn(&mut Change<'_>, &mut Inode) -> Attempt<bool>,
    ) -> Result<()> {
        let _writer = self.metadata.begin_writing()?;
        let now = Timestamp::now();
        self.metadata.change(|change| {
            let mut inode = to_change(change, inode)?;
            let has_content = matches!(inode.kind, FileKind::Regular | FileKind::Directory);
            if name.index == USER && !has_content {
                let detail = format!("an attribute of users for inode {}", inode.number);
                return Err(Error::errno(Errno::PERM, detail).into());
            }
            if make(change, &mut inode)? {
                inode.changed = now;
                change.put_inode(&inode)?;
            }
            Ok(())
        })
    }
}

/// Inode `number`, whose attributes are to be changed.
fn to_change(view: &View<'_>, number: InodeNumber) -> Attempt<Inode> {
    let inode = view.inode(number)?;
    if inode.links == 0 && !ialloc::is_used(view, number)? {
        return Err(Error::errno(Errno::NOENT, format!("inode {number} was removed")).into());
    }
    names::check_flags(&inode, IMMUTABLE_FLAG | APPEND_FLAG)?;
    Ok(inode)
}

/// All attributes of `inode`: those in it, then those in its block.
fn of_inode(view: &View<'_>, inode: &Inode) -> Attempt<Vec<Attribute>> {
    let mut found = in_inode(view.sb, inode)?;
    found.extend(in_block(view, inode)?);
    Ok(found)
}

/// The value of attribute `name` of `inode`.
pub(crate) fn get(view: &View<'_>, inode: &Inode, name: &Name) -> Attempt<Option<Vec<u8>>> {
    let mut all = of_inode(view, inode)?.into_iter();
    Ok(all.find(|attribute| attribute.name == *name).map(|attribute| attribute.value))
}

/// Bytes for attributes in `inode`. One that does not say where its fields end has none.
fn room_in_inode(sb: &Superblock, inode: &Inode) -> usize {
    let has_end = sb.inode_bytes > Inode::SHORT + inode.behind.len();
    if has_end { inode.behind.len().saturating_sub(INODE_HEADER) } else { 0 }
}

/// Bytes for attributes in a block.
fn room_in_block(sb: &Superblock) -> usize {
    usize::try_from(sb.block_bytes).expect("at most a page") - BLOCK_HEADER
}

fn in_inode(sb: &Superblock, inode: &Inode) -> Result<Vec<Attribute>> {
    if room_in_inode(sb, inode) == 0 || inode.behind[..INODE_HEADER] != MAGIC.to_le_bytes() {
        return Ok(Vec::new());
    }
    let place = || format!("inode {}", inode.number);
    xattr_entry::read(&inode.behind[INODE_HEADER..], 0, place)
}

fn in_block(view: &View<'_>, inode: &Inode) -> Attempt<Vec<Attribute>> {
    match inode.attribute_block {
        0 => Ok(Vec::new()),
        _ => Ok(xattr_entry::read(&block_of(view, inode)?, BLOCK_HEADER, || name_of(inode))?),
    }
}

fn name_of(inode: &Inode) -> String {
    format!("block {}, of attributes of inode {}", inode.attribute_block, inode.number)
}

/// The block of `inode`, which has one.
fn block_of(view: &View<'_>, inode: &Inode) -> Attempt<Block> {
    let block = view.block(inode.attribute_block, || name_of(inode))?;
    check(view, inode.attribute_block, &block)?;
    Ok(block)
}

/// Gives `inode`, which is the caller's to write, attribute `name` with `value`; without one takes
/// it. True when that changed anything.
///
/// # Errors
///
/// `EEXIST`, `ENODATA` as `flags` say; `ENOSPC`; `Corrupt`.
pub(crate) fn set(
    change: &mut Change<'_>,
    inode: &mut Inode,
    name: &Name,
    value: Option<&[u8]>,
    flags: XattrFlags,
) -> Attempt<bool> {
    let (mut inside, mut block) = (in_inode(change.sb, inode)?, in_block(change, inode)?);
    let from_inode = take(&mut inside, name);
    let from_block = take(&mut block, name);
    let old = from_inode.as_ref().or(from_block.as_ref());
    let fails = |errno| Err(Error::errno(errno, format!("an attribute of inode {}", inode.number)));
    match (flags, old) {
        (XattrFlags::Create, Some(_)) => fails(Errno::EXIST)?,
        (XattrFlags::Replace, None) => fails(Errno::NODATA)?,
        _ if old.map(|old| &old.value[..]) == value => return Ok(false),
        _ => {}
    }
    let (mut in_inode, mut in_block) = (from_inode.is_some(), from_block.is_some());
    if let Some(value) = value {
        let attribute = Attribute { name: name.clone(), value: value.to_vec() };
        inside.push(attribute);
        if xattr_entry::room(&inside) <= room_in_inode(change.sb, inode) {
            in_inode = true;
        } else {
            block.extend(inside.pop());
            block.sort_by(|one, other| one.name.cmp(&other.name));
            if xattr_entry::room(&block) > room_in_block(change.sb) {
                fails(Errno::NOSPC)?;
            }
            in_block = true;
        }
    }
    if in_inode {
        put_in_inode(change.sb, inode, &inside)?;
    }
    if in_block {
        put_in_block(change, inode, &block)?;
    }
    if !change.superblock()?.has_ext_attr() {
        change.edit_superblock(RawSuperblock::set_ext_attr)?;
    }
    Ok(true)
}

fn take(attributes: &mut Vec<Attribute>, name: &Name) -> Option<Attribute> {
    let at = attributes.iter().position(|attribute| attribute.name == *name)?;
    Some(attributes.remove(at))
}

/// Makes `attributes` those in `inode`.
///
/// # Errors
///
/// `Corrupt` when they do not fit: some of them had their values in one place.
fn put_in_inode(sb: &Superblock, inode: &mut Inode, attributes: &[Attribute]) -> Result<()> {
    if xattr_entry::room(attributes) > room_in_inode(sb, inode) {
        return Err(too_many(&format!("inode {}", inode.number)));
    }
    let (magic, rest) = inode.behind.split_at_mut(INODE_HEADER);
    magic.copy_from_slice(&if attributes.is_empty() { 0 } else { MAGIC }.to_le_bytes());
    xattr_entry::pack(attributes, rest, 0, false);
    Ok(())
}

fn too_many(place: &str) -> Error {
    Error::corrupt(format!("{place}: attributes have values in one place"))
}

/// Makes `attributes` those in the block of `inode`, which is its own afterwards.
///
/// # Errors
///
/// `Corrupt` when they do not fit: some of them had their values in one place.
fn put_in_block(
    change: &mut Change<'_>,
    inode: &mut Inode,
    attributes: &[Attribute],
) -> Attempt<()> {
    if attributes.is_empty() {
        return drop_block(change, inode);
    }
    if xattr_entry::room(attributes) > room_in_block(change.sb) {
        return Err(too_many(&name_of(inode)).into());
    }
    if inode.attribute_block != 0 && users(&block_of(change, inode)?) > 1 {
        drop_block(change, inode)?;
    }
    if inode.attribute_block == 0 {
        inode.attribute_block = balloc::allocate(change, change.goal_of_inode(inode.number))?;
        inode.sectors += change.sb.block_bytes / 512;
    }
    let number = inode.attribute_block;
    let mut bytes = vec![0; BLOCK_HEADER + room_in_block(change.sb)];
    bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
    bytes[USERS_AT].copy_from_slice(&1u32.to_le_bytes());
    bytes[BLOCKS_AT].copy_from_slice(&1u32.to_le_bytes());
    bytes[HASH_AT].copy_from_slice(&xattr_entry::block_hash(attributes).to_le_bytes());
    xattr_entry::pack(attributes, &mut bytes, BLOCK_HEADER, true);
    set_sum(change, number, &mut bytes);
    change.fill(number, bytes);
    Ok(())
}

/// Gives new `inode`, which is the caller's to write, what it has of the access lists of `parent`,
/// its directory: the default list is its own then, with as much of it as the mode asks for, and
/// the mode says no more than the list. A directory has the default list too. A symbolic link has
/// neither.
///
/// The mode is as the program asked for it. Where there is a default list its umask does not count;
/// where there is none the mode stays, and the caller takes the umask out of it.
///
/// Linux: `posix_acl_create()`, fs/posix_acl.c; `ext4_init_acl()`, fs/ext4/acl.c.
///
/// # Errors
///
/// `ENOSPC`; `Corrupt`.
pub(crate) fn inherit(change: &mut Change<'_>, parent: &Inode, inode: &mut Inode) -> Attempt<()> {
    if inode.kind == FileKind::SymbolicLink {
        return Ok(());
    }
    let Some(default) = get(change, parent, &Name::of_list(DEFAULT))? else { return Ok(()) };
    let created = acl::created(&default, inode.mode).ok_or_else(|| acl::is_none(parent.number))?;
    if inode.kind == FileKind::Directory {
        let _new = set(change, inode, &Name::of_list(DEFAULT), Some(&default), XattrFlags::None)?;
    }
    if let Some(list) = &created.list {
        let _new = set(change, inode, &Name::of_list(ACCESS), Some(list), XattrFlags::None)?;
    }
    inode.mode = created.mode;
    Ok(())
}

/// Takes the block of attributes from `inode`, which is the caller's to write: frees it, unless
/// other inodes have it too.
///
/// # Errors
///
/// `Corrupt`.
pub(crate) fn drop_block(change: &mut Change<'_>, inode: &mut Inode) -> Attempt<()> {
    if inode.attribute_block == 0 {
        return Ok(());
    }
    let mut block = block_of(change, inode)?;
    let number = std::mem::take(&mut inode.attribute_block);
    inode.sectors = inode.sectors.saturating_sub(change.sb.block_bytes / 512);
    let users = users(&block);
    if users <= 1 {
        return balloc::free(change, number..number + 1);
    }
    let bytes = Arc::make_mut(&mut block);
    bytes[USERS_AT].copy_from_slice(&(users - 1).to_le_bytes());
    set_sum(change, number, bytes);
    change.put(number, block);
    Ok(())
}

/// Checks the header of a block of attributes.
fn check(view: &View<'_>, number: u64, block: &[u8]) -> Result<()> {
    let wrong = |what: &str| Err(Error::corrupt(format!("block {number}, of attributes, {what}")));
    if block[..4] != MAGIC.to_le_bytes() || block[BLOCKS_AT] != 1u32.to_le_bytes() {
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

/// How many inodes have `block`.
fn users(block: &[u8]) -> u32 {
    u32::from_le_bytes(block[USERS_AT].try_into().expect("four bytes"))
}

/// Gives the content of block `number`, of attributes, its checksum.
fn set_sum(view: &View<'_>, number: u64, block: &mut [u8]) {
    if view.sb.has_checksums() {
        let sum = right_sum(view, number, block);
        block[CHECKSUM_AT].copy_from_slice(&sum);
    }
}

/// The checksum that block `number`, of attributes, has to have.
fn right_sum(view: &View<'_>, number: u64, block: &[u8]) -> [u8; 4] {
    let (head, tail) = (&block[..CHECKSUM_AT.start], &block[CHECKSUM_AT.end..]);
    let seed = view.sb.checksum_seed;
    seed.of(&number.to_le_bytes()).of(head).of(&[0; 4]).of(tail).0.to_le_bytes()
}
