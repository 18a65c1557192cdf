//! Symbolic links: short ones are in the inode, in place of its map.

use mpage::Place;
use mpage::units::FileBlock;
use mpage_block::Errno;

use crate::block_map;
use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::inode::{FileKind, Inode, InodeNumber};
use crate::layers::Attempt;
use crate::view::View;

impl FileSystem {
    /// Where symbolic link `inode` leads.
    ///
    /// # Errors
    ///
    /// `EINVAL` of anything else; `Corrupt`; the device's.
    pub fn read_link(&self, inode: InodeNumber) -> Result<Vec<u8>> {
        self.metadata().read(|view| target(view, &view.inode(inode)?))
    }
}

fn target(view: &View<'_>, inode: &Inode) -> Attempt<Vec<u8>> {
    let name = || format!("symbolic link, inode {}", inode.number);
    if inode.kind != FileKind::SymbolicLink {
        return Err(Error::errno(Errno::INVAL, name()).into());
    }
    let corrupt = |what: &str| Error::corrupt(format!("{} {what}", name()));
    let len = usize::try_from(inode.size).unwrap_or(usize::MAX);
    if inode.is_short_link(view.sb) {
        let target = inode.block.get(..len);
        return Ok(target.ok_or_else(|| corrupt("is longer than an inode"))?.to_vec());
    }
    // It has one block, in which a zero follows it.
    if inode.size >= view.sb.block_bytes {
        return Err(corrupt("is longer than a block").into());
    }
    let run = block_map::find(view, inode, 0)?;
    let place = match run.place {
        Place::Mapped(_) => run.device_block(FileBlock(0)),
        _ => None,
    };
    let block = view.block(place.ok_or_else(|| corrupt("leads nowhere"))?.0, name)?;
    Ok(block[..len].to_vec())
}
