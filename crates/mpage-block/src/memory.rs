//! A device in memory: for tests, simulations and scratch space.

use std::collections::BTreeMap;

use mpage_locks::Mutex;

use crate::{Bio, BioOp, BlockDevice, Errno, Limits, SubmitError};

/// Bytes that are stored or absent together.
const CHUNK_SIZE: usize = 4096;

/// What a [`MemoryDevice`] says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryOptions {
    /// See [`Limits::alignment`].
    pub alignment: usize,
    /// See [`Limits::bytes_max`].
    pub bytes_max: usize,
    /// See [`Limits::segments_max`].
    pub segments_max: usize,
    /// See [`Limits::queue_depth`]; every bio is done inside of its submission all the same.
    pub queue_depth: usize,
    /// See [`Limits::volatile_cache`]. Only said: to lose writes, put a
    /// [`PowerCut`](crate::wrap::PowerCut) around the device.
    pub volatile_cache: bool,
    /// See [`Limits::fua`].
    pub fua: bool,
    /// Takes discards; the sectors then read as zeros.
    pub discard: bool,
    /// See [`Limits::write_zeroes`].
    pub write_zeroes: bool,
    /// Behaves as a regular file: grows when it is written behind its end, reads as zeros there,
    /// and has [`set_len`](BlockDevice::set_len).
    pub grows: bool,
}

impl Default for MemoryOptions {
    /// A disk of fixed size with a volatile cache, and every operation.
    fn default() -> MemoryOptions {
        MemoryOptions {
            alignment: 512,
            bytes_max: 1 << 20,
            segments_max: 128,
            queue_depth: 64,
            volatile_cache: true,
            fua: true,
            discard: true,
            write_zeroes: true,
            grows: false,
        }
    }
}

/// A device in memory. Sparse: what was never written takes no room.
///
/// Does each bio inside of its submission, on the caller's thread.
#[derive(Debug)]
pub struct MemoryDevice {
    limits: Limits,
    content: Mutex<Content>,
}

impl MemoryDevice {
    /// A device of `bytes` zeros.
    ///
    /// # Panics
    ///
    /// When the alignment is no power of two from 512 to 4096, or a device of fixed size is no
    /// multiple of it long.
    pub fn new(bytes: u64, options: MemoryOptions) -> MemoryDevice {
        let alignment = options.alignment;
        assert!(alignment.is_power_of_two(), "an alignment that is no power of two");
        assert!((512..=4096).contains(&alignment), "an alignment that no device has");
        assert!(
            options.grows || bytes.is_multiple_of(alignment as u64),
            "a size that is no multiple of the alignment"
        );
        let limits = Limits {
            bytes_max: options.bytes_max,
            segments_max: options.segments_max,
            alignment,
            queue_depth: options.queue_depth,
            parallel: true,
            volatile_cache: options.volatile_cache,
            fua: options.fua,
            discard: options.discard,
            write_zeroes: options.write_zeroes,
            capacity: (!options.grows).then_some(bytes),
        };
        MemoryDevice {
            limits,
            content: Mutex::new(Content { len: bytes, chunks: BTreeMap::new() }),
        }
    }

    /// A device that holds `contents`.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn from_contents(contents: &[u8], options: MemoryOptions) -> MemoryDevice {
        let device = MemoryDevice::new(contents.len() as u64, options);
        device.write_at(0, contents);
        device
    }

    /// Everything it holds, from the first byte to the last.
    pub fn contents(&self) -> Vec<u8> {
        let content = self.content.lock();
        let mut bytes = vec![0; usize::try_from(content.len).expect("contents that fit in memory")];
        content.read(0, &mut bytes);
        bytes
    }

    /// Bytes it holds: its size, or where a device that grows ends now.
    pub fn len(&self) -> u64 {
        self.content.lock().len
    }

    /// Whether it holds no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads at any offset, past all checks: for setting up and looking at tests.
    pub fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) {
        self.content.lock().read(offset_bytes, buffer);
    }

    /// Writes at any offset, past all checks but the size: for setting up tests.
    ///
    /// # Panics
    ///
    /// When it would go behind the end of a device of fixed size.
    pub fn write_at(&self, offset_bytes: u64, buffer: &[u8]) {
        let end = offset_bytes + buffer.len() as u64;
        assert!(self.limits.capacity.is_none_or(|capacity| end <= capacity), "behind the end");
        self.content.lock().write(offset_bytes, buffer);
    }

    fn run(&self, bio: &Bio) {
        let mut content = self.content.lock();
        let mut at = bio.sector().offset_bytes().expect("a checked bio");
        let end = at + bio.bytes();
        let mut chunk = [0; CHUNK_SIZE];
        let mut done = 0;
        while at < end {
            let len = CHUNK_SIZE.min(usize::try_from(end - at).unwrap_or(CHUNK_SIZE));
            let chunk = &mut chunk[..len];
            match bio.op() {
                BioOp::Read => {
                    content.read(at, chunk);
                    bio.copy_in(done, chunk);
                }
                BioOp::Write => {
                    bio.copy_out(done, chunk);
                    content.write(at, chunk);
                }
                BioOp::Discard | BioOp::WriteZeroes => return content.zero(at, end),
                BioOp::Flush => return,
            }
            done += len;
            at += len as u64;
        }
    }
}

