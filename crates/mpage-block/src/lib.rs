//! Bios and block devices for mpage.
//!
//! A [`Bio`] asks a [`BlockDevice`] to move sectors between the device and the frames of an
//! [`Arena`](mpage_mem::Arena). It pins the frames until it is done, and is done exactly once.
//!
//! ```text
//!   wrap: Fault  Delay  Trace  PowerCut          devices around a device
//!   memory  file                                 devices
//!   device: BlockDevice, SubmitError             who takes a bio
//!   bio  limits  sector                          what is asked, and what may be
//!   mpage-mem: frames | mpage-locks: threads
//! ```
//!
//! # Examples
//!
//! ```
//! # #[cfg(not(any(mpage_loom, mpage_shuttle)))]
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//!
//! use mpage_block::{
//!     Bio, BioFlags, BlockDevice, MemoryDevice, MemoryOptions, Sector, submit_and_wait,
//! };
//! use mpage_mem::{Arena, ArenaOptions, PAGE_SIZE, Purpose};
//!
//! let arena = Arc::new(Arena::new(&ArenaOptions { frames: 8, reserve: 0, prefault: false })?);
//! let device = MemoryDevice::new(1 << 20, MemoryOptions::default());
//!
//! let frame = arena.alloc(Purpose::Cache, 0, None).expect("a new arena has free frames");
//! arena.write(frame, 0, b"hello");
//! let mut bio = Bio::write(&arena, Sector(8), BioFlags::default());
//! assert!(bio.push(frame, 0, PAGE_SIZE, &device.limits()), "a page fits");
//! submit_and_wait(&device, bio)?;
//! submit_and_wait(&device, Bio::flush())?;
//!
//! assert_eq!(device.contents()[4096..4101], *b"hello");
//! # Ok(())
//! # }
//! # #[cfg(any(mpage_loom, mpage_shuttle))]
//! # fn main() {}
//! ```

mod bio;
mod device;
#[cfg(not(any(mpage_loom, mpage_shuttle)))]
mod file;
mod limits;
mod memory;
#[cfg(all(test, mpage_shuttle))]
mod schedules;
mod sector;
#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod test_support;
pub mod wrap;

pub use bio::{Bio, BioFlags, BioOp, BioVec};
pub use device::{BlockDevice, Span, SubmitError, submit_and_wait};
#[cfg(not(any(mpage_loom, mpage_shuttle)))]
pub use file::{Backend, FileDevice, FileOptions, Mount, OpenError, mounts};
pub use limits::Limits;
pub use memory::{MemoryDevice, MemoryOptions};
pub use rustix::io::Errno;
pub use sector::{SECTOR_SIZE, Sector};
