//! Where in an image something is said.
//!
//! Most of an image is free, zeros, or content of files. The rest are blocks with words that are
//! not zero: there and beside it, a changed byte changes what the image says.

use crate::image::CHUNK;

/// What the content of files in a base is made of, so that it is not taken for anything else.
pub(crate) const FILLER: u8 = b'D';

/// Bytes of a word.
const WORD: usize = 4;

/// A part of an image as long as the smallest block, and the offsets in it that count.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its first byte in the image.
    pub(crate) at: usize,
    /// Offsets of words in it that are not zero, or are beside one; multiples of two.
    pub(crate) words: Vec<u16>,
}

/// The places of `image`; of a journal, if there is one, if `in_journal`, else of all else.
pub(crate) fn find(image: &[u8], in_journal: bool) -> Vec<Place> {
    let chunks = image.chunks(CHUNK).enumerate();
    let is_journal = |chunk: &[u8]| chunk[..WORD] == [0xc0, 0x3b, 0x39, 0x98];
    let chunks = chunks.filter(|(_, chunk)| is_journal(chunk) == in_journal);
    chunks
        .filter_map(|(number, chunk)| Some(Place { at: number * CHUNK, words: words(chunk)? }))
        .collect()
}

/// The words of `chunk` that count; `None` where there is none.
fn words(chunk: &[u8]) -> Option<Vec<u16>> {
    if chunk.iter().all(|byte| *byte == FILLER) {
        return None;
    }
    let word = |at: usize| chunk.get(at * WORD..(at + 1) * WORD);
    // Bitmaps are full of ones, behind their end too.
    let counts = |at: usize| word(at).is_some_and(|word| word != [0; 4] && word != [0xff; 4]);
    let near = |at: usize| counts(at) || counts(at + 1) || at > 0 && counts(at - 1);
    let words = (0..chunk.len() / WORD).filter(|at| near(*at));
    let halves = words.flat_map(|at| [at * WORD, at * WORD + 2]);
    let halves: Vec<u16> = halves.map(|at| u16::try_from(at).expect("inside a chunk")).collect();
    (!halves.is_empty()).then_some(halves)
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
        let places = find(&image, false);
        assert_eq!(places.iter().map(|place| place.at).collect::<Vec<_>>(), [2 * CHUNK, 3 * CHUNK]);
        assert_eq!(places[0].words, [96, 98, 100, 102, 104, 106]);
        assert_eq!(places[1].words, [496, 498, 500, 502, 504, 506]);
        let journal = find(&image, true);
        assert_eq!(journal.len(), 1);
        assert_eq!(journal[0].at, 4 * CHUNK);
    }
}
