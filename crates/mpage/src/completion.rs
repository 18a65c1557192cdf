//! Which thread ends a device's I/O: it must not wait for what that device is still to end.
//!
//! What a completion holds may be the last reference to a mapping, and with a mapping its flusher
//! may end, which may be waiting for a flush that the device ends on this very thread.

use std::cell::Cell;

thread_local! {
    static RUNS: Cell<bool> = const { Cell::new(false) };
}

/// Runs a completion, and drops what it holds.
pub(crate) fn run(body: impl FnOnce()) {
    let before = RUNS.replace(true);
    body();
    RUNS.set(before);
}

/// True on a thread that runs a completion: there nothing of a device is waited for.
pub(crate) fn is_running() -> bool {
    RUNS.get()
}
