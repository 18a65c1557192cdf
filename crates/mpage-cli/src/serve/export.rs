//! What requests do to the image.

use std::ops::Range;
use std::sync::Arc;

use mpage::{AddressSpace, Advice, CachedFile, Error, ErrorKind, Span, SyncKind};
use rustix::io::Errno;

use super::handshake::{Agreed, Offer};
use super::wire::{self, Command, Request, WireError, can, chunk, flag};
use crate::workers::Lane;

/// Extents told in one reply at most.
const EXTENTS_MAX: usize = 1024;
/// Reads of at least so many bytes look for holes, which need not be sent.
const HOLES_FROM: u32 = 64 << 10;

/// The image, as it is exported.
pub struct Export {
    space: Arc<AddressSpace>,
    offer: Offer,
    fast_zero: bool,
}

/// How the image is exported.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The export's name.
    pub name: String,
    /// Nothing writes.
    pub read_only: bool,
    /// Zeros cost no more than telling where they are.
    pub fast_zero: bool,
}

impl Export {
    /// Exports the image behind `space`.
    pub fn new(space: &Arc<AddressSpace>, terms: Terms) -> Export {
        let writes = can::FUA | can::TRIM | can::WRITE_ZEROES;
        let writes = writes | if terms.fast_zero { can::FAST_ZERO } else { 0 };
        let flags = can::HAS_FLAGS | can::FLUSH | can::MULTI_CONN | can::CACHE;
        let flags = flags | if terms.read_only { can::READ_ONLY } else { writes };
        let offer = Offer { name: terms.name, size: space.size(), flags };
        Export { space: Arc::clone(space), offer, fast_zero: terms.fast_zero }
    }

    /// What clients are told.
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// An open of the image for one connection: it is told of each write error once.
    pub fn open(&self) -> CachedFile {
        CachedFile::new(Arc::clone(&self.space), !self.is_read_only())
    }

    fn is_read_only(&self) -> bool {
        self.offer.flags & can::READ_ONLY != 0
    }

    /// What is wrong with a request, before anything is done.
    pub fn check(&self, request: &Request, agreed: Agreed) -> Result<(), WireError> {
        let command = request.command;
        let end = request.offset.checked_add(u64::from(request.length));
        let inside = end.is_some_and(|end| end <= self.offer.size);
        if request.flags & !command.flags() != 0 {
            return Err(WireError::Inval);
        }
        match command {
            Command::Unknown(_) => Err(WireError::Inval),
            Command::Flush | Command::Disconnect => Ok(()),
            Command::Write | Command::WriteZeroes | Command::Trim if self.is_read_only() => {
                Err(WireError::Perm)
            }
            Command::Write | Command::WriteZeroes if !inside => Err(WireError::NoSpc),
            _ if !inside => Err(WireError::Inval),
            Command::Read if request.length > wire::PAYLOAD_MAX => Err(WireError::Inval),
            Command::BlockStatus if !agreed.allocation || request.length == 0 => {
                Err(WireError::Inval)
            }
            Command::WriteZeroes if request.has(flag::FAST_ZERO) && !self.fast_zero => {
                Err(WireError::NotSup)
            }
            _ => Ok(()),
        }
    }

    /// The lane for a request that has to wait.
    pub fn lane(request: &Request) -> Lane {
        match request.command {
            Command::Flush => Lane::Durable,
            _ if request.has(flag::FUA) && request.command != Command::Read => Lane::Durable,
            Command::Read | Command::Cache | Command::BlockStatus => Lane::Read,
            _ => Lane::Write,
        }
    }

