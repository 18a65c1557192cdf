//! `mpage serve` measured against other servers of NBD, by fio.
//!
//! Within a round each workload goes to every server in turn, on the same image. The ratios are
//! medians of the rounds' own, to the peer that is best at the workload.

pub(crate) mod machine;
mod table;

use std::path::Path;

use self::table::Row;
use crate::clients::server::{self, Program, Server};
use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::fio::{Report, fio, nbd};
use crate::rig::folder::{Folder, word};
use crate::rig::image;

/// The image, all of it data.
const SIZE_MIB: u64 = 256;

/// mpage's memory: the image fits, as it fits into the kernel's page cache.
const MEMORY: &str = "512M";

/// What is measured of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    MibPerSecond,
    Iops,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::MibPerSecond => "MiB/s",
            Unit::Iops => "1/s",
        }
    }
}

/// What the servers' caches hold when a workload begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cache {
    Cold,
    Warm,
}

/// What fio does.
struct Workload {
    name: &'static str,
    unit: Unit,
    cache: Cache,
    arguments: &'static [&'static str],
}

const fn cold(name: &'static str, arguments: &'static [&'static str]) -> Workload {
    Workload { name, unit: Unit::MibPerSecond, cache: Cache::Cold, arguments }
}

const fn warm(name: &'static str, arguments: &'static [&'static str]) -> Workload {
    Workload { name, unit: Unit::MibPerSecond, cache: Cache::Warm, arguments }
}

const fn random(name: &'static str, arguments: &'static [&'static str]) -> Workload {
    Workload { name, unit: Unit::Iops, cache: Cache::Warm, arguments }
}

const WORKLOADS: &[Workload] = &[
    cold(
        "just started: write 1 MiB in order, then flush",
        &["--rw=write", "--bs=1M", "--iodepth=4", "--end_fsync=1"],
    ),
    cold("just started: read 128 KiB in order", &["--rw=read", "--bs=128k", "--iodepth=4"]),
    cold("just started: read 1 MiB in order", &["--rw=read", "--bs=1M", "--iodepth=4"]),
    warm(
        "write 128 KiB in order, then flush",
        &["--rw=write", "--bs=128k", "--iodepth=4", "--end_fsync=1"],
    ),
    warm(
        "write 1 MiB in order, then flush",
        &["--rw=write", "--bs=1M", "--iodepth=4", "--end_fsync=1"],
    ),
    warm("read 128 KiB in order", &["--rw=read", "--bs=128k", "--iodepth=4"]),
    warm("read 1 MiB in order", &["--rw=read", "--bs=1M", "--iodepth=4"]),
    random(
        "write 4 KiB anywhere, depth 1, then flush",
        &["--rw=randwrite", "--bs=4k", "--iodepth=1", "--io_size=48M", "--end_fsync=1"],
    ),
    random(
        "write 4 KiB anywhere, depth 32, then flush",
        &["--rw=randwrite", "--bs=4k", "--iodepth=32", "--io_size=128M", "--end_fsync=1"],
    ),
    random(
        "write 4 KiB anywhere, depth 1, flush after each 32",
        &["--rw=randwrite", "--bs=4k", "--iodepth=1", "--io_size=12M", "--fsync=32"],
    ),
    random(
        "read 4 KiB anywhere, depth 1",
        &["--rw=randread", "--bs=4k", "--iodepth=1", "--io_size=96M"],
    ),
    random(
        "read 4 KiB anywhere, depth 32",
        &["--rw=randread", "--bs=4k", "--iodepth=32", "--io_size=256M"],
    ),
];

/// Measures, and prints Markdown: `[ROUNDS]`, five of them when nothing is said.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let rounds = match arguments {
        [] => 5,
        [rounds] => rounds.parse().map_err(|_| Failure::new(format!("{rounds}: how many?")))?,
        [_, second, ..] => return Err(Failure::new(format!("unexpected argument {second}"))),
    };
    server::build(Program::Mpage)?;
    let folder = Folder::new("bench-serve")?;
    let image = folder.file("disk.img", SIZE_MIB << 20)?;
    image::fill(&image, SIZE_MIB << 20, 0)?;
    println!("{}\n", description(&image, rounds)?);
    let mut rows: Vec<Row> = WORKLOADS.iter().map(|_| Row::default()).collect();
    for round in 0..rounds {
        for (workload, row) in WORKLOADS.iter().zip(&mut rows) {
            for turn in 0..Program::ALL.len() {
                let index = (round + turn) % Program::ALL.len();
                let program = Program::ALL[index];
                let figure = one(workload, program, &folder, &image).map_err(|failure| {
                    let (name, program) = (workload.name, program.name());
                    Failure::new(format!("{name}, {program}: {failure}"))
                })?;
                row.add(program, figure);
            }
        }
        eprintln!("bench-serve: round {} of {rounds}", round + 1);
    }
    print!("{}", table::head());
    for (workload, row) in WORKLOADS.iter().zip(&rows) {
        println!("{}", row.line(workload.name, workload.unit.name()));
    }
    Ok(())
}

/// One workload on one server, started for it.
fn one(
    workload: &Workload,
    program: Program,
    folder: &Folder,
    image: &Path,
) -> Result<u64, Failure> {
    forget(image)?;
    let server = Server::start(program, folder, image, &["--memory", MEMORY])?;
    let place = nbd(&server.uri());
    let size = format!("--size={SIZE_MIB}M");
    if workload.cache == Cache::Warm {
        let _report = fio(&place, &["--rw=read", "--bs=1M", "--iodepth=4", &size])?;
    }
    let mut arguments = vec![size.as_str(), "--randrepeat=1", "--norandommap"];
    arguments.extend(workload.arguments);
    let Report { read, write } = fio(&place, &arguments)?;
    server.stop()?;
    let count = if read.kib > 0 { read } else { write };
    Ok(match workload.unit {
        Unit::MibPerSecond => count.kib_per_s >> 10,
        Unit::Iops => count.iops,
    })
}

/// Has the image written to its device, and the kernel forget its pages.
fn forget(image: &Path) -> Result<(), Failure> {
    let image = word(image);
    let _printed = output(&mut program("sync", [&image]))?;
    let from = format!("if={image}");
    output(&mut program("dd", [&from, "of=/dev/null", "iflag=nocache", "count=0"])).map(drop)
}

/// The lines that go before the table.
fn description(image: &Path, rounds: usize) -> Result<String, Failure> {
    let mut lines = vec![
        (
            "image",
            format!("a file of {SIZE_MIB} MiB, all data; the same for all, one after another"),
        ),
        ("programs", versions()?),
        (
            "memory",
            format!("mpage --memory {MEMORY}; the others, as much of the kernel's as they like"),
        ),
        (
            "client",
            "fio --ioengine=nbd, one connection, a Unix socket; in order at depth 4".to_owned(),
        ),
        ("durability", "what is written is flushed within the time measured".to_owned()),
        (
            "cache state",
            "just started: cold, for all; else all of the image read before".to_owned(),
        ),
        ("rounds", rounds.to_string()),
    ];
    let flushes = Program::ALL.map(|program| format!("{}: {}", program.name(), program.flush()));
    lines.extend(flushes.map(|flush| ("flush of", flush)));
    machine::description(image, &lines)
}

/// The first line that each program says of its version.
fn versions() -> Result<String, Failure> {
    let mut versions = Vec::new();
    for name in ["nbdkit", "qemu-nbd", "fio"] {
        let printed = output(&mut program(name, ["--version"]))?;
        versions.push(printed.lines().next().unwrap_or_default().to_owned());
    }
    Ok(versions.join(", "))
}
