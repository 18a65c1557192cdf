//! The mark: `memcpy` from and to memory of the same size.

use std::hint::black_box;

use mpage_locks::Mutex;

use crate::contender::{Contender, Failed};
use crate::work::Work;

pub(crate) struct Memcpy {
    /// Two halves, so that each of two threads can have one.
    halves: [Mutex<Vec<u8>>; 2],
    half_bytes: u64,
}

impl Memcpy {
    /// Memory of `bytes`, a power of two, all of it touched.
    pub(crate) fn new(bytes: u64) -> Memcpy {
        let half_bytes = bytes / 2;
        let half = usize::try_from(half_bytes).expect("the file's size fits memory");
        Memcpy { halves: [(); 2].map(|()| Mutex::new(vec![1; half])), half_bytes }
    }
}

impl Contender for Memcpy {
    fn run(&self, work: &Work) -> Result<(), Failed> {
        let mut buffer = [7; crate::work::PAGE];
        let buffer = &mut buffer[..work.operation.len()];
        let first = usize::try_from(work.part.start / self.half_bytes)?;
        let last = usize::try_from((work.part.end - 1) / self.half_bytes)?;
        let mut held: Vec<_> = self.halves[first..=last].iter().map(Mutex::lock).collect();
        let shift = self.half_bytes.trailing_zeros();
        for offset in work.offsets() {
            let within = usize::try_from(offset & (self.half_bytes - 1))?;
            let half = &mut held[usize::try_from(offset >> shift)? - first];
            let place = &mut half[within..within + buffer.len()];
            if work.operation.writes() {
                place.copy_from_slice(black_box(buffer));
            } else {
                black_box(&mut *buffer).copy_from_slice(place);
            }
        }
        Ok(())
    }

    fn clean(&self) -> Result<(), Failed> {
        Ok(())
    }
}
