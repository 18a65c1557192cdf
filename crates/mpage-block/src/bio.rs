//! The request: which frames, which sectors, and who is told.
//!
//! ```text
//!   Bio::write --> push, push --> submit --> device --> complete
//!                  (pins)            |                  (unpins, then tells)
//!                    ^               | SubmitError
//!                    +---------------+ (the bio comes back, nobody is told)
//! ```
//!
//! # Invariants
//!
//! 1. Each vector holds exactly one pin on every frame it covers, from the push until the bio ends;
//!    so the memory a device was given stays what it is until the device is done with it.
//! 2. A bio ends exactly once, by [`Bio::complete`] or by drop. All pins go first, then the
//!    interceptors run, the last one added first, then the completion.
//! 3. A result is never lost: a bio that is dropped ends with `EIO`.

use std::fmt;
use std::sync::Arc;

use mpage_mem::{Arena, FrameId, PAGE_SIZE};

use crate::device::{BlockDevice, SubmitError};
use crate::{Errno, Limits, SECTOR_SIZE, Sector};

/// What a bio asks of the device. Linux: `enum req_op`, include/linux/blk_types.h.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BioOp {
    /// Sectors into frames. `REQ_OP_READ`.
    Read,
    /// Frames into sectors. `REQ_OP_WRITE`.
    Write,
    /// Makes every write that completed before this was submitted durable. `REQ_OP_FLUSH`.
    Flush,
    /// Tells that the content of sectors is not needed: reads of them may return anything until
    /// they are written. `REQ_OP_DISCARD`.
    Discard,
    /// Makes sectors read as zeros; may give their room back. `REQ_OP_WRITE_ZEROES`.
    WriteZeroes,
}

/// How a bio is to be treated. None of them set is an ordinary write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct BioFlags {
    /// Somebody waits for it: goes before ordinary ones. `REQ_SYNC`.
    pub sync: bool,
    /// Nobody waits for it: goes behind ordinary ones. `REQ_BACKGROUND`.
    pub background: bool,
    /// A write that is durable when it completes, without a flush. `REQ_FUA`.
    pub fua: bool,
}

/// A piece of memory: `len` bytes from `offset` bytes into `frame`.
///
/// May run past the frame's end into the frames behind it: those are next in memory, so this is
/// one segment to a device. Linux: `struct bio_vec`, include/linux/bvec.h.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BioVec {
    /// The frame in which the piece begins.
    pub frame: FrameId,
    /// Where in that frame, in bytes; less than [`PAGE_SIZE`].
    pub offset: u32,
    /// Bytes; never zero.
    pub len: u32,
}

impl BioVec {
    /// Where in the arena the piece begins, in bytes.
    fn start(&self) -> u64 {
        u64::from(self.frame.get()) * PAGE_SIZE as u64 + u64::from(self.offset)
    }

    /// The pieces of single frames this consists of, ascending: frame, offset in it, length.
    fn pieces(self) -> impl Iterator<Item = (FrameId, usize, usize)> {
        let mut at = self.start();
        let end = at + u64::from(self.len);
        std::iter::from_fn(move || {
            (at < end).then(|| {
                let page = PAGE_SIZE as u64;
                let next = end.min((at / page + 1) * page);
                let piece = (frame_at(at / page), to_usize(at % page), to_usize(next - at));
                at = next;
                piece
            })
        })
    }
}

type Completion = Box<dyn FnOnce(Result<(), Errno>) + Send>;
type Interceptor = Box<dyn FnOnce(Result<(), Errno>) -> Result<(), Errno> + Send>;

/// One request to a block device.
///
/// Made for one operation, filled by [`push`](Self::push) when it carries data, given to a device
/// by [`submit`](Self::submit), and ended by the device: see the module's picture. Pins the frames
/// it holds; what their bytes are at any moment is not its business.
///
/// Linux: `struct bio`, include/linux/blk_types.h. Differs: a result that nobody takes cannot get
/// lost, and one bio is never split or chained.
pub struct Bio {
    op: BioOp,
    flags: BioFlags,
    sector: Sector,
    bytes: u64,
    keeps_room: bool,
    arena: Option<Arc<Arena>>,
    vecs: Vec<BioVec>,
    interceptors: Vec<Interceptor>,
    completion: Option<Completion>,
}

impl Bio {
    /// A read that begins at `sector`, into no frames yet.
    pub fn read(arena: &Arc<Arena>, sector: Sector) -> Bio {
        Bio::new(BioOp::Read, sector, 0, Some(Arc::clone(arena)))
    }

    /// A write that begins at `sector`, of no frames yet.
    pub fn write(arena: &Arc<Arena>, sector: Sector, flags: BioFlags) -> Bio {
        let mut bio = Bio::new(BioOp::Write, sector, 0, Some(Arc::clone(arena)));
        bio.flags = flags;
        bio
    }

