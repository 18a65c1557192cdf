//! The crash explorer: every state a device may be in when the power fails, at every instant of a
//! run, shown to a judge.
//!
//! A device promises little ([`Medium`]): of what no flush and no FUA has made certain, each change
//! is there, lost, or torn between blocks, in any combination. Of few changes the explorer tries
//! all combinations; of many it tries none, all, each one alone, each one missing, and some by
//! chance. It looks at the instants at which the set of states changes, and at those at which more
//! is promised than before.

use mpage_block::wrap::{Medium, What};

/// What is done to a medium.
pub type Change = What;

/// Something that happened to a medium.
#[derive(Clone, Debug)]
pub enum Event {
    /// A change was submitted.
    Began {
        /// The instant, and the change's number.
        number: u64,
        /// What is changed.
        change: Change,
        /// It is certain when it ends.
        fua: bool,
    },
    /// A flush was submitted.
    FlushBegan {
        /// The instant, and the flush's number.
        number: u64,
    },
    /// A change or a flush ended.
    Ended {
        /// Its number.
        number: u64,
        /// The instant.
        at: u64,
        /// It succeeded.
        well: bool,
    },
}

impl Event {
    fn at(&self) -> u64 {
        match self {
            Event::Began { number, .. } | Event::FlushBegan { number } => *number,
            Event::Ended { at, .. } => *at,
        }
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Event::Began { number, change: Change::Write { start, data, .. }, fua } => {
                let end = start + data.len() as u64;
                let fua = if *fua { ", certain at its end" } else { "" };
                write!(f, "{number} device: a write of {start}..{end} begins{fua}")
            }
            Event::Began { number, change: Change::SetLen(bytes), .. } => {
                write!(f, "{number} device: its size becomes {bytes}")
            }
            Event::FlushBegan { number } => write!(f, "{number} device: a flush begins"),
            Event::Ended { number, at, well } => {
                write!(f, "{at} device: {number} {}", if *well { "is done" } else { "fails" })
            }
        }
    }
}

/// Knows what has to be on a device after a crash: a model of the program that ran, or the checker
/// of a file system.
pub trait Judge {
    /// `image` is what a crash left right after instant `crash`.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    fn judge(&self, image: &[u8], crash: u64) -> Result<(), String>;
}

/// The most changes of which all combinations are tried.
const FEW: usize = 4;
/// Combinations tried by chance at an instant.
const BY_CHANCE: usize = 2;

/// Shows `judge` the states that a device may be in after a crash: it held `content`, durably, and
/// then `events` happened, in their order. `block` is the device's alignment, in bytes; `promises`
/// are the instants, ascending, at which more was promised. Returns how many states it looked at.
///
/// # Errors
///
/// What the judge said of the first that is wrong.
pub fn explore(
    content: Vec<u8>,
    block: usize,
    events: &[Event],
    promises: &[u64],
    judge: &dyn Judge,
    seed: u64,
) -> Result<u64, String> {
    let mut explorer = Explorer {
        medium: Medium::new(content, block),
        judge,
        random: fastrand::Rng::with_seed(seed),
        states: 0,
    };
    let mut promises = promises.iter().copied().peekable();
    for event in events {
        while let Some(promise) = promises.next_if(|promise| *promise < event.at()) {
            explorer.look(promise)?;
        }
        explorer.apply(event);
        explorer.look(event.at())?;
    }
    for promise in promises {
        explorer.look(promise)?;
    }
    Ok(explorer.states)
}

struct Explorer<'a> {
    medium: Medium,
    judge: &'a dyn Judge,
    random: fastrand::Rng,
    states: u64,
}

impl Explorer<'_> {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::Began { number, change, fua } => {
                self.medium.begin(*number, change.clone(), *fua);
            }
            Event::FlushBegan { number } => self.medium.begin_flush(*number),
            Event::Ended { number, well, .. } => self.medium.end(*number, *well),
        }
    }

    /// Looks at states the device may be in after a crash right behind instant `at`.
    fn look(&mut self, at: u64) -> Result<(), String> {
        let count = self.medium.uncertain();
        self.state(at, &|_, _| false)?;
        if count == 0 {
            return Ok(());
        }
        self.state(at, &|_, _| true)?;
        if count <= FEW {
            for kept in 1..(1 << count) - 1 {
                self.state(at, &|change, _| kept >> change & 1 == 1)?;
            }
        } else {
            let one = self.random.usize(..count);
            self.state(at, &|change, _| change == one)?;
            let other = self.random.usize(..count);
            self.state(at, &|change, _| change != other)?;
        }
        for _ in 0..BY_CHANCE {
            let chance = self.random.u64(..);
            // Torn: some blocks of some changes.
            let bit = |change: usize, block: usize| {
                let mixed = (chance ^ (change as u64) << 20 ^ block as u64)
                    .wrapping_mul(0x9e37_79b9_7f4a_7c15);
                mixed >> 63 == 1
            };
            self.state(at, &bit)?;
        }
        Ok(())
    }

    fn state(&mut self, at: u64, keeps: &dyn Fn(usize, usize) -> bool) -> Result<(), String> {
        self.states += 1;
        let image = self.medium.image(keeps);
        self.judge.judge(&image, at).map_err(|wrong| {
            let kept: Vec<_> = (0..self.medium.uncertain()).filter(|n| keeps(*n, 0)).collect();
            let of = self.medium.uncertain();
            format!("after a crash at {at}, changes {kept:?} of {of} kept: {wrong}")
        })
    }
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
