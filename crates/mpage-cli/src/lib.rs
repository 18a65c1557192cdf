//! The parts of the command `mpage`.
//!
//! ```text
//! main                      the command line, logs, the exit status
//! serve                     mpage serve: opens, listens, stops, reports
//!   server  listener        connections
//!   connection              one client's requests
//!   export                  what requests do to the image
//!   handshake  wire         the protocol
//!   input  output  socket   bytes
//!   workers  budget         threads that wait for the device; memory for requests
//! ```

#![forbid(unsafe_code)]

pub mod args;
pub mod failure;
pub mod serve;
pub mod size;
