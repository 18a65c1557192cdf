//! Access lists: as the image has them, and as programs do; and what they have to do with modes.
//!
//! A list has an entry for the owner, the group and others each, and as many as one likes for other
//! users and groups by name. If it has such, it has a mask too, the most that these and the group
//! may do. The bits of the mode for the group are the mask, if there is one.
//!
//! Linux: `ext4_acl_from_disk()`, `ext4_set_acl()`, fs/ext4/acl.c; `posix_acl_valid()`,
//! `posix_acl_equiv_mode()`, `posix_acl_update_mode()`, `posix_acl_chmod()`, `posix_acl_create()`,
//! fs/posix_acl.c; include/uapi/linux/posix_acl_xattr.h.

use mpage_block::Errno;

use crate::change::Change;
use crate::error::{Error, Result};
use crate::inode::{FileKind, Inode, InodeNumber};
use crate::layers::Attempt;
use crate::xattr::{self, XattrFlags};
use crate::xattr_entry::{ACCESS, DEFAULT, Name};

/// The version in front of a list in the image, and of one that a program sees.
const IMAGE: u32 = 1;
const PROGRAM: u32 = 2;
/// The kinds of entries: of the owner, of users by name, of the group, of groups by name, the mask,
/// of others. A list has them in this order.
const OWNER: u16 = 0x1;
const USER: u16 = 0x2;
const OWNING_GROUP: u16 = 0x4;
const GROUP: u16 = 0x8;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;
/// In place of a name.
const NOBODY: u32 = u32::MAX;
/// To read, to write, to execute.
const ALL: u16 = 7;
/// The bits of a mode that a list has too.
const MODE_BITS: u16 = 0o777;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    kind: u16,
    permissions: u16,
    /// The user or group; [`NOBODY`] of an entry that names none.
    name: u32,
}

impl Entry {
    /// An entry as programs see it; `None` if it is none.
    fn of_program(bytes: &[u8; 8]) -> Option<Entry> {
        let &[kind, kind1, bits, bits1, name @ ..] = bytes;
        let mut entry = Entry {
            kind: u16::from_le_bytes([kind, kind1]),
            permissions: u16::from_le_bytes([bits, bits1]),
            name: u32::from_le_bytes(name),
        };
        match entry.kind {
            USER | GROUP => (entry.name != NOBODY).then_some(entry),
            OWNER | OWNING_GROUP | MASK | OTHERS => {
                entry.name = NOBODY;
                Some(entry)
            }
            _ => None,
        }
    }

    fn is_named(self) -> bool {
        matches!(self.kind, USER | GROUP)
    }
}

/// An access list. Its entries have kinds that there are. One without entries says nothing, as none
/// does. Linux: `ext4_acl_from_disk()`, fs/ext4/acl.c.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List(Vec<Entry>);

/// What a new file has of the default list of its directory.
pub(crate) struct Created {
    /// As the image has it; `None` if the mode says the same.
    pub(crate) list: Option<Vec<u8>>,
    pub(crate) mode: u16,
}

/// The list `image`, as programs see it; `None` if it is no list.
pub(crate) fn to_program(image: &[u8]) -> Option<Vec<u8>> {
    let list = List::of_image(image)?;
    let mut program = PROGRAM.to_le_bytes().to_vec();
    for entry in &list.0 {
        program.extend(entry.kind.to_le_bytes());
        program.extend(entry.permissions.to_le_bytes());
        program.extend(entry.name.to_le_bytes());
    }
    Some(program)
}

