//! Names: what a directory has, one by one or all.

use mpage_block::Errno;

use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::inode::InodeNumber;
use crate::layers::Attempt;
use crate::listing::{self, Cookie, Listing};
use crate::view::View;
use crate::{directory, htree};

/// Blocks of a linear directory that are searched in one attempt: each block that is not in memory
/// makes the attempt begin again.
const SEARCH_BLOCKS: u64 = 16;

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
    /// `ENOENT`; `ENOTDIR`; `ENAMETOOLONG` of more than 255 bytes; `Corrupt`; the device's.
    pub fn lookup(&self, directory: InodeNumber, name: &[u8]) -> Result<InodeNumber> {
        let mut first = 0;
        loop {
            match self.metadata.read(|view| search(view, directory, name, first))? {
                Search::Found(inode) => return Ok(inode),
                Search::Behind(block) => first = block,
                Search::Nowhere => {
                    let detail = format!("{} in directory {directory}", name.escape_ascii());
                    return Err(Error::errno(Errno::NOENT, detail));
                }
            }
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
    /// `ENOTDIR`; `Corrupt`; the device's.
    pub fn read_directory(&self, directory: InodeNumber, from: Cookie) -> Result<Listing> {
        self.metadata.read(|view| listing::read(view, &directory::inode(view, directory)?, from))
    }
}

/// Searches for `name`, in a linear directory from block `first` on.
fn search(view: &View<'_>, directory: InodeNumber, name: &[u8], first: u64) -> Attempt<Search> {
    let directory = directory::inode(view, directory)?;
    if name.len() > directory::NAME_MAX {
        let detail = format!("a name of {} bytes", name.len());
        return Err(Error::errno(Errno::NAMETOOLONG, detail).into());
    }
    if directory::is_hashed(view.sb, &directory) {
        return Ok(htree::find(view, &directory, name)?.map_or(Search::Nowhere, Search::Found));
    }
    let blocks = directory::blocks(view.sb, &directory);
    let end = blocks.min(first.saturating_add(SEARCH_BLOCKS));
    Ok(match directory::find(view, &directory, name, first..end)? {
        Some(inode) => Search::Found(inode),
        None if end < blocks => Search::Behind(end),
        None => Search::Nowhere,
    })
}
