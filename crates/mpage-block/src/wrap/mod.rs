//! Devices around a device: what goes wrong on the way, and what is seen of it.
//!
//! | device | what it does |
//! |---|---|
//! | [`Fault`] | fails operations by rules |
//! | [`Delay`] | holds operations until they are released, or for a time |
//! | [`Trace`] | keeps a list of what was asked and what came of it |
//! | [`PowerCut`] | knows what the device may hold after the power failed |
//!
//! They stack in any order. Each has the limits of the device inside, passes
//! [`set_len`](crate::BlockDevice::set_len) on, and holds no lock of its own while it calls the
//! device inside or a completion.

mod delay;
mod fault;
mod power_cut;
mod trace;

#[cfg(not(any(mpage_loom, mpage_shuttle)))]
pub use delay::Latency;
pub use delay::{Delay, HeldBio};
pub use fault::{Effect, Fault, Rule, RuleId, Times};
pub use power_cut::{Medium, PowerCut, What};
pub use trace::{Trace, TraceEvent};

use crate::BioOp;

/// What can be asked of a device: a bio's operation, or a new size.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum DeviceOp {
    /// A bio.
    Bio(BioOp),
    /// [`BlockDevice::set_len`](crate::BlockDevice::set_len).
    SetLen,
}
