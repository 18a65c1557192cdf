//! The arena: where all frames live.

use std::io;

use mpage_locks::Mutex;
use mpage_locks::atomic::{AtomicU32, AtomicUsize, Ordering, fence};

use crate::alloc::FreeFrames;
use crate::copy;
use crate::frame::{FrameId, PAGE_SIZE, RUN};
use crate::mapping::Mapping;

/// How large an [`Arena`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaOptions {
    /// All frames, the reserve included: 1 to `u32::MAX - 1`.
    pub frames: usize,
    /// How many frames only [`Purpose::Writeback`] may take. Fewer than `frames`.
    pub reserve: usize,
    /// Whether every frame has memory behind it before [`Arena::new`] returns.
    pub prefault: bool,
}

/// What a frame is wanted for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Purpose {
    /// A page of the cache. Leaves the reserve alone.
    Cache,
    /// Getting dirty pages to the device, which makes other frames free. May use the reserve.
    Writeback,
}

/// Frames in one mapping, sized once.
///
/// Frames are given out by [`alloc`](Self::alloc) with one pin and come back with the last
/// [`unpin`](Self::unpin). Their memory stays mapped until the arena is dropped.
///
/// # Racing copies
///
/// [`read`](Self::read), [`write`](Self::write), [`zero`](Self::zero) and the copies may race with
/// each other and with the kernel on the same bytes. The result is torn, as it is for memory that
/// two processes share; each aligned eight-byte word is whole when the offsets and lengths of
/// the racing calls are multiples of eight.
///
/// A reader finds out whether its copy is good by a version that writers move:
///
/// ```text
///   the writer                             the reader
///   version.store(next, Relaxed)           seen = version.load(Acquire)
///   write: fence(Release), then bytes      read: bytes, then fence(Acquire)
///                                          good when version.load(Relaxed) == seen
/// ```
///
/// A reader that copied even one byte of such a write has, by the two fences, the version that the
/// writer stored before, and refuses the copy. So the last load needs no ordering of its own.
///
/// # Invariants
///
/// 1. The mapping has `PAGE_SIZE` bytes for each element of `pins`, and nobody but `copy` and the
///    kernel touches them.
/// 2. A frame is in `free` only while its count of pins is zero: whoever counted it down to zero
///    puts it there, whoever takes it out counts it up to one.
/// 3. `free_count` is the count of `free` when the lock was last given up.
#[derive(Debug)]
pub struct Arena {
    mapping: Mapping,
    pins: Box<[AtomicU32]>,
    reserve: usize,
    free: Mutex<FreeFrames>,
    free_count: AtomicUsize,
}

impl Arena {
    /// Maps the memory of an arena.
    ///
    /// The memory is aligned to 2 MiB and asks the kernel for huge pages. The arena never grows.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when there is no frame, when the reserve is not smaller than the number of
    /// frames, or when frames do not have numbers enough. Else the kernel's error, when it has no
    /// room for the mapping.
    pub fn new(options: &ArenaOptions) -> io::Result<Arena> {
        let &ArenaOptions { frames, reserve, prefault } = options;
        let invalid = |message: String| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        if frames == 0 {
            return invalid("an arena needs at least one frame".to_owned());
        }
        if frames > FRAMES_MAX {
            return invalid(format!("an arena has at most {FRAMES_MAX} frames, not {frames}"));
        }
        if reserve >= frames {
            return invalid(format!("a reserve of {reserve} leaves nothing of {frames} frames"));
        }
        let mapping = Mapping::new(frames)?;
        if prefault {
            mapping.prefault()?;
        }
        Ok(Arena {
            mapping,
            pins: (0..frames).map(|_| AtomicU32::new(0)).collect(),
            reserve,
            free: Mutex::new(FreeFrames::new(frames)),
            free_count: AtomicUsize::new(frames),
        })
    }

