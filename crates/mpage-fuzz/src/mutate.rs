//! How the fuzzer changes its bytes: record by record.

use crate::case::Target;
use crate::input::{RECORD, STEP};

/// Kinds of edits.
const EDITS: u8 = 18;
/// Kinds of steps.
const STEPS: u8 = 27;

/// Changes the first `len` bytes of `data`, an input of `target`, by `seed` alone, and returns how
/// many they are then: no more than `len_max`. Sometimes lets `otherwise` do it.
pub fn mutate(
    target: Target,
    data: &mut [u8],
    (len, len_max): (usize, usize),
    seed: u32,
    otherwise: impl FnOnce(&mut [u8], usize, usize) -> usize,
) -> usize {
    let mut random = fastrand::Rng::with_seed(seed.into());
    let room = len_max.min(data.len()) / RECORD;
    let count = len / RECORD;
    if room == 0 {
        return otherwise(data, len, len_max);
    }
    if count == 0 {
        data[..RECORD].copy_from_slice(&[random.u8(..), random.u8(..4), 0, 0, 0, 0, 0, 0]);
        return RECORD;
    }
    // The first one is not like the others.
    let some = random.usize(1..=count.max(2) - 1).min(count - 1);
    match random.u8(..16) {
        0..4 if count < room => {
            let at = if some == 0 { 1 } else { random.usize(1..=count) };
            data.copy_within(at * RECORD..count * RECORD, (at + 1) * RECORD);
            data[at * RECORD..][..RECORD].copy_from_slice(&record(target, &mut random));
            (count + 1) * RECORD
        }
        4 if some > 0 => {
            data.copy_within((some + 1) * RECORD..count * RECORD, some * RECORD);
            (count - 1) * RECORD
        }
        5 if some > 0 && count < room => {
            data.copy_within(some * RECORD..count * RECORD, (some + 1) * RECORD);
            (count + 1) * RECORD
        }
        6 | 7 if some > 0 => {
            data[some * RECORD..][..RECORD].copy_from_slice(&record(target, &mut random));
            count * RECORD
        }
        8..12 if some > 0 => {
            let at = some * RECORD + random.usize(..RECORD);
            data[at] = match random.u8(..3) {
                0 => random.u8(..),
                1 => data[at] ^ 1 << random.u8(..8),
                _ => data[at].wrapping_add(if random.bool() { 1 } else { u8::MAX }),
            };
            count * RECORD
        }
        12 => {
            let at = random.usize(..2);
            data[at] = random.u8(..);
            count * RECORD
        }
        _ => otherwise(data, len, len_max),
    }
}

/// Any record but a first one.
fn record(target: Target, random: &mut fastrand::Rng) -> [u8; RECORD] {
    let mut bytes = [0; RECORD];
    random.fill(&mut bytes);
    bytes[0] = match target != Target::Read && random.bool() {
        true => STEP + random.u8(..STEPS),
        false => random.u8(..EDITS),
    };
    if random.bool() {
        bytes[5..].fill(0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_out_fits_and_is_of_whole_records() {
        let mut data = vec![0; 10 * RECORD + 5];
        let mut len = 0;
        let mut lens = std::collections::BTreeSet::new();
        for seed in 0..20_000 {
            let room = data.len();
            len = mutate(Target::Write, &mut data, (len, room), seed, |_, len, _| len);
            assert!(len <= room && len.is_multiple_of(RECORD));
            let _new = lens.insert(len / RECORD);
        }
        assert_eq!(lens, (1..=10).collect());
    }
}
