//! What the tests of this crate share.

use std::sync::Arc;

use mpage_locks::{Condvar, Mutex};
use mpage_mem::{Arena, ArenaOptions, FrameId, PAGE_SIZE, Purpose, RUN};

use crate::{Bio, BioFlags, BlockDevice, Errno, Limits, Sector, submit_and_wait};

/// An arena of `frames` frames and no reserve.
pub(crate) fn arena(frames: usize) -> Arc<Arena> {
    let options = ArenaOptions { frames, reserve: 0, prefault: false };
    Arc::new(Arena::new(&options).expect("a small arena"))
}

/// `count` frames with neighbouring numbers, each filled with `byte`.
pub(crate) fn frames(arena: &Arena, count: usize, byte: u8) -> Vec<FrameId> {
    let mut frames: Vec<FrameId> = Vec::with_capacity(count);
    for index in 0..count {
        let sibling = frames.last().copied();
        let frame = arena.alloc(Purpose::Cache, index % RUN, sibling).expect("a free frame");
        arena.write(frame, 0, &[byte; PAGE_SIZE]);
        frames.push(frame);
    }
    frames
}

/// A write of `len` bytes of `byte` at `sector`, from frames that only the bio holds.
pub(crate) fn write_of(arena: &Arc<Arena>, sector: u64, byte: u8, len: usize) -> Bio {
    flagged_write_of(arena, sector, byte, len, BioFlags::default())
}

pub(crate) fn flagged_write_of(
    arena: &Arc<Arena>,
    sector: u64,
    byte: u8,
    len: usize,
    flags: BioFlags,
) -> Bio {
    fill(arena, Bio::write(arena, Sector(sector), flags), byte, len)
}

/// A read of `len` bytes at `sector` into new frames, each with a pin of the caller's.
pub(crate) fn read_of(arena: &Arc<Arena>, sector: u64, len: usize) -> (Bio, Vec<FrameId>) {
    let bio = fill(arena, Bio::read(arena, Sector(sector)), 0xee, len);
    let frames = bio.vecs().iter().flat_map(|vec| {
        let count = (vec.offset as usize + vec.len as usize).div_ceil(PAGE_SIZE);
        (0..u32::try_from(count).expect("few")).map(|next| FrameId::new(vec.frame.get() + next))
    });
    let frames: Vec<FrameId> = frames.collect();
    for frame in &frames {
        arena.pin(*frame);
    }
    (bio, frames)
}

fn fill(arena: &Arc<Arena>, mut bio: Bio, byte: u8, len: usize) -> Bio {
    let limits = Limits { segments_max: usize::MAX, bytes_max: usize::MAX, ..Limits::default() };
    for (index, frame) in frames(arena, len.div_ceil(PAGE_SIZE), byte).into_iter().enumerate() {
        let piece = PAGE_SIZE.min(len - index * PAGE_SIZE);
        assert!(bio.push(frame, 0, piece, &limits));
        assert!(!arena.unpin(frame), "the bio holds it");
    }
    bio
}

/// What the device holds at `sector`, by a read through it.
pub(crate) fn read(
    device: &dyn BlockDevice,
    arena: &Arc<Arena>,
    sector: u64,
    len: usize,
) -> Vec<u8> {
    let (bio, frames) = read_of(arena, sector, len);
    submit_and_wait(device, bio).expect("a read that works");
    let mut bytes = vec![0; frames.len() * PAGE_SIZE];
    for (frame, page) in frames.iter().zip(bytes.chunks_mut(PAGE_SIZE)) {
        arena.read(*frame, 0, page);
        assert!(arena.unpin(*frame), "the bio has let go");
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn write(
    device: &dyn BlockDevice,
    arena: &Arc<Arena>,
    sector: u64,
    byte: u8,
    len: usize,
) {
    submit_and_wait(device, write_of(arena, sector, byte, len)).expect("a write that works");
}

/// A place that completions leave their results in, in order.
#[derive(Clone, Default)]
pub(crate) struct Results(Arc<Mutex<Vec<Result<(), Errno>>>>);

impl Results {
    /// Makes the result of `bio` come here.
    pub(crate) fn of(&self, mut bio: Bio) -> Bio {
        let results = self.clone();
        bio.on_completion(move |result| results.0.lock().push(result));
        bio
    }

    pub(crate) fn so_far(&self) -> Vec<Result<(), Errno>> {
        self.0.lock().clone()
    }
}

/// A door that threads wait at until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    pub(crate) fn open(&self) {
        *self.0.0.lock() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn pass(&self) {
        let mut is_open = self.0.0.lock();
        while !*is_open {
            is_open = self.0.1.wait(is_open);
        }
    }
}