    /// A flush of the device's volatile cache. Linux: `blkdev_issue_flush()`, block/blk-flush.c.
    pub fn flush() -> Bio {
        Bio::new(BioOp::Flush, Sector(0), 0, None)
    }

    /// A discard of `bytes` bytes from `sector` on. Linux: `blkdev_issue_discard()`.
    pub fn discard(sector: Sector, bytes: u64) -> Bio {
        Bio::new(BioOp::Discard, sector, bytes, None)
    }

    /// Zeros for `bytes` bytes from `sector` on. Linux: `blkdev_issue_zeroout()`.
    pub fn write_zeroes(sector: Sector, bytes: u64) -> Bio {
        Bio::new(BioOp::WriteZeroes, sector, bytes, None)
    }

    /// As [`write_zeroes`](Self::write_zeroes), without giving room back. Linux: `REQ_NOUNMAP`.
    pub fn write_zeroes_keeping_room(sector: Sector, bytes: u64) -> Bio {
        let mut bio = Bio::write_zeroes(sector, bytes);
        bio.keeps_room = true;
        bio
    }

    fn new(op: BioOp, sector: Sector, bytes: u64, arena: Option<Arc<Arena>>) -> Bio {
        Bio {
            op,
            flags: BioFlags::default(),
            sector,
            bytes,
            keeps_room: false,
            arena,
            vecs: Vec::new(),
            interceptors: Vec::new(),
            completion: None,
        }
    }

    /// Adds `len` bytes at `offset` of `frame` at the end, and pins the frame.
    ///
    /// Joins the last vector when the piece is next to it in memory. False, and nothing changed,
    /// when the bio would then have more bytes or segments than `limits` allow. The caller holds a
    /// pin of its own during the call.
    ///
    /// Linux: `bio_add_page()`, block/bio.c.
    ///
    /// # Panics
    ///
    /// When the piece is empty or leaves the frame, or the bio is neither a read nor a write.
    pub fn push(&mut self, frame: FrameId, offset: usize, len: usize, limits: &Limits) -> bool {
        assert!(len > 0, "a piece of no bytes");
        assert!(offset < PAGE_SIZE, "a piece that begins behind its frame");
        assert!(len <= PAGE_SIZE - offset, "a piece that ends behind its frame");
        let arena = self.arena.as_ref().expect("only reads and writes carry data");

        let bytes = self.bytes + len as u64;
        if bytes > limits.bytes_max as u64 {
            return false;
        }
        let piece = BioVec { frame, offset: to_u32(offset), len: to_u32(len) };
        if let Some(last) = self.vecs.last_mut()
            && last.start() + u64::from(last.len) == piece.start()
            && let Some(joined) = last.len.checked_add(piece.len)
        {
            // INVARIANT: 1. Behind a frame's first byte, the last vector covers it already.
            if offset == 0 {
                arena.pin(frame);
            }
            last.len = joined;
        } else if self.vecs.len() < limits.segments_max {
            arena.pin(frame);
            self.vecs.push(piece);
        } else {
            return false;
        }
        self.bytes = bytes;
        true
    }

    /// What is asked of the device.
    pub fn op(&self) -> BioOp {
        self.op
    }

    /// How it is to be treated.
    pub fn flags(&self) -> BioFlags {
        self.flags
    }

    /// Changes how it is to be treated: a read for readahead is a background one, say.
    pub fn set_flags(&mut self, flags: BioFlags) {
        self.flags = flags;
    }

    /// The first sector. A flush has none and says 0.
    pub fn sector(&self) -> Sector {
        self.sector
    }

    /// The first sector behind the bio, rounded up. At most `u64::MAX`.
    pub fn end_sector(&self) -> Sector {
        Sector(self.sector.0.saturating_add(self.bytes.div_ceil(SECTOR_SIZE as u64)))
    }

    /// How much is read, written, discarded or zeroed, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether zeros must not give the room of their sectors back.
    pub fn keeps_room(&self) -> bool {
        self.keeps_room
    }

    /// The memory, in the order of the sectors. Empty for what is neither read nor write.
    pub fn vecs(&self) -> &[BioVec] {
        &self.vecs
    }

    /// The arena of the frames. `None` for what is neither read nor write.
    pub fn arena(&self) -> Option<&Arc<Arena>> {
        self.arena.as_ref()
    }

    /// True while no bytes were added. Always true of a flush.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Says what to do when the bio ends, in place of what was said before.
    ///
    /// `completion` runs exactly once, on any thread, after the frames were unpinned; it must not
    /// wait for other I/O. Linux: `bi_end_io`.
    pub fn on_completion(&mut self, completion: impl FnOnce(Result<(), Errno>) + Send + 'static) {
        self.completion = Some(Box::new(completion));
    }

