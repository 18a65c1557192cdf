//! Changes an image that is not damaged, and lets e2fsck look at it.

#![no_main]

#[path = "fuzzed.rs"]
mod fuzzed;

fuzzed::target!(mpage_fuzz::Target::Check);
