//! A small NBD client, which can also say what no client should.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(100);

pub(crate) const READ: u16 = 0;
pub(crate) const WRITE: u16 = 1;
pub(crate) const DISC: u16 = 2;
pub(crate) const FLUSH: u16 = 3;
pub(crate) const TRIM: u16 = 4;
pub(crate) const CACHE: u16 = 5;
pub(crate) const ZEROES: u16 = 6;
pub(crate) const STATUS: u16 = 7;

pub(crate) const FUA: u16 = 1;
pub(crate) const NO_HOLE: u16 = 2;
pub(crate) const DF: u16 = 4;
pub(crate) const REQ_ONE: u16 = 8;
pub(crate) const FAST_ZERO: u16 = 16;

pub(crate) const EPERM: u32 = 1;
pub(crate) const EIO: u32 = 5;
pub(crate) const EINVAL: u32 = 22;
pub(crate) const ENOSPC: u32 = 28;

pub(crate) const OPT_EXPORT_NAME: u32 = 1;
pub(crate) const OPT_ABORT: u32 = 2;
pub(crate) const OPT_LIST: u32 = 3;
pub(crate) const OPT_STARTTLS: u32 = 5;
pub(crate) const OPT_INFO: u32 = 6;
pub(crate) const OPT_GO: u32 = 7;
pub(crate) const OPT_STRUCTURED: u32 = 8;
pub(crate) const OPT_LIST_META: u32 = 9;
pub(crate) const OPT_SET_META: u32 = 10;

pub(crate) const REP_ACK: u32 = 1;
pub(crate) const REP_SERVER: u32 = 2;
pub(crate) const REP_INFO: u32 = 3;
pub(crate) const REP_META: u32 = 4;
pub(crate) const ERR_UNSUP: u32 = 0x8000_0001;
pub(crate) const ERR_POLICY: u32 = 0x8000_0002;
pub(crate) const ERR_INVALID: u32 = 0x8000_0003;
pub(crate) const ERR_UNKNOWN: u32 = 0x8000_0006;
pub(crate) const ERR_TOO_BIG: u32 = 0x8000_0009;

pub(crate) const CHUNK_NONE: u16 = 0;
pub(crate) const CHUNK_DATA: u16 = 1;
pub(crate) const CHUNK_HOLE: u16 = 2;
pub(crate) const CHUNK_STATUS: u16 = 5;
pub(crate) const CHUNK_ERROR: u16 = 0x8001;

/// A connection.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    structured: bool,
    cookie: u64,
    /// Lengths of reads without a reply, by cookie.
    reads: HashMap<u64, u32>,
    pub(crate) size: u64,
    pub(crate) flags: u16,
}

/// A whole reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) cookie: u64,
    pub(crate) error: u32,
    /// The data of a simple reply to a read.
    pub(crate) data: Vec<u8>,
    /// The chunks of a structured one: kind and payload.
    pub(crate) chunks: Vec<(u16, Vec<u8>)>,
}

impl Client {
    /// A client that has said nothing yet.
    pub(crate) fn silent(stream: UnixStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let reads = HashMap::new();
        Client { stream, structured: false, cookie: 0, reads, size: 0, flags: 0 }
    }

    /// A client that was greeted and has greeted.
    pub(crate) fn greeted(stream: UnixStream, flags: u32) -> Client {
        let mut client = Client::silent(stream);
        assert_eq!(&client.take(16), b"NBDMAGICIHAVEOPT");
        assert_eq!(client.take(2), [0, 3], "fixed newstyle, no zeroes");
        client.send_raw(&flags.to_be_bytes());
        client
    }

    /// A client in transmission, with simple replies.
    pub(crate) fn simple(stream: UnixStream) -> Client {
        let mut client = Client::greeted(stream, 3);
        client.go("");
        client
    }

    /// A client in transmission, with structured replies and the allocation context.
    pub(crate) fn structured(stream: UnixStream) -> Client {
        let mut client = Client::greeted(stream, 3);
        client.agree_on_structure();
        let replies = client.option(OPT_SET_META, &meta("", &["base:allocation"]));
        assert_eq!(replies.len(), 2, "the context and the end");
        client.go("");
        client
    }

