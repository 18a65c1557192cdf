//! Threads: `std`'s, or the schedule checker's.

#[cfg(not(any(mpage_loom, mpage_shuttle)))]
pub use std::thread::{JoinHandle, yield_now};

#[cfg(mpage_loom)]
pub use loom::thread::{JoinHandle, yield_now};
#[cfg(mpage_shuttle)]
pub use shuttle::thread::{JoinHandle, yield_now};

/// Lets other threads run, as the schedule chooses: at times as any atomic operation does, at times
/// by yielding. Who yields comes last from then on where threads have priorities: done always, it
/// would make half of the orders alike; done never, few would cut a thread off here.
#[cfg(mpage_shuttle)]
pub fn interrupt() {
    use shuttle::rand::Rng;
    use shuttle::sync::atomic::{AtomicBool, Ordering};
    if shuttle::rand::thread_rng().gen_bool(0.5) {
        yield_now();
    } else {
        let _seen: bool = AtomicBool::new(false).load(Ordering::SeqCst);
    }
}

/// True on the very thread that `handle` would join.
pub fn is_current<T>(handle: &JoinHandle<T>) -> bool {
    #[cfg(not(any(mpage_loom, mpage_shuttle)))]
    return handle.thread().id() == std::thread::current().id();
    #[cfg(mpage_loom)]
    return handle.thread().id() == loom::thread::current().id();
    #[cfg(mpage_shuttle)]
    return handle.thread().id() == shuttle::thread::current().id();
}

/// Starts a thread called `name`.
///
/// # Errors
///
/// The operating system's error when it cannot start another thread.
pub fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    #[cfg(not(any(mpage_loom, mpage_shuttle)))]
    return std::thread::Builder::new().name(name.into()).spawn(body);
    #[cfg(mpage_loom)]
    return loom::thread::Builder::new().name(name.into()).spawn(body);
    #[cfg(mpage_shuttle)]
    return shuttle::thread::Builder::new().name(name.into()).spawn(body);
}