    /// Does what a checked request asks, waiting as long as it takes; returns the whole reply.
    /// `stored` bytes of a write's `data` are in the cache already.
    pub fn run(
        file: &CachedFile,
        request: &Request,
        agreed: Agreed,
        (data, stored): (&[u8], usize),
    ) -> Vec<u8> {
        let mut reply = Vec::new();
        let done = match request.command {
            Command::Read if sends_holes(request, agreed) => read_spans(file, request, &mut reply),
            Command::Read => read(file, request, agreed, &mut reply),
            Command::BlockStatus => block_status(file, request, &mut reply),
            _ => change(file, request, (data, stored)),
        };
        match done {
            Ok(()) if reply.is_empty() => begin_reply(&mut reply, request, agreed, 0),
            Ok(()) => {}
            Err(error) => {
                reply.clear();
                error_reply(&mut reply, request, agreed, to_wire(request, &error));
            }
        }
        reply
    }
}

/// Does a request whose reply has no payload.
fn change(
    file: &CachedFile,
    request: &Request,
    (data, stored): (&[u8], usize),
) -> mpage::Result<()> {
    let range = range_of(request);
    let durable = request.has(flag::FUA);
    match request.command {
        Command::Flush => file.fdatasync(),
        Command::Cache => file.advise(range, Advice::WillNeed),
        Command::Write if durable => file.write_through_at(data, range.start, true),
        Command::Write => file.write_all_at(&data[stored..], range.start + stored as u64),
        Command::Trim => file.discard(range.clone()).and_then(|()| sync(file, durable, range)),
        Command::WriteZeroes => {
            let zeroed = match request.has(flag::NO_HOLE) {
                true => file.zero_range(range.clone()),
                false => file.punch_hole(range.clone()),
            };
            zeroed.and_then(|()| sync(file, durable, range))
        }
        // They have a payload, or are no requests to the image.
        Command::Read | Command::BlockStatus | Command::Disconnect | Command::Unknown(_) => Ok(()),
    }
}

fn range_of(request: &Request) -> Range<u64> {
    request.offset..request.offset + u64::from(request.length)
}

fn read(
    file: &CachedFile,
    request: &Request,
    agreed: Agreed,
    reply: &mut Vec<u8>,
) -> mpage::Result<()> {
    reply.reserve_exact(usize::try_from(request.length).expect("at most 32 MiB") + CHUNK_BYTES);
    begin_reply(reply, request, agreed, request.length);
    read_to(file, range_of(request), reply)
}

/// Puts the bytes of `range` at the end of `reply`.
fn read_to(file: &CachedFile, range: Range<u64>, reply: &mut Vec<u8>) -> mpage::Result<()> {
    let at = reply.len();
    reply.resize(at + usize::try_from(range.end - range.start).expect("at most 32 MiB"), 0);
    let (mut to, mut from) = (&mut reply[at..], range.start);
    while !to.is_empty() {
        let read = file.read_at(to, from)?;
        if read == 0 {
            return Err(
                Error::new(ErrorKind::InvalidInput, "read").because("the image became shorter")
            );
        }
        (to, from) = (&mut to[read..], from + read as u64);
    }
    Ok(())
}

/// True for a read whose holes are told instead of sent.
fn sends_holes(request: &Request, agreed: Agreed) -> bool {
    agreed.structured && !request.has(flag::DONT_FRAGMENT) && request.length >= HOLES_FROM
}

/// A read as one chunk for each run of data or hole.
fn read_spans(file: &CachedFile, request: &Request, reply: &mut Vec<u8>) -> mpage::Result<()> {
    let range = range_of(request);
    for Span { bytes, hole } in spans(file, &range, usize::MAX)? {
        let length = u32::try_from(bytes.end - bytes.start).expect("at most 32 MiB");
        let flags = if bytes.end == range.end { chunk::DONE } else { 0 };
        let (kind, payload) = match hole {
            true => (chunk::OFFSET_HOLE, 12),
            false => (chunk::OFFSET_DATA, length + 8),
        };
        wire::chunk_header(reply, request.cookie, (flags, kind), payload);
        reply.extend(bytes.start.to_be_bytes());
        match hole {
            true => reply.extend(length.to_be_bytes()),
            false => read_to(file, bytes, reply)?,
        }
    }
    Ok(())
}

