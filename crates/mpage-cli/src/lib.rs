//! The parts of the command `mpage`.
//!
//! ```text
//! main                      the command line, logs, the exit status
//! mount  umount             mpage mount, mpage umount: opens, mounts, stops, reports
//!   server                  FUSE's requests, each handed to what does it
//!   names attributes content listing    what they do to the image
//!   handles  shared         what programs have open; what all requests share
//!   privileges              what changed files lose
//!   pending_read            reads that wait for the device
//!   convert  time           numbers, kinds and times on both sides
//!   image  options          what is mounted, and how
//!   control                 who waits for the end
//! serve                     mpage serve: opens, listens, stops, reports
//!   server  listener        connections
//!   connection              one client's requests
//!   export                  what requests do to the image
//!   handshake  wire         the protocol
//!   input  output  socket   bytes
//! workers  budget           threads that wait for the device; memory for requests
//! cache  created            the cache; images that are made
//! signals  report           the end; how it went
//! background                going on without a terminal
//! ```

#![forbid(unsafe_code)]

pub mod args;
pub mod background;
pub mod budget;
pub mod cache;
pub mod created;
pub mod failure;
pub mod mount;
pub mod report;
pub mod serve;
pub mod signals;
pub mod size;
pub mod umount;
pub mod workers;
