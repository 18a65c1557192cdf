//! What copies to and from frames cost, by each way to make them, and what an allocation costs.
//!
//! ```text
//! cargo run --release -p mpage-mem --example copies
//! ```
//!
//! Each line is nanoseconds an operation: the median, least and most of several rounds, in which
//! the ways take turns. Frames are random, the buffer is the same. `memcpy` is the mark; it may not
//! be used where others write at the same time.

use std::hint::black_box;
use std::io;

use mpage_locks::clock::now_ns;
use mpage_mem::{Arena, ArenaOptions, FrameId, PAGE_SIZE, Purpose, RUN};

#[cfg(target_arch = "x86_64")]
mod assembly;

#[expect(dead_code, reason = "copies within the arena are not measured")]
#[path = "../../src/copy/words.rs"]
mod words;

const ROUNDS: usize = 9;
const COPIES: usize = 100_000;
const BUFFER: usize = 2 * PAGE_SIZE;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Read,
    Write,
}

/// A place in the arena and how many bytes to copy to or from it.
struct Place {
    frame: FrameId,
    offset: usize,
    len: usize,
}

impl Place {
    fn address(&self, arena: &Arena) -> *mut u8 {
        arena.address(self.frame).wrapping_add(self.offset)
    }
}

/// Copies of so many bytes: how long one took.
type Round = dyn Fn(&Arena, usize) -> f64;

/// One way to copy, with the shortest length it can do.
struct Way {
    name: &'static str,
    len_min: usize,
    round: Box<Round>,
}

impl Way {
    fn new(
        name: &'static str,
        len_min: usize,
        copy: impl Fn(&Arena, Place, &mut [u8; BUFFER]) + 'static,
    ) -> Way {
        let round = move |arena: &Arena, len| {
            let mut buffer = Box::new([0; BUFFER]);
            let mut random = Random(88_172_645_463_325_252);
            let start = now_ns();
            for _ in 0..COPIES {
                let place = random.place(arena.frames(), len);
                copy(arena, place, black_box(&mut buffer));
            }
            (now_ns() - start) as f64 / COPIES as f64
        };
        Way { name, len_min, round: Box::new(round) }
    }

    /// A way that copies between two addresses.
    fn raw(
        name: &'static str,
        len_min: usize,
        direction: Direction,
        copy: impl Fn(*const u8, *mut u8, usize) + 'static,
    ) -> Way {
        Way::new(name, len_min, move |arena, place, buffer| {
            let memory = place.address(arena);
            match direction {
                Direction::Read => copy(memory, buffer.as_mut_ptr(), place.len),
                Direction::Write => copy(buffer.as_ptr(), memory, place.len),
            }
        })
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).expect("a word of 64 bits")
    }

    fn place(&mut self, frames: usize, len: usize) -> Place {
        let random = self.next();
        let frame = u32::try_from(random % frames).expect("fewer frames than a u32 counts");
        let offset = (random >> 34) % (PAGE_SIZE - len + 1) / 64 * 64;
        Place { frame: FrameId::new(frame), offset, len: black_box(len) }
    }
}

fn ways(direction: Direction) -> Vec<Way> {
    let mut ways = vec![Way::raw("memcpy", 0, direction, |from, to, len| {
        // SAFETY: this program has one thread and no I/O; both ranges are valid and apart.
        unsafe { std::ptr::copy_nonoverlapping(from, to, len) };
    })];
    ways.push(Way::new("Arena", 0, move |arena, place, buffer| {
        let buffer = &mut buffer[..place.len];
        match direction {
            Direction::Read => arena.read(place.frame, place.offset, buffer),
            Direction::Write => arena.write(place.frame, place.offset, buffer),
        }
    }));
    ways.push(Way::new("words", 0, move |arena, place, buffer| {
        let memory = place.address(arena);
        let buffer = &mut buffer[..place.len];
        match direction {
            // SAFETY: the range is in the arena.
            Direction::Read => unsafe { words::read(memory, buffer) },
            // SAFETY: the range is in the arena.
            Direction::Write => unsafe { words::write(memory, buffer) },
        }
    }));
    #[cfg(target_arch = "x86_64")]
    ways.extend(assembly::ways(direction));
    ways
}

/// Runs each of `rounds` in turn, several times, and prints what each took.
fn compare(title: &str, rounds: &mut [(&'static str, impl FnMut() -> f64)]) {
    println!("{title}");
    let mut times = vec![Vec::new(); rounds.len()];
    for _ in 0..ROUNDS {
        for ((_, round), times) in rounds.iter_mut().zip(&mut times) {
            times.push(round());
        }
    }
    for ((name, _), times) in rounds.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        let (median, least, most) = (times[ROUNDS / 2], times[0], times[ROUNDS - 1]);
        println!("  {name:<16} {median:7.1}   {least:7.1} .. {most:7.1}");
    }
}

fn copies(arena: &Arena, mebibytes: usize) {
    for len in [PAGE_SIZE, 512, 64] {
        for direction in [Direction::Read, Direction::Write] {
            let verb = if direction == Direction::Read { "read" } else { "write" };
            let title = format!("{verb} {len} bytes of {mebibytes} MiB");
            let ways = ways(direction);
            let ways = ways.iter().filter(|way| way.len_min <= len);
            let mut rounds: Vec<_> =
                ways.map(|way| (way.name, || (way.round)(arena, len))).collect();
            compare(&title, &mut rounds);
        }
    }
}

/// A frame taken and given back, and a frame taken while others come back at random.
fn allocations(arena: &Arena, taken_percent: usize) {
    let alloc = |slot| arena.alloc(Purpose::Cache, slot % RUN, None);
    let mut taken: Vec<FrameId> =
        (0..arena.frames() * taken_percent / 100).filter_map(alloc).collect();
    let mut pair = || {
        let start = now_ns();
        for slot in 0..COPIES {
            let frame = alloc(slot).expect("a free frame");
            let _freed: bool = arena.unpin(frame);
        }
        (now_ns() - start) as f64 / COPIES as f64
    };
    compare(
        &format!("alloc and unpin with {taken_percent} % of {} frames taken", arena.frames()),
        &mut [("same frame", &mut pair)],
    );
    if !taken.is_empty() {
        let mut random = Random(1);
        let exchange = || {
            let start = now_ns();
            for slot in 0..COPIES {
                let old = random.next() % taken.len();
                let _freed: bool = arena.unpin(taken[old]);
                taken[old] = alloc(slot).expect("a free frame");
            }
            (now_ns() - start) as f64 / COPIES as f64
        };
        compare("... of a random one", &mut [("random frame", exchange)]);
    }
    for frame in taken {
        let _freed: bool = arena.unpin(frame);
    }
}

fn main() -> io::Result<()> {
    for mebibytes in [64, 1024] {
        let frames = mebibytes << 20 >> PAGE_SIZE.trailing_zeros();
        let arena = Arena::new(&ArenaOptions { frames, reserve: 0, prefault: true })?;
        copies(&arena, mebibytes);
        for taken_percent in [0, 50, 99] {
            allocations(&arena, taken_percent);
        }
    }
    Ok(())
}
