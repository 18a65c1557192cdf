//! A device that fails by rules.

use std::ops::Range;
use std::sync::Arc;

use mpage_locks::Mutex;

use super::DeviceOp;
use crate::{Bio, BioOp, BlockDevice, Errno, Limits, SECTOR_SIZE, Sector, Span, SubmitError};

/// Which operations fail, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The operation it is about; `None`: any.
    pub op: Option<DeviceOp>,
    /// The sectors it is about: bios that touch one of them. `None`: any, and also those that have
    /// no sectors, flushes and new sizes.
    pub sectors: Option<Range<Sector>>,
    /// Which of the operations it is about fail.
    pub times: Times,
    /// How they fail.
    pub effect: Effect,
}

/// Which of the operations that a rule is about fail; counted from 1 since the rule was added.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Times {
    /// Each.
    All,
    /// That one alone.
    Nth(u64),
    /// That many, then none.
    First(u64),
}

/// How an operation fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Submission gives the bio back with the error.
    Refuse(Errno),
    /// The device inside never sees it; it completes with the error.
    Fail(Errno),
    /// The device inside does it; it completes with the error all the same.
    DoneButFail(Errno),
    /// Of a write the first `sectors` sectors are written, rounded down to the device's alignment;
    /// it completes with `error`. As [`Fail`](Effect::Fail) for any other operation.
    Torn {
        /// How many sectors are written at most.
        sectors: u64,
        /// The result.
        error: Errno,
    },
}

/// Names a rule of one [`Fault`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RuleId(u64);

/// A device that fails operations of the device inside by rules.
///
/// All rules that are about an operation count it; of those that say it fails, the one added first
/// says how. Rules come and go while the device runs.
pub struct Fault {
    device: Arc<dyn BlockDevice>,
    program: Mutex<Program>,
}

#[derive(Default)]
struct Program {
    rules: Vec<Counted>,
    rules_made: u64,
    operations: u64,
    failed: u64,
}

struct Counted {
    id: RuleId,
    rule: Rule,
    /// Operations that the rule was about.
    seen: u64,
}

impl Fault {
    /// A device around `device`, without rules.
    pub fn new(device: Arc<dyn BlockDevice>) -> Fault {
        Fault { device, program: Mutex::default() }
    }

    /// Adds a rule, behind those there are.
    pub fn add(&self, rule: Rule) -> RuleId {
        let mut program = self.program.lock();
        program.rules_made += 1;
        let id = RuleId(program.rules_made);
        program.rules.push(Counted { id, rule, seen: 0 });
        id
    }

    /// Adds the rule that operation number `nth` from now on, of any kind, fails with `error`.
    pub fn fail_nth(&self, nth: u64, error: Errno) -> RuleId {
        let effect = Effect::Fail(error);
        self.add(Rule { op: None, sectors: None, times: Times::Nth(nth), effect })
    }

    /// Removes a rule; false when it is not there.
    pub fn remove(&self, id: RuleId) -> bool {
        let mut program = self.program.lock();
        let before = program.rules.len();
        program.rules.retain(|counted| counted.id != id);
        program.rules.len() < before
    }

    /// Removes all rules.
    pub fn clear(&self) {
        self.program.lock().rules.clear();
    }

    /// How many operations were asked of the device so far, failed ones included.
    pub fn operations(&self) -> u64 {
        self.program.lock().operations
    }

    /// How many of them rules made fail.
    pub fn failed(&self) -> u64 {
        self.program.lock().failed
    }

    fn tear(&self, bio: Bio, sectors: u64, error: Errno) {
        let alignment = self.device.limits().alignment as u64;
        let wanted = sectors.saturating_mul(SECTOR_SIZE as u64).min(bio.bytes());
        let bytes = wanted - wanted % alignment;
        if bio.op() != BioOp::Write || bytes == 0 {
            return bio.complete(Err(error));
        }
        let mut head = bio.head(bytes);
        head.on_completion(move |_| bio.complete(Err(error)));
        if let Err(refused) = self.device.submit(head) {
            // The head's completion ends the bio.
            drop(refused.bio);
        }
    }
}

impl BlockDevice for Fault {
    fn limits(&self) -> Limits {
        self.device.limits()
    }

    fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
        let bio = SubmitError::unless_allowed(bio, &self.device.limits())?;
        let sectors = (bio.op() != BioOp::Flush).then(|| bio.sector()..bio.end_sector());
        let effect = self.program.lock().effect_on(DeviceOp::Bio(bio.op()), sectors);
        match effect {
            None => self.device.submit(bio),
            Some(Effect::Refuse(error)) => Err(SubmitError { bio, error }),
            Some(Effect::Fail(error)) => {
                bio.complete(Err(error));
                Ok(())
            }
            Some(Effect::DoneButFail(error)) => {
                let mut bio = bio;
                bio.intercept(move |_| Err(error));
                self.device.submit(bio).map_err(|mut refused| {
                    refused.bio.cancel_interceptor();
                    refused
                })
            }
            Some(Effect::Torn { sectors, error }) => {
                self.tear(bio, sectors, error);
                Ok(())
            }
        }
    }

    fn span_at(&self, offset: u64) -> Result<Span, Errno> {
        self.device.span_at(offset)
    }

    fn set_len(&self, bytes: u64) -> Result<(), Errno> {
        let effect = self.program.lock().effect_on(DeviceOp::SetLen, None);
        match effect {
            None => self.device.set_len(bytes),
            Some(Effect::DoneButFail(error)) => {
                self.device.set_len(bytes)?;
                Err(error)
            }
            Some(Effect::Refuse(error) | Effect::Fail(error) | Effect::Torn { error, .. }) => {
                Err(error)
            }
        }
    }
}

impl Program {
    /// Counts an operation, and says how it fails, if it does.
    fn effect_on(&mut self, op: DeviceOp, sectors: Option<Range<Sector>>) -> Option<Effect> {
        self.operations += 1;
        let mut effect = None;
        for counted in &mut self.rules {
            if !counted.rule.is_about(op, sectors.as_ref()) {
                continue;
            }
            counted.seen += 1;
            let fails = match counted.rule.times {
                Times::All => true,
                Times::Nth(nth) => counted.seen == nth,
                Times::First(count) => counted.seen <= count,
            };
            if fails && effect.is_none() {
                effect = Some(counted.rule.effect);
            }
        }
        self.failed += u64::from(effect.is_some());
        effect
    }
}

impl Rule {
    fn is_about(&self, op: DeviceOp, sectors: Option<&Range<Sector>>) -> bool {
        let touched = match (&self.sectors, sectors) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(sectors)) => own.start < sectors.end && sectors.start < own.end,
        };
        touched && self.op.is_none_or(|own| own == op)
    }
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
