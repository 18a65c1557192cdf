//! What checks with other people's programs are made of: images, mounts, programs that run, steps.

pub(crate) mod daemon;
pub(crate) mod fio;
pub(crate) mod folder;
pub(crate) mod image;
pub(crate) mod mount;
pub(crate) mod steps;
pub(crate) mod wait;
pub(crate) mod watchdog;
