//! One run under a seeded scheduler: the same seed gives the same run, on any machine.
//!
//! In an ordinary build threads are the system's, and a run is a test under load: what is found is
//! right, but not found again by its seed.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

/// Steps after which a run counts as one that never ends.
#[cfg(mpage_shuttle)]
const STEPS_MAX: usize = 3_000_000;

/// Runs `body` once, its threads taking turns by `seed`, and returns what it does.
///
/// Half of the seeds let any thread go on at each step, the other half keep one going until few
/// chosen steps. All that `body` shares has to be made in it. Blocks until the run is over.
///
/// # Errors
///
/// What a thread panicked with; that all threads wait for each other; that there is no end.
pub fn simulate<T: Send + Sync + 'static>(
    seed: u64,
    body: impl Fn() -> T + Send + Sync + 'static,
) -> Result<T, String> {
    let result = Arc::new(OnceLock::new());
    let to = Arc::clone(&result);
    let body = move || {
        listen();
        drop(to.set(body()));
    };
    // A thread of the system's for each run: what a failed one leaves on it ends with it.
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let ran = catch_unwind(AssertUnwindSafe(|| schedule(seed, body)));
            ran.map_err(|panic| FIRST_PANIC.take().unwrap_or_else(|| message(&*panic)))
        });
        run.join().map_err(|panic| message(&*panic)).flatten()
    })?;
    let result = Arc::into_inner(result).and_then(OnceLock::into_inner);
    result.ok_or_else(|| "the run ended without a result".into())
}

thread_local! {
    /// What the first panic of a run said: those that follow from it say less. All threads of a
    /// run under the seeded scheduler are one of the system's.
    static FIRST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what panics say, in place of printing it.
#[cfg(mpage_shuttle)]
fn listen() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or(String::new(), |place| format!(", at {place}"));
        let told = format!("{}{place}", message(panic.payload()));
        FIRST_PANIC.with_borrow_mut(|first| *first = first.take().or(Some(told)));
    }));
}

#[cfg(not(mpage_shuttle))]
fn listen() {}

/// What a panic says.
fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

#[cfg(mpage_shuttle)]
fn schedule(seed: u64, body: impl Fn() + Send + Sync + 'static) {
    use shuttle::scheduler::{PctScheduler, RandomScheduler};
    use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

    let mut config = Config::new();
    config.silence_warnings = true;
    config.stack_size = 1 << 17;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    config.ungraceful_shutdown_config.immediately_return_on_panic = true;
    let _ran = match seed % 2 {
        0 => Runner::new(RandomScheduler::new_from_seed(seed, 1), config).run(body),
        _ => Runner::new(PctScheduler::new_from_seed(seed, 3, 1), config).run(body),
    };
}

#[cfg(not(mpage_shuttle))]
fn schedule(_seed: u64, body: impl Fn() + Send + Sync + 'static) {
    body();
}
