//! Images made by e2fsprogs, read back.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attributes;
mod closing;
mod content;
mod creating;
mod damage;
mod damaged;
mod emptying;
mod faults;
mod full;
mod growing;
mod holds;
mod image;
mod journal;
mod lists;
mod mounted;
mod moving;
mod names;
mod orphans;
mod programs;
mod reading;
mod regressions;
mod room;
mod shape;
mod stores;
mod storms;
mod tagged;
mod trees;
mod worker;
mod writing;
mod written;
mod xattrs;
