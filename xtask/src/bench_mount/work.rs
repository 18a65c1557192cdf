//! What is done with the files, and how fast it was.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use mpage_locks::clock;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::figure::Figure;
use crate::rig::image::Random;

/// Bytes of the large file, and of each piece it is written in.
const LARGE_BYTES: u64 = 512 << 20;
const PIECE_BYTES: usize = 1 << 20;

/// Bytes of a small write or read, and how many there are of each kind.
const PAGE: usize = 4096;
const WRITES: u64 = 30_000;
const READS: u64 = 4000;
const SYNCED_WRITES: u64 = 500;

/// Small files.
const FILES: u64 = 2000;

/// Names of the large directory.
const NAMES: u64 = 100_000;

/// The files of a row, and what is done with them.
pub(super) struct Work {
    /// What the row's figures are called, with their units.
    pub(super) figures: &'static [(&'static str, &'static str)],
    /// Makes what has to be there before, on a mount of the kernel's.
    pub(super) prepare: fn(&Path) -> io::Result<()>,
    /// Does the work; a figure for each of the row's.
    pub(super) run: fn(&Path) -> io::Result<Vec<Figure>>,
    /// How many things are done: what a contender that is out of time has not done.
    pub(super) count: u64,
}

/// All that is done on a fast disk.
pub(super) const WORK: &[Work] = &[
    Work {
        figures: &[("512 MiB in order, then fsync", "MiB/s")],
        prepare: |_| Ok(()),
        run: write_in_order,
        count: LARGE_BYTES >> 20,
    },
    Work {
        figures: &[
            ("4 KiB anywhere in 512 MiB, then fsync", "1/s"),
            ("the same without the fsync", "1/s"),
        ],
        prepare: large,
        run: write_anywhere,
        count: WRITES,
    },
    Work {
        figures: &[("4 KiB read anywhere in 512 MiB, cold", "1/s")],
        prepare: large,
        run: read_anywhere,
        count: READS,
    },
    Work {
        figures: &[("4 KiB appended, then fsync, each", "1/s")],
        prepare: |_| Ok(()),
        run: write_and_sync,
        count: SYNCED_WRITES,
    },
    Work {
        figures: &[("2000 files of 4 KiB, then a sync of all", "files/s")],
        prepare: |_| Ok(()),
        run: small_files,
        count: FILES,
    },
    Work {
        figures: &[("100,000 names made in one folder, then a sync of all", "names/s")],
        prepare: |_| Ok(()),
        run: |place| timed(NAMES, || names(place)),
        count: NAMES,
    },
    Work {
        figures: &[("100,000 names, stat of each, cold", "names/s")],
        prepare: names,
        run: look_at_names,
        count: NAMES,
    },
    Work {
        figures: &[("100,000 names listed, cold", "names/s")],
        prepare: names,
        run: list_names,
        count: NAMES,
    },
];

fn per_second(count: u64, start_ns: u64) -> Figure {
    Figure::per_second(count, clock::now_ns() - start_ns)
}

fn timed(count: u64, work: impl FnOnce() -> io::Result<()>) -> io::Result<Vec<Figure>> {
    let start_ns = clock::now_ns();
    work()?;
    Ok(vec![per_second(count, start_ns)])
}

/// Makes all that was done in `folder` durable, for each contender by what it does that with: fsync
/// of the folder has a server of FUSE sync, which hears nothing of a syncfs; that is the kernel's.
fn sync_all(folder: &Path) -> io::Result<()> {
    let folder = File::open(folder)?;
    folder.sync_all()?;
    Ok(rustix::fs::syncfs(&folder)?)
}

fn write_in_order(place: &Path) -> io::Result<Vec<Figure>> {
    let mut piece = vec![0; PIECE_BYTES];
    Random(1).fill(&mut piece);
    timed(LARGE_BYTES >> 20, || {
        let mut file = File::create_new(place.join("large"))?;
        for _ in 0..LARGE_BYTES / PIECE_BYTES as u64 {
            file.write_all(&piece)?;
        }
        file.sync_all()
    })
}

/// Makes the large file.
fn large(place: &Path) -> io::Result<()> {
    let _figures = write_in_order(place)?;
    Ok(())
}

fn write_anywhere(place: &Path) -> io::Result<Vec<Figure>> {
    let file = OpenOptions::new().write(true).open(place.join("large"))?;
    let (mut random, mut page) = (Random(2), vec![0; PAGE]);
    random.fill(&mut page);
    let start_ns = clock::now_ns();
    for _ in 0..WRITES {
        file.write_all_at(&page, random.below(LARGE_BYTES / PAGE as u64) * PAGE as u64)?;
    }
    let without = per_second(WRITES, start_ns);
    file.sync_all()?;
    Ok(vec![per_second(WRITES, start_ns), without])
}

fn read_anywhere(place: &Path) -> io::Result<Vec<Figure>> {
    let file = File::open(place.join("large"))?;
    let (mut random, mut page) = (Random(3), vec![0; PAGE]);
    timed(READS, || {
        for _ in 0..READS {
            let at = random.below(LARGE_BYTES / PAGE as u64) * PAGE as u64;
            file.read_exact_at(&mut page, at)?;
        }
        Ok(())
    })
}

fn write_and_sync(place: &Path) -> io::Result<Vec<Figure>> {
    let mut file = File::create_new(place.join("log"))?;
    timed(SYNCED_WRITES, || {
        for _ in 0..SYNCED_WRITES {
            file.write_all(&[7; PAGE])?;
            file.sync_all()?;
        }
        Ok(())
    })
}

fn small_files(place: &Path) -> io::Result<Vec<Figure>> {
    let folder = place.join("small");
    fs::create_dir(&folder)?;
    timed(FILES, || {
        for number in 0..FILES {
            File::create_new(folder.join(format!("file-{number}")))?.write_all(&[7; PAGE])?;
        }
        sync_all(&folder)
    })
}

fn name(number: u64) -> String {
    format!("name-{number}")
}

/// Makes the large directory.
fn names(place: &Path) -> io::Result<()> {
    let folder = place.join("names");
    fs::create_dir(&folder)?;
    for number in 0..NAMES {
        let _file = File::create_new(folder.join(name(number)))?;
    }
    sync_all(&folder)
}

fn look_at_names(place: &Path) -> io::Result<Vec<Figure>> {
    let folder = place.join("names");
    timed(NAMES, || {
        for number in 0..NAMES {
            // One after the other, but not in their order: the factor has no divisor in common.
            let path = folder.join(name(number * 7919 % NAMES));
            let _found = statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
        }
        Ok(())
    })
}

fn list_names(place: &Path) -> io::Result<Vec<Figure>> {
    timed(NAMES, || {
        let mut count = 0;
        for entry in fs::read_dir(place.join("names"))? {
            let _entry = entry?;
            count += 1;
        }
        match count {
            NAMES => Ok(()),
            _ => Err(io::Error::other(format!("{count} names were listed"))),
        }
    })
}