    pub(crate) fn agree_on_structure(&mut self) {
        assert_eq!(self.option(OPT_STRUCTURED, &[]), [(REP_ACK, vec![])]);
        self.structured = true;
    }

    /// Ends the handshake with the export `name`.
    pub(crate) fn go(&mut self, name: &str) {
        let replies = self.option(OPT_GO, &wanted(name, &[]));
        assert_eq!(replies.len(), 2, "{replies:?}");
        self.learn(&replies[0].1[2..]);
    }

    /// Learns size and flags.
    pub(crate) fn learn(&mut self, bytes: &[u8]) {
        self.size = number(&bytes[..8]);
        self.flags = u16::try_from(number(&bytes[8..10])).unwrap();
    }

    /// The replies to an option, up to the last.
    pub(crate) fn option(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.send_raw(&option_bytes(option, data));
        let mut replies = Vec::new();
        loop {
            assert_eq!(number(&self.take(8)), 0x0003_e889_0455_65a9);
            assert_eq!(self.take_u32(), option);
            let kind = self.take_u32();
            let length = self.take_u32();
            replies.push((kind, self.take(length as usize)));
            if kind == REP_ACK || kind >= 1 << 31 {
                return replies;
            }
        }
    }

    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// As [`send_raw`](Self::send_raw), to a server that may hang up before it has heard it all.
    pub(crate) fn send_nonsense(&mut self, bytes: &[u8]) {
        match self.stream.write_all(bytes) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::BrokenPipe),
        }
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn take_u32(&mut self) -> u32 {
        u32::try_from(number(&self.take(4))).unwrap()
    }

    /// Sends a request and returns its cookie.
    pub(crate) fn send(
        &mut self,
        (command, flags): (u16, u16),
        offset: u64,
        length: u32,
        data: &[u8],
    ) -> u64 {
        self.cookie += 1;
        if command == READ {
            let _none = self.reads.insert(self.cookie, length);
        }
        let mut bytes = request_bytes((command, flags), self.cookie, offset, length);
        bytes.extend(data);
        self.send_raw(&bytes);
        self.cookie
    }

    /// The next reply.
    pub(crate) fn reply(&mut self) -> Reply {
        match self.take_u32() {
            0x6744_6698 => self.simple_reply(),
            0x668e_33ef => self.structured_reply(),
            other => panic!("no reply begins with {other:#x}"),
        }
    }

    fn simple_reply(&mut self) -> Reply {
        let error = self.take_u32();
        let cookie = number(&self.take(8));
        let length = self.reads.remove(&cookie).unwrap_or(0);
        assert!(!self.structured || length == 0, "reads have structured replies");
        let data = if error == 0 { self.take(length as usize) } else { Vec::new() };
        Reply { cookie, error, data, chunks: Vec::new() }
    }

    fn structured_reply(&mut self) -> Reply {
        assert!(self.structured, "only who asked gets structured replies");
        let mut reply = Reply { cookie: 0, error: 0, data: Vec::new(), chunks: Vec::new() };
        loop {
            let flags = number(&self.take(2));
            let kind = u16::try_from(number(&self.take(2))).unwrap();
            reply.cookie = number(&self.take(8));
            let length = self.take_u32();
            let payload = self.take(length as usize);
            if kind == CHUNK_ERROR {
                reply.error = u32::try_from(number(&payload[..4])).unwrap();
            }
            reply.chunks.push((kind, payload));
            if flags == 1 {
                let _read = self.reads.remove(&reply.cookie);
                return reply;
            }
            assert_eq!(self.take_u32(), 0x668e_33ef, "a reply is whole");
        }
    }

    /// The reply to the only request in flight.
    pub(crate) fn ask(&mut self, command: (u16, u16), offset: u64, length: u32) -> Reply {
        let cookie = self.send(command, offset, length, &[]);
        let reply = self.reply();
        assert_eq!(reply.cookie, cookie);
        reply
    }

    /// As [`ask`](Self::ask): the error, or zero.
    pub(crate) fn tell(&mut self, command: (u16, u16), offset: u64, length: u32) -> u32 {
        self.ask(command, offset, length).error
    }

    pub(crate) fn write(&mut self, flags: u16, offset: u64, data: &[u8]) -> u32 {
        let length = u32::try_from(data.len()).unwrap();
        let cookie = self.send((WRITE, flags), offset, length, data);
        let reply = self.reply();
        assert_eq!(reply.cookie, cookie);
        reply.error
    }

    pub(crate) fn read(&mut self, offset: u64, length: u32) -> Result<Vec<u8>, u32> {
        let reply = self.ask((READ, 0), offset, length);
        if reply.error != 0 { Err(reply.error) } else { Ok(reply.content(offset, length)) }
    }

    pub(crate) fn flush(&mut self) -> u32 {
        self.tell((FLUSH, 0), 0, 0)
    }

    /// What the server still says until it hangs up.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest,
            // It went with something of ours unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("the server did not hang up: {error}"),
        }
    }

    /// Says that nothing more comes, and reads to the end.
    pub(crate) fn leave(self) -> Vec<u8> {
        match self.stream.shutdown(Shutdown::Write) {
            Ok(()) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotConnected),
        }
        self.rest()
    }
}