impl BlockDevice for MemoryDevice {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
        let bio = SubmitError::unless_allowed(bio, &self.limits)?;
        self.run(&bio);
        bio.complete(Ok(()));
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> Result<(), Errno> {
        if self.limits.capacity.is_some() {
            return Err(Errno::OPNOTSUPP);
        }
        self.content.lock().set_len(bytes);
        Ok(())
    }
}

/// The bytes. A chunk that is not there is zeros; so is all behind `len`.
#[derive(Debug)]
struct Content {
    len: u64,
    chunks: BTreeMap<u64, Box<[u8]>>,
}

impl Content {
    fn read(&self, at: u64, buffer: &mut [u8]) {
        for piece in Pieces::new(at, buffer.len()) {
            let into = &mut buffer[piece.buffer.clone()];
            match self.chunks.get(&piece.chunk) {
                Some(chunk) => into.copy_from_slice(&chunk[piece.within()]),
                None => into.fill(0),
            }
        }
    }

    fn write(&mut self, at: u64, buffer: &[u8]) {
        for piece in Pieces::new(at, buffer.len()) {
            let chunk =
                self.chunks.entry(piece.chunk).or_insert_with(|| vec![0; CHUNK_SIZE].into());
            chunk[piece.within()].copy_from_slice(&buffer[piece.buffer]);
        }
        self.len = self.len.max(at + buffer.len() as u64);
    }

    /// Makes `start..end` zeros. Grows nothing.
    fn zero(&mut self, start: u64, end: u64) {
        let size = CHUNK_SIZE as u64;
        let touched: Vec<u64> =
            self.chunks.range(start / size..end.div_ceil(size)).map(|(&chunk, _)| chunk).collect();
        for index in touched {
            let first = index * size;
            if start <= first && first + size <= end {
                let _freed = self.chunks.remove(&index);
            } else if let Some(chunk) = self.chunks.get_mut(&index) {
                let from = to_usize(start.max(first) - first);
                let to = to_usize(end.min(first + size) - first);
                chunk[from..to].fill(0);
            }
        }
    }

    fn set_len(&mut self, bytes: u64) {
        if bytes < self.len {
            self.zero(bytes, self.len);
        }
        self.len = bytes;
    }
}

/// The parts of a byte range that lie in one chunk each.
struct Pieces {
    at: u64,
    done: usize,
    len: usize,
}

struct Piece {
    chunk: u64,
    offset: usize,
    buffer: std::ops::Range<usize>,
}

impl Piece {
    /// Where in its chunk the piece lies.
    fn within(&self) -> std::ops::Range<usize> {
        self.offset..self.offset + self.buffer.len()
    }
}

impl Pieces {
    fn new(at: u64, len: usize) -> Pieces {
        Pieces { at, done: 0, len }
    }
}

impl Iterator for Pieces {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.done == self.len {
            return None;
        }
        let at = self.at + self.done as u64;
        let offset = to_usize(at % CHUNK_SIZE as u64);
        let end = self.len.min(self.done + CHUNK_SIZE - offset);
        let buffer = self.done..end;
        self.done = end;
        Some(Piece { chunk: at / CHUNK_SIZE as u64, offset, buffer })
    }
}

fn to_usize(within_chunk: u64) -> usize {
    usize::try_from(within_chunk).expect("at most a chunk")
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
