//! The last sync, as a person sees it, and what was written in all.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use mpage::StatsSnapshot;
use mpage_locks::{Condvar, Mutex, thread};

use crate::size;

/// Between two looks at how much is left.
const TICK: Duration = Duration::from_millis(100);

/// A progress bar, if a person watches.
pub struct Progress(Option<(ProgressBar, u64)>);

impl Progress {
    /// Of the writing of `all` bytes.
    pub fn new(all: u64) -> Progress {
        let shown = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(all);
            let template = "writing [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec}";
            bar.set_style(ProgressStyle::with_template(template).expect("a fixed template"));
            (bar, all)
        });
        Progress(shown)
    }

    /// So many bytes are left.
    pub fn left(&self, bytes: u64) {
        if let Some((bar, all)) = &self.0 {
            bar.set_position(all.saturating_sub(bytes));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((bar, _)) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// Does `work`, and meanwhile tells `show` again and again how much is `left`.
pub fn watched<T>(
    left: impl Fn() -> u64 + Send + 'static,
    show: impl Fn(u64) + Send + 'static,
    work: impl FnOnce() -> T,
) -> T {
    let shown = Arc::new((Mutex::new(true), Condvar::new()));
    let told = Arc::clone(&shown);
    let watcher = thread::spawn("mpage-progress", move || {
        let mut go_on = told.0.lock();
        while *go_on {
            (go_on, _) = told.1.wait_for(&told.0, go_on, TICK);
            show(left());
        }
    });
    let result = work();
    *shown.0.lock() = false;
    shown.1.notify_all();
    if let Ok(watcher) = watcher
        && watcher.join().is_err()
    {
        tracing::error!("the progress bar ended by a panic, which is a bug: please report it");
    }
    result
}

/// Says what was written since the start.
pub fn print(stats: &StatsSnapshot, ran_ns: u64) {
    eprintln!(
        "wrote {} pages ({}) in {} writes, with {} flushes, in {}.{} s",
        stats.pages_written,
        size::words(stats.bytes_written),
        stats.write_bios,
        stats.device_flushes,
        ran_ns / 1_000_000_000,
        ran_ns / 100_000_000 % 10,
    );
}
