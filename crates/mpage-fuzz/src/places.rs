//! Where in an image something is said.
//!
//! Most of an image is free, zeros, or content of files. What is left is not alike: a bit of the
//! superblock or of an inode says more than one of a name. So places are of four sorts, each as
//! likely to be damaged as the others, however many there are of it.

use std::iter;
use std::ops::Range;

use crate::image::{CHUNK, Image};
use crate::layout::{Layout, SUPERBLOCK};

/// What the content of files in a base is made of, so that it is not taken for anything else.
pub(crate) const FILLER: u8 = b'D';

/// Bytes of a word.
const WORD: usize = 4;
/// Inodes that are places.
const INODES: usize = 64;
/// The fields of an inode that each has.
const INODE_FIELDS: usize = 128;
/// Bytes at the front of a block that often say what it is.
const FRONT: usize = 48;

/// A part of an image, and the offsets in it that count.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its bytes in the image.
    pub(crate) bytes: Range<usize>,
    /// Offsets in it, multiples of two.
    pub(crate) words: Vec<u16>,
}

/// The places of an image, by their sorts: superblock and group descriptors, inodes, fronts of
/// blocks, and pieces as long as the smallest block. Of the last two there are some.
#[derive(Debug)]
pub(crate) struct Places([Vec<Place>; 4]);

impl Places {
    /// The places of a file system.
    pub(crate) fn of_file_system(image: &[u8]) -> Places {
        let (front, inodes) = tables(&Image::new(image.into()));
        let chunks = chunks(image, |chunk| !is_journal(chunk));
        Places([front, inodes, fronts(image, &chunks), chunks])
    }

    /// The places of a journal alone.
    pub(crate) fn of_journal(image: &[u8]) -> Places {
        let chunks = chunks(image, is_journal);
        Places([Vec::new(), Vec::new(), fronts(image, &chunks), chunks])
    }

    /// One of a sort; all numbers are of one.
    pub(crate) fn get(&self, sort: usize, number: usize) -> &Place {
        let places = &self.0[sort % self.0.len()];
        let places = if places.is_empty() { &self.0[2] } else { places };
        &places[number % places.len()]
    }

    /// One of the pieces as long as the smallest block.
    pub(crate) fn chunk(&self, number: u32) -> &Place {
        self.get(3, usize::try_from(number).expect("a number of 32 bits"))
    }
}

/// The superblock, the group descriptors, and inodes.
fn tables(image: &Image) -> (Vec<Place>, Vec<Place>) {
    let layout = Layout::of(image).expect("it is not damaged");
    let bytes = image.bytes();
    let superblock = SUPERBLOCK..SUPERBLOCK + CHUNK;
    let front = iter::once(superblock).chain(layout.descriptors.iter().cloned());
    let front = front.filter_map(|range| place(&bytes, range, WORD)).collect();
    let inodes = (0..INODES).filter_map(|index| layout.inode(index));
    (front, inodes.filter_map(|range| place(&bytes, range, INODE_FIELDS)).collect())
}

fn chunks(image: &[u8], is_one: impl Fn(&[u8]) -> bool) -> Vec<Place> {
    let starts = (0..image.len()).step_by(CHUNK);
    let chunks = starts.map(|start| start..start + CHUNK).filter(|bytes| {
        let chunk = &image[bytes.clone()];
        is_one(chunk) && chunk.iter().any(|byte| *byte != FILLER)
    });
    chunks.filter_map(|bytes| place(image, bytes, 0)).collect()
}

fn is_journal(chunk: &[u8]) -> bool {
    chunk[..WORD] == [0xc0, 0x3b, 0x39, 0x98]
}

/// The fronts of `chunks`.
fn fronts(image: &[u8], chunks: &[Place]) -> Vec<Place> {
    let fronts = chunks.iter().map(|chunk| chunk.bytes.start..chunk.bytes.start + FRONT);
    fronts.filter_map(|bytes| place(image, bytes, FRONT)).collect()
}

/// The place that is `bytes` of `image`: all words of its first `always` bytes count, and those
/// that are not zero, or are beside one. `None` where nothing is.
fn place(image: &[u8], bytes: Range<usize>, always: usize) -> Option<Place> {
    let content = &image[bytes.clone()];
    let word = |at: usize| content.get(at * WORD..(at + 1) * WORD);
    // Bitmaps are full of ones, behind their end too.
    let says = |at: usize| word(at).is_some_and(|word| word != [0; 4] && word != [0xff; 4]);
    let counts =
        |at: &usize| *at * WORD < always || says(*at) || says(*at + 1) || *at > 0 && says(*at - 1);
    let words = 0..content.len() / WORD;
    if !words.clone().any(says) {
        return None;
    }
    let halves = words.filter(counts).flat_map(|at| [at * WORD, at * WORD + 2]);
    let halves = halves.map(|at| u16::try_from(at).expect("inside a chunk"));
    Some(Place { words: halves.collect(), bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_say_something_and_their_neighbours_are_found() {
        let mut image = vec![0; 5 * CHUNK];
        image[CHUNK..2 * CHUNK].fill(FILLER);
        image[2 * CHUNK + 100] = 1;
        image[3 * CHUNK..][..500].fill(0xff);
        image[3 * CHUNK + 500] = 7;
        image[4 * CHUNK..][..4].copy_from_slice(&[0xc0, 0x3b, 0x39, 0x98]);
        let places = chunks(&image, |chunk| !is_journal(chunk));
        let starts: Vec<usize> = places.iter().map(|place| place.bytes.start / CHUNK).collect();
        assert_eq!(starts, [2, 3]);
        assert_eq!(places[0].words, [96, 98, 100, 102, 104, 106]);
        assert_eq!(places[1].words, [496, 498, 500, 502, 504, 506]);
        let journal = Places::of_journal(&image);
        assert_eq!(journal.chunk(7).bytes, 4 * CHUNK..5 * CHUNK);
        assert_eq!(journal.get(0, 7).bytes, 4 * CHUNK..4 * CHUNK + FRONT);
    }
}
