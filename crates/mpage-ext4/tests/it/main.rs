//! Images made by e2fsprogs, read back.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attributes;
mod damage;
mod damaged;
mod image;
mod journal;
mod mounted;
mod names;
mod reading;
mod writing;
