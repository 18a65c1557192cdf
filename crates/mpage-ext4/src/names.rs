//! Names: what a directory has, one by one or all.

use mpage_block::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::file_system::FileSystem;
use crate::inode::{APPEND_FLAG, IMMUTABLE_FLAG, Inode, InodeNumber};
use crate::layers::Attempt;
use crate::listing::{self, Cookie, Listing};
use crate::view::View;
use crate::{directory, htree};

/// Blocks of a linear directory that are searched in one attempt: each block that is not in memory
/// makes the attempt begin again.
const SEARCH_BLOCKS: u64 = 16;

/// There is no `name` in `directory`.
pub(crate) fn no_name(directory: InodeNumber, name: &[u8]) -> Error {
    Error::errno(Errno::NOENT, format!("{} in directory {directory}", name.escape_ascii()))
}

/// Checks that a file may have a name as long as `name`.
///
/// # Errors
///
/// `ENAMETOOLONG`.
pub(crate) fn check_len(name: &[u8]) -> Result<()> {
    if name.len() > directory::NAME_MAX {
        return Err(Error::errno(Errno::NAMETOOLONG, format!("a name of {} bytes", name.len())));
    }
    Ok(())
}

/// Checks that a file may get `name`.
///
/// # Errors
///
/// `EINVAL` of an empty one, of `.` and `..`, and of one that has `/` or zero in it;
/// `ENAMETOOLONG`.
pub(crate) fn check(name: &[u8]) -> Result<()> {
    check_len(name)?;
    let cannot_be = name.iter().any(|byte| matches!(byte, 0 | b'/'));
    if cannot_be || matches!(name, b"" | b"." | b"..") {
        let detail = format!("'{}' as a name", name.escape_ascii());
        return Err(Error::errno(Errno::INVAL, detail));
    }
    Ok(())
}

/// Directory `number`, to be changed, which takes `name` out of it if `removes`.
///
/// # Errors
///
/// `ENOTDIR`; `ENOENT` when it was removed; `EPERM` when its flags forbid it; `Corrupt`.
pub(crate) fn directory(view: &View<'_>, number: InodeNumber, removes: bool) -> Attempt<Inode> {
    let directory = directory::inode(view, number)?;
    let forbidden = if removes { IMMUTABLE_FLAG | APPEND_FLAG } else { IMMUTABLE_FLAG };
    check_flags(&directory, forbidden)?;
    Ok(directory)
}

/// Checks that `inode` has none of the flags `forbidden`.
///
/// # Errors
///
/// `EPERM`.
pub(crate) fn check_flags(inode: &Inode, forbidden: u32) -> Result<()> {
    match inode.flags & forbidden {
        0 => Ok(()),
        _ => Err(flags_forbid(inode.number)),
    }
}

/// The flags of `inode` forbid what is to be done.
pub(crate) fn flags_forbid(inode: InodeNumber) -> Error {
    Error::errno(Errno::PERM, format!("the flags of inode {inode}"))
}

/// What one step of a search came to.
enum Search {
    Found(InodeNumber),
    /// It is not before this block of the directory.
    Behind(u64),
    Nowhere,
}

impl FileSystem {
    /// The inode that has `name` in `directory`; `.` and `..` are names too.
    ///
    /// A name that is there all the while is found, whatever else changes.
    ///
    /// # Errors
    ///
    /// `ENOENT`, also when `directory` was removed; `ENOTDIR`; `ENAMETOOLONG` of more than 255
    /// bytes; `Corrupt`; the device's.
    pub fn lookup(&self, directory: InodeNumber, name: &[u8]) -> Result<InodeNumber> {
        let mut first = 0;
        loop {
            match self.metadata.read(|view| search(view, directory, name, first))? {
                Search::Found(inode) => return Ok(inode),
                Search::Behind(block) => first = block,
                Search::Nowhere => return Err(no_name(directory, name)),
            }
        }
    }

    /// Brings the blocks into memory that a search for `name` in `directory` needs, if they are
    /// many: a change that needs them begins again for each one that is not there.
    ///
    /// # Errors
    ///
    /// Those of [`lookup`](Self::lookup) but `ENOENT`.
    pub(crate) fn warm_up(&self, directory: InodeNumber, name: &[u8]) -> Result<()> {
        let is_long = self.metadata.read(|view| {
            let directory = directory::inode(view, directory)?;
            let blocks = directory::blocks(view.sb, &directory);
            Ok(blocks > SEARCH_BLOCKS && !directory::is_hashed(view.sb, &directory))
        })?;
        match is_long.then(|| self.lookup(directory, name)) {
            Some(Err(error)) if error.kind != ErrorKind::Errno(Errno::NOENT) => Err(error),
            _ => Ok(()),
        }
    }

    /// Some of the entries of `directory`, in the order of their positions, from `from` on: a few
    /// blocks' worth, however large it is. `.` and `..` are among them.
    ///
    /// Who begins with [`Cookie::START`], and goes on from the `next` of what it got, gets each
    /// entry once that is neither made nor removed meanwhile.
    ///
    /// # Errors
    ///
    /// `ENOTDIR`; `ENOENT` when it was removed; `Corrupt`; the device's.
    pub fn read_directory(&self, directory: InodeNumber, from: Cookie) -> Result<Listing> {
        self.metadata.read(|view| listing::read(view, &directory::inode(view, directory)?, from))
    }
}

/// Searches for `name`, in a linear directory from block `first` on.
fn search(view: &View<'_>, directory: InodeNumber, name: &[u8], first: u64) -> Attempt<Search> {
    let directory = directory::inode(view, directory)?;
    check_len(name)?;
    if directory::is_hashed(view.sb, &directory) {
        let found = htree::find(view, &directory, name)?;
        return Ok(found.map_or(Search::Nowhere, |found| Search::Found(found.inode)));
    }
    let blocks = directory::blocks(view.sb, &directory);
    let end = blocks.min(first.saturating_add(SEARCH_BLOCKS));
    Ok(match directory::find_in(view, &directory, name, first..end)? {
        Some(found) => Search::Found(found.inode),
        None if end < blocks => Search::Behind(end),
        None => Search::Nowhere,
    })
}
