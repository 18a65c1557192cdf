//! The page cache and writeback of an operating system, in user space.
//!
//! ```
//! # #[cfg(not(any(mpage_loom, mpage_shuttle)))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("data");
//! use mpage::{OpenOptions, Options, PageCache};
//!
//! let cache = PageCache::new(&Options::default())?;
//! let file = cache.open(&path, &OpenOptions::default())?;
//! file.write_all_at(b"hello", 0)?;
//! file.fsync()?;
//! assert_eq!(file.read_at(&mut [0; 5], 0)?, 5);
//! # Ok(())
//! # }
//! # #[cfg(any(mpage_loom, mpage_shuttle))]
//! # fn main() {}
//! ```
//!
//! # What it is
//!
//! A [`PageCache`] has a fixed amount of memory. It caches files ([`AddressSpace`]), each on a
//! device ([`mpage_block::BlockDevice`]), whose blocks a file system finds for it ([`GetBlock`]). A
//! [`CachedFile`] is one open of such a file: it reads and writes cached bytes without a lock or a
//! system call, and its [`fsync`](CachedFile::fsync) means that the bytes are on the medium.
//! [`mpage_writepages`] turns dirty pages into few, large writes; it can be called by whoever
//! builds a file system, with pages that [`AddressSpace::splice`] put into io.
//!
//! # What it promises
//!
//! - A sync returns success only if every byte of its range that was dirty at the call is durable.
//!   It is never kept from ending by somebody who goes on writing.
//! - A write error reaches every open once, with its error number. The data stays in the cache, and
//!   the next sync tries it again; the error names the byte ranges.
//! - Writers do not wait for writes in flight: a page on its way to the device is copied first.
//! - Memory is bounded, everything included. A writer waits for room, and never fails for the lack
//!   of it.
//!
//! # What it does not promise
//!
//! A cache in a process dies with it: what no sync has covered is lost when the process is killed,
//! as it would be in a power failure. Two threads that write the same bytes at the same time leave
//! some mixture of both, in whole aligned words.
//!
//! # Layers
//!
//! Dependencies point down only:
//!
//! ```text
//! cache                               memory, devices, files
//! file  pinned_page                   one open, one borrowed page
//! fsync  device_sync  device_flush  flusher    for whom, and when
//! truncate                            taking parts away
//! write_and_wait                      all of a range
//! filemap                             reading and writing
//! readahead                           bringing pages in
//! reclaim  flush  identity            making room; durability; a file over itself
//! mpage                               pages into bios
//! writeback  throttle                 what a walk is asked; how much may be dirty
//! address_space  backing_dev  core    state; no I/O, no policy
//! page_tree  page_pool  page  turn  errseq  event  get_block  zeroed
//! units  error  stats
//! mpage-block   mpage-mem   mpage-locks
//! ```

#![forbid(unsafe_code)]

mod address_space;
mod backing_dev;
mod cache;
mod clock;
mod completion;
mod core;
mod depth;
mod device_flush;
mod device_sync;
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
mod pinned_page;
mod readahead;
mod reclaim;
mod stats;
mod throttle;
mod truncate;
mod turn;
pub mod units;
mod write_and_wait;
mod writeback;
mod writepage;
mod zeroed;

pub use address_space::{AddressSpace, FailurePolicy, Operations, SetCounts, SyncMode};
pub use backing_dev::BackingDev;
#[cfg(not(any(mpage_loom, mpage_shuttle)))]
pub use cache::OpenOptions;
pub use cache::{Options, PageCache};
pub use clock::{Clock, ManualClock};
pub use device_flush::{DeviceFlush, OwnWrites};
pub use device_sync::DeviceSync;
pub use error::{Error, ErrorKind, Result};
pub use file::CachedFile;
pub use fsync::RangeSteps;
pub use get_block::{Extent, GetBlock, MapRequest, OneBlock, Place, Purpose, SyncKind};
pub use identity::Identity;
pub use mpage::{LogWriter, generic_writepages, mpage_writepages, read_past_cache};
#[cfg(not(any(mpage_loom, mpage_shuttle)))]
pub use mpage_block::Backend;
pub use mpage_block::Span;
pub use pinned_page::{PinnedPage, WriteGuard};
pub use readahead::Advice;
pub use stats::StatsSnapshot;
pub use writeback::WritebackControl;
pub use writepage::{PageWritten, WritePage};
