//! The last sync, as a person sees it, and what was written in all.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use mpage::units::PAGE_BYTES;
use mpage::{AddressSpace, CachedFile, StatsSnapshot};
use mpage_locks::{Condvar, Mutex, thread};

use crate::size;

/// Between two looks at how much is left.
const TICK: Duration = Duration::from_millis(100);

/// Bytes that are not on the image: dirty, or on their way.
pub fn unwritten_bytes(space: &AddressSpace) -> u64 {
    let counts = space.set_counts();
    (counts.dirty + counts.io + counts.locked) as u64 * PAGE_BYTES
}

/// Makes everything durable, with a progress bar if a person watches. An error that was about
/// bytes that could be written after all is no error any more.
///
/// # Errors
///
/// What could not be written, with its ranges.
pub fn sync(file: &CachedFile) -> mpage::Result<()> {
    let shown = Arc::new((Mutex::new(true), Condvar::new()));
    let bar = std::io::stderr().is_terminal().then(|| {
        let (shown, space) = (Arc::clone(&shown), Arc::clone(file.mapping()));
        thread::spawn("mpage-progress", move || show(&shown, &space))
    });
    let result = file.fsync().or_else(|_| file.fsync());
    *shown.0.lock() = false;
    shown.1.notify_all();
    if let Some(Ok(bar)) = bar
        && bar.join().is_err()
    {
        tracing::error!("the progress bar ended by a panic, which is a bug: please report it");
    }
    result
}

fn show(shown: &(Mutex<bool>, Condvar), space: &AddressSpace) {
    let all = unwritten_bytes(space);
    let bar = ProgressBar::new(all);
    let template = "writing [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec}";
    bar.set_style(ProgressStyle::with_template(template).expect("a fixed template"));
    let mut go_on = shown.0.lock();
    while *go_on {
        (go_on, _) = shown.1.wait_for(&shown.0, go_on, TICK);
        bar.set_position(all.saturating_sub(unwritten_bytes(space)));
    }
    bar.finish_and_clear();
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
