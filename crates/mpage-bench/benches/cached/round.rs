//! Rounds: the contenders in turn, with one thread and with two.

use std::sync::Arc;

use mpage::units::PAGE_BYTES;
use mpage_locks::atomic::{AtomicU64, Ordering};
use mpage_locks::{clock, thread};

use crate::contender::{Contender, Failed};
use crate::sample::{Row, THREADS};
use crate::work::{Operation, Work};

/// What to measure, and how long.
pub(crate) struct Plan {
    /// The sizes of the file, in bytes: powers of two.
    pub(crate) sets: &'static [u64],
    pub(crate) rounds: u64,
    /// How long one contender is measured in one round.
    pub(crate) round_ms: u64,
    pub(crate) timer: Timer,
}

/// Which time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// From the first thread's start to the last one's end.
    Wall,
    /// What the busiest thread spent on a processor: leaves out the machine's other work.
    Processor,
}

impl Timer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Timer::Wall => "by the clock",
            Timer::Processor => "on the processor, without the machine's other work",
        }
    }

    fn now_ns(self) -> Result<u64, Failed> {
        if self == Timer::Wall {
            return Ok(clock::now_ns());
        }
        // The kernel brings the count up to date when a thread yields.
        thread::yield_now();
        let counts = std::fs::read_to_string("/proc/thread-self/schedstat")?;
        Ok(counts.split(' ').next().unwrap_or("").parse()?)
    }

    /// How long threads took that started and ended so.
    fn time_ns(self, spans: &[(u64, u64)]) -> u64 {
        let first = spans.iter().map(|(start, _)| *start).min().unwrap_or(0);
        let last = spans.iter().map(|(_, end)| *end).max().unwrap_or(0);
        match self {
            Timer::Wall => last - first,
            Timer::Processor => spans.iter().map(|(start, end)| end - start).max().unwrap_or(0),
        }
    }
}

/// Operations of the round that finds out how many fit a round.
const TRIAL: u64 = 4096;

/// Measures one operation on files of `bytes` bytes.
pub(crate) fn measure(
    contenders: &[Arc<dyn Contender>; 3],
    operation: Operation,
    bytes: u64,
    plan: &Plan,
) -> Result<Row, Failed> {
    let mut row = Row::new(operation, bytes);
    for contender in contenders {
        prepare(contender, operation, bytes)?;
    }
    let mut counts = [0; 3];
    for (contender, count) in contenders.iter().zip(&mut counts) {
        let trial = Work { operation, part: 0..bytes, start: 0, count: TRIAL };
        let each_ns = run(contender, vec![trial], plan.timer)?;
        let wanted = (plan.round_ms as f64 * 1e6 / each_ns).ceil();
        *count = u64::from(as_u32(wanted)).max(TRIAL);
    }
    for round in 0..plan.rounds {
        for (place, &threads) in THREADS.iter().enumerate() {
            for (who, contender) in contenders.iter().enumerate() {
                let mut count = counts[who];
                if operation == Operation::FirstWrite {
                    contender.clean()?;
                    count = count.min(bytes / PAGE_BYTES);
                }
                let works = split(operation, bytes, count, threads, round * count);
                row.add(place, who, run(contender, works, plan.timer)?);
            }
        }
    }
    Ok(row)
}

/// Brings all pages into the state the operation wants.
fn prepare(contender: &Arc<dyn Contender>, operation: Operation, bytes: u64) -> Result<(), Failed> {
    if operation == Operation::Write {
        let all = Work { operation, part: 0..bytes, start: 0, count: bytes / PAGE_BYTES };
        return contender.run(&all);
    }
    contender.clean()
}

/// The work of each thread.
fn split(operation: Operation, bytes: u64, count: u64, threads: u64, start: u64) -> Vec<Work> {
    let part = bytes / threads;
    let parts = (0..threads).map(|n| n * part..(n + 1) * part);
    parts.map(|part| Work { operation, part, start, count: count / threads }).collect()
}

/// Nanoseconds an operation takes when each part of the work has a thread, started together.
fn run(contender: &Arc<dyn Contender>, parts: Vec<Work>, timer: Timer) -> Result<f64, Failed> {
    let operations: u64 = parts.iter().map(|work| work.count).sum();
    let absent = Arc::new(AtomicU64::new(parts.len() as u64));
    let spawn = |work: Work| {
        let (contender, absent) = (Arc::clone(contender), Arc::clone(&absent));
        thread::spawn("contender", move || -> Result<(u64, u64), Failed> {
            let _before = absent.fetch_sub(1, Ordering::SeqCst);
            while absent.load(Ordering::SeqCst) > 0 {
                thread::yield_now();
            }
            let start_ns = timer.now_ns()?;
            contender.run(&work)?;
            Ok((start_ns, timer.now_ns()?))
        })
    };
    let threads: Vec<_> = parts.into_iter().map(spawn).collect::<Result<_, _>>()?;
    let mut spans = Vec::new();
    for thread in threads {
        spans.push(thread.join().map_err(|_| "a thread panicked")??);
    }
    Ok(timer.time_ns(&spans) as f64 / operations as f64)
}

/// The number of operations, which is positive and small.
fn as_u32(number: f64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the cast stops at the ends of u32")]
    #[expect(clippy::cast_sign_loss, reason = "the cast stops at the ends of u32")]
    let number = number as u32;
    number
}
