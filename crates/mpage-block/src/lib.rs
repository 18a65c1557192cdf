//! Bios and block devices for mpage.

mod bio;
mod device;
mod limits;
mod memory;
mod sector;

pub use bio::{Bio, BioFlags, BioOp, BioVec};
pub use device::{BlockDevice, SubmitError, submit_and_wait};
pub use limits::Limits;
pub use memory::{MemoryDevice, MemoryOptions};
pub use rustix::io::Errno;
pub use sector::{SECTOR_SIZE, Sector};
