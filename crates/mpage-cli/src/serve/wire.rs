//! The NBD protocol: its numbers, and what they look like on the wire. All are big-endian.
//!
//! Source: the NBD protocol, doc/proto.md of the nbd project.

/// Greets, then says which handshake follows. `NBDMAGIC`, `IHAVEOPT`
pub const GREETING: [u64; 2] = [0x4e42_444d_4147_4943, OPTION_MAGIC];
/// Begins each option. `IHAVEOPT`
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Begins each reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Begins each request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Begins each simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Begins each chunk of a structured reply.
pub const CHUNK_MAGIC: u32 = 0x668e_33ef;

/// Handshake flags, of either side: options have replies; no 124 zeros after the export.
pub const FIXED_NEWSTYLE: u16 = 1;
/// See [`FIXED_NEWSTYLE`].
pub const NO_ZEROES: u16 = 2;

/// Most bytes of a request's data, in either direction: what a client that does not ask may send.
pub const PAYLOAD_MAX: u32 = 32 << 20;
/// Bytes of a request's header.
pub const REQUEST_BYTES: usize = 28;

/// Options.
pub mod option {
    /// Ends the handshake; has no reply that could tell an error.
    pub const EXPORT_NAME: u32 = 1;
    /// Ends the connection.
    pub const ABORT: u32 = 2;
    /// Names the exports.
    pub const LIST: u32 = 3;
    /// Asks for encryption.
    pub const STARTTLS: u32 = 5;
    /// Tells about an export.
    pub const INFO: u32 = 6;
    /// As [`INFO`], and ends the handshake.
    pub const GO: u32 = 7;
    /// Asks for structured replies.
    pub const STRUCTURED_REPLY: u32 = 8;
    /// Asks which metadata contexts there are.
    pub const LIST_META_CONTEXT: u32 = 9;
    /// Chooses metadata contexts.
    pub const SET_META_CONTEXT: u32 = 10;
}

/// Replies to options.
pub mod option_reply {
    /// Done.
    pub const ACK: u32 = 1;
    /// An export's name.
    pub const SERVER: u32 = 2;
    /// Something about an export.
    pub const INFO: u32 = 3;
    /// A metadata context.
    pub const META_CONTEXT: u32 = 4;
    /// The server does not know the option.
    pub const ERR_UNSUP: u32 = 1 << 31 | 1;
    /// The server will not.
    pub const ERR_POLICY: u32 = 1 << 31 | 2;
    /// The option's data makes no sense.
    pub const ERR_INVALID: u32 = 1 << 31 | 3;
    /// There is no such export.
    pub const ERR_UNKNOWN: u32 = 1 << 31 | 6;
    /// The option's data is too long.
    pub const ERR_TOO_BIG: u32 = 1 << 31 | 9;
}

/// What [`option_reply::INFO`] tells.
pub mod info {
    /// Size and transmission flags.
    pub const EXPORT: u16 = 0;
    /// The name.
    pub const NAME: u16 = 1;
    /// Words for people.
    pub const DESCRIPTION: u16 = 2;
    /// Least, best and largest lengths of requests.
    pub const BLOCK_SIZE: u16 = 3;
}

/// Transmission flags: what the export can do.
pub mod can {
    /// The field holds flags.
    pub const HAS_FLAGS: u16 = 1;
    /// Nothing that writes.
    pub const READ_ONLY: u16 = 1 << 1;
    /// Flush.
    pub const FLUSH: u16 = 1 << 2;
    /// Writes that are durable when they are answered.
    pub const FUA: u16 = 1 << 3;
    /// Trim.
    pub const TRIM: u16 = 1 << 5;
    /// Write zeroes.
    pub const WRITE_ZEROES: u16 = 1 << 6;
    /// Reads answered in one chunk.
    pub const DONT_FRAGMENT: u16 = 1 << 7;
    /// A flush on one connection covers all.
    pub const MULTI_CONN: u16 = 1 << 8;
    /// Cache.
    pub const CACHE: u16 = 1 << 10;
    /// Zeros that fail where they would take as long as writing them.
    pub const FAST_ZERO: u16 = 1 << 11;
}

/// Flags of a request.
pub mod flag {
    /// Durable when it is answered.
    pub const FUA: u16 = 1;
    /// Zeros keep their room.
    pub const NO_HOLE: u16 = 1 << 1;
    /// One chunk.
    pub const DONT_FRAGMENT: u16 = 1 << 2;
    /// One extent.
    pub const REQ_ONE: u16 = 1 << 3;
    /// Fail rather than write zeros one by one.
    pub const FAST_ZERO: u16 = 1 << 4;
}

