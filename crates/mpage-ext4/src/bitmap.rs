//! Bitmaps of blocks and of inodes: bit 0 is the lowest of byte 0.

use std::ops::Range;

/// True when `bit` is set.
pub(crate) fn is_set(bytes: &[u8], bit: usize) -> bool {
    bytes[bit / 8] & 1 << (bit % 8) != 0
}

/// Sets or clears `bits`.
pub(crate) fn fill(bytes: &mut [u8], bits: Range<usize>, set: bool) {
    let mut at = bits.start;
    while at < bits.end {
        if at.is_multiple_of(8) && bits.end - at >= 8 {
            let whole = at / 8..bits.end / 8;
            at = whole.end * 8;
            bytes[whole].fill(if set { 0xff } else { 0 });
            continue;
        }
        match set {
            true => bytes[at / 8] |= 1 << (at % 8),
            false => bytes[at / 8] &= !(1 << (at % 8)),
        }
        at += 1;
    }
}

/// The first bit of `bits` that is set, or clear if `set` is false; the end if there is none.
pub(crate) fn find(bytes: &[u8], bits: Range<usize>, set: bool) -> usize {
    let flip = if set { 0 } else { u64::MAX };
    let mut at = bits.start;
    while at < bits.end {
        // The byte it is in, and the seven behind it as far as there are.
        let start = at / 8;
        let mut word = [0; 8];
        let len = (bytes.len() - start).min(8);
        word[..len].copy_from_slice(&bytes[start..start + len]);
        let seen = (u64::from_le_bytes(word) ^ flip) >> (at % 8);
        if seen != 0 {
            return (at + seen.trailing_zeros() as usize).min(bits.end);
        }
        at = (start + len) * 8;
    }
    bits.end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_set_found_and_cleared_wherever_they_are() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..2000 {
            let mut bytes = vec![0; 24];
            let mut model = [false; 192];
            for _ in 0..random.usize(0..6) {
                let start = random.usize(0..192);
                let bits = start..random.usize(start..=192);
                let set = random.u8(..) < 180;
                fill(&mut bytes, bits.clone(), set);
                model[bits].fill(set);
            }
            let start = random.usize(0..192);
            let bits = start..random.usize(start..=192);
            for set in [false, true] {
                let found = bits.clone().find(|bit| model[*bit] == set).unwrap_or(bits.end);
                assert_eq!(find(&bytes, bits.clone(), set), found, "{bytes:x?} {bits:?} {set}");
            }
            assert!(bits.clone().all(|bit| is_set(&bytes, bit) == model[bit]));
        }
    }
}