    /// For a device around a device: sees the result before the completion does, and may change it.
    ///
    /// `interceptor` runs exactly once when the bio ends, unless it is taken back by
    /// [`cancel_interceptor`](Self::cancel_interceptor). It must not wait for other I/O.
    pub fn intercept(
        &mut self,
        interceptor: impl FnOnce(Result<(), Errno>) -> Result<(), Errno> + Send + 'static,
    ) {
        self.interceptors.push(Box::new(interceptor));
    }

    /// Takes the interceptor added last back, without running it: for a bio that came back in a
    /// [`SubmitError`].
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn cancel_interceptor(&mut self) {
        let cancelled = self.interceptors.pop();
        assert!(cancelled.is_some(), "no interceptor to cancel");
    }

    /// Gives the bio to `device`. Linux: `submit_bio()`, block/blk-core.c.
    ///
    /// # Errors
    ///
    /// What [`BlockDevice::submit`] gives: the bio comes back and its completion has not run.
    pub fn submit<D: BlockDevice + ?Sized>(self, device: &D) -> Result<(), SubmitError> {
        device.submit(self)
    }

    /// For devices: ends the bio. Unpins all frames, then tells the result.
    ///
    /// Linux: `bio_endio()`, block/bio.c.
    pub fn complete(mut self, result: Result<(), Errno>) {
        self.end(result);
    }

    /// Copies bytes of the frames, from `from` bytes into the bio on, to `buffer`.
    ///
    /// Bytes that are stored to meanwhile may be copied old or new.
    ///
    /// # Panics
    ///
    /// When the bio ends before `buffer` is full.
    pub fn copy_out(&self, from: usize, buffer: &mut [u8]) {
        self.for_pieces(from, buffer.len(), |arena, frame, offset, range| {
            arena.read(frame, offset, &mut buffer[range]);
        });
    }

    /// Copies `buffer` into the frames, from `from` bytes into the bio on.
    ///
    /// # Panics
    ///
    /// When the bio ends before all of `buffer` is copied.
    pub fn copy_in(&self, from: usize, buffer: &[u8]) {
        self.for_pieces(from, buffer.len(), |arena, frame, offset, range| {
            arena.write(frame, offset, &buffer[range]);
        });
    }

    /// A write of the first `bytes` bytes of this one, from the same frames.
    pub(crate) fn head(&self, bytes: u64) -> Bio {
        let arena = self.arena.as_ref().expect("only reads and writes carry data");
        let mut head = Bio::write(arena, self.sector, self.flags);
        let unlimited =
            Limits { bytes_max: usize::MAX, segments_max: usize::MAX, ..Limits::default() };
        for (frame, offset, len) in self.vecs.iter().flat_map(|vec| vec.pieces()) {
            let left = usize::try_from(bytes - head.bytes).unwrap_or(usize::MAX);
            if left == 0 {
                break;
            }
            let pushed = head.push(frame, offset, len.min(left), &unlimited);
            assert!(pushed, "there is no limit");
        }
        head
    }

    /// Calls `copy` with each piece of a frame in `len` bytes from `from` on, and where in those
    /// bytes it lies.
    fn for_pieces(
        &self,
        from: usize,
        len: usize,
        mut copy: impl FnMut(&Arena, FrameId, usize, std::ops::Range<usize>),
    ) {
        let end = from.checked_add(len).expect("a length that memory has");
        let mut at = 0;
        for (frame, offset, piece_len) in self.vecs.iter().flat_map(|vec| vec.pieces()) {
            let piece = at.max(from)..(at + piece_len).min(end);
            if !piece.is_empty() {
                let arena = self.arena.as_ref().expect("a bio with vectors has an arena");
                copy(arena, frame, offset + piece.start - at, piece.start - from..piece.end - from);
            }
            at += piece_len;
        }
        assert!(end <= at, "bytes behind the end of the bio");
    }

    /// Ends the bio, when it has not ended (invariant 2).
    fn end(&mut self, mut result: Result<(), Errno>) {
        for vec in std::mem::take(&mut self.vecs) {
            let arena = self.arena.as_ref().expect("a bio with vectors has an arena");
            for (frame, _, _) in vec.pieces() {
                let _last: bool = arena.unpin(frame);
            }
        }
        while let Some(interceptor) = self.interceptors.pop() {
            result = interceptor(result);
        }
        if let Some(completion) = self.completion.take() {
            completion(result);
        }
    }
}

impl Drop for Bio {
    fn drop(&mut self) {
        // INVARIANT: 3. After `complete` nothing is left to unpin or to tell.
        self.end(Err(Errno::IO));
    }
}

impl fmt::Debug for Bio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bio")
            .field("op", &self.op)
            .field("flags", &self.flags)
            .field("sector", &self.sector)
            .field("bytes", &self.bytes)
            .field("vecs", &self.vecs)
            .finish_non_exhaustive()
    }
}

fn frame_at(index: u64) -> FrameId {
    FrameId::new(u32::try_from(index).expect("a vector stays within the arena"))
}

fn to_u32(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("at most a page")
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("at most a page")
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
