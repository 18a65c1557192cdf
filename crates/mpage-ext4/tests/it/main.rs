//! Images made by e2fsprogs, read back.

mod image;
mod reading;
