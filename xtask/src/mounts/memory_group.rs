//! A bound on the memory of some processes and of the files they touch: a control group.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::program;
use crate::failure::Failure;
use crate::rig::folder::word;

/// Where control groups are: the file of the bound tells which version they have.
const PLACES: [(&str, &str); 2] =
    [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")];

/// A control group. Dropped when its processes are gone, it is removed.
pub(super) struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// Makes the group `name` with at most `bytes` of memory.
    pub(super) fn new(name: &str, bytes: u64) -> Result<MemoryGroup, Failure> {
        let (place, bound) = place()?;
        let path = place.join(format!("mpage-{name}-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| Failure::at(&word(&path), &error))?;
        let group = MemoryGroup(path);
        let file = group.0.join(bound);
        fs::write(&file, bytes.to_string()).map_err(|error| Failure::at(&word(&file), &error))?;
        Ok(group)
    }

    /// A call of `command` in the group, from its first page on.
    pub(super) fn call(&self, command: &Command) -> Command {
        let processes = self.0.join("cgroup.procs");
        let script = "echo $$ >\"$0\" && exec \"$@\"";
        let mut call = program("sh", ["-c", script]);
        let words: Vec<&OsStr> = command.get_args().collect();
        let _call = call.arg(processes).arg(command.get_program()).args(words);
        call
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("xtask: {} is left: {error}", self.0.display());
        }
    }
}

/// The folder of groups with bounds on memory, and the name of the bound.
fn place() -> Result<(&'static Path, &'static str), Failure> {
    let unified = Path::new(PLACES[0].0).join("cgroup.controllers");
    let unified = fs::read_to_string(unified).is_ok_and(|text| text.contains("memory"));
    let (place, bound) = if unified { PLACES[0] } else { PLACES[1] };
    if unified {
        let control = Path::new(place).join("cgroup.subtree_control");
        let switched = fs::write(&control, "+memory");
        switched.map_err(|error| Failure::at(&word(&control), &error))?;
    } else if !Path::new(place).join(bound).exists() {
        return Err(Failure::new("no control groups for memory are mounted at /sys/fs/cgroup"));
    }
    Ok((Path::new(place), bound))
}
