//! Time. Monotonic, in nanoseconds since the process first asked; and of the day.

use std::time::Duration;

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

/// The time since 1970, as the machine's clock has it now: somebody may set that back.
#[cfg(not(any(mpage_loom, mpage_shuttle)))]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
pub fn since_1970() -> Duration {
    use std::time::{SystemTime, UNIX_EPOCH};
    // A clock that says it is earlier was never set.
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time since 1970: none under a schedule checker.
#[cfg(any(mpage_loom, mpage_shuttle))]
pub fn since_1970() -> Duration {
    Duration::ZERO
}
