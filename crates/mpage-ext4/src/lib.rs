//! ext2, ext3 and ext4 images over the mpage cache.
#![forbid(unsafe_code)]

mod acl;
mod block_map;
mod checksum;
mod directory;
mod error;
mod extents;
mod features;
mod file_system;
mod group;
mod hash;
mod htree;
mod indirect;
mod inode;
mod journal;
mod layers;
mod listing;
mod metadata;
mod names;
mod superblock;
mod symlink;
mod view;
mod xattr;

pub use error::{Error, ErrorKind, Result};
pub use file_system::{Attributes, FileSystem};
pub use inode::{FileKind, InodeNumber, Timestamp};
pub use listing::{Cookie, DirectoryEntry, Listing};