impl Reply {
    /// The content of a read from `offset` on.
    pub(crate) fn content(&self, offset: u64, length: u32) -> Vec<u8> {
        if self.chunks.is_empty() {
            return self.data.clone();
        }
        let mut content = vec![0xee; length as usize];
        let mut told = 0;
        for (kind, payload) in &self.chunks {
            if *kind == CHUNK_NONE {
                continue;
            }
            let at = usize::try_from(number(&payload[..8]) - offset).unwrap();
            let piece = match *kind {
                CHUNK_DATA => payload[8..].to_vec(),
                CHUNK_HOLE => vec![0; usize::try_from(number(&payload[8..12])).unwrap()],
                other => panic!("a read has no chunk {other}"),
            };
            content[at..at + piece.len()].copy_from_slice(&piece);
            told += piece.len();
        }
        assert_eq!(told, length as usize, "each byte is told once");
        content
    }

    /// The extents of a block status: lengths and states.
    pub(crate) fn extents(&self) -> Vec<(u32, u32)> {
        assert_eq!(self.error, 0);
        let [(CHUNK_STATUS, payload)] = &self.chunks[..] else { panic!("{:?}", self.chunks) };
        let pairs = payload[4..].chunks(8);
        let u32_of = |bytes: &[u8]| u32::try_from(number(bytes)).unwrap();
        pairs.map(|pair| (u32_of(&pair[..4]), u32_of(&pair[4..]))).collect()
    }
}

/// A big-endian number.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

pub(crate) fn request_bytes(
    (command, flags): (u16, u16),
    cookie: u64,
    offset: u64,
    length: u32,
) -> Vec<u8> {
    let mut bytes = 0x2560_9513_u32.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

pub(crate) fn option_bytes(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
    bytes.extend(data);
    bytes
}

fn counted(text: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// The data of INFO and GO.
pub(crate) fn wanted(name: &str, kinds: &[u16]) -> Vec<u8> {
    let mut bytes = counted(name);
    bytes.extend(u16::try_from(kinds.len()).unwrap().to_be_bytes());
    kinds.iter().for_each(|kind| bytes.extend(kind.to_be_bytes()));
    bytes
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT.
pub(crate) fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut bytes = counted(name);
    bytes.extend(u32::try_from(queries.len()).unwrap().to_be_bytes());
    queries.iter().for_each(|query| bytes.extend(counted(query)));
    bytes
}

/// Bytes that differ from place to place and from `seed` to `seed`; none is zero.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u8::try_from(state >> 56).unwrap() | 1
    };
    (0..length).map(|_| next()).collect()
}