    /// The number of frames, free or not.
    #[inline]
    pub fn frames(&self) -> usize {
        self.pins.len()
    }

    /// The number of free frames, the reserve included. Old by the time it returns.
    #[inline]
    pub fn free_frames(&self) -> usize {
        self.free_count.load(Ordering::Relaxed)
    }

    /// The number of frames kept for [`Purpose::Writeback`]: a count, not particular frames.
    #[inline]
    pub fn reserve(&self) -> usize {
        self.reserve
    }

    /// Takes a free frame, with one pin. Never waits for one.
    ///
    /// `slot` is the place in a run that is wanted, below [`RUN`]. The run of `sibling` is tried
    /// first, then a wholly free run, then any free frame. `None` when only the reserve is left,
    /// or, for [`Purpose::Writeback`], nothing. The frame's content is unspecified.
    ///
    /// # Panics
    ///
    /// When `slot` is not below `RUN`, or `sibling` is not a frame of this arena.
    pub fn alloc(
        &self,
        purpose: Purpose,
        slot: usize,
        sibling: Option<FrameId>,
    ) -> Option<FrameId> {
        assert!(slot < RUN, "slot {slot} of a run of {RUN} frames");
        if let Some(sibling) = sibling {
            self.check(sibling);
        }
        let kept = match purpose {
            Purpose::Cache => self.reserve,
            Purpose::Writeback => 0,
        };
        let frame = {
            let mut free = self.free.lock();
            if free.count() <= kept {
                return None;
            }
            let frame = free.take(slot, sibling)?;
            self.free_count.store(free.count(), Ordering::Relaxed);
            frame
        };
        // The lock orders this behind the last unpin, which counted to zero.
        let pins = &self.pins[frame.index()];
        assert!(pins.load(Ordering::Relaxed) == 0, "frame {} is free and pinned", frame.get());
        pins.store(1, Ordering::Relaxed);
        Some(frame)
    }

    /// Adds a pin to a frame that has one.
    ///
    /// The caller knows of a pin that stays until this returns.
    ///
    /// # Panics
    ///
    /// When the frame is free, or not of this arena.
    #[inline]
    pub fn pin(&self, frame: FrameId) {
        let add = |pins: u32| if pins == 0 { None } else { pins.checked_add(1) };
        // Relaxed: the pin that the caller knows of orders everything.
        let pinned = self.pins_of(frame).fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        assert!(pinned.is_ok(), "pin of frame {}, which is free or pinned too often", frame.get());
    }

    /// Gives up a pin. The last one frees the frame: then the answer is true.
    ///
    /// # Panics
    ///
    /// When the frame has no pin, or is not of this arena.
    #[inline]
    pub fn unpin(&self, frame: FrameId) -> bool {
        let subtract = |pins: u32| pins.checked_sub(1);
        // Release: what the holder did with the frame comes before its next life. The last one
        // acquires it from the others.
        let pins = self.pins_of(frame).fetch_update(Ordering::AcqRel, Ordering::Relaxed, subtract);
        match pins {
            Ok(1) => self.free(frame),
            Ok(_) => return false,
            Err(_) => panic!("unpin of frame {}, which is free", frame.get()),
        }
        true
    }

    /// The number of pins; zero when the frame is free. Old by the time it returns.
    ///
    /// # Panics
    ///
    /// When the frame is not of this arena.
    #[inline]
    pub fn pins(&self, frame: FrameId) -> u32 {
        self.pins_of(frame).load(Ordering::Relaxed)
    }

    /// Copies the bytes at `offset` of a frame into `to`, then fences with Acquire.
    ///
    /// # Panics
    ///
    /// When the range is not in the frame, or the frame not of this arena.
    #[inline]
    pub fn read(&self, frame: FrameId, offset: usize, to: &mut [u8]) {
        let from = self.range(frame, offset, to.len());
        // SAFETY: the range lies in the mapping, which is frame memory (invariant 1).
        unsafe { copy::read(from, to) };
        fence(Ordering::Acquire);
    }

