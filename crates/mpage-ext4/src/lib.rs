//! ext2, ext3 and ext4 images over the mpage cache.
//!
//! [`FileSystem`] opens an image that is all of a device: names, attributes and content are read
//! and changed through the cache; a journal that was not closed is replayed first.
//!
//! | part | modules |
//! |---|---|
//! | what the image is like | `superblock`, `features`, `group` |
//! | metadata in memory | `layers`, `view`, `metadata`, `patience` |
//! | files and their blocks | `inode`, `block_map`, `extents`, `indirect`, `symlink` |
//! | names | `directory`, `htree`, `hash`, `names`, `listing` |
//! | files that come, go and move | `create`, `link`, `unlink`, `rename`, `attributes` |
//! | files without names | `orphan`, `hold` |
//! | content | `file`, `file_map`, `open_inode`, `claims`, `fallocate` |
//! | who has which block and inode | `space`, `balloc`, `ialloc`, `bitmap`, `statfs`, `trim` |
//! | what becomes durable when | `change`, `transaction`, `commit`, `committer`, `sync` |
//! | who keeps an image open | `writers` |
//! | extended attributes | `xattr`, `xattr_entry`, `acl` |
//! | a journal that was not closed | `journal` |
//!
//! docs/ext4-transactions.md says how it is written.

#![forbid(unsafe_code)]

mod acl;
mod attributes;
mod balloc;
mod bitmap;
mod block_map;
mod change;
mod checksum;
mod claims;
mod commit;
mod committer;
mod create;
mod directory;
mod emptiness;
mod error;
mod extents;
mod fallocate;
mod features;
mod file;
mod file_map;
mod file_system;
mod group;
mod hash;
mod hold;
mod htree;
mod ialloc;
mod indirect;
mod inode;
mod journal;
mod layers;
mod link;
mod listing;
mod metadata;
mod names;
mod open_inode;
mod orphan;
mod patience;
mod rename;
mod space;
mod statfs;
mod superblock;
mod symlink;
mod sync;
mod transaction;
mod trim;
mod unlink;
mod view;
mod writers;
mod xattr;
mod xattr_entry;

pub use attributes::NewAttributes;
pub use create::New;
pub use error::{Error, ErrorKind, Result};
pub use file::File;
pub use file_system::{Attributes, FileSystem, Options};
pub use inode::{FileKind, InodeNumber, Timestamp};
pub use listing::{Cookie, DirectoryEntry, Listing};
pub use patience::without_waiting;
pub use rename::{At, Existing};
pub use statfs::Room;
pub use xattr::XattrFlags;
