//! Waits for what other programs do, and no longer than a limit.

use std::time::Duration;

use mpage_locks::{Condvar, Mutex, clock};

use crate::failure::Failure;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Looks until `look` has an answer, for `limit` at most.
///
/// # Errors
///
/// `look`'s, and one that names `what` when the limit has passed.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    let start_ns = clock::now_ns();
    loop {
        if let Some(answer) = look()? {
            return Ok(answer);
        }
        if Duration::from_nanos(clock::now_ns() - start_ns) > limit {
            return Err(Failure::new(format!("{what}: not within {limit:?}")));
        }
        pause();
    }
}

/// Gives the programs that are waited for a moment of processor time.
fn pause() {
    let (mutex, nobody) = (Mutex::new(()), Condvar::new());
    let (_guard, _woken) = nobody.wait_for(&mutex, mutex.lock(), PAUSE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_the_wait_and_its_absence_is_told() {
        let mut looks = 0;
        let answer = until("three looks", Duration::from_secs(60), || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(answer.expect("the third look answers"), 3);
        let never = until("the end", Duration::ZERO, || Ok(None::<()>));
        assert!(never.expect_err("no answer").to_string().starts_with("the end"));
    }
}
