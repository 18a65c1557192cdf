//! `mpage serve` driven by other people's programs: copies, file systems, verified random writes.
//!
//! Each step makes its own image, server and folder, tells in a line what it saw, and leaves
//! nothing behind. The short run is part of every change's checks; the long one has larger images.

mod copy;
mod device_writes;
mod file_systems;
mod info;
mod latency;
mod memory;
mod nbd_client;
pub(crate) mod server;
pub(crate) mod storage_daemon;
mod verify;

use self::server::Program;
use crate::failure::Failure;
use crate::rig::steps::{self, Step};

/// What one run of the steps is.
struct Run {
    program: Program,
    short: bool,
}

const STEPS: &[Step<Run>] = &[
    Step { name: "nbdcopy", run: copy::nbdcopy },
    Step { name: "qemu-img", run: copy::qemu_img },
    Step { name: "nbdinfo", run: info::nbdinfo },
    Step { name: "verify", run: verify::verify },
    Step { name: "restart", run: verify::restart },
    Step { name: "file-systems", run: file_systems::file_systems },
    Step { name: "device-writes", run: device_writes::device_writes },
    Step { name: "memory", run: memory::memory },
    Step { name: "latency", run: latency::latency },
];

/// Runs the steps that `arguments` ask for: `[--short] [--server NAME] [STEP..]`.
///
/// Without a name of a step, all run.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let (run, chosen) = read(arguments)?;
    server::build(run.program)?;
    println!(
        "clients: {} serves, {}",
        run.program.name(),
        if run.short { "short" } else { "long" }
    );
    steps::run("clients", &run, STEPS, &chosen)
}

/// Runs every step at the size that suits a check of every change.
pub(crate) fn run_short() -> Result<(), Failure> {
    run(&["--short".to_owned()])
}

fn read(arguments: &[String]) -> Result<(Run, Vec<&'static Step<Run>>), Failure> {
    let mut run = Run { program: Program::Mpage, short: false };
    let mut chosen = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--short" => run.short = true,
            "--server" => {
                let name = words.next().ok_or_else(|| Failure::new("--server needs a name"))?;
                run.program = Program::named(name)?;
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
        read(&words).map(|(run, steps)| (run.short, run.program.name(), steps.len()))
    }

    #[test]
    fn arguments_choose_the_server_the_size_and_the_steps() {
        assert_eq!(chosen(&[]).expect("no step"), (false, "mpage", 0));
        let some = chosen(&["--short", "--server", "nbdkit-file", "nbdinfo"]);
        assert_eq!(some.expect("one step"), (true, "nbdkit-file", 1));
        assert!(chosen(&["--server"]).is_err());
        assert!(chosen(&["--server", "nobody"]).is_err());
        assert!(chosen(&["nothing"]).is_err());
    }
}
