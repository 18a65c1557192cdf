//! Makes a program that fails smaller.

use crate::call::Step;
use crate::game::Trouble;

/// The most programs that are tried.
const TRIES: usize = 250;

/// The smallest program found by leaving steps out that still fails in the same way, and how.
pub(crate) fn shrink(
    steps: Vec<Step>,
    trouble: Trouble,
    mut play: impl FnMut(&[Step]) -> Option<Trouble>,
) -> (Vec<Step>, Trouble) {
    let (mut best, mut found) = (steps, trouble);
    best.truncate(found.step + 1);
    let (mut len, mut tries) = (best.len() / 2, 0);
    while len > 0 {
        let mut start = 0;
        while start < best.len() && tries < TRIES {
            let mut fewer = best.clone();
            drop(fewer.drain(start..(start + len).min(best.len())));
            if fewer.is_empty() {
                break;
            }
            tries += 1;
            match play(&fewer).filter(|trouble| trouble.kind == found.kind) {
                Some(trouble) => {
                    fewer.truncate(trouble.step + 1);
                    (best, found) = (fewer, trouble);
                }
                None => start += len,
            }
        }
        len /= 2;
    }
    (best, found)
}
