//! `mpage mount` driven by other people's programs, and judged by e2fsck and by the kernel.
//!
//! Each step makes its own image, mount and folder, tells in a line what it saw, and leaves
//! nothing behind. The short run is part of every change's checks; the long one does more.

mod builds;
mod data_base;
mod device_writes;
mod ends;
mod fio;
mod fsx;
mod full;
mod full_host;
mod git;
mod image;
mod judged;
mod kills;
mod load;
mod manifest;
mod memory;
mod memory_group;
mod mounted;
mod pjdfstest;
mod programs;
mod served;
mod tree;
mod writer;

use self::mounted::Mounter;
use crate::failure::Failure;
use crate::rig::steps::{self, Step};

/// What one run of the steps is.
struct Run {
    mounter: Mounter,
    short: bool,
}

const STEPS: &[Step<Run>] = &[
    Step { name: "fsx", run: fsx::fsx },
    Step { name: "pjdfstest", run: pjdfstest::pjdfstest },
    Step { name: "fio", run: fio::fio },
    Step { name: "git", run: git::git },
    Step { name: "build", run: builds::build },
    Step { name: "data-base", run: data_base::data_base },
    Step { name: "memory", run: memory::memory },
    Step { name: "device-writes", run: device_writes::device_writes },
    Step { name: "judged", run: judged::judged },
    Step { name: "ends", run: ends::ends },
    Step { name: "load", run: load::load },
    Step { name: "kills", run: kills::kills },
    Step { name: "full-image", run: full::full_image },
    Step { name: "full-host", run: full_host::full_host },
];

/// Runs the steps that `arguments` ask for: `[--short] [--by NAME] [STEP..]`.
///
/// Without a name of a step, all run.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let (run, chosen) = read(arguments)?;
    served::build(run.mounter)?;
    println!("mounts: by {}, {}", run.mounter.name(), if run.short { "short" } else { "long" });
    steps::run("mounts", &run, STEPS, &chosen)
}

/// Runs every step at the size that suits a check of every change.
pub(crate) fn run_short() -> Result<(), Failure> {
    run(&["--short".to_owned()])
}

fn read(arguments: &[String]) -> Result<(Run, Vec<&'static Step<Run>>), Failure> {
    let mut run = Run { mounter: Mounter::Mpage, short: false };
    let mut chosen = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--short" => run.short = true,
            "--by" => {
                let name = words.next().ok_or_else(|| Failure::new("--by needs a name"))?;
                run.mounter = Mounter::named(name)?;
            }
            name => chosen.push(steps::named(STEPS, name)?),
        }
    }
    Ok((run, chosen))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(words: &[&str]) -> Result<(bool, &'static str, usize), Failure> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        read(&words).map(|(run, steps)| (run.short, run.mounter.name(), steps.len()))
    }

    #[test]
    fn arguments_choose_who_mounts_the_size_and_the_steps() {
        assert_eq!(chosen(&[]).expect("no step"), (false, "mpage", 0));
        let some = chosen(&["--short", "--by", "kernel", "fsx"]);
        assert_eq!(some.expect("one step"), (true, "kernel", 1));
        assert!(chosen(&["--by"]).is_err());
        assert!(chosen(&["--by", "nobody"]).is_err());
        assert!(chosen(&["nothing"]).is_err());
    }
}