/// The list `program`, which may be one that cannot be; `None` if it has no entries.
///
/// # Errors
///
/// `EINVAL` when it is no list; `EOPNOTSUPP` of another version.
pub(crate) fn from_program(program: &[u8]) -> Result<Option<List>> {
    let wrong = |errno| Error::errno(errno, "an access list");
    if program.is_empty() {
        return Ok(None);
    }
    let (version, rest) = program.split_first_chunk::<4>().ok_or_else(|| wrong(Errno::INVAL))?;
    if u32::from_le_bytes(*version) != PROGRAM {
        return Err(wrong(Errno::OPNOTSUPP));
    }
    let (parts, rest) = rest.as_chunks::<8>();
    let entries: Option<Vec<Entry>> = parts.iter().map(Entry::of_program).collect();
    match entries {
        Some(entries) if rest.is_empty() => Ok((!entries.is_empty()).then_some(List(entries))),
        _ => Err(wrong(Errno::INVAL)),
    }
}

/// What is said to be an access list of `inode` is none.
pub(crate) fn is_none(inode: InodeNumber) -> Error {
    Error::corrupt(format!("an access list of inode {inode} is none"))
}

/// What a file made with `mode` has of the default list `image` of its directory; `None` if that is
/// no list.
pub(crate) fn created(image: &[u8], mode: u16) -> Option<Created> {
    let mut list = List::of_image(image)?;
    if list.0.is_empty() {
        return Some(Created { list: None, mode });
    }
    list.set_bits(|permissions, asked| permissions & asked, mode);
    let mode = mode & !MODE_BITS | list.bits();
    Some(Created { list: (!list.is_minimal()).then(|| list.image()), mode })
}

/// Gives `inode`, which is the caller's to write, access list `list`, [`ACCESS`] or [`DEFAULT`] as
/// `index` says; without one takes it. True when that changed anything.
///
/// # Errors
///
/// `EOPNOTSUPP` of a symbolic link; `EACCES` of a default list but of a directory; `EINVAL` of a
/// list that cannot be; `ENOSPC`; `Corrupt`.
pub(crate) fn set(
    change: &mut Change<'_>,
    inode: &mut Inode,
    index: u8,
    list: Option<&List>,
) -> Attempt<bool> {
    let fails = |errno| {
        let detail = format!("an access list for inode {}", inode.number);
        Err(Error::errno(errno, detail).into())
    };
    match list {
        _ if inode.kind == FileKind::SymbolicLink => fails(Errno::OPNOTSUPP),
        Some(_) if index == DEFAULT && inode.kind != FileKind::Directory => fails(Errno::ACCESS),
        Some(list) if !list.is_valid() => fails(Errno::INVAL),
        Some(list) if index == ACCESS => set_access(change, inode, list),
        _ => {
            let image = list.map(List::image);
            let name = Name::of_list(index);
            xattr::set(change, inode, &name, image.as_deref(), XattrFlags::None)
        }
    }
}

/// Gives `inode`, which is the caller's to write, the permissions `list` and the mode that it says.
fn set_access(change: &mut Change<'_>, inode: &mut Inode, list: &List) -> Attempt<bool> {
    let image = (!list.is_minimal()).then(|| list.image());
    let name = Name::of_list(ACCESS);
    let is_new = xattr::set(change, inode, &name, image.as_deref(), XattrFlags::None)?;
    let mode = inode.mode & !MODE_BITS | list.bits();
    let before = std::mem::replace(&mut inode.mode, mode);
    Ok(is_new || mode != before)
}

/// Gives `inode`, which is the caller's to write, the twelve bits of `permissions`, which its
/// access list says too then.
///
/// # Errors
///
/// `ENOSPC`; `Corrupt`.
pub(crate) fn chmod(change: &mut Change<'_>, inode: &mut Inode, permissions: u16) -> Attempt<()> {
    inode.mode = inode.kind.mode() | permissions & 0o7777;
    if inode.kind == FileKind::SymbolicLink {
        return Ok(());
    }
    let Some(image) = xattr::get(change, inode, &Name::of_list(ACCESS))? else { return Ok(()) };
    let mut list = List::of_image(&image).ok_or_else(|| is_none(inode.number))?;
    if list.0.is_empty() {
        return Ok(());
    }
    list.set_bits(|_, permissions| permissions, inode.mode);
    let _changed = set_access(change, inode, &list)?;
    Ok(())
}

