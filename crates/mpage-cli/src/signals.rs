//! Signals that stop a command.

use std::fs;
use std::io;
use std::sync::Arc;

use mpage::PageCache;
use mpage_locks::thread;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::failure::{Failure, system};
use crate::size;

/// Takes the signals that stop the server: from now on they are events.
///
/// A hangup is one of them, since a terminal that closes must not cost what was not flushed; unless
/// whoever started us had it ignored, as nohup(1) has.
///
/// # Errors
///
/// The system's.
pub fn take() -> io::Result<Signals> {
    let ignored = ignored(&fs::read_to_string("/proc/self/status")?);
    let hangup = (ignored & 1 << (SIGHUP - 1) == 0).then_some(SIGHUP);
    Signals::new([SIGTERM, SIGINT].into_iter().chain(hangup))
}

/// Ends the process at the next signal, whatever it still has to do, and says what that costs.
///
/// # Errors
///
/// The system's, when it has no thread.
pub fn give_up_on_second(mut signals: Signals, cache: &Arc<PageCache>) -> Result<(), Failure> {
    // Who waits for a signal for ever must not keep the image open.
    let cache = Arc::downgrade(cache);
    let _thread = thread::spawn("mpage-signals", move || {
        if signals.forever().next().is_none() {
            // None are taken any more.
            return;
        }
        let bytes = cache.upgrade().map_or(0, |cache| cache.unwritten_bytes());
        eprintln!("mpage: stopped by a second signal: {} are lost", size::words(bytes));
        std::process::exit(1);
    })
    .map_err(system("cannot start a thread"))?;
    Ok(())
}

/// The set of ignored signals in a process's status; none where it does not say.
fn ignored(status: &str) -> u64 {
    let set = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    set.map_or(0, |set| u64::from_str_radix(set.trim(), 16).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_read_off_the_status() {
        assert_eq!(ignored("SigBlk:\t00ff\nSigIgn:\t0000000000001001\nSigCgt:\t0002\n"), 0x1001);
        assert_eq!(ignored("Name:\tmpage\n"), 0);
    }
}
