//! Copies between memory that may change underneath.

mod words;

pub(crate) use words::{copy, read, write, zero};
