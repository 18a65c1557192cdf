//! What the figures depend on.

use std::fs::read_to_string;
use std::path::Path;
use std::process::Command;

/// The lines that go before a table.
pub(crate) fn description(folder: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "commit:      {}\n\
         machine:     {}, {cores} cores, load {}\n\
         kernel:      {}\n\
         device:      {}\n\
         library:     a file opened with direct I/O, memory 1.3 times the file, dirty 90/100 %\n\
         kernel file: a file of the same size on the same file system, in the kernel's cache\n\
         memcpy:      copy_from_slice from and to vectors, in huge pages where the C library can\n\
         durability:  none asked for while it is measured",
        commit(),
        cpu(),
        first_word("/proc/loadavg"),
        first_word("/proc/sys/kernel/osrelease"),
        file_system(folder),
    )
}

/// How much of the process's memory is in huge pages now.
pub(crate) fn huge_pages() -> String {
    let rollup = read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let mib = |name: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.map_or(0, |kib| kib.parse().unwrap_or(0)) >> 10
    };
    format!("{} of the process's {} MiB", mib("AnonHugePages:"), mib("Anonymous:"))
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output();
        let output = output.map_or(None, |output| output.status.success().then_some(output));
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return String::from("unknown");
    };
    let sources = ["status", "--porcelain", "--untracked-files=no", "--", "*.rs", "*.toml"];
    let changed = git(&sources).is_none_or(|lines| !lines.is_empty());
    commit + if changed { ", with changes" } else { "" }
}

fn cpu() -> String {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |name| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned()
    };
    format!("{} (family {}, model {})", value("model name"), value("cpu family"), value("model\t"))
}

fn first_word(path: &str) -> String {
    let text = read_to_string(path).unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}

/// The file system of `folder` and the device it is on.
fn file_system(folder: &Path) -> String {
    let mounts = read_to_string("/proc/self/mounts").unwrap_or_default();
    let holding = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, place, kind) = (words.next()?, words.next()?, words.next()?);
        folder.starts_with(place).then(|| (place.len(), format!("{kind} on {device}")))
    });
    let deepest = holding.max_by_key(|(length, _)| *length);
    deepest.map_or_else(|| String::from("unknown"), |(_, name)| name)
}
