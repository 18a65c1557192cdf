//! The page cache and writeback of an operating system, in user space.
