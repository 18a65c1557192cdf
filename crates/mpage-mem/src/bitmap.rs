//! A set of small numbers that finds its next member in a few steps, however full or empty it is.
//!
//! Level 0 has a bit for each number; each level above has a bit for each word of the one below,
//! set while that word is not zero. The top level is one word, so 2^30 numbers are five levels.

const BITS: usize = u64::BITS as usize;

/// A set of numbers below a limit.
///
/// # Invariants
///
/// 1. A bit of level n + 1 is set exactly when the word of level n with its number is not zero.
/// 2. Bits at and above the limit are clear.
#[derive(Debug)]
pub(crate) struct Bitmap {
    levels: Vec<Vec<u64>>,
    limit: usize,
}

impl Bitmap {
    /// All numbers below `limit`, which is not zero.
    pub(crate) fn full(limit: usize) -> Bitmap {
        assert!(limit > 0, "an empty bitmap finds nothing");
        let mut levels = Vec::new();
        let mut bits = limit;
        loop {
            levels.push(words_of_ones(bits));
            bits = bits.div_ceil(BITS);
            if bits == 1 {
                return Bitmap { levels, limit };
            }
        }
    }

    /// True when `number` is in the set; false too for every number at or above the limit.
    pub(crate) fn contains(&self, number: usize) -> bool {
        number < self.limit && self.levels[0][number / BITS] & bit(number) != 0
    }

    /// The members among the 64 numbers of word `number / 64`, as bits.
    pub(crate) fn word_of(&self, number: usize) -> u64 {
        self.levels[0][number / BITS]
    }

    /// Puts `number` into the set.
    pub(crate) fn insert(&mut self, number: usize) {
        assert!(number < self.limit, "number {number} of a bitmap of {}", self.limit);
        let mut position = number;
        for level in &mut self.levels {
            let word = &mut level[position / BITS];
            let was_empty = *word == 0;
            *word |= bit(position);
            if !was_empty {
                return;
            }
            position /= BITS;
        }
    }

    /// Takes `number` out of the set.
    pub(crate) fn remove(&mut self, number: usize) {
        assert!(number < self.limit, "number {number} of a bitmap of {}", self.limit);
        let mut position = number;
        for level in &mut self.levels {
            let word = &mut level[position / BITS];
            *word &= !bit(position);
            if *word != 0 {
                return;
            }
            position /= BITS;
        }
    }

    /// The smallest member at or after `from`; when there is none, the smallest of all.
    pub(crate) fn next_around(&self, from: usize) -> Option<usize> {
        self.next(from).or_else(|| self.next(0))
    }

    /// The smallest member at or after `from`.
    fn next(&self, from: usize) -> Option<usize> {
        let mut position = from;
        for (height, level) in self.levels.iter().enumerate() {
            let word = level.get(position / BITS)?;
            let rest = word & (!0 << (position % BITS));
            if rest != 0 {
                let found = position / BITS * BITS + rest.trailing_zeros() as usize;
                return Some(self.smallest_under(height, found));
            }
            position = position / BITS + 1;
        }
        None
    }

    /// The smallest member that the set bit `position` of level `height` stands for.
    fn smallest_under(&self, height: usize, position: usize) -> usize {
        self.levels[..height].iter().rev().fold(position, |position, level| {
            position * BITS + level[position].trailing_zeros() as usize
        })
    }
}

const fn bit(position: usize) -> u64 {
    1 << (position % BITS)
}

/// Words whose first `bits` bits are set.
fn words_of_ones(bits: usize) -> Vec<u64> {
    let mut words = vec![!0; bits / BITS];
    if !bits.is_multiple_of(BITS) {
        words.push((1 << (bits % BITS)) - 1);
    }
    words
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_bitmap_holds_the_numbers_below_its_limit() {
        for limit in [1, 2, 63, 64, 65, 4095, 4096, 4097, 300_000] {
            let bitmap = Bitmap::full(limit);
            assert!(bitmap.contains(0));
            assert!(bitmap.contains(limit - 1));
            assert!(!bitmap.contains(limit));
            assert_eq!(bitmap.next_around(limit - 1), Some(limit - 1));
            assert_eq!(bitmap.next_around(limit), Some(0));
        }
    }

    proptest! {
        #[test]
        fn a_bitmap_finds_what_a_sorted_set_finds(
            limit in prop_oneof![1_usize..200, 4000_usize..9000],
            steps in prop::collection::vec((any::<prop::sample::Index>(), 0..3_u8), 1..300),
        ) {
            let mut bitmap = Bitmap::full(limit);
            let mut set: BTreeSet<usize> = (0..limit).collect();
            for number in (0..limit).filter(|number| number % 1000 != 7) {
                bitmap.remove(number);
                let _was_there: bool = set.remove(&number);
            }
            for (index, step) in steps {
                let number = index.index(limit);
                if step == 0 {
                    bitmap.remove(number);
                    let _was_there: bool = set.remove(&number);
                } else if step == 1 {
                    bitmap.insert(number);
                    let _was_absent: bool = set.insert(number);
                }
                let next = set.range(number..).next().or_else(|| set.iter().next());
                prop_assert_eq!(bitmap.next_around(number), next.copied());
                prop_assert_eq!(bitmap.contains(number), set.contains(&number));
            }
        }
    }
}
