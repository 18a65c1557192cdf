//! A device that does its I/O later, in any order, by a seed, and goes wrong when told.
//!
//! It also holds those above it to rules of its own, and panics when one is broken:
//! 1. What is written does not change between submission and completion.
//! 2. No two changes of one sector are in flight at once: which would win is nobody's choice.
//! 3. Nothing is submitted once the device was stopped.
//!
//! A flush that fails loses everything that no flush has made durable before, for readers too.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use mpage::ManualClock;
use mpage_block::{Bio, BioOp, BlockDevice, Errno, Limits, SubmitError};
use mpage_locks::thread::{self, JoinHandle};
use mpage_locks::{Condvar, Mutex};

use crate::crash::{Change, Event};
use crate::fault::{Effect, Fault, Faults};
use crate::instants::Instants;

/// The longest that an operation takes, in microseconds of the simulated clock.
const LATENCY_MAX_US: u64 = 20_000;

/// What a [`SimDevice`] is like.
#[derive(Clone, Debug)]
pub struct SimOptions {
    /// What it takes. Without a capacity it is a regular file, whose size can be set.
    pub limits: Limits,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// By what it chooses which operation is next, and how long it takes.
    pub seed: u64,
}

/// Is told when a write, not of zeros alone, failed and those who wait for it have been told: the
/// byte it began at, on the device.
pub type OnFailedWrite = Box<dyn Fn(u64) -> Box<dyn FnOnce() + Send> + Send + Sync>;

/// Is told when a flush failed, in the instant in which what it had to make durable goes: when the
/// last one that succeeded had begun. Must not ask the device for anything.
pub type OnFailedFlush = Box<dyn Fn(u64) + Send + Sync>;

/// A simulated device. Its thread runs until [`stop`](Self::stop).
pub struct SimDevice {
    shared: Arc<Shared>,
    limits: Limits,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    instants: Arc<Instants>,
    clock: Option<Arc<ManualClock>>,
    on_failed_write: Mutex<Option<OnFailedWrite>>,
    on_failed_flush: Mutex<Option<OnFailedFlush>>,
}

struct State {
    held: Vec<Held>,
    stop: bool,
    /// What a reader gets.
    content: Vec<u8>,
    /// What no failed flush takes away.
    durable: Vec<u8>,
    /// When the last flush that succeeded was submitted.
    flushed: u64,
    /// What happened to the medium, in order.
    events: Vec<Event>,
    faults: Faults,
    went_wrong: u64,
    failed_flushes: u64,
    random: fastrand::Rng,
}

struct Held {
    bio: Bio,
    number: u64,
    /// What the frames of a write held when it was submitted; what a flush makes durable.
    sampled: Vec<u8>,
    effect: Option<Effect>,
}

impl Held {
    fn range(&self) -> Range<usize> {
        range_of(&self.bio)
    }

    fn changes(&self) -> bool {
        !matches!(self.bio.op(), BioOp::Read | BioOp::Flush)
    }
}

fn range_of(bio: &Bio) -> Range<usize> {
    let start = bio.sector().offset_bytes().expect("a checked bio");
    to_usize(start)..to_usize(start + bio.bytes())
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).expect("an image in memory")
}

