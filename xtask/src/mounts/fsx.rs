//! fsx: random calls of every kind on one file, each read held to what was written.

use std::path::Path;

use super::Run;
use super::image::{self, EXT4, EXT4_SMALL, Format};
use super::programs::Program;
use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};

const FSX: Program = Program { name: "fsx", version: "0.3.2" };

/// All that it can do on Linux, with sizes that cross pages and blocks anyhow.
const CONFIGURATION: &str = "\
flen = 1048576
[opsize]
min = 1
max = 98304
align = 1
[weights]
close_open = 2
copy_file_range = 3
fdatasync = 1
fsync = 1
invalidate = 2
mapread = 10
mapwrite = 10
posix_fadvise = 2
posix_fallocate = 3
punch_hole = 4
read = 10
sendfile = 3
truncate = 5
write = 10
";

/// How often it runs, and how many calls it makes.
struct Amount {
    seeds: u64,
    calls: u64,
}

/// Runs it on blocks of 1 and of 4 KiB, with plenty of memory and with little.
pub(super) fn fsx(run: &Run) -> Result<String, Failure> {
    let program = FSX.install()?;
    let amount = match run.short {
        true => Amount { seeds: 1, calls: 2000 },
        false => Amount { seeds: 10, calls: 100_000 },
    };
    for (format, first) in [(EXT4, 1), (EXT4_SMALL, 2)] {
        one(run, &program, format, first, &amount)
            .map_err(|failure| Failure::new(format!("{}: {failure}", format.told())))?;
    }
    let Amount { seeds, calls } = amount;
    Ok(format!("{calls} calls of {seeds} seeds on blocks of 1 and of 4 KiB: all as written"))
}

fn one(run: &Run, fsx: &Path, format: Format, first: u64, amount: &Amount) -> Result<(), Failure> {
    let folder = Folder::new("fsx")?;
    let configuration = folder.path("fsx.toml");
    let written = std::fs::write(&configuration, CONFIGURATION);
    written.map_err(|error| Failure::at(&word(&configuration), &error))?;
    let image = format.image(&folder, "disk.img", 64 << 20)?;
    for seed in first..first + amount.seeds {
        let memory: &[&str] = if seed % 2 == 0 { &["--memory", "16M"] } else { &[] };
        let mounted = run.mounter.mount(&folder, &image, "mount", memory)?;
        let file = mounted.path().join(format!("file-{seed}"));
        let (calls, seed) = (amount.calls.to_string(), seed.to_string());
        let limit = ["--signal=KILL", "1200"].map(str::to_owned);
        let mut command = program("timeout", limit);
        let command = command.arg(fsx).arg("-f").arg(&configuration).arg("-P").arg(folder.path(""));
        let _printed = output(command.args(["-N", &calls, "-S", &seed]).arg(file))?;
        mounted.unmount()?;
        image::check(&image)?;
    }
    Ok(())
}
