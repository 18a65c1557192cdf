//! An image whose changes lie beside it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that are changed together. An image is a multiple of it long.
pub(crate) const CHUNK: usize = 1024;

/// What an image holds: bytes that many images share, and what this one has in their place.
#[derive(Clone, Debug)]
pub struct Image {
    base: Arc<[u8]>,
    changed: BTreeMap<usize, Box<[u8; CHUNK]>>,
}

impl Image {
    /// The image that holds `base`.
    ///
    /// # Panics
    ///
    /// When that is no multiple of 1024 bytes.
    pub fn new(base: Arc<[u8]>) -> Image {
        assert!(base.len().is_multiple_of(CHUNK), "an image of {} bytes", base.len());
        Image { base, changed: BTreeMap::new() }
    }

    /// Bytes of the image.
    pub fn len(&self) -> usize {
        self.base.len()
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.base.is_empty()
    }

    /// All of it.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.base.to_vec();
        for (chunk, changed) in &self.changed {
            bytes[chunk * CHUNK..][..CHUNK].copy_from_slice(&changed[..]);
        }
        bytes
    }

    /// Reads from byte `at` on, all of which is inside.
    pub(crate) fn read(&self, at: usize, to: &mut [u8]) {
        for (piece, range) in pieces(at, to.len()) {
            let chunk = self.changed.get(&piece.chunk).map(|chunk| &chunk[..]);
            let chunk = chunk.unwrap_or_else(|| &self.base[piece.chunk * CHUNK..][..CHUNK]);
            to[range].copy_from_slice(&chunk[piece.bytes]);
        }
    }

    /// Writes from byte `at` on, all of which is inside.
    pub(crate) fn write(&mut self, at: usize, from: &[u8]) {
        for (piece, range) in pieces(at, from.len()) {
            self.chunk(piece.chunk)[piece.bytes].copy_from_slice(&from[range]);
        }
    }

    /// Makes bytes `range`, all of which is inside, zeros.
    pub(crate) fn zero(&mut self, range: Range<usize>) {
        for (piece, _) in pieces(range.start, range.len()) {
            self.chunk(piece.chunk)[piece.bytes].fill(0);
        }
    }

    fn chunk(&mut self, number: usize) -> &mut [u8; CHUNK] {
        let base = &self.base[number * CHUNK..][..CHUNK];
        self.changed
            .entry(number)
            .or_insert_with(|| Box::new(base.try_into().expect("as long as a chunk")))
    }

    /// The number of `N` bytes, at most four, at byte `at`.
    pub(crate) fn number<const N: usize>(&self, at: usize) -> u32 {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes[..N]);
        u32::from_le_bytes(bytes)
    }

    /// Makes the `N` bytes, at most four, at byte `at` the low ones of `number`.
    pub(crate) fn set_number<const N: usize>(&mut self, at: usize, number: u32) {
        self.write(at, &number.to_le_bytes()[..N]);
    }
}

/// A part of a chunk.
struct Piece {
    chunk: usize,
    bytes: Range<usize>,
}

/// The parts of chunks that `len` bytes from `at` on are, with what of the `len` each is.
fn pieces(at: usize, len: usize) -> impl Iterator<Item = (Piece, Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let start = (at + done) % CHUNK;
        let count = (CHUNK - start).min(len - done);
        let piece = Piece { chunk: (at + done) / CHUNK, bytes: start..start + count };
        let range = done..done + count;
        done += count;
        (count > 0).then_some((piece, range))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_rest_is_the_bases() {
        let base: Arc<[u8]> = (0..4 * CHUNK).map(|at| at.to_le_bytes()[0]).collect();
        let mut image = Image::new(Arc::clone(&base));
        let mut right = base.to_vec();
        image.write(1000, &[7; 1100]);
        right[1000..2100].fill(7);
        image.zero(2000..3100);
        right[2000..3100].fill(0);
        image.set_number::<2>(3071, 0x0004_0102);
        right[3071..3073].copy_from_slice(&[2, 1]);
        assert_eq!(image.bytes(), right);
        let mut bytes = [0; 2100];
        image.read(999, &mut bytes);
        assert_eq!(bytes, right[999..3099]);
        assert_eq!(image.number::<2>(3071), 0x0102);
    }
}
