//! `mpage mount` measured against fuse2fs, the kernel, and a server of FUSE that keeps nothing.
//!
//! Within a round each piece of work goes to every contender in turn, on a new image of the same
//! kind in the same file. What has to be there before is made by a mount of the kernel's. Then the
//! kernel's caches are dropped, so that all begin cold.

mod contender;
mod figure;
mod slow;
mod table;
mod watchdog;
mod work;

use std::io;
use std::path::Path;
use std::time::Duration;

use self::contender::{Contender, MEMORY, Mounted};
use self::figure::{Better, Figure};
use self::slow::SlowDisk;
use self::table::{Aim, Row};
use self::watchdog::Watchdog;
use self::work::{WORK, Work};
use crate::bench_serve::machine;
use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};

/// Megabytes of the image.
const SIZE_MIB: u64 = 2048;

/// Seconds that a server has for a piece of work.
const LIMIT_S: u64 = 60;

/// What the rows of [`WORK`] are to reach, a list for each piece of work.
const AIMS: [&[Aim]; 8] = [
    &[Aim::CeilingAndKernel],
    &[Aim::TenOrCeiling, Aim::Fuse2fs(1.0)],
    &[Aim::Fuse2fs(1.0)],
    &[Aim::Fuse2fs(1.0)],
    &[Aim::Fuse2fs(3.0)],
    &[Aim::Fuse2fs(1.0)],
    &[Aim::Fuse2fs(1.0)],
    &[Aim::Fuse2fs(1.0)],
];

/// What the rows of the slow disk are to reach: the longest stat is no longer than a write.
const SLOW_AIMS: [Aim; 3] =
    [Aim::Fuse2fs(1.0), Aim::TimesBefore(2.0), Aim::Microseconds(slow::WRITE_MS as f64 * 1000.0)];

/// Measures, and prints Markdown: `[ROUNDS]`, five of them when nothing is said.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let rounds = match arguments {
        [] => 5,
        [rounds] => rounds.parse().map_err(|_| Failure::new(format!("{rounds}: how many?")))?,
        [_, second, ..] => return Err(Failure::new(format!("unexpected argument {second}"))),
    };
    contender::build()?;
    let folder = Folder::new("bench-mount")?;
    let image = folder.file("disk.img", 0)?;
    let size = format!("{SIZE_MIB}M");
    let _printed = output(&mut program("fallocate", ["--length", &size, &word(&image)]))?;
    println!("{}\n", description(&image, rounds)?);
    let mut rows = rows();
    for round in 0..rounds {
        let mut row = 0;
        for work in WORK {
            let count = work.figures.len();
            each(round, |contender| {
                let figures = one(work, contender, &folder, &image)?;
                enter(&mut rows[row..row + count], contender, &figures);
                Ok(())
            })?;
            row += count;
        }
        each(round, |contender| {
            let figures = on_slow_disk(contender, &folder, &image)?;
            enter(&mut rows[row..], contender, &figures);
            Ok(())
        })?;
        eprintln!("bench-mount: round {} of {rounds}", round + 1);
    }
    print!("{}", table::head());
    for (index, row) in rows.iter().enumerate() {
        println!("{}", row.line(index.checked_sub(1).map(|before| &rows[before])));
    }
    Ok(())
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (work, aims) in WORK.iter().zip(AIMS) {
        let named = work.figures.iter().zip(aims);
        rows.extend(named.map(|(name, aim)| Row::new(*name, Better::More, *aim, LIMIT_S)));
    }
    let named = slow::FIGURES.into_iter().zip(SLOW_AIMS);
    rows.extend(named.map(|(name, aim)| Row::new(name, Better::Less, aim, LIMIT_S)));
    rows
}

/// Does `work` with every contender; another one is the first in each round.
fn each(
    round: usize,
    mut work: impl FnMut(Contender) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for turn in 0..Contender::ALL.len() {
        let contender = Contender::ALL[(round + turn) % Contender::ALL.len()];
        work(contender)
            .map_err(|failure| Failure::new(format!("{}: {failure}", contender.name())))?;
    }
    Ok(())
}

fn enter(rows: &mut [Row], contender: Contender, figures: &[Figure]) {
    for (row, figure) in rows.iter_mut().zip(figures) {
        row.add(contender, *figure);
    }
}

