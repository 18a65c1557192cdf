//! Bios and block devices for mpage.
