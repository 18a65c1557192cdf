//! The handshake: from the greeting to the export a connection is for.
//!
//! Fixed newstyle. A client that breaks the protocol loses its connection; one that asks for what
//! is not there is told so and may go on.

use std::io::{self, Read, Write};

use super::wire::{self, Fields, can, info, option, option_reply};

/// Most bytes of an option's data: names have 4096 at most, and queries name a few.
const OPTION_BYTES_MAX: u32 = 64 << 10;
/// Most bytes of an option that is skipped for being too long.
const SKIPPED_MAX: u32 = 1 << 20;
/// The length of requests that suits the cache best.
const BLOCK_PREFERRED: u32 = 4096;

/// What a client is told of the export.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its name. The empty name stands for it too.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Bits of [`can`], without [`can::DONT_FRAGMENT`].
    pub flags: u16,
}

/// What was agreed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agreed {
    /// Reads are answered by structured replies.
    pub structured: bool,
    /// The client may ask where there is data.
    pub allocation: bool,
}

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Requests follow.
    Go(Agreed),
    /// The client wants no more.
    Ended,
}

/// Talks until the client has chosen the export, or goes.
///
/// # Errors
///
/// The stream's; `InvalidData` when the client breaks the protocol.
pub fn negotiate(stream: &mut (impl Read + Write), offer: &Offer) -> io::Result<Outcome> {
    let mut greeting = Vec::new();
    wire::GREETING.iter().for_each(|magic| greeting.extend(magic.to_be_bytes()));
    greeting.extend((wire::FIXED_NEWSTYLE | wire::NO_ZEROES).to_be_bytes());
    stream.write_all(&greeting)?;
    let flags = u32::from_be_bytes(take(stream)?);
    if flags & !u32::from(wire::FIXED_NEWSTYLE | wire::NO_ZEROES) != 0 {
        return Err(broken("unknown client flags"));
    }
    let no_zeroes = flags & u32::from(wire::NO_ZEROES) != 0;
    let mut talk = Talk { stream, offer, agreed: Agreed::default(), option: 0 };
    loop {
        if u64::from_be_bytes(take(talk.stream)?) != wire::OPTION_MAGIC {
            return Err(broken("no option where one was due"));
        }
        talk.option = u32::from_be_bytes(take(talk.stream)?);
        let length = u32::from_be_bytes(take(talk.stream)?);
        if length > OPTION_BYTES_MAX {
            if talk.option == option::EXPORT_NAME {
                return Err(broken("a name longer than any"));
            }
            talk.skip(length)?;
            continue;
        }
        let mut data = vec![0; usize::try_from(length).expect("at most 64 KiB")];
        talk.stream.read_exact(&mut data)?;
        if talk.option == option::EXPORT_NAME {
            return talk.export_name(&data, no_zeroes);
        }
        if let Some(outcome) = talk.answer(&data)? {
            return Ok(outcome);
        }
    }
}

/// A handshake under way.
struct Talk<'a, S> {
    stream: &'a mut S,
    offer: &'a Offer,
    agreed: Agreed,
    /// The option that is being answered.
    option: u32,
}

