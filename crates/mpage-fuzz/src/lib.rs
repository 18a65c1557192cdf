//! Damaged images of ext2, ext3 and ext4: how they are made, and what is done with them.
//!
//! The fuzzer gives bytes. They choose a base, which e2fsprogs made, damage it where it says
//! something, and tell what is done with it: that is a [`Case`]. It panics when an answer is wrong,
//! or when the image's device is used behind the image. See `docs/testing.md`.
//!
//! | part | modules |
//! |---|---|
//! | images to damage, and where they say something | `base`, `layout`, `places`, `image` |
//! | what the fuzzer's bytes mean | `input`, `edit`, `program` |
//! | which ones it begins with, and how it changes them | `seeds`, `mutate` |
//! | what is done, and what has to hold | `case`, `walk`, `tree`, `device`, `memory`, `e2fsck` |
//! | what is kept of a case that failed | `reduce`, `text` |

#![forbid(unsafe_code)]

mod base;
mod case;
mod device;
mod e2fsck;
mod edit;
mod failure;
mod image;
mod input;
mod layout;
mod memory;
mod mutate;
mod places;
mod program;
mod reduce;
mod seeds;
mod text;
mod tree;
mod walk;

pub use base::Base;
pub use case::{Case, Target};
pub use failure::{Failure, Result};
pub use image::Image;
pub use input::Record;
pub use memory::limit;
pub use mutate::mutate;
pub use reduce::reduce_file;
