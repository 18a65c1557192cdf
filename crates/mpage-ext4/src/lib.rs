//! ext2, ext3 and ext4 images over the mpage cache.
#![forbid(unsafe_code)]

mod acl;
mod block_map;
mod checksum;
mod error;
mod extents;
mod features;
mod file_system;
mod group;
mod indirect;
mod inode;
mod layers;
mod metadata;
mod superblock;
mod symlink;
mod view;
mod xattr;

pub use error::{Error, ErrorKind, Result};
pub use file_system::{Attributes, FileSystem};
pub use inode::{FileKind, InodeNumber, Timestamp};