impl SimDevice {
    /// A device that holds `content`. `clock` moves with what it does.
    ///
    /// # Panics
    ///
    /// When no thread can be started.
    pub fn new(
        content: Vec<u8>,
        options: &SimOptions,
        instants: &Arc<Instants>,
        clock: Option<Arc<ManualClock>>,
    ) -> Arc<SimDevice> {
        let state = State {
            held: Vec::new(),
            stop: false,
            durable: content.clone(),
            flushed: 0,
            content,
            events: Vec::new(),
            faults: Faults::new(&options.faults),
            went_wrong: 0,
            failed_flushes: 0,
            random: fastrand::Rng::with_seed(options.seed),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            instants: Arc::clone(instants),
            clock,
            on_failed_write: Mutex::new(None),
            on_failed_flush: Mutex::new(None),
        });
        let worker = Arc::clone(&shared);
        let thread = thread::spawn("device", move || worker.run()).expect("a thread");
        Arc::new(SimDevice { shared, limits: options.limits, thread: Mutex::new(Some(thread)) })
    }

    /// Calls `told` for each write that fails, on the device's thread: before its completion, and
    /// what that returns, behind it.
    pub fn on_failed_write(&self, told: OnFailedWrite) {
        *self.shared.on_failed_write.lock() = Some(told);
    }

    /// Calls `told` for each flush that fails, on the device's thread.
    pub fn on_failed_flush(&self, told: OnFailedFlush) {
        *self.shared.on_failed_flush.lock() = Some(told);
    }

    /// From now on `faults` go wrong, and nothing else.
    pub fn go_wrong(&self, faults: &[Fault]) {
        self.shared.state.lock().faults = Faults::new(faults);
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        self.shared.state.lock().faults = Faults::default();
    }

    /// How many operations went wrong so far.
    pub fn went_wrong(&self) -> u64 {
        self.shared.state.lock().went_wrong
    }

    /// How many flushes went wrong so far.
    pub fn failed_flushes(&self) -> u64 {
        self.shared.state.lock().failed_flushes
    }

    /// Carries out what it holds and ends its thread.
    ///
    /// # Panics
    ///
    /// When the thread did, or it was stopped before.
    pub fn stop(&self) {
        self.shared.state.lock().stop = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().take().expect("it is stopped once");
        thread.join().expect("the device's thread");
        // It may hold what holds this device.
        *self.shared.on_failed_write.lock() = None;
        *self.shared.on_failed_flush.lock() = None;
    }

    /// What a reader gets now.
    pub fn content(&self) -> Vec<u8> {
        self.shared.state.lock().content.clone()
    }

    /// What is there, whatever becomes of the device now.
    pub fn durable(&self) -> Vec<u8> {
        let state = self.shared.state.lock();
        if self.limits.volatile_cache { state.durable.clone() } else { state.content.clone() }
    }

    /// What happened to the medium so far.
    pub fn events(&self) -> Vec<Event> {
        self.shared.state.lock().events.clone()
    }
}

impl BlockDevice for SimDevice {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
        let bio = SubmitError::unless_allowed(bio, &self.limits)?;
        let mut sampled = Vec::new();
        if bio.op() == BioOp::Write {
            sampled.resize(to_usize(bio.bytes()), 0);
            bio.copy_out(0, &mut sampled);
        }
        let mut state = self.shared.state.lock();
        assert!(!state.stop, "I/O after the device was stopped");
        let effect = state.faults.next(bio.op());
        state.went_wrong += u64::from(effect.is_some());
        state.failed_flushes += u64::from(effect.is_some() && bio.op() == BioOp::Flush);
        if effect == Some(Effect::Refused) {
            return Err(SubmitError { bio, error: Errno::IO });
        }
        let number = self.shared.instants.next();
        let mut held = Held { bio, number, sampled, effect };
        if held.bio.op() == BioOp::Flush {
            held.sampled.clone_from(&state.content);
        }
        state.check_alone(&held);
        state.record(&held, &self.limits);
        state.held.push(held);
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> Result<(), Errno> {
        if self.limits.capacity.is_some() {
            return Err(Errno::OPNOTSUPP);
        }
        let mut state = self.shared.state.lock();
        let busy =
            state.held.iter().find(|held| held.changes() && held.range().end > to_usize(bytes));
        assert!(busy.is_none(), "the size is set to {bytes} with a write behind that in flight");
        let effect = state.faults.next_set_len();
        state.went_wrong += u64::from(effect.is_some());
        if effect.is_some_and(|effect| effect != Effect::DoneButFails) {
            return Err(Errno::IO);
        }
        state.content.resize(to_usize(bytes), 0);
        let number = self.shared.instants.next();
        state.events.push(Event::Began {
            number,
            change: Change::SetLen(bytes),
            fua: !self.limits.volatile_cache,
        });
        let at = self.shared.instants.next();
        state.events.push(Event::Ended { number, at, well: effect.is_none() });
        effect.map_or(Ok(()), |_| Err(Errno::IO))
    }
}

impl State {
    /// Rule 2.
    fn check_alone(&self, new: &Held) {
        let range = new.range();
        let meets = |held: &&Held| {
            held.changes() && held.range().start < range.end && range.start < held.range().end
        };
        if new.changes()
            && let Some(other) = self.held.iter().find(meets)
        {
            panic!("bytes {range:?} are changed while {:?} are in flight", other.range());
        }
    }

    fn record(&mut self, held: &Held, limits: &Limits) {
        let (number, start) = (held.number, held.range().start as u64);
        let data = match held.bio.op() {
            BioOp::Read => return,
            BioOp::Flush => return self.events.push(Event::FlushBegan { number }),
            BioOp::Write => held.sampled.clone(),
            BioOp::Discard | BioOp::WriteZeroes => vec![0; held.range().len()],
        };
        let grows = held.bio.op() != BioOp::Discard;
        let fua = !limits.volatile_cache || held.bio.flags().fua;
        self.events.push(Event::Began {
            number,
            change: Change::Write { start, data, grows },
            fua,
        });
    }

