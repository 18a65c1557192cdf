//! What a crash leaves of an image with a journal, at any instant.
//!
//! A [workload] runs on an image on a device that does its I/O later and in any order, and
//! notes [what was promised](facts) when. Then the power fails: at each instant of the run, with
//! each of many combinations of what no flush had made certain by then. What is left is replayed,
//! by the library and by e2fsck, and by Linux now and then, and [judged](judge): e2fsck finds
//! nothing, all that was synced is there to the byte, no file shows what another had, and a file
//! that replaced another is one of the two.

#![forbid(unsafe_code)]
#![cfg(not(any(mpage_loom, mpage_shuttle)))]

pub mod content;
pub mod e2fsck;
pub mod facts;
pub mod format;
pub mod judge;
pub mod linux;
pub mod run;
pub mod workload;
pub mod world;