/// Types of chunks of structured replies.
pub mod chunk {
    /// The last chunk of its reply.
    pub const DONE: u16 = 1;
    /// No data.
    pub const NONE: u16 = 0;
    /// Data at an offset.
    pub const OFFSET_DATA: u16 = 1;
    /// Zeros at an offset.
    pub const OFFSET_HOLE: u16 = 2;
    /// Extents of a metadata context.
    pub const BLOCK_STATUS: u16 = 5;
    /// An error.
    pub const ERROR: u16 = 1 << 15 | 1;
}

/// The metadata context that tells data from holes.
pub const ALLOCATION: &str = "base:allocation";
/// The number this server gives it.
pub const ALLOCATION_ID: u32 = 1;
/// The state of an extent of it that is a hole and reads as zeros.
pub const HOLE_AND_ZERO: u32 = 3;

/// Errors a request can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum WireError {
    /// Not allowed: a write to a read-only export.
    Perm = 1,
    /// The device failed.
    Io = 5,
    /// No memory.
    NoMem = 12,
    /// The request makes no sense.
    Inval = 22,
    /// No room, or behind the end.
    NoSpc = 28,
    /// Cannot be done.
    NotSup = 95,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Data of a range.
    Read,
    /// Data for a range, which follows.
    Write,
    /// The end of the connection.
    Disconnect,
    /// Everything that was answered becomes durable.
    Flush,
    /// The content of a range is not needed.
    Trim,
    /// A range will be read soon.
    Cache,
    /// A range becomes zeros.
    WriteZeroes,
    /// Where a range has data.
    BlockStatus,
    /// Something this server does not know.
    Unknown(u16),
}

impl Command {
    fn from_wire(command: u16) -> Command {
        match command {
            0 => Command::Read,
            1 => Command::Write,
            2 => Command::Disconnect,
            3 => Command::Flush,
            4 => Command::Trim,
            5 => Command::Cache,
            6 => Command::WriteZeroes,
            7 => Command::BlockStatus,
            other => Command::Unknown(other),
        }
    }

    /// The flags it may have.
    pub fn flags(self) -> u16 {
        match self {
            Command::Read => flag::DONT_FRAGMENT | flag::FUA,
            Command::WriteZeroes => flag::FUA | flag::NO_HOLE | flag::FAST_ZERO,
            Command::BlockStatus => flag::REQ_ONE | flag::FUA,
            _ => flag::FUA,
        }
    }
}

/// The header of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bits of [`flag`].
    pub flags: u16,
    /// What is asked for.
    pub command: Command,
    /// The client's name for the request.
    pub cookie: u64,
    /// Where, in bytes.
    pub offset: u64,
    /// How much, in bytes.
    pub length: u32,
}

impl Request {
    /// Takes a header apart; `None` when it does not begin as one does.
    pub fn parse(header: &[u8; REQUEST_BYTES]) -> Option<Request> {
        let mut fields = Fields(header);
        if fields.u32()? != REQUEST_MAGIC {
            return None;
        }
        Some(Request {
            flags: fields.u16()?,
            command: Command::from_wire(fields.u16()?),
            cookie: fields.u64()?,
            offset: fields.u64()?,
            length: fields.u32()?,
        })
    }

    /// True when the request has all of `flag`'s bits.
    pub fn has(&self, flag: u16) -> bool {
        self.flags & flag == flag
    }
}

/// Takes numbers off the front of bytes.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `count` bytes; `None` when there are fewer.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// The next number.
    pub fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.bytes(2)?.try_into().expect("two bytes")))
    }

    /// The next number.
    pub fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes(4)?.try_into().expect("four bytes")))
    }

    /// The next number.
    pub fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.bytes(8)?.try_into().expect("eight bytes")))
    }

    /// The next number, and as many bytes as it says.
    pub fn counted(&mut self) -> Option<&'a [u8]> {
        let count = self.u32()?;
        self.bytes(usize::try_from(count).expect("32 bits"))
    }
}

/// Puts a simple reply's header at the end of `to`; a read's data follows it.
pub fn simple_reply(to: &mut Vec<u8>, cookie: u64, error: u32) {
    to.extend(SIMPLE_REPLY_MAGIC.to_be_bytes());
    to.extend(error.to_be_bytes());
    to.extend(cookie.to_be_bytes());
}

/// Puts a chunk's header at the end of `to`; `length` bytes of payload follow it.
pub fn chunk_header(to: &mut Vec<u8>, cookie: u64, (flags, kind): (u16, u16), length: u32) {
    to.extend(CHUNK_MAGIC.to_be_bytes());
    to.extend(flags.to_be_bytes());
    to.extend(kind.to_be_bytes());
    to.extend(cookie.to_be_bytes());
    to.extend(length.to_be_bytes());
}