    /// What each flush under way is going to make durable, and what is.
    fn flushes(&mut self) -> impl Iterator<Item = (&mut Vec<u8>, &Vec<u8>)> {
        let held = self.held.iter_mut().filter(|held| held.bio.op() == BioOp::Flush);
        held.map(|held| (&mut held.sampled, &self.durable))
    }

    /// Does what `held` asks for, as far as its fault lets it.
    fn carry_out(&mut self, held: &Held) -> Result<(), Errno> {
        let range = held.range();
        let done = match held.effect {
            Some(Effect::Fails | Effect::Refused) => range.start..range.start,
            Some(Effect::Torn) => range.start..range.start + range.len() / 1024 * 512,
            Some(Effect::DoneButFails) | None => range.clone(),
        };
        match held.bio.op() {
            // A flush that fails loses all that none has made durable.
            BioOp::Flush if held.effect.is_some() => {
                self.content.clone_from(&self.durable);
                // A flush that is under way covers nothing of what was lost.
                self.flushes().for_each(|(sampled, durable)| sampled.clone_from(durable));
            }
            // One that was submitted later may have ended before.
            BioOp::Flush if held.number > self.flushed => {
                self.durable.clone_from(&held.sampled);
                self.flushed = held.number;
            }
            BioOp::Flush => {}
            BioOp::Read => {
                let mut bytes = vec![0; done.len()];
                let there = self.content.get(done.start..).unwrap_or_default();
                let count = there.len().min(done.len());
                bytes[..count].copy_from_slice(&there[..count]);
                held.bio.copy_in(0, &bytes);
            }
            BioOp::Write => {
                let mut now = vec![0; held.sampled.len()];
                held.bio.copy_out(0, &mut now);
                assert!(now == held.sampled, "bytes {range:?} changed while they were written");
                put(&mut self.content, done.start, &now[..done.len()], true);
                if held.bio.flags().fua && held.effect.is_none() {
                    put(&mut self.durable, range.start, &now, true);
                    // A flush that was submitted before takes nothing of it back.
                    self.flushes().for_each(|(sampled, _)| put(sampled, range.start, &now, true));
                }
            }
            BioOp::Discard => put(&mut self.content, done.start, &vec![0; done.len()], false),
            BioOp::WriteZeroes => put(&mut self.content, done.start, &vec![0; done.len()], true),
        }
        held.effect.map_or(Ok(()), |_| Err(Errno::IO))
    }
}

/// Puts `bytes` at `start` of `content`, which `grows` for them or is left as long as it is.
fn put(content: &mut Vec<u8>, start: usize, bytes: &[u8], grows: bool) {
    let end = start + bytes.len();
    if grows && !bytes.is_empty() && content.len() < end {
        content.resize(end, 0);
    }
    let end = end.min(content.len());
    if start < end {
        content[start..end].copy_from_slice(&bytes[..end - start]);
    }
}

impl Shared {
    fn run(&self) {
        while let Some((held, result)) = self.next() {
            let start = held.range().start as u64;
            // Zeros may be a removal's, which tells its caller alone.
            let has_data = held.sampled.iter().any(|byte| *byte != 0);
            let failed_write = held.bio.op() == BioOp::Write && has_data && result.is_err();
            let told = match &*self.on_failed_write.lock() {
                Some(told) if failed_write => Some(told(start)),
                _ => None,
            };
            held.bio.complete(result);
            if let Some(told) = told {
                told();
            }
        }
    }

    /// Carries out one of those held, and lets time pass; `None` when it is over.
    fn next(&self) -> Option<(Held, Result<(), Errno>)> {
        let mut state = self.state.lock();
        while state.held.is_empty() {
            if state.stop {
                return None;
            }
            state = self.changed.wait(state);
        }
        let count = state.held.len();
        let at = state.random.usize(..count);
        let held = state.held.swap_remove(at);
        let latency = Duration::from_micros(state.random.u64(1..LATENCY_MAX_US));
        let result = state.carry_out(&held);
        if held.bio.op() == BioOp::Flush
            && result.is_err()
            && let Some(told) = &*self.on_failed_flush.lock()
        {
            told(state.flushed);
        }
        let at = self.instants.next();
        if held.bio.op() != BioOp::Read {
            let well = result.is_ok();
            state.events.push(Event::Ended { number: held.number, at, well });
        }
        drop(state);
        if let Some(clock) = &self.clock {
            clock.advance(latency);
        }
        Some((held, result))
    }
}
