//! Edits: how an image is damaged.
//!
//! An edit names a place of the base and a word in it, and a number. The table of [`edit`] says
//! what is done with them.

use crate::base::Base;
use crate::image::{CHUNK, Image};
use crate::input::Record;
use crate::places::Place;

/// Where the superblock is.
const SUPERBLOCK: usize = 1024;
const BLOCKS_AT: usize = SUPERBLOCK + 0x04;
const INCOMPAT_AT: usize = SUPERBLOCK + 0x60;
const RO_COMPAT_AT: usize = SUPERBLOCK + 0x64;
const CHECKSUM_AT: usize = SUPERBLOCK + 0x3fc;

const RECOVER: u32 = 0x4;
const METADATA_CSUM: u32 = 0x400;

/// Numbers that are at the edge of something.
const EDGES: [u32; 24] = [
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    10,
    11,
    12,
    15,
    16,
    31,
    32,
    255,
    256,
    1023,
    1024,
    4096,
    0x7fff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
];

/// Whether the image says that its journal has to be replayed.
pub(crate) fn needs_recovery(image: &Image) -> bool {
    image.number::<4>(INCOMPAT_AT) & RECOVER != 0
}

/// Makes the image say that it has no checksums.
pub(crate) fn take_checksums_away(image: &mut Image) {
    let features = image.number::<4>(RO_COMPAT_AT);
    image.set_number::<4>(RO_COMPAT_AT, features & !METADATA_CSUM);
}

/// Makes the checksum of the superblock right, if it has one.
pub(crate) fn sum_superblock(image: &mut Image) {
    if image.number::<4>(RO_COMPAT_AT) & METADATA_CSUM != 0 {
        let mut bytes = [0; CHECKSUM_AT - SUPERBLOCK];
        image.read(SUPERBLOCK, &mut bytes);
        image.set_number::<4>(CHECKSUM_AT, !crc32c::crc32c(&bytes));
    }
}

/// Damages `image`, which began as `base`, as `record` says.
pub(crate) fn edit(base: &Base, image: &mut Image, record: Record) {
    let three = record.three;
    let place = base.place(record.one.into());
    let at = word(place, record.two);
    let edge = EDGES[index(three, EDGES.len())];
    let signed = i32::from(three.to_le_bytes()[0].cast_signed()).cast_unsigned();
    match record.kind {
        0 => image.set_number::<1>(at, three),
        1 => image.set_number::<2>(at, three),
        2 => image.set_number::<4>(at, three),
        3 => image.set_number::<4>(at, image.number::<4>(at) ^ 1 << (three % 32)),
        4 => image.set_number::<2>(at, image.number::<2>(at).wrapping_add(signed)),
        5 => image.set_number::<4>(at, image.number::<4>(at).wrapping_add(signed)),
        6 => image.set_number::<1>(at, edge),
        7 => image.set_number::<2>(at, edge),
        8 => image.set_number::<4>(at, edge),
        // The first blocks that there are not, and the last ones that there are.
        9 => {
            let blocks = image.number::<4>(BLOCKS_AT);
            image.set_number::<4>(at, blocks.wrapping_add(signed));
        }
        // The number of a block that has metadata.
        10 => image.set_number::<4>(at, base.block_of(base.place(index(three, usize::MAX)))),
        11 => copy(image, base.place(index(three, usize::MAX)), place),
        12 => {
            let from = word(base.place(index(three & 0xff, usize::MAX)), (three >> 16) as u16);
            image.set_number::<4>(at, image.number::<4>(from));
        }
        13 => image.zero(at..place.at + CHUNK),
        14 => image.write(at, &vec![three.to_le_bytes()[0]; place.at + CHUNK - at]),
        // Anywhere in the place, and anywhere at all.
        15 => image.set_number::<2>(place.at + usize::from(record.two) % (CHUNK - 1), three),
        16 => {
            let at = index(three, image.len());
            image.set_number::<1>(at, record.two.into());
        }
        _ => {}
    }
}

/// Where in the image a word of `place` begins.
fn word(place: &Place, number: u16) -> usize {
    let words = &place.words;
    let word = words[usize::from(number) % words.len()];
    // A number of four bytes fits behind it.
    (place.at + usize::from(word)).min(place.at + CHUNK - 4)
}

fn index(number: u32, count: usize) -> usize {
    usize::try_from(number).expect("a number of 32 bits") % count
}

fn copy(image: &mut Image, from: &Place, to: &Place) {
    let mut bytes = [0; CHUNK];
    image.read(from.at, &mut bytes);
    image.write(to.at, &bytes);
}
