//! Replays a damaged journal.

#![no_main]

#[path = "fuzzed.rs"]
mod fuzzed;

fuzzed::target!(mpage_fuzz::Target::Journal);
