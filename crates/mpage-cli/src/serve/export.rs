//! What requests do to the image.

use std::ops::Range;
use std::sync::Arc;

use mpage::{AddressSpace, CachedFile, Error, ErrorKind, Span, SyncKind};
use rustix::io::Errno;

use super::handshake::{Agreed, Offer};
use super::wire::{self, Command, Request, WireError, can, chunk, flag};
use super::workers::Lane;

/// Extents told in one reply at most.
const EXTENTS_MAX: usize = 1024;
/// Bytes read at a time for a cache request.
const CACHE_BYTES: u64 = 1 << 20;

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

    /// Does what a checked request asks, waiting as long as it takes, and puts the payload of the
    /// reply, if it has one, at the end of `reply`.
    pub fn run(
        file: &CachedFile,
        request: &Request,
        data: &[u8],
        reply: &mut Vec<u8>,
    ) -> Result<(), WireError> {
        let range = request.offset..request.offset + u64::from(request.length);
        let durable = request.has(flag::FUA);
        let done = match request.command {
            Command::Read => return read(file, &range, reply),
            Command::BlockStatus => block_status(file, &range, request.has(flag::REQ_ONE), reply),
            Command::Cache => cache(file, range),
            Command::Flush => file.fdatasync(),
            Command::Write if durable => file.write_through_at(data, range.start, true),
            Command::Write => file.write_all_at(data, range.start),
            Command::Trim => file.discard(range.clone()).and_then(|()| sync(file, durable, range)),
            Command::WriteZeroes => {
                let zeroed = match request.has(flag::NO_HOLE) {
                    true => file.zero_range(range.clone()),
                    false => file.punch_hole(range.clone()),
                };
                zeroed.and_then(|()| sync(file, durable, range))
            }
            Command::Disconnect | Command::Unknown(_) => Ok(()),
        };
        done.map_err(|error| to_wire(request, &error))
    }
}

fn read(file: &CachedFile, range: &Range<u64>, reply: &mut Vec<u8>) -> Result<(), WireError> {
    let at = reply.len();
    let length = usize::try_from(range.end - range.start).expect("at most 32 MiB");
    reply.resize(at + length, 0);
    match file.read_at(&mut reply[at..], range.start) {
        Ok(read) if read == length => Ok(()),
        short_or_failed => {
            tracing::warn!(?range, result = ?short_or_failed, "a read failed");
            reply.truncate(at);
            Err(WireError::Io)
        }
    }
}

fn sync(file: &CachedFile, durable: bool, range: Range<u64>) -> mpage::Result<()> {
    if durable { file.sync_range(range, SyncKind::Data) } else { Ok(()) }
}

fn cache(file: &CachedFile, range: Range<u64>) -> mpage::Result<()> {
    let mut at = range.start;
    let mut scratch = vec![0; usize::try_from(CACHE_BYTES).expect("a mebibyte")];
    while at < range.end {
        let length = usize::try_from((range.end - at).min(CACHE_BYTES)).expect("a mebibyte");
        let read = file.read_at(&mut scratch[..length], at)?;
        at += read.max(1) as u64;
    }
    Ok(())
}

/// The extents of a range: a context, then length and state of each.
fn block_status(
    file: &CachedFile,
    range: &Range<u64>,
    only_one: bool,
    reply: &mut Vec<u8>,
) -> mpage::Result<()> {
    reply.extend(wire::ALLOCATION_ID.to_be_bytes());
    let mut extents: Vec<(u32, u32)> = Vec::new();
    let mut at = range.start;
    while at < range.end && extents.len() < EXTENTS_MAX {
        let Span { bytes, hole } = file.span_at(at)?;
        let end = bytes.end.min(range.end);
        let length = u32::try_from(end - at).expect("a request has 32 bits of length");
        let state = if hole { wire::HOLE_AND_ZERO } else { 0 };
        match extents.last_mut() {
            Some(last) if last.1 == state => last.0 += length,
            Some(_) if only_one => break,
            _ => extents.push((length, state)),
        }
        at = end;
    }
    for (length, state) in extents {
        reply.extend(length.to_be_bytes());
        reply.extend(state.to_be_bytes());
    }
    Ok(())
}

fn to_wire(request: &Request, error: &Error) -> WireError {
    tracing::warn!(command = ?request.command, offset = request.offset, length = request.length,
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
        Command::BlockStatus => {
            wire::chunk_header(to, cookie, (chunk::DONE, chunk::BLOCK_STATUS), payload);
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

/// The whole reply of a request that was run.
pub fn reply(
    request: &Request,
    agreed: Agreed,
    run: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
) -> Vec<u8> {
    let mut reply = Vec::new();
    let payload = match request.command {
        Command::Read => request.length,
        _ => 0,
    };
    begin_reply(&mut reply, request, agreed, payload);
    let header = reply.len();
    match run(&mut reply) {
        Ok(()) if request.command == Command::BlockStatus => {
            // Now its length is known.
            let length = u32::try_from(reply.len() - header).expect("a few extents");
            reply[header - 4..header].copy_from_slice(&length.to_be_bytes());
        }
        Ok(()) => {}
        Err(error) => {
            reply.clear();
            error_reply(&mut reply, request, agreed, error);
        }
    }
    reply
}
