//! All automation of mpage.
fn main() {}