/// One piece of work by one contender.
fn one(
    work: &Work,
    contender: Contender,
    folder: &Folder,
    image: &Path,
) -> Result<Vec<Figure>, Failure> {
    let name = work.figures[0].0;
    eprintln!("bench-mount: {name}: {}", contender.name());
    let mounted = if contender == Contender::Ceiling {
        // It forgets its names when it ends.
        let mounted = Mounted::new(contender, folder, image)?;
        (work.prepare)(mounted.path()).map_err(|error| Failure::at(name, &error))?;
        forget()?;
        mounted
    } else {
        make(work.prepare, folder, image)?;
        forget()?;
        Mounted::new(contender, folder, image)?
    };
    let Some(figures) = limited(mounted, name, work.run)? else {
        let figure = Figure::per_second(work.count, LIMIT_S * 1_000_000_000);
        return Ok(vec![Figure { out_of_time: true, ..figure }; work.figures.len()]);
    };
    Ok(figures)
}

/// Makes a new image, with what `prepare` makes.
fn make(
    prepare: fn(&Path) -> io::Result<()>,
    folder: &Folder,
    image: &Path,
) -> Result<(), Failure> {
    let words = ["-q", "-F", "-t", "ext4", "-E", "lazy_itable_init=1,nodiscard", &word(image)];
    let _printed = output(&mut program("mke2fs", words))?;
    let mounted = Mounted::by_kernel(folder, image)?;
    prepare(mounted.path()).map_err(|error| Failure::at("preparing", &error))?;
    mounted.unmount()
}

/// What `work` gives within the limit, and unmounts.
fn limited(
    mounted: Mounted,
    name: &str,
    work: fn(&Path) -> io::Result<Vec<Figure>>,
) -> Result<Option<Vec<Figure>>, Failure> {
    let limit = Duration::from_secs(LIMIT_S);
    let watchdog = mounted.server().map(|id| Watchdog::new(id, limit)).transpose()?;
    let result = work(mounted.path());
    let killed = watchdog.map_or(Ok(false), Watchdog::call_off)?;
    if killed {
        drop(mounted);
        return Ok(None);
    }
    let figures = result.map_err(|error| Failure::at(name, &error))?;
    mounted.unmount()?;
    Ok(Some(figures))
}

/// The stat of a file while another is synced to a slow disk. Nothing is slow to the ceiling.
fn on_slow_disk(
    contender: Contender,
    folder: &Folder,
    image: &Path,
) -> Result<Vec<Figure>, Failure> {
    if contender == Contender::Ceiling {
        return Ok(Vec::new());
    }
    eprintln!("bench-mount: {}: {}", slow::FIGURES[1].0, contender.name());
    make(slow::prepare, folder, image)?;
    let disk = SlowDisk::new(folder, image)?;
    forget()?;
    let mounted = Mounted::new(contender, folder, disk.path())?;
    let figures = limited(mounted, slow::FIGURES[1].0, slow::run)?;
    disk.end()?;
    Ok(figures.unwrap_or_else(|| {
        let out = Figure { out_of_time: true, ..Figure::microseconds(LIMIT_S * 1_000_000_000) };
        vec![out; slow::FIGURES.len()]
    }))
}

/// Has the kernel forget what it has cached.
fn forget() -> Result<(), Failure> {
    let _printed = output(&mut program("sync", [""; 0]))?;
    let path = "/proc/sys/vm/drop_caches";
    std::fs::write(path, "3").map_err(|error| Failure::at(path, &error))
}

/// The lines that go before the table.
fn description(image: &Path, rounds: usize) -> Result<String, Failure> {
    let version = output(&mut program("dpkg-query", ["--show", "fuse2fs"]))?;
    let lines = vec![
        ("image", format!("ext4 by mke2fs's defaults in a file of {SIZE_MIB} MiB, new each time")),
        ("programs", version.split_whitespace().collect::<Vec<_>>().join(" ")),
        (
            "memory",
            format!("mpage --memory {MEMORY}; the others, as much of the kernel's as they like"),
        ),
        ("kernel", "ext4 on a loop device with direct I/O, mount's defaults".to_owned()),
        ("ceiling", "a server of FUSE that keeps names and sizes, and no content".to_owned()),
        ("durability", "fsync, of the file or the folder, and syncfs for all names".to_owned()),
        ("cache state", "cold: just mounted, the kernel's caches dropped".to_owned()),
        (
            "slow disk",
            format!(
                "a loop device over FUSE over nbdkit, one request at a time, {} ms a write",
                slow::WRITE_MS
            ),
        ),
        ("rounds", format!("{rounds}; {LIMIT_S} s for a server's work")),
    ];
    machine::description(image, &lines)
}
