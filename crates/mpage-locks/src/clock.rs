//! Time. Monotonic, in nanoseconds since the process first asked; and of the day.

/// Nanoseconds since the first call in this process. Never goes back.
///
/// Under a schedule checker no time passes: the answer is always zero.
#[cfg(not(any(mpage_loom, mpage_shuttle)))]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn now_ns() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since the first call in this process: zero under a schedule checker.
#[cfg(any(mpage_loom, mpage_shuttle))]
pub fn now_ns() -> u64 {
    0
}

/// The time of day: whole seconds since 1970, and nanoseconds behind them. It may go back.
///
/// Under a schedule checker it is always the beginning of 1970.
#[cfg(not(any(mpage_loom, mpage_shuttle)))]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn time_of_day() -> (i64, u32) {
    use std::time::{SystemTime, UNIX_EPOCH};
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
}

/// The time of day: the beginning of 1970 under a schedule checker.
#[cfg(any(mpage_loom, mpage_shuttle))]
pub fn time_of_day() -> (i64, u32) {
    (0, 0)
}
