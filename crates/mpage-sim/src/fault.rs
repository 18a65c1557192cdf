//! What goes wrong at a simulated device, and when.

use mpage_block::BioOp;

/// The operations a fault counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// Reads.
    Reads,
    /// Writes of data.
    Writes,
    /// Flushes.
    Flushes,
    /// Zeros and discards.
    Zeroes,
    /// Sizes that are set. One that is torn or refused is as one that fails.
    SetLen,
}

impl Target {
    fn is(self, op: BioOp) -> bool {
        match op {
            BioOp::Read => self == Target::Reads,
            BioOp::Write => self == Target::Writes,
            BioOp::Flush => self == Target::Flushes,
            BioOp::Discard | BioOp::WriteZeroes => self == Target::Zeroes,
        }
    }
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing is done, and it fails.
    Fails,
    /// It is done, and fails all the same.
    DoneButFails,
    /// A part of it is done, and it fails.
    Torn,
    /// The device does not take it.
    Refused,
}

/// Some operations in a row that go wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is counted.
    pub target: Target,
    /// How many of them go well before.
    pub after: u32,
    /// How many go wrong.
    pub times: u32,
    /// How.
    pub effect: Effect,
}

/// Counts operations, and says which go wrong.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn new(faults: &[Fault]) -> Faults {
        Faults(faults.to_vec())
    }

    /// What becomes of the next `op`; `None`: it goes well.
    pub(crate) fn next(&mut self, op: BioOp) -> Option<Effect> {
        self.next_of(|target| target.is(op))
    }

    /// What becomes of the next size that is set.
    pub(crate) fn next_set_len(&mut self) -> Option<Effect> {
        self.next_of(|target| target == Target::SetLen)
    }

    fn next_of(&mut self, is: impl Fn(Target) -> bool) -> Option<Effect> {
        let mut effect = None;
        for fault in self.0.iter_mut().filter(|fault| is(fault.target)) {
            if fault.after > 0 {
                fault.after -= 1;
            } else if fault.times > 0 {
                fault.times -= 1;
                effect = effect.or(Some(fault.effect));
            }
        }
        effect
    }
}
