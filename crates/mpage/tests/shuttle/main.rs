//! The engine under random schedules: each test is a race that `docs/locking.md` names.
//!
//! Each test says what it holds, and which change to the engine made it fail.

#![cfg(mpage_shuttle)]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod age;
mod data;
mod errors;
mod eviction;
mod later;
mod memory;
mod pairs;
mod readahead;
mod removal;
mod rig;
mod sync;
mod zeros;