impl<S: Read + Write> Talk<'_, S> {
    /// Answers an option; some end the handshake.
    fn answer(&mut self, data: &[u8]) -> io::Result<Option<Outcome>> {
        match self.option {
            option::ABORT => {
                self.reply(option_reply::ACK, &[])?;
                return Ok(Some(Outcome::Ended));
            }
            option::LIST if data.is_empty() => {
                let name = self.offer.name.as_bytes();
                self.reply(option_reply::SERVER, &counted(name))?;
                self.reply(option_reply::ACK, &[])?;
            }
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.agreed.structured = true;
                self.reply(option_reply::ACK, &[])?;
            }
            option::LIST | option::STRUCTURED_REPLY => self.refuse("no data belongs here")?,
            option::STARTTLS => {
                self.reply(
                    option_reply::ERR_POLICY,
                    b"no encryption: use a Unix socket or a tunnel",
                )?;
            }
            option::INFO | option::GO => return self.info(data),
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.meta_context(data)?,
            _ => self.reply(option_reply::ERR_UNSUP, b"unknown option")?,
        }
        Ok(None)
    }

    /// The option that has no reply but the export itself.
    fn export_name(&mut self, name: &[u8], no_zeroes: bool) -> io::Result<Outcome> {
        if !self.is_known(name) {
            return Err(broken("no export has the name the client chose"));
        }
        let mut reply = Vec::new();
        reply.extend(self.offer.size.to_be_bytes());
        reply.extend(self.flags().to_be_bytes());
        reply.resize(reply.len() + if no_zeroes { 0 } else { 124 }, 0);
        self.stream.write_all(&reply)?;
        Ok(Outcome::Go(self.agreed))
    }

    fn info(&mut self, data: &[u8]) -> io::Result<Option<Outcome>> {
        let mut fields = Fields(data);
        let Some((name, wanted)) = fields.counted().zip(info_requests(&mut fields)) else {
            self.refuse("a broken request for information")?;
            return Ok(None);
        };
        if !self.is_known(name) {
            self.reply(option_reply::ERR_UNKNOWN, b"no such export: try the empty name")?;
            return Ok(None);
        }
        let mut about = info::EXPORT.to_be_bytes().to_vec();
        about.extend(self.offer.size.to_be_bytes());
        about.extend(self.flags().to_be_bytes());
        self.reply(option_reply::INFO, &about)?;
        for kind in wanted {
            let mut about = kind.to_be_bytes().to_vec();
            match kind {
                info::NAME => about.extend(self.offer.name.as_bytes()),
                info::DESCRIPTION => about.extend(b"a disk image behind the page cache of mpage"),
                info::BLOCK_SIZE => {
                    [1, BLOCK_PREFERRED, wire::PAYLOAD_MAX]
                        .iter()
                        .for_each(|size| about.extend(size.to_be_bytes()));
                }
                _ => continue,
            }
            self.reply(option_reply::INFO, &about)?;
        }
        self.reply(option_reply::ACK, &[])?;
        Ok((self.option == option::GO).then_some(Outcome::Go(self.agreed)))
    }

    fn meta_context(&mut self, data: &[u8]) -> io::Result<()> {
        let choosing = self.option == option::SET_META_CONTEXT;
        if choosing {
            self.agreed.allocation = false;
        }
        let mut fields = Fields(data);
        let Some((name, queries)) = fields.counted().zip(queries(&mut fields)) else {
            return self.refuse("a broken query for contexts");
        };
        if choosing && !self.agreed.structured {
            return self.refuse("ask for structured replies first");
        }
        if !self.is_known(name) {
            return self.reply(option_reply::ERR_UNKNOWN, b"no such export: try the empty name");
        }
        let is_allocation = |query: &&[u8]| *query == wire::ALLOCATION.as_bytes();
        let asked = match choosing {
            true => queries.iter().any(is_allocation),
            false => {
                queries.is_empty() || queries.iter().any(|q| *q == b"base:" || is_allocation(q))
            }
        };
        if asked {
            let id = if choosing { wire::ALLOCATION_ID } else { 0 };
            let mut context = id.to_be_bytes().to_vec();
            context.extend(wire::ALLOCATION.as_bytes());
            self.agreed.allocation |= choosing;
            self.reply(option_reply::META_CONTEXT, &context)?;
        }
        self.reply(option_reply::ACK, &[])
    }

    fn is_known(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.offer.name.as_bytes()
    }

    fn flags(&self) -> u16 {
        self.offer.flags | if self.agreed.structured { can::DONT_FRAGMENT } else { 0 }
    }

    fn refuse(&mut self, why: &str) -> io::Result<()> {
        self.reply(option_reply::ERR_INVALID, why.as_bytes())
    }

    fn skip(&mut self, length: u32) -> io::Result<()> {
        if length > SKIPPED_MAX {
            return Err(broken("an option longer than any"));
        }
        let skipped = io::copy(&mut self.stream.take(u64::from(length)), &mut io::sink())?;
        if skipped < u64::from(length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.reply(option_reply::ERR_TOO_BIG, b"too much data")
    }

    fn reply(&mut self, kind: u32, data: &[u8]) -> io::Result<()> {
        let mut reply = wire::OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
        reply.extend(self.option.to_be_bytes());
        reply.extend(kind.to_be_bytes());
        reply.extend(counted(data));
        self.stream.write_all(&reply)
    }
}

/// The kinds of information asked for, when they fill the rest of the option exactly.
fn info_requests(fields: &mut Fields<'_>) -> Option<Vec<u16>> {
    let count = fields.u16()?;
    let wanted = (0..count).map(|_| fields.u16()).collect::<Option<_>>()?;
    fields.0.is_empty().then_some(wanted)
}

/// The queries of an option, when they fill the rest of it exactly.
fn queries<'a>(fields: &mut Fields<'a>) -> Option<Vec<&'a [u8]>> {
    let count = fields.u32()?;
    let mut queries = Vec::new();
    for _ in 0..count {
        queries.push(fields.counted()?);
    }
    fields.0.is_empty().then_some(queries)
}

fn counted(data: &[u8]) -> Vec<u8> {
    let mut counted = u32::try_from(data.len()).expect("a short text").to_be_bytes().to_vec();
    counted.extend(data);
    counted
}

fn take<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
