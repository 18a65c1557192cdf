//! The promises of `mpage serve`, held to by a client of our own.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;
mod durability;
mod fuzz;
mod handshake;
mod hostile;
mod parallel;
mod process;
mod requests;
mod rig;
mod start;
mod stop;