/// The runs of data and of holes from the start of `range` on, as long as they can be: all of the
/// range, or `most` of them.
fn spans(file: &CachedFile, range: &Range<u64>, most: usize) -> mpage::Result<Vec<Span>> {
    let mut spans: Vec<Span> = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let mut span = file.span_at(at)?;
        span.bytes = at..span.bytes.end.min(range.end);
        at = span.bytes.end;
        let told = spans.len();
        match spans.last_mut() {
            Some(last) if last.hole == span.hole => last.bytes.end = at,
            _ if told == most => break,
            _ => spans.push(span),
        }
    }
    Ok(spans)
}

fn sync(file: &CachedFile, durable: bool, range: Range<u64>) -> mpage::Result<()> {
    if durable { file.sync_range(range, SyncKind::Data) } else { Ok(()) }
}

/// The extents of a range: a context, then length and state of each.
fn block_status(file: &CachedFile, request: &Request, reply: &mut Vec<u8>) -> mpage::Result<()> {
    let most = if request.has(flag::REQ_ONE) { 1 } else { EXTENTS_MAX };
    let spans = spans(file, &range_of(request), most)?;
    let payload = u32::try_from(4 + 8 * spans.len()).expect("a few extents");
    let kind = (chunk::DONE, chunk::BLOCK_STATUS);
    wire::chunk_header(reply, request.cookie, kind, payload);
    reply.extend(wire::ALLOCATION_ID.to_be_bytes());
    for Span { bytes, hole } in spans {
        let length = u32::try_from(bytes.end - bytes.start).expect("a request's length at most");
        let state = if hole { wire::HOLE_AND_ZERO } else { 0 };
        reply.extend(length.to_be_bytes());
        reply.extend(state.to_be_bytes());
    }
    Ok(())
}

fn to_wire(request: &Request, error: &Error) -> WireError {
    tracing::info!(command = ?request.command, offset = request.offset, length = request.length,
        %error, "a request failed");
    match (error.kind, error.kind.errno()) {
        (_, Errno::NOSPC | Errno::DQUOT) => WireError::NoSpc,
        (ErrorKind::ReadOnly, _) | (_, Errno::ROFS | Errno::PERM) => WireError::Perm,
        (_, Errno::NOMEM) => WireError::NoMem,
        (ErrorKind::InvalidInput, _) | (_, Errno::INVAL) => WireError::Inval,
        (_, Errno::OPNOTSUPP) => WireError::NotSup,
        _ => WireError::Io,
    }
}

/// The most bytes before the data of a reply.
const CHUNK_BYTES: usize = 28;

/// Begins the reply of a request that succeeds, at the end of `to`, up to where its payload of
/// `payload` bytes goes.
pub fn begin_reply(to: &mut Vec<u8>, request: &Request, agreed: Agreed, payload: u32) {
    let cookie = request.cookie;
    match request.command {
        Command::Read if agreed.structured && request.length > 0 => {
            wire::chunk_header(to, cookie, (chunk::DONE, chunk::OFFSET_DATA), payload + 8);
            to.extend(request.offset.to_be_bytes());
        }
        Command::Read if agreed.structured => {
            wire::chunk_header(to, cookie, (chunk::DONE, chunk::NONE), 0);
        }
        _ => wire::simple_reply(to, cookie, 0),
    }
}

/// Puts the reply of a request that failed at the end of `to`.
pub fn error_reply(to: &mut Vec<u8>, request: &Request, agreed: Agreed, error: WireError) {
    let needs_chunk = matches!(request.command, Command::Read | Command::BlockStatus);
    if agreed.structured && needs_chunk {
        wire::chunk_header(to, request.cookie, (chunk::DONE, chunk::ERROR), 6);
        to.extend((error as u32).to_be_bytes());
        to.extend(0_u16.to_be_bytes());
    } else {
        wire::simple_reply(to, request.cookie, error as u32);
    }
}
