//! The bios that wait to be served.
//!
//! The oldest bio of the most urgent class is served first, except that a class which was passed
//! over [`PASSED_MAX`] times is served next. So urgent bios overtake, and none waits forever.

use std::collections::VecDeque;

use crate::{Bio, BioOp};

/// How often a class with bios may be passed over for a more urgent one.
pub(super) const PASSED_MAX: u32 = 16;

/// How urgent a bio is: the index of its queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Sync = 0,
    Ordinary = 1,
    Background = 2,
}

const CLASSES: usize = 3;

impl Class {
    fn of(bio: &Bio) -> Class {
        let flags = bio.flags();
        if flags.background && !flags.sync {
            Class::Background
        } else if flags.sync || matches!(bio.op(), BioOp::Read | BioOp::Flush) {
            Class::Sync
        } else {
            Class::Ordinary
        }
    }
}

/// The bios, by class.
#[derive(Default)]
pub(super) struct Queue {
    classes: [VecDeque<Bio>; CLASSES],
    /// How often each class was passed over since it was served last.
    passed: [u32; CLASSES],
    closed: bool,
}

impl Queue {
    pub(super) fn put(&mut self, bio: Bio) {
        self.classes[Class::of(&bio) as usize].push_back(bio);
    }

    /// The next bio to serve: when the device is `crowded`, no background one before its turn.
    pub(super) fn take(&mut self, crowded: bool) -> Option<Bio> {
        let starved = |class: &usize| self.passed[*class] >= PASSED_MAX;
        let may_go = |class: &usize| {
            let held = crowded && *class == Class::Background as usize && !starved(class);
            !self.classes[*class].is_empty() && !held
        };
        let first = (0..CLASSES).find(may_go)?;
        let class = (0..CLASSES).rev().filter(may_go).find(starved).unwrap_or(first);
        for other in (0..CLASSES).filter(|other| *other > class) {
            if !self.classes[other].is_empty() {
                self.passed[other] += 1;
            }
        }
        self.passed[class] = 0;
        self.classes[class].pop_front()
    }

    /// Says that nobody will put another bio.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }
}
