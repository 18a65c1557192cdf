//! Places that were chosen for blocks of a file and are not in its map yet.
//!
//! A block is claimed when a place is chosen for it, and settled when its data has been written
//! there. Settled blocks go into the map, and are no claim any more.
//!
//! See docs/ext4-transactions.md, "Data and its blocks".

use std::ops::Range;

use mpage::units::{DeviceBlock, FileBlock};
use mpage::{Extent, Place};
use rangemap::RangeMap;

/// The claims of one file.
#[derive(Default)]
pub(crate) struct Claims(RangeMap<u64, Claim>);

/// What is known of a run of claimed blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    /// To be added to a file block, wrapping around, for its place: equal for neighbours.
    shift: u64,
    /// The data is there.
    settled: bool,
    /// The map has the place, as unwritten: no bit is to be set for it.
    unwritten: bool,
}

/// A run of settled blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) blocks: Range<u64>,
    pub(crate) to: u64,
    /// The map has it, as unwritten.
    pub(crate) unwritten: bool,
}

impl Settled {
    /// The run as it is to be in the map.
    pub(crate) fn extent(&self) -> Extent {
        let count = self.blocks.end - self.blocks.start;
        Extent::mapped(FileBlock(self.blocks.start), DeviceBlock(self.to), count)
    }

    /// Its blocks on the device.
    pub(crate) fn places(&self) -> Range<u64> {
        self.to..self.to + (self.blocks.end - self.blocks.start)
    }
}

impl Claims {
    /// The claimed run that holds `block`.
    pub(crate) fn find(&self, block: u64) -> Option<Extent> {
        let (blocks, claim) = self.0.get_key_value(&block)?;
        let to = DeviceBlock(blocks.start.wrapping_add(claim.shift));
        let (first, count) = (FileBlock(blocks.start), blocks.end - blocks.start);
        let has_data = claim.settled || !claim.unwritten;
        let place = if has_data { Place::Mapped(to) } else { Place::Unwritten(to) };
        Some(Extent { place, fresh: !claim.settled, ..Extent::mapped(first, to, count) })
    }

    /// The first claimed block of `blocks`.
    pub(crate) fn first_in(&self, blocks: &Range<u64>) -> Option<u64> {
        let (run, _) = self.0.overlapping(blocks).next()?;
        Some(run.start.max(blocks.start))
    }

    /// True when the data of all that is claimed is there.
    pub(crate) fn is_settled(&self) -> bool {
        self.0.iter().all(|(_, claim)| claim.settled)
    }

    /// Claims the place at `to` for the first of `blocks`, and those behind it for the others.
    pub(crate) fn insert(&mut self, blocks: Range<u64>, to: u64, unwritten: bool) {
        let shift = to.wrapping_sub(blocks.start);
        self.0.insert(blocks, Claim { shift, settled: false, unwritten });
    }

    /// The data of `blocks` is where it was to be, as far as they are claimed.
    pub(crate) fn settle(&mut self, blocks: &Range<u64>) {
        let runs: Vec<_> = self.inside(blocks).filter(|(_, claim)| !claim.settled).collect();
        for (run, claim) in runs {
            self.0.insert(run, Claim { settled: true, ..claim });
        }
    }

    /// Gives up the claims of `blocks`; returns the places of those whose bits are not set.
    pub(crate) fn remove(&mut self, blocks: &Range<u64>) -> Vec<Range<u64>> {
        let runs = self.inside(blocks);
        let places = runs.filter(|(_, claim)| !claim.unwritten).map(|(run, claim)| {
            run.start.wrapping_add(claim.shift)..run.end.wrapping_add(claim.shift)
        });
        let places = places.collect();
        if blocks.start < blocks.end {
            self.0.remove(blocks.clone());
        }
        places
    }

    fn inside(&self, blocks: &Range<u64>) -> impl Iterator<Item = (Range<u64>, Claim)> {
        // The map takes no empty range.
        let within = Some(blocks.clone()).filter(|blocks| blocks.start < blocks.end);
        within.into_iter().flat_map(|blocks| {
            let runs = self.0.overlapping(blocks.clone());
            runs.map(move |(run, claim)| {
                (run.start.max(blocks.start)..run.end.min(blocks.end), *claim)
            })
        })
    }

    /// The first settled runs among `blocks`: `runs_max` at most, with `blocks_max` blocks at most,
    /// and where to go on behind them; `None` when they are all.
    pub(crate) fn settled(
        &self,
        blocks: &Range<u64>,
        (runs_max, blocks_max): (usize, u64),
    ) -> (Vec<Settled>, Option<u64>) {
        let (mut runs, mut left) = (Vec::new(), blocks_max);
        for (run, claim) in self.inside(blocks).filter(|(_, claim)| claim.settled) {
            if runs.len() == runs_max || left == 0 {
                return (runs, Some(run.start));
            }
            let end = run.end.min(run.start.saturating_add(left));
            left -= end - run.start;
            runs.push(Settled {
                to: run.start.wrapping_add(claim.shift),
                unwritten: claim.unwritten,
                blocks: run.start..end,
            });
            if end < run.end {
                return (runs, Some(end));
            }
        }
        (runs, None)
    }

    /// Claimed blocks, and in how many runs.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let lens = self.0.iter().map(|(run, _)| run.end - run.start);
        (lens.sum(), self.0.len() as u64)
    }

    /// Claimed blocks that the map does not have in any way.
    pub(crate) fn new_count(&self) -> u64 {
        let new = self.0.iter().filter(|(_, claim)| !claim.unwritten);
        new.map(|(run, _)| run.end - run.start).sum()
    }

    /// True when there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_settled_in_pieces_and_given_up_in_pieces() {
        let mut claims = Claims::default();
        claims.insert(10..20, 110, false);
        claims.settle(&(12..14));
        assert!(claims.find(10).unwrap().fresh && !claims.find(13).unwrap().fresh);
        assert!(!claims.is_settled());
        let middle = Settled { blocks: 12..14, to: 112, unwritten: false };
        assert_eq!(claims.settled(&(0..20), (9, 99)), (vec![middle], None));
        claims.settle(&(0..100));
        assert!(claims.is_settled());
        assert_eq!(claims.counts(), (10, 1), "what was settled in pieces is one run");
        assert_eq!(claims.remove(&(15..30)), vec![115..120; 1]);
        assert_eq!(claims.find(15), None);
        claims.insert(15..16, 7, true);
        assert_eq!(claims.remove(&(0..100)), vec![110..115; 1], "bits of unwritten blocks are set");
        assert!(claims.is_empty());
    }

    #[test]
    fn settled_runs_are_cut_where_they_are_too_many() {
        let mut claims = Claims::default();
        for (blocks, to) in [(10..20, 110), (30..40, 230), (50..60, 350)] {
            claims.insert(blocks, to, false);
        }
        claims.settle(&(0..100));
        let run = |blocks: Range<u64>, to| Settled { blocks, to, unwritten: false };
        let (first, second) = (run(10..20, 110), run(30..40, 230));
        let all = 0..100;
        let both = vec![first.clone(), second.clone()];
        assert_eq!(claims.settled(&all, (2, 99)), (both.clone(), Some(50)));
        assert_eq!(claims.settled(&all, (9, 20)), (both, Some(50)));
        let part = vec![first, run(30..35, 230)];
        assert_eq!(claims.settled(&all, (9, 15)), (part, Some(35)));
        assert_eq!(claims.settled(&(35..45), (9, 15)), (vec![run(35..40, 235)], None));
    }
}
