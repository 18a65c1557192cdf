//! Random writes of many sizes, by write(2), by mmap(2) and direct, read back by fio.

use std::path::Path;

use super::Run;
use super::image::{self, EXT4, EXT4_SMALL, Format};
use crate::failure::Failure;
use crate::rig::fio::Verified;
use crate::rig::folder::{Folder, word};

/// One way to write.
struct Engine {
    name: &'static str,
    words: &'static [&'static str],
    sizes: &'static str,
}

const ENGINES: &[Engine] = &[
    Engine {
        name: "psync",
        words: &["--ioengine=psync", "--fallocate=none", "--fsync=200"],
        sizes: "--bssplit=512/20:1k/20:3584/10:4k/30:64k/15:256k/5",
    },
    Engine {
        name: "mmap",
        words: &["--ioengine=mmap", "--fallocate=truncate"],
        sizes: "--bssplit=512/20:1k/20:4k/40:64k/20",
    },
    Engine {
        name: "libaio",
        words: &["--ioengine=libaio", "--direct=1", "--fallocate=native"],
        sizes: "--bssplit=4k/50:16k/20:64k/20:1m/10",
    },
];

/// Writes files each way at once, verifies, mounts anew, and verifies again.
pub(super) fn fio(run: &Run) -> Result<String, Failure> {
    let mut saw = Vec::new();
    for (format, memory) in [(EXT4, &["--memory", "16M"][..]), (EXT4_SMALL, &[])] {
        let speeds = one(run, format, memory)
            .map_err(|failure| Failure::new(format!("{}: {failure}", format.told())))?;
        saw.push(format!("{}: {}", format.told(), speeds.join(", ")));
    }
    Ok(format!("verified, after mounting anew too; MiB/s: {}", saw.join("; ")))
}

fn one(run: &Run, format: Format, memory: &[&str]) -> Result<Vec<String>, Failure> {
    let folder = Folder::new("mounts-fio")?;
    let image = format.image(&folder, "disk.img", 1 << 30)?;
    let mounted = run.mounter.mount(&folder, &image, "mount", memory)?;
    let (jobs, mib) = (2, if run.short { 4 } else { 64 });
    let written = |engine: &Engine| Verified {
        jobs,
        mib,
        apart_mib: 0,
        sizes: engine.sizes,
        checksum: "crc32c",
        seed: 3,
    };
    let mut speeds = Vec::new();
    for engine in ENGINES {
        let report = written(engine).write(&place(engine, mounted.path()));
        let report = report.map_err(|failure| of(engine, &failure))?;
        speeds.push(format!("{} {}", engine.name, report.write.kib_per_s >> 10));
    }
    mounted.unmount()?;
    image::check(&image)?;
    let mounted = run.mounter.mount(&folder, &image, "mount", memory)?;
    for engine in ENGINES {
        let report = written(engine).verify(&place(engine, mounted.path()));
        let _report = report.map_err(|failure| of(engine, &failure))?;
    }
    mounted.unmount()?;
    Ok(speeds)
}

/// The words that have fio write files of the engine's own in `folder`.
fn place(engine: &Engine, folder: &Path) -> Vec<String> {
    let words = engine.words.iter().map(ToString::to_string);
    let files = [
        format!("--directory={}", word(folder)),
        format!("--filename_format={}.$jobnum", engine.name),
    ];
    words.chain(files).collect()
}

fn of(engine: &Engine, failure: &Failure) -> Failure {
    Failure::new(format!("{}: {failure}", engine.name))
}
