//! The block map of a file: what the cache asks where the file's blocks are.

use std::sync::Arc;

use mpage::{Extent, GetBlock, MapRequest, Purpose};
use mpage_block::Errno;

use crate::error::Error;
use crate::inode::{Inode, InodeNumber};
use crate::layers::Attempt;
use crate::metadata::Metadata;
use crate::view::View;
use crate::{extents, indirect};

/// The block map of one inode.
pub(crate) struct BlockMap {
    metadata: Arc<Metadata>,
    inode: InodeNumber,
}

/// The run of `inode` that holds file block `block`.
pub(crate) fn find(view: &View<'_>, inode: &Inode, block: u64) -> Attempt<Extent> {
    match inode.has_extents() {
        true => extents::find(view, inode, block),
        false => indirect::find(view, inode, block),
    }
}

impl BlockMap {
    /// The block map of `inode`.
    pub(crate) fn new(metadata: &Arc<Metadata>, inode: InodeNumber) -> BlockMap {
        BlockMap { metadata: Arc::clone(metadata), inode }
    }
}

impl GetBlock for BlockMap {
    fn get_block(&self, request: &MapRequest) -> mpage::Result<Extent> {
        if request.purpose == Purpose::Write {
            return Err(Error::errno(Errno::ROFS, "the image is open for reading").into());
        }
        let find = |view: &View<'_>| find(view, &view.inode(self.inode)?, request.first.0);
        if request.may_wait {
            return Ok(self.metadata.read(find)?);
        }
        let found = self.metadata.try_read(find)?;
        found.ok_or_else(|| mpage::Error::new(mpage::ErrorKind::WouldBlock, "get_block"))
    }

    fn reserve(&self, _: std::ops::Range<mpage::units::FileBlock>) -> mpage::Result<()> {
        Err(Error::errno(Errno::ROFS, "the image is open for reading").into())
    }
}
