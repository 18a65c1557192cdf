//! Reads all of a damaged image.

#![no_main]

#[path = "fuzzed.rs"]
mod fuzzed;

fuzzed::target!(mpage_fuzz::Target::Read);
