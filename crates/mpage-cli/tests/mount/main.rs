//! `mpage mount` and `mpage umount`, as processes and in this one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod killed;
mod process;
mod rig;
mod start;
mod stop;
mod waiting;
