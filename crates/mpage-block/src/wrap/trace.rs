//! A device that keeps a list of what was asked of it.

use std::fmt;
use std::sync::Arc;

use mpage_locks::Mutex;

use super::DeviceOp;
use crate::{
    Bio, BioFlags, BioOp, BlockDevice, Errno, Limits, SECTOR_SIZE, Sector, Span, SubmitError,
};

/// One operation and what came of it.
///
/// Its display form is for lists that are checked in: operation, first sector `+` sectors, flags,
/// and the error if there was one. `W 0+2048 sync`, `R 8+8`, `F`, `L 700` for a new size in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceEvent {
    /// What was asked.
    pub op: DeviceOp,
    /// The first sector; 0 for a flush and a new size.
    pub sector: Sector,
    /// How many bytes it is about. Of [`DeviceOp::SetLen`], the new size.
    pub bytes: u64,
    /// How many vectors it had.
    pub segments: usize,
    /// How it was to be treated.
    pub flags: BioFlags,
    /// A hash of what was written, from a trace [`with_hashes`](Trace::with_hashes).
    pub hash: Option<u64>,
    /// When it was submitted: submissions and completions are counted together, from 0.
    pub submitted: u64,
    /// When it completed or was refused; `None` while it is in flight.
    pub completed: Option<u64>,
    /// How it ended; `None` while it is in flight.
    pub result: Option<Result<(), Errno>>,
    /// Whether submission gave it back.
    pub refused: bool,
}

/// A device that records what is asked of the device inside.
pub struct Trace {
    device: Arc<dyn BlockDevice>,
    hashes: bool,
    record: Arc<Mutex<Record>>,
}

#[derive(Default)]
struct Record {
    events: Vec<TraceEvent>,
    counted: u64,
}

impl Trace {
    /// A device around `device`, with an empty list.
    pub fn new(device: Arc<dyn BlockDevice>) -> Trace {
        Trace { device, hashes: false, record: Arc::default() }
    }

    /// The same; each write's event has a hash of its content at submission: 64-bit FNV-1a.
    pub fn with_hashes(device: Arc<dyn BlockDevice>) -> Trace {
        Trace { hashes: true, ..Trace::new(device) }
    }

    /// Takes the list, in order of submission. How operations end that are in flight now is on no
    /// list.
    pub fn take(&self) -> Vec<TraceEvent> {
        std::mem::take(&mut self.record.lock().events)
    }

    /// A copy of the list, which goes on.
    pub fn events(&self) -> Vec<TraceEvent> {
        self.record.lock().events.clone()
    }

    /// Takes the list in its display form, a line each.
    pub fn take_lines(&self) -> Vec<String> {
        self.take().iter().map(TraceEvent::to_string).collect()
    }
}

impl BlockDevice for Trace {
    fn limits(&self) -> Limits {
        self.device.limits()
    }

    fn submit(&self, mut bio: Bio) -> Result<(), SubmitError> {
        let hash = (self.hashes && bio.op() == BioOp::Write).then(|| hash(&bio));
        let number = self.record.lock().begin(TraceEvent {
            op: DeviceOp::Bio(bio.op()),
            sector: bio.sector(),
            bytes: bio.bytes(),
            segments: bio.vecs().len(),
            flags: bio.flags(),
            hash,
            ..TraceEvent::UNFINISHED
        });
        let record = Arc::clone(&self.record);
        bio.intercept(move |result| {
            record.lock().end(number, result, false);
            result
        });
        self.device.submit(bio).map_err(|mut refused| {
            refused.bio.cancel_interceptor();
            self.record.lock().end(number, Err(refused.error), true);
            refused
        })
    }

    fn span_at(&self, offset: u64) -> Result<Span, Errno> {
        self.device.span_at(offset)
    }

    fn set_len(&self, bytes: u64) -> Result<(), Errno> {
        let event = TraceEvent { op: DeviceOp::SetLen, bytes, ..TraceEvent::UNFINISHED };
        let number = self.record.lock().begin(event);
        let result = self.device.set_len(bytes);
        self.record.lock().end(number, result, false);
        result
    }
}

impl Record {
    fn count(&mut self) -> u64 {
        self.counted += 1;
        self.counted - 1
    }

    fn begin(&mut self, event: TraceEvent) -> u64 {
        let submitted = self.count();
        self.events.push(TraceEvent { submitted, ..event });
        submitted
    }

    fn end(&mut self, submitted: u64, result: Result<(), Errno>, refused: bool) {
        let completed = self.count();
        // An event that was taken in flight is on nobody's list.
        if let Some(event) = self.events.iter_mut().rfind(|event| event.submitted == submitted) {
            event.completed = Some(completed);
            event.result = Some(result);
            event.refused = refused;
        }
    }
}

impl TraceEvent {
    const UNFINISHED: TraceEvent = TraceEvent {
        op: DeviceOp::Bio(BioOp::Flush),
        sector: Sector(0),
        bytes: 0,
        segments: 0,
        flags: BioFlags { sync: false, background: false, fua: false },
        hash: None,
        submitted: 0,
        completed: None,
        result: None,
        refused: false,
    };

    fn letter(&self) -> char {
        match self.op {
            DeviceOp::Bio(BioOp::Read) => 'R',
            DeviceOp::Bio(BioOp::Write) => 'W',
            DeviceOp::Bio(BioOp::Flush) => 'F',
            DeviceOp::Bio(BioOp::Discard) => 'D',
            DeviceOp::Bio(BioOp::WriteZeroes) => 'Z',
            DeviceOp::SetLen => 'L',
        }
    }
}

impl fmt::Display for TraceEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())?;
        match self.op {
            DeviceOp::Bio(BioOp::Flush) => {}
            DeviceOp::SetLen => write!(f, " {}", self.bytes)?,
            DeviceOp::Bio(_) => {
                write!(f, " {}+{}", self.sector, self.bytes.div_ceil(SECTOR_SIZE as u64))?;
            }
        }
        let BioFlags { sync, background, fua } = self.flags;
        for (is_set, name) in [(sync, "sync"), (background, "background"), (fua, "fua")] {
            if is_set {
                write!(f, " {name}")?;
            }
        }
        if let Some(hash) = self.hash {
            write!(f, " #{hash:016x}")?;
        }
        match self.result {
            None => write!(f, " in flight"),
            Some(Ok(())) => Ok(()),
            Some(Err(error)) if self.refused => write!(f, " refused: {error}"),
            Some(Err(error)) => write!(f, " failed: {error}"),
        }
    }
}

/// 64-bit FNV-1a of a bio's bytes.
fn hash(bio: &Bio) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut sector = [0; SECTOR_SIZE];
    let bytes = usize::try_from(bio.bytes()).expect("frames fit in memory");
    for at in (0..bytes).step_by(SECTOR_SIZE) {
        let piece = &mut sector[..SECTOR_SIZE.min(bytes - at)];
        bio.copy_out(at, piece);
        for byte in piece {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}

#[cfg(all(test, not(any(mpage_loom, mpage_shuttle))))]
mod tests;
