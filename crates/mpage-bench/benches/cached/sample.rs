//! Times, and what is made of them: medians, spreads, ratios.

use crate::work::Operation;

/// How many threads each contender is measured with.
pub(crate) const THREADS: [u64; 2] = [1, 2];

pub(crate) const LIBRARY: usize = 0;
pub(crate) const KERNEL: usize = 1;
pub(crate) const MEMCPY: usize = 2;

/// The times of one operation on one size of file, in nanoseconds an operation: for each number of
/// threads and each contender, one a round.
pub(crate) struct Row {
    pub(crate) operation: Operation,
    pub(crate) bytes: u64,
    times: [[Vec<f64>; 3]; THREADS.len()],
}

impl Row {
    pub(crate) fn new(operation: Operation, bytes: u64) -> Row {
        Row { operation, bytes, times: Default::default() }
    }

    /// Adds the time of a round.
    pub(crate) fn add(&mut self, threads: usize, contender: usize, time_ns: f64) {
        self.times[threads][contender].push(time_ns);
    }

    /// The median, least and most.
    pub(crate) fn spread(&self, threads: usize, contender: usize) -> (f64, f64, f64) {
        let times = &self.times[threads][contender];
        let least = times.iter().copied().fold(f64::INFINITY, f64::min);
        let most = times.iter().copied().fold(0.0, f64::max);
        (median(times.clone()), least, most)
    }

    /// The library's time as a multiple of `other`'s: the median of the rounds' ratios.
    pub(crate) fn ratio(&self, threads: usize, other: usize) -> f64 {
        median(quotients(&self.times[threads][LIBRARY], &self.times[threads][other]))
    }

    /// How many times as much two threads do as one.
    pub(crate) fn scaling(&self, contender: usize) -> f64 {
        median(quotients(&self.times[0][contender], &self.times[1][contender]))
    }
}

fn quotients(dividends: &[f64], divisors: &[f64]) -> Vec<f64> {
    dividends.iter().zip(divisors).map(|(dividend, divisor)| dividend / divisor).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) {
        f64::midpoint(values[middle - 1], values[middle])
    } else {
        values[middle]
    }
}
