//! Inputs to begin with: each base as it is, and whole programs of steps.

use std::fs;
use std::path::Path;

use crate::base::{self, Base};
use crate::case::Target;
use crate::failure::{Failure, Result};
use crate::input::{Input, Record, STEP};

/// Programs: kinds of steps, with the numbers that they have.
const PROGRAMS: [&[(u8, u8, u16, u32)]; 5] = [
    // Names that come, move and go.
    &[
        (0, 0, 0x10, 0),
        (1, 0, 0x11, 0),
        (2, 3, 0x12, 30),
        (2, 5, 0x13, 900),
        (3, 3, 0x0414, 0),
        (6, 0, 0x1504, 0),
        (6, 0x18, 0x1610, 0),
        (4, 0, 0x05, 0),
        (5, 0, 0x11, 0),
        (4, 3, 0x12, 0),
        (13, 0, 0, 0),
        (24, 3, 0, 0),
    ],
    // Names that take the place of others, and change it with them.
    &[
        (6, 0, 0x0504, 0),
        (6, 0, 0x0108, 2),
        (6, 0x18, 0x1003, 0),
        (1, 0, 0x11, 0),
        (1, 0, 0x12, 0),
        (6, 0, 0x1211, 0),
        (6, 0x28, 0x1201, 2),
        (6, 0, 0x0807, 1),
        (6, 0x28, 0x1607, 2),
        (13, 0, 0, 0),
    ],
    // Directories that grow and shrink.
    &[
        (22, 5, 0x3f00, 0),
        (22, 5, 0x3f40, 0),
        (22, 0, 0x2000, 0),
        (23, 5, 0x0903, 0),
        (6, 0x28, 0x0103, 0),
        (13, 0, 0, 0),
        (22, 3, 0x3080, 0),
        (23, 5, 0x3f00, 0),
        (23, 0, 0x2000, 0),
        (24, 3, 0, 0),
    ],
    // Content that comes and goes.
    &[
        (7, 4, 0x2000, 0x0000_1000),
        (24, 4, 0, 0),
        (7, 9, 0x4008, 0x0012_3400),
        (7, 8, 0x8000, 0x0008_0000),
        (12, 9, 0, 0),
        (10, 0x28, 0x0804, 0x0004_0000),
        (11, 0x27, 0x0804, 0x0001_0000),
        (9, 0x2d, 0x1000, 0x0001_0001),
        (7, 13, 0x2000, 0x0000_0400),
        (13, 0, 0, 0),
        (8, 8, 0, 0x0010_0000),
        (4, 0, 8, 0),
        (8, 9, 8, 0x0000_1000),
        (17, 9, 0, 0),
        (19, 1, 0, 0),
        (8, 7, 0, 0),
    ],
    // Attributes, in inodes and in blocks; files that are gone and open.
    &[
        (14, 4, 2, 40),
        (14, 7, 1, 600),
        (14, 1, 0x0205, 0x0204),
        (0, 3, 0x10, 0),
        (1, 3, 0x11, 0),
        (14, 5, 0x0204, 0x0404),
        (14, 7, 0x0204, 0),
        (16, 7, 0x01a4, 99),
        (15, 7, 1, 0),
        (15, 1, 5, 0),
        (20, 7, 0, 0),
        (20, 9, 0, 0),
        (4, 0, 9, 0),
        (4, 0, 8, 0),
        (4, 0, 7, 0),
        (21, 0, 0, 0),
        (13, 0, 0, 0),
        (18, 0, 0, 0),
    ],
];

/// Writes the inputs for `target`, which has `bases`, into `folder`.
///
/// # Errors
///
/// Those of the operating system.
pub(crate) fn write(target: Target, bases: &[Base], folder: &Path) -> Result<()> {
    base::empty(folder).map_err(Failure::at(folder))?;
    let step = |(kind, one, two, three)| Record { kind: STEP + kind, one, two, three };
    let programs = PROGRAMS.iter().map(|steps| steps.iter().copied().map(step).collect());
    let mut programs: Vec<Vec<Record>> = programs.collect();
    programs.insert(0, Vec::new());
    if target == Target::Read {
        programs.truncate(1);
    }
    for (base, _) in (0..=u8::MAX).zip(bases) {
        for (number, steps) in programs.iter().enumerate() {
            for without_checksums in [false, true] {
                let least_memory = without_checksums && number % 2 != 0;
                let first = Input::header(base, without_checksums, least_memory);
                let records = [&[first], &steps[..]].concat();
                let bytes: Vec<u8> = records.iter().flat_map(|record| record.to_bytes()).collect();
                let name = format!("{base}-{number}-{}", u8::from(without_checksums));
                let path = folder.join(name);
                fs::write(&path, bytes).map_err(Failure::at(&path))?;
            }
        }
    }
    Ok(())
}
