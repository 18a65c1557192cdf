//! A small client of NBD: one connection, one request at a time, simple replies.
//!
//! What it speaks is in the protocol's own document, doc/proto.md of the NBD project: the fixed
//! newstyle handshake with `NBD_OPT_GO`, then reads, writes and flushes.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// `NBDMAGIC`, which a server says first.
const MAGIC: u64 = 0x4e42_444d_4147_4943;

/// `IHAVEOPT`: the server is of the newstyle; it begins each option, too.
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;

const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

/// `NBD_FLAG_FIXED_NEWSTYLE` and `NBD_FLAG_NO_ZEROES`, from the server and to it.
const HANDSHAKE_FLAGS: u16 = 3;

const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const INFO_EXPORT: u16 = 0;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;

/// `NBD_CMD_FLAG_FUA`: durable when it is answered.
const FUA: u16 = 1;

/// A connection to the default export.
pub(crate) struct Client {
    stream: UnixStream,
    size: u64,
    requests: u64,
}

impl Client {
    /// Connects to the server at `socket`.
    pub(crate) fn connect(socket: &Path) -> Result<Client> {
        let mut stream = UnixStream::connect(socket)?;
        expect(u64::from_be_bytes(bytes(&mut stream)?), MAGIC, "no NBD server")?;
        expect(u64::from_be_bytes(bytes(&mut stream)?), OPTION_MAGIC, "no newstyle")?;
        let flags = u16::from_be_bytes(bytes(&mut stream)?);
        expect(flags & HANDSHAKE_FLAGS, HANDSHAKE_FLAGS, "no fixed newstyle without zeroes")?;
        stream.write_all(&u32::from(HANDSHAKE_FLAGS).to_be_bytes())?;
        let mut option = OPTION_MAGIC.to_be_bytes().to_vec();
        option.extend(OPTION_GO.to_be_bytes());
        // A name of no bytes, and no questions for more than the size.
        option.extend(6_u32.to_be_bytes());
        option.extend([0; 6]);
        stream.write_all(&option)?;
        let size = size(&mut stream)?;
        Ok(Client { stream, size, requests: 0 })
    }

    /// The export's size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Reads what is at `offset`.
    pub(crate) fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.request(READ, 0, offset, buffer.len(), &[])?;
        self.stream.read_exact(buffer)
    }

    /// Writes `data` at `offset`.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.request(WRITE, 0, offset, data.len(), data)
    }

    /// Writes `data` at `offset`, durably.
    pub(crate) fn write_fua(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.request(WRITE, FUA, offset, data.len(), data)
    }

    /// Makes all that was written durable.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.request(FLUSH, 0, 0, 0, &[])
    }

    /// Says goodbye.
    pub(crate) fn disconnect(mut self) -> Result<()> {
        self.send(DISCONNECT, 0, 0, 0, &[])
    }

    /// Makes one request, and reads its answer up to the data.
    fn request(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        length: usize,
        data: &[u8],
    ) -> Result<()> {
        let cookie = self.requests;
        self.send(command, flags, offset, length, data)?;
        expect(u32::from_be_bytes(bytes(&mut self.stream)?), REPLY_MAGIC, "no simple reply")?;
        let error = u32::from_be_bytes(bytes(&mut self.stream)?);
        expect(u64::from_be_bytes(bytes(&mut self.stream)?), cookie, "another request's reply")?;
        expect(error, 0, "the server's error")
    }

    fn send(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        length: usize,
        data: &[u8],
    ) -> Result<()> {
        let length = u32::try_from(length).map_err(|_| wrong("too long a request"))?;
        let mut head = REQUEST_MAGIC.to_be_bytes().to_vec();
        head.extend(flags.to_be_bytes());
        head.extend(command.to_be_bytes());
        head.extend(self.requests.to_be_bytes());
        head.extend(offset.to_be_bytes());
        head.extend(length.to_be_bytes());
        head.extend(data);
        self.requests += 1;
        self.stream.write_all(&head)
    }
}

/// Reads the answers to `NBD_OPT_GO`, and returns the export's size.
fn size(stream: &mut UnixStream) -> Result<u64> {
    let mut size = None;
    loop {
        expect(u64::from_be_bytes(bytes(stream)?), OPTION_REPLY_MAGIC, "no reply to an option")?;
        expect(u32::from_be_bytes(bytes(stream)?), OPTION_GO, "another option's reply")?;
        let kind = u32::from_be_bytes(bytes(stream)?);
        let length = u64::from(u32::from_be_bytes(bytes(stream)?));
        let mut data = Vec::new();
        let _length = (&mut *stream).take(length).read_to_end(&mut data)?;
        match (kind, data.as_slice()) {
            (REPLY_ACK, _) => return size.ok_or_else(|| wrong("the export's size was not told")),
            (REPLY_INFO, [high, low, number @ ..])
                if u16::from_be_bytes([*high, *low]) == INFO_EXPORT =>
            {
                let (number, _flags) = number.split_first_chunk().ok_or_else(|| wrong("short"))?;
                size = Some(u64::from_be_bytes(*number));
            }
            (REPLY_INFO, _) => {}
            _ => return Err(wrong(&format!("the export is refused: reply {kind:#x}"))),
        }
    }
}

fn bytes<const N: usize>(stream: &mut UnixStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn expect<T: PartialEq + std::fmt::Debug>(found: T, expected: T, what: &str) -> Result<()> {
    let message = || wrong(&format!("{what}: {found:?}, not {expected:?}"));
    if found == expected { Ok(()) } else { Err(message()) }
}

fn wrong(message: &str) -> Error {
    Error::new(ErrorKind::InvalidData, message)
}
