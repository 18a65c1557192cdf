//! Page frames for mpage: one arena, pins, sound racing copies.
//!
//! All memory of the cache's pages is one [`Arena`], sized once. A frame is [`PAGE_SIZE`] bytes of
//! it, known by its number, a [`FrameId`], and kept by pins.
//!
//! ```text
//!                  alloc                pin                   address
//!   free frames ----------> one pin ----------> more pins ----------> the kernel, for I/O
//!        ^                   |   <-----------      |
//!        |  the last unpin   |       unpin         |  read, write, zero, copy:
//!        +-------------------+                     +- by anybody, at any time
//!
//!   frame   0   1   2   3 | 4   5   6   7 | 8 ...     numbers follow addresses
//!   slot    0   1   2   3 | 0   1   2   3 | 0 ...     a run is RUN frames: 16 KiB
//! ```
//!
//! Every function is safe to call with every frame of the arena, pinned or not: the memory stays
//! mapped while the arena lives, and its bytes are only touched by operations that may race. A
//! mistake about pins gives wrong bytes, never undefined behaviour. What a reader may conclude
//! from bytes it copied while somebody wrote them is told at [`Arena`].
//!
//! # Examples
//!
//! ```
//! use mpage_mem::{Arena, ArenaOptions, Purpose};
//!
//! let arena = Arena::new(&ArenaOptions { frames: 64, reserve: 8, prefault: false })?;
//! let frame = arena.alloc(Purpose::Cache, 0, None).expect("a new arena has free frames");
//! arena.write(frame, 100, b"hello");
//! let mut bytes = [0; 5];
//! arena.read(frame, 100, &mut bytes);
//! assert_eq!(&bytes, b"hello");
//! assert!(arena.unpin(frame), "the last pin frees the frame");
//! # Ok::<(), std::io::Error>(())
//! ```

mod alloc;
mod arena;
mod bitmap;
mod copy;
mod frame;
mod mapping;

pub use arena::{Arena, ArenaOptions, Purpose};
pub use frame::{FrameId, PAGE_SIZE, RUN};
