//! Images made by e2fsprogs, read back.

mod attributes;
mod image;
mod reading;