    /// Fences with Release, then copies `from` to `offset` of a frame.
    ///
    /// # Panics
    ///
    /// When the range is not in the frame, or the frame not of this arena.
    #[inline]
    pub fn write(&self, frame: FrameId, offset: usize, from: &[u8]) {
        let to = self.range(frame, offset, from.len());
        fence(Ordering::Release);
        // SAFETY: the range lies in the mapping, which is frame memory (invariant 1).
        unsafe { copy::write(to, from) };
    }

    /// Fences with Release, then makes `len` bytes at `offset` of a frame zero.
    ///
    /// # Panics
    ///
    /// When the range is not in the frame, or the frame not of this arena.
    pub fn zero(&self, frame: FrameId, offset: usize, len: usize) {
        let to = self.range(frame, offset, len);
        fence(Ordering::Release);
        // SAFETY: the range lies in the mapping, which is frame memory (invariant 1).
        unsafe { copy::zero(to, len) };
    }

    /// Copies a whole frame to another: [`copy_range`](Self::copy_range) of everything.
    ///
    /// # Panics
    ///
    /// When a frame is not of this arena.
    pub fn copy(&self, from: FrameId, to: FrameId) {
        self.copy_range(from, to, 0, PAGE_SIZE);
    }

    /// Copies `len` bytes at `offset` of one frame to the same place in another.
    ///
    /// Fences with Release first and with Acquire last, as a write and as a read.
    ///
    /// # Panics
    ///
    /// When the range is not in the frames, or a frame not of this arena.
    pub fn copy_range(&self, from: FrameId, to: FrameId, offset: usize, len: usize) {
        let from = self.range(from, offset, len);
        let to = self.range(to, offset, len);
        fence(Ordering::Release);
        // SAFETY: both ranges lie in the mapping, which is frame memory (invariant 1), at the same
        // offset in their frames: they are equal or apart.
        unsafe { copy::copy(from, to, len) };
        fence(Ordering::Acquire);
    }

    /// Where the frame begins, for I/O by the kernel alone.
    ///
    /// A Rust reference to what is there would be undefined behaviour as soon as somebody copies
    /// into the frame.
    ///
    /// # Panics
    ///
    /// When the frame is not of this arena.
    #[inline]
    pub fn address(&self, frame: FrameId) -> *mut u8 {
        self.range(frame, 0, PAGE_SIZE)
    }

    /// Where `offset` of the frame is, with `len` bytes of the frame behind it.
    #[inline]
    fn range(&self, frame: FrameId, offset: usize, len: usize) -> *mut u8 {
        self.check(frame);
        let fits = offset <= PAGE_SIZE && len <= PAGE_SIZE - offset;
        assert!(fits, "{len} bytes at {offset} are not in a frame");
        // In the mapping, because the frame and the range are (invariant 1).
        self.mapping.start().as_ptr().wrapping_add(frame.index() * PAGE_SIZE + offset)
    }

    #[inline]
    fn check(&self, frame: FrameId) {
        let frames = self.pins.len();
        assert!(frame.index() < frames, "frame {} of an arena of {frames}", frame.get());
    }

    #[inline]
    fn pins_of(&self, frame: FrameId) -> &AtomicU32 {
        self.check(frame);
        &self.pins[frame.index()]
    }

    /// Puts a frame back whose last pin the caller gave up (invariant 2).
    fn free(&self, frame: FrameId) {
        let mut free = self.free.lock();
        free.put(frame);
        self.free_count.store(free.count(), Ordering::Relaxed);
    }
}

/// One number stays unused, for callers that mark "no frame" with it.
const FRAMES_MAX: usize = u32::MAX as usize - 1;

#[cfg(all(test, mpage_loom))]
mod loom_tests;
#[cfg(all(test, mpage_shuttle))]
mod shuttle_tests;
#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
