//! Edits: how an image is damaged.
//!
//! An edit names a place of the base and a word in it, and a number. The table of [`edit`] says
//! what is done with them.

use crate::base::Base;
use crate::image::Image;
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

/// Numbers that have others at their sides.
const EDGES: [u32; 20] = [
    0,
    4,
    8,
    12,
    16,
    32,
    64,
    128,
    255,
    256,
    1024,
    2048,
    4096,
    0x7fff,
    0x8000,
    0xffff,
    0x0001_0000,
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
    let Record { kind, one, two, three } = record;
    let number = usize::from(one >> 2) | usize::from(two >> 10) << 6;
    let place = base.places.get(usize::from(one & 3), number);
    let at = word(place, two & 0x3ff);
    let end = place.bytes.end;
    let [low, next, third, _] = three.to_le_bytes();
    let signed = i32::from(low.cast_signed()).cast_unsigned();
    match kind {
        0 => image.set_number::<1>(at, three),
        1 => image.set_number::<2>(at, three),
        2 => image.set_number::<4>(at, three),
        3 => image.set_number::<4>(at, image.number::<4>(at) ^ 1 << (three % 32)),
        4 => image.set_number::<2>(at, image.number::<2>(at).wrapping_add(signed)),
        5 => image.set_number::<4>(at, image.number::<4>(at).wrapping_add(signed)),
        6 => image.set_number::<1>(at, edge(low, third)),
        7 => image.set_number::<2>(at, edge(low, third)),
        8 => image.set_number::<4>(at, edge(low, third)),
        // Two numbers, one behind the other.
        9 => {
            image.set_number::<2>(at, edge(low, third));
            image.set_number::<2>(at + 2, edge(next, third >> 4));
        }
        // The first blocks that there are not, and the last ones that there are.
        10 => image.set_number::<4>(at, image.number::<4>(BLOCKS_AT).wrapping_add(signed)),
        // The number of a block that says something.
        11 => image.set_number::<4>(at, base.block_of(base.places.chunk(three))),
        12 => copy(image, base.places.chunk(three), place),
        13 => copy(image, base.places.get(usize::from(one & 3), low.into()), place),
        14 => {
            let from = word(base.places.chunk(three & 0xffff), two);
            image.set_number::<4>(at, image.number::<4>(from));
        }
        15 => image.zero(at..end),
        16 => image.write(at, &vec![low; end - at]),
        // Anywhere at all.
        17 => {
            let at = usize::try_from(three).expect("a number of 32 bits") % image.len();
            image.set_number::<1>(at, two.into());
        }
        _ => {}
    }
}

/// An edge, or a number beside it.
fn edge(number: u8, beside: u8) -> u32 {
    let edge = EDGES[usize::from(number) % EDGES.len()];
    edge.wrapping_add(u32::from(beside & 15)).wrapping_sub(8)
}

/// Where in the image a word of `place` begins.
fn word(place: &Place, number: u16) -> usize {
    let words = &place.words;
    let word = words[usize::from(number) % words.len()];
    // A number of four bytes fits behind it.
    (place.bytes.start + usize::from(word)).min(place.bytes.end - 4)
}

fn copy(image: &mut Image, from: &Place, to: &Place) {
    let mut bytes = vec![0; from.bytes.len().min(to.bytes.len())];
    image.read(from.bytes.start, &mut bytes);
    image.write(to.bytes.start, &bytes);
}