impl List {
    fn of_image(image: &[u8]) -> Option<List> {
        let mut rest = image.strip_prefix(&IMAGE.to_le_bytes())?;
        let mut entries = Vec::new();
        while let Some((&[kind, kind1, bits, bits1], behind)) = rest.split_first_chunk::<4>() {
            let kind = u16::from_le_bytes([kind, kind1]);
            let permissions = u16::from_le_bytes([bits, bits1]);
            let mut entry = Entry { kind, permissions, name: NOBODY };
            rest = behind;
            match kind {
                USER | GROUP => {
                    let (name, behind) = behind.split_first_chunk::<4>()?;
                    entry.name = u32::from_le_bytes(*name);
                    rest = behind;
                }
                OWNER | OWNING_GROUP | MASK | OTHERS => {}
                _ => return None,
            }
            entries.push(entry);
        }
        rest.is_empty().then_some(List(entries))
    }

    fn image(&self) -> Vec<u8> {
        let mut image = IMAGE.to_le_bytes().to_vec();
        for entry in &self.0 {
            image.extend(entry.kind.to_le_bytes());
            image.extend(entry.permissions.to_le_bytes());
            if entry.is_named() {
                image.extend(entry.name.to_le_bytes());
            }
        }
        image
    }

    /// True when it has the entries that it must have, in order.
    fn is_valid(&self) -> bool {
        let count = |kind| self.0.iter().filter(|entry| entry.kind == kind).count();
        let has_names = self.0.iter().any(|entry| entry.is_named());
        self.0.is_sorted_by_key(|entry| entry.kind)
            && self.0.iter().all(|entry| entry.permissions <= ALL)
            && [OWNER, OWNING_GROUP, OTHERS].into_iter().all(|kind| count(kind) == 1)
            && count(MASK) <= 1
            && (count(MASK) == 1 || !has_names)
    }

    /// True when it says no more than a mode does.
    fn is_minimal(&self) -> bool {
        self.0.iter().all(|entry| matches!(entry.kind, OWNER | OWNING_GROUP | OTHERS))
    }

    /// How far the permissions of an entry of `kind` are shifted in the mode; `None` if they are
    /// not in it.
    fn shift(&self, kind: u16) -> Option<u32> {
        let has_mask = self.0.iter().any(|entry| entry.kind == MASK);
        match kind {
            OWNER => Some(6),
            MASK => Some(3),
            OWNING_GROUP if !has_mask => Some(3),
            OTHERS => Some(0),
            _ => None,
        }
    }

    /// The permissions as a mode has them.
    fn bits(&self) -> u16 {
        let bits = |entry: &Entry| Some((entry.permissions & ALL) << self.shift(entry.kind)?);
        self.0.iter().filter_map(bits).fold(0, |all, bits| all | bits)
    }

