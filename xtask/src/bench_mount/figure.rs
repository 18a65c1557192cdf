//! What was measured once.

/// How fast something was done, or how long it took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figure {
    pub(super) value: f64,
    /// Whether the contender was out of time, and `value` is what it would have come to had it
    /// ended just then.
    pub(super) out_of_time: bool,
}

impl Figure {
    /// `count` things in `time_ns`, by the second.
    #[expect(clippy::cast_precision_loss, reason = "figures are far below 2^52")]
    pub(super) fn per_second(count: u64, time_ns: u64) -> Figure {
        Figure { value: count as f64 * 1e9 / time_ns.max(1) as f64, out_of_time: false }
    }

    /// A time, in microseconds.
    #[expect(clippy::cast_precision_loss, reason = "figures are far below 2^52")]
    pub(super) fn microseconds(time_ns: u64) -> Figure {
        Figure { value: time_ns as f64 / 1e3, out_of_time: false }
    }
}

/// Which figures are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
}

impl Better {
    /// By how much `ours` is better than `theirs`: 2 is twice as good.
    pub(super) fn ratio(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Better::More => ours / theirs.max(f64::MIN_POSITIVE),
            Better::Less => theirs / ours.max(f64::MIN_POSITIVE),
        }
    }
}
