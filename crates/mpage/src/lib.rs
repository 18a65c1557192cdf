//! The page cache and writeback of an operating system, in user space.
#![forbid(unsafe_code)]

mod address_space;
mod backing_dev;
mod cache;
mod core;
mod error;
mod errseq;
mod event;
mod file;
mod filemap;
mod flush;
mod flusher;
mod fsync;
mod get_block;
mod identity;
mod may_wait;
mod mpage;
mod page;
mod page_pool;
mod page_tree;
mod readahead;
mod reclaim;
mod stats;
mod throttle;
mod truncate;
mod turn;
pub mod units;
mod writeback;
mod writepage;

pub use address_space::{AddressSpace, Operations, SetCounts, SyncMode};
pub use backing_dev::BackingDev;
pub use cache::{OpenOptions, Options, PageCache};
pub use error::{Error, ErrorKind, Result};
pub use file::{CachedFile, PinnedPage};
pub use fsync::RangeSteps;
pub use get_block::{Extent, GetBlock, MapRequest, OneBlock, Place, Purpose, SyncKind};
pub use identity::Identity;
pub use mpage::{generic_writepages, mpage_writepages};
pub use stats::StatsSnapshot;
pub use writeback::WritebackControl;
pub use writepage::{PageWritten, WritePage};