    /// Makes the permissions that are in `mode` what `new` says of them and of those of the mode.
    fn set_bits(&mut self, new: impl Fn(u16, u16) -> u16, mode: u16) {
        for at in 0..self.0.len() {
            if let Some(shift) = self.shift(self.0[at].kind) {
                let permissions = &mut self.0[at].permissions;
                *permissions = new(*permissions, mode >> shift & ALL);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_as_programs_see_it() {
        let image = [1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 4, 0, 0xe8, 3, 0, 0, 0x20, 0, 0, 0];
        let nobody = [255; 4];
        let expected = [
            &[2, 0, 0, 0, 1, 0, 6, 0][..],
            &nobody,
            &[2, 0, 4, 0, 0xe8, 3, 0, 0, 0x20, 0, 0, 0],
            &nobody,
        ];
        assert_eq!(to_program(&image), Some(expected.concat()));
        assert_eq!(to_program(&image[..18]), None, "the last entry is cut off");
        assert_eq!(to_program(&[2, 0, 0, 0]), None, "another version");
        assert_eq!(to_program(&[1, 0, 0, 0, 3, 0, 0, 0]), None, "an unknown kind");
    }

    /// A list of kinds, permissions and names, as a program has it.
    fn program(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let entry = |&(kind, permissions, name): &(u16, u16, u32)| {
            [&kind.to_le_bytes()[..], &permissions.to_le_bytes(), &name.to_le_bytes()].concat()
        };
        [PROGRAM.to_le_bytes().to_vec(), entries.iter().flat_map(entry).collect()].concat()
    }

    fn list(entries: &[(u16, u16, u32)]) -> List {
        from_program(&program(entries)).unwrap().unwrap()
    }

    const SMALL: [(u16, u16, u32); 3] =
        [(OWNER, 6, NOBODY), (OWNING_GROUP, 4, NOBODY), (OTHERS, 1, NOBODY)];
    const LARGE: [(u16, u16, u32); 6] = [
        (OWNER, 7, NOBODY),
        (USER, 6, 1000),
        (OWNING_GROUP, 5, NOBODY),
        (GROUP, 1, 50),
        (MASK, 4, NOBODY),
        (OTHERS, 0, NOBODY),
    ];

    #[test]
    fn what_is_no_list_is_refused() {
        for entries in [&SMALL[..], &LARGE[..]] {
            let image = list(entries).image();
            assert_eq!(to_program(&image), Some(program(entries)));
            assert_eq!(List::of_image(&image), Some(list(entries)));
            for at in 0..entries.len() {
                let (mut fewer, mut more, mut large) =
                    (entries.to_vec(), entries.to_vec(), entries.to_vec());
                let gone = fewer.remove(at);
                more.insert(at, gone);
                large[at].1 = 8;
                let may_go = matches!(gone.0, USER | GROUP);
                let is_valid = |entries: &[_]| list(entries).is_valid();
                assert_eq!(is_valid(&fewer), may_go, "{fewer:?}");
                assert_eq!(is_valid(&more), may_go, "{more:?}");
                assert!(!is_valid(&large), "{large:?}");
                let mut order = entries.to_vec();
                order.swap(at, (at + 1) % entries.len());
                assert!(!is_valid(&order), "{order:?}");
            }
        }
        let mut nobody = LARGE;
        nobody[1].2 = NOBODY;
        assert!(from_program(&program(&nobody)).is_err());
        assert_eq!(from_program(&[]).unwrap(), None);
        assert_eq!(from_program(&program(&[])).unwrap(), None);
        let kind = |value: &[u8]| from_program(value).unwrap_err().kind.errno();
        assert_eq!(kind(&[2, 0, 0]), Errno::INVAL);
        assert_eq!(kind(&program(&SMALL)[..21]), Errno::INVAL);
        assert_eq!(kind(&[1, 0, 0, 0]), Errno::OPNOTSUPP);
    }

    #[test]
    fn a_list_and_a_mode_say_the_same() {
        assert!(list(&SMALL).is_minimal());
        assert!(!list(&LARGE).is_minimal());
        assert_eq!(list(&SMALL).bits(), 0o641);
        assert_eq!(list(&LARGE).bits(), 0o740, "the mask, not the group");
        for entries in [&SMALL[..], &LARGE[..]] {
            for mode in 0..=MODE_BITS {
                let mut changed = list(entries);
                changed.set_bits(|_, permissions| permissions, mode);
                assert_eq!(changed.bits(), mode);
                let image = list(entries).image();
                let new = created(&image, 0o104_000 | mode).unwrap();
                assert_eq!(new.mode, 0o104_000 | mode & list(entries).bits());
                assert_eq!(new.list.is_some(), entries.len() > 3);
            }
        }
        let new = created(&List(Vec::new()).image(), 0o100_640).unwrap();
        assert_eq!((new.mode, new.list), (0o100_640, None), "one without entries says nothing");
        let mut changed = list(&LARGE);
        changed.set_bits(|_, permissions| permissions, 0o123);
        let permissions: Vec<u16> = changed.0.iter().map(|entry| entry.permissions).collect();
        assert_eq!(permissions, [1, 6, 5, 1, 2, 3]);
    }
}
