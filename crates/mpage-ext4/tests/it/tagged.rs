//! A device that looks for words which must not be on it yet.

use std::collections::HashSet;
use std::io::BufRead;
use std::sync::Arc;

use mpage_block::{Bio, BioOp, BlockDevice, Errno, Limits, Span, SubmitError};
use mpage_locks::Mutex;

/// The byte that tags begin with, which is nowhere else in what the tests write.
pub(crate) const MARK: u8 = 0xf7;
/// Bytes of a tag: the mark and digits.
const TAG: usize = 11;

/// A device around a device. Tags may be written to it once something that commits has begun since
/// they were given out.
pub(crate) struct Tagged {
    device: Arc<dyn BlockDevice>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    given: u64,
    /// Tags that must not be written.
    secret: HashSet<u64>,
    /// What commits and is under way.
    commits: usize,
    /// Writes that were looked at while there were secret tags.
    looked_at: u64,
    /// What was written and must not be, told.
    leaks: Vec<String>,
}

impl Tagged {
    /// A device around `device`.
    pub(crate) fn new(device: Arc<dyn BlockDevice>) -> Tagged {
        Tagged { device, state: Mutex::default() }
    }

    /// A new tag, for a change that is about to be made.
    pub(crate) fn tag(&self) -> Vec<u8> {
        let mut state = self.state.lock();
        state.given += 1;
        let number = state.given;
        if state.commits == 0 {
            let _is_new = state.secret.insert(number);
        }
        let mut tag = vec![MARK];
        tag.extend(format!("{number:010}").bytes());
        tag
    }

    /// Does what commits all changes before it, and may commit what is changed meanwhile.
    pub(crate) fn commit<T>(&self, commit: impl FnOnce() -> T) -> T {
        {
            let mut state = self.state.lock();
            state.commits += 1;
            state.secret.clear();
        }
        let result = commit();
        self.state.lock().commits -= 1;
        result
    }

    /// Sees to it that no tag was written too soon, and that `writes_min` writes might have.
    pub(crate) fn check(&self, writes_min: u64) {
        let state = self.state.lock();
        let leaks = &state.leaks;
        assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
        let looked_at = state.looked_at;
        assert!(looked_at >= writes_min, "only {looked_at} writes beside changes");
    }
}

impl State {
    fn look_at(&mut self, sector: u64, bytes: &[u8]) {
        if self.secret.is_empty() {
            return;
        }
        self.looked_at += 1;
        let mut rest = bytes;
        while rest.skip_until(MARK).unwrap() > 0 && !rest.is_empty() {
            let digits = rest.get(..TAG - 1).and_then(|digits| str::from_utf8(digits).ok());
            let Some(number) = digits.and_then(|digits| digits.parse().ok()) else { continue };
            if self.secret.contains(&number) {
                let at = sector * 512 + (bytes.len() - rest.len()) as u64;
                self.leaks.push(format!("tag {number} at byte {at}"));
            }
        }
    }
}

impl BlockDevice for Tagged {
    fn limits(&self) -> Limits {
        self.device.limits()
    }

    fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
        if bio.op() == BioOp::Write {
            let mut bytes = vec![0; usize::try_from(bio.bytes()).unwrap()];
            bio.copy_out(0, &mut bytes);
            self.state.lock().look_at(bio.sector().0, &bytes);
        }
        self.device.submit(bio)
    }

    fn span_at(&self, offset: u64) -> Result<Span, Errno> {
        self.device.span_at(offset)
    }
}
