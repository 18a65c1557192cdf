//! Images made by e2fsprogs, read back.

mod attributes;
mod damage;
mod damaged;
mod image;
mod journal;
mod mounted;
mod names;
mod reading;
