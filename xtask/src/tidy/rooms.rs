//! Things that only a few files may name, and things that none may.

use super::Finding;
use crate::path::{Path, paths};
use crate::source::{Source, words};

/// The crates that hold unsafe code.
const UNSAFE_CRATES: &[&str] = &["mpage-mem", "mpage-block"];

/// The crates that build bios as they like: the one that defines them, and those that measure it.
const BIO_CRATES: &[&str] = &["mpage-block", "mpage-bench", "mpage-sim"];

/// The file and the folder of the module that builds the bios of pages.
const BIO_MODULE: &[&str] = &["crates/mpage/src/mpage.rs", "crates/mpage/src/mpage/"];

/// The files that coordinate the flush of a device, and build the bio for it.
const FLUSH_FILES: &[&str] = &["crates/mpage/src/backing_dev.rs"];

/// The crate that names the locks and clocks of `std`.
const LOCKS_CRATE: &str = "mpage-locks";

/// What `std::sync` has to itself.
const STD_LOCKS: &[&str] = &["Mutex", "RwLock", "Condvar", "Barrier", "mpsc", "atomic"];

/// The files that lay `std`'s atomics over raw memory, which a schedule checker's do not fit.
const RAW_ATOMIC_FILES: &[&str] = &["crates/mpage-mem/src/copy/words.rs"];

/// What `std::time` has to itself.
const STD_CLOCKS: &[&str] = &["Instant", "SystemTime"];

/// The file that names what the library for FUSE calls a point in time.
const CLOCK_TYPE_FILE: &str = "crates/mpage-cli/src/mount/time.rs";

/// Functions that wait for time to pass.
const SLEEPS: &[&str] = &["sleep", "sleep_ms", "sleep_until", "usleep", "nanosleep"];

/// Checks what `source` names.
pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    unsafe_code(source, findings);
    for path in paths(source) {
        bio(source, &path, findings);
        std_items(source, &path, findings);
        let last = path.names.last().map_or("", String::as_str);
        if SLEEPS.contains(&last) {
            let remedy = "wait for an event, with mpage_locks::Condvar or by joining a thread";
            findings.push(Finding::new(source, path.offset, "sleep", remedy));
        }
        if path.names[0] == "io_uring" && source.crate_name() != "mpage-block" {
            let remedy = "only mpage-block speaks to io_uring: submit a Bio to a device";
            findings.push(Finding::new(source, path.offset, "io_uring", remedy));
        }
    }
}

fn unsafe_code(source: &Source, findings: &mut Vec<Finding>) {
    if UNSAFE_CRATES.contains(&source.crate_name()) {
        return;
    }
    let root = source.path.ends_with("/src/lib.rs") || source.path.ends_with("/src/main.rs");
    if root && !source.code.contains("#![forbid(unsafe_code)]") {
        let remedy = "begin the crate with #![forbid(unsafe_code)]";
        findings.push(Finding::new(source, 0, "unsafe", remedy));
    }
    for offset in words(&source.code, "unsafe") {
        let remedy = format!("only {} hold unsafe code", UNSAFE_CRATES.join(" and "));
        findings.push(Finding::new(source, offset, "unsafe", remedy));
    }
}

fn bio(source: &Source, path: &Path, findings: &mut Vec<Finding>) {
    let Some(at) = path.names.iter().position(|name| name == "Bio") else { return };
    let made = path.names.get(at + 1).is_some_and(|name| name.starts_with(char::is_lowercase));
    let flush = path.names.get(at + 1).is_some_and(|name| name == "flush");
    let free = BIO_CRATES.contains(&source.crate_name())
        || BIO_MODULE.iter().any(|place| source.path.starts_with(place))
        || flush && FLUSH_FILES.contains(&source.path.as_str())
        || source.is_test(path.offset);
    if made && !free {
        let remedy = "only crates/mpage/src/mpage.rs builds a Bio: hand it the pages";
        findings.push(Finding::new(source, path.offset, "bio", remedy));
    }
}

fn std_items(source: &Source, path: &Path, findings: &mut Vec<Finding>) {
    if source.crate_name() == LOCKS_CRATE {
        return;
    }
    let raw = RAW_ATOMIC_FILES.contains(&source.path.as_str());
    let raw_atomic = raw && path.is_std(&["sync", "atomic"]);
    let whole = |module| path.is_std(&[module]) && path.names.len() == 2;
    let lock = whole("sync")
        || path.is_std(&["sync", "*"])
        || STD_LOCKS.iter().any(|lock| path.is_std(&["sync", lock]));
    if (lock && !raw_atomic) || path.names[0] == "parking_lot" {
        let remedy = "use the locks, atomics and threads of mpage_locks";
        findings.push(Finding::new(source, path.offset, "lock", remedy));
    }
    let clock = whole("time")
        || path.is_std(&["time", "*"])
        || STD_CLOCKS.iter().any(|clock| path.is_std(&["time", clock]));
    if clock && source.path != CLOCK_TYPE_FILE {
        let remedy = "ask mpage_locks::clock for the time";
        findings.push(Finding::new(source, path.offset, "clock", remedy));
    }
}
