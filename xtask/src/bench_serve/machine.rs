//! What the figures depend on.

use std::fs::read_to_string;
use std::path::Path;

use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::word;
use crate::workspace::root;

/// The lines that go before a table: of the commit, the machine and the device, then `further`.
pub(crate) fn description(image: &Path, further: &[(&str, String)]) -> Result<String, Failure> {
    let device = output(&mut program("findmnt", ["-no", "FSTYPE,SOURCE", "-T", &word(image)]))?;
    let device: Vec<&str> = device.split_whitespace().collect();
    let lines = [
        ("commit", commit()?),
        ("machine", cpu()),
        ("kernel", first_word("/proc/sys/kernel/osrelease")),
        ("device", device.join(" on ")),
    ];
    let lines = lines
        .iter()
        .chain(further)
        .map(|(name, what)| format!("    {:<12} {what}", format!("{name}:")));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// The commit that is measured, and whether sources differ from it.
fn commit() -> Result<String, Failure> {
    let git = |arguments: &[&str]| output(program("git", arguments).current_dir(root()));
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let sources = ["status", "--porcelain", "--untracked-files=no", "--", "*.rs", "*.toml"];
    let changed = if git(&sources)?.is_empty() { "" } else { ", with changes" };
    Ok(format!("{}{changed}", commit.trim()))
}

fn cpu() -> String {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |name| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown").to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (family, model) = (value("cpu family"), value("model\t"));
    let (name, load) = (value("model name"), first_word("/proc/loadavg"));
    format!("{name} (family {family}, model {model}), {cores} cores, load {load}")
}

fn first_word(path: &str) -> String {
    let text = read_to_string(path).unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_owned()
}
