//! Points in time, as the image has them and as the library for FUSE does.

use std::time::{Duration, UNIX_EPOCH};

use mpage_ext4::Timestamp;

/// What the library for FUSE calls a point in time.
pub(super) type Time = std::time::SystemTime;

/// `time` for the library.
pub(super) fn to_fuse(time: Timestamp) -> Time {
    let behind = Duration::from_nanos(time.nanoseconds.into());
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    match time.seconds {
        0.. => UNIX_EPOCH + seconds + behind,
        _ => UNIX_EPOCH - seconds + behind,
    }
}

/// `time` as a request has it. The library counts nanoseconds before 1970 backward, where requests
/// count all of them forward.
pub(super) fn of_fuse(time: Time) -> Timestamp {
    let (since, sign) = match time.duration_since(UNIX_EPOCH) {
        Ok(since) => (since, 1),
        Err(before) => (before.duration(), -1),
    };
    let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Timestamp { seconds: sign * seconds, nanoseconds: since.subsec_nanos() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_what_requests_say() {
        let half = 500_000_000;
        for (seconds, nanoseconds) in [(0, 0), (1, half), (7_000_000_000, 1), (-5, 0), (-2, half)] {
            let time = Timestamp { seconds, nanoseconds };
            // As the library reads a request.
            let whole = Duration::new(seconds.unsigned_abs(), nanoseconds);
            let read = if seconds < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
            assert_eq!(of_fuse(read), time);
            // As it writes a reply: rounded down to a second.
            let written = to_fuse(time);
            let since = match written.duration_since(UNIX_EPOCH) {
                Ok(since) => i128::try_from(since.as_nanos()).unwrap(),
                Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap(),
            };
            assert_eq!(since, i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds));
        }
    }
}
