//! One client: receives its requests, answers at once what the cache can answer, and has the
//! workers do what must wait.
//!
//! Requests run in parallel and are answered in any order. The replies of requests answered at once
//! are gathered while more requests are already here, and sent together.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use mpage::CachedFile;
use mpage_locks::Mutex;

use super::export::{self, Export};
use super::handshake::{self, Agreed, Outcome};
use super::input::{INPUT_BYTES, Input};
use super::output::Output;
use super::socket::Socket;
use super::wire::{Command, PAYLOAD_MAX, REQUEST_BYTES, Request, WireError, flag};
use crate::budget::{Budget, STALL_LIMIT};
use crate::workers::Workers;

/// How long a client may take for each step of the handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(30);
/// Gathered replies are sent at the latest when they are this long, in bytes.
const GATHERED_MAX: usize = 256 << 10;
/// Longer reads are the workers': others of the connection need not wait for them.
const READ_NOW_MAX: usize = 256 << 10;

/// More than the header of any reply.
const REPLY_HEADER_MAX: usize = 64;

/// A connected client.
pub struct Connection {
    socket: Arc<Socket>,
    output: Arc<Output>,
}

impl Connection {
    /// For a client that has just connected.
    pub fn new(socket: Socket, budget: Arc<Budget>) -> Connection {
        let socket = Arc::new(socket);
        Connection { output: Output::new(Arc::clone(&socket), budget), socket }
    }

    /// Lets requests that have arrived be answered and takes no more.
    pub fn stop_receiving(&self) {
        self.socket.shut(Shutdown::Read);
    }

    /// Ends the connection now.
    pub fn break_off(&self) {
        self.output.break_off();
    }

    /// Serves the client until it goes; returns when each of its requests is answered.
    pub fn serve(&self, export: &Arc<Export>, workers: &Arc<Workers>) {
        if let Err(error) = self.talk(export, workers) {
            tracing::info!(%error, "a connection ended early");
        }
        self.output.finish();
        self.socket.shut(Shutdown::Both);
    }

    fn talk(&self, export: &Arc<Export>, workers: &Arc<Workers>) -> io::Result<()> {
        self.socket.limit_receive(Some(HANDSHAKE_LIMIT))?;
        self.socket.limit_send(STALL_LIMIT)?;
        let agreed = match handshake::negotiate(&mut &*self.socket, export.offer())? {
            Outcome::Go(agreed) => agreed,
            Outcome::Ended => return Ok(()),
        };
        self.socket.limit_receive(None)?;
        let mut session = Session {
            export,
            workers,
            agreed,
            file: export.open(),
            input: Input::new(Arc::clone(&self.socket)),
            socket: &self.socket,
            output: &self.output,
            gathered: Vec::new(),
        };
        let ended = session.run();
        session.send_gathered();
        ended
    }
}

/// The requests of one client.
struct Session<'a> {
    export: &'a Arc<Export>,
    workers: &'a Arc<Workers>,
    agreed: Agreed,
    file: CachedFile,
    input: Input,
    socket: &'a Socket,
    output: &'a Arc<Output>,
    /// Replies not sent yet.
    gathered: Vec<u8>,
}

impl Session<'_> {
    fn run(&mut self) -> io::Result<()> {
        loop {
            if self.input.received() < REQUEST_BYTES || self.gathered.len() >= GATHERED_MAX {
                self.send_gathered();
            }
            let Some(header) = self.input.peek(REQUEST_BYTES)? else { return Ok(()) };
            let header = header.try_into().expect("as many bytes as were asked for");
            let Some(request) = Request::parse(header) else {
                return Err(broken("no request where one was due"));
            };
            self.input.consume(REQUEST_BYTES);
            if request.command == Command::Disconnect {
                return Ok(());
            }
            self.take_request(request)?;
        }
    }

    fn take_request(&mut self, request: Request) -> io::Result<()> {
        let length = usize::try_from(request.length).expect("32 bits");
        if request.command == Command::Write && request.length > PAYLOAD_MAX {
            return Err(broken("a write of more data than any may have"));
        }
        if let Err(error) = self.export.check(&request, self.agreed) {
            if request.command == Command::Write {
                self.send_gathered();
                self.input.skip(length)?;
            }
            export::error_reply(&mut self.gathered, &request, self.agreed, error);
            return Ok(());
        }
        match request.command {
            Command::Read if length <= READ_NOW_MAX && self.read_now(&request) => Ok(()),
            Command::Read if length <= READ_NOW_MAX => self.fetch(request, length),
            Command::Write => self.write(request, length),
            _ => self.hand_over(request, Vec::new(), 0),
        }
    }

    /// Answers a read at once if all of it is cached.
    fn read_now(&mut self, request: &Request) -> bool {
        read_cached(&self.file, request, self.agreed, &mut self.gathered)
    }

    /// Starts to read what is missing. Who ends that answers, without a worker in between, unless
    /// there is more to wait for.
    fn fetch(&mut self, request: Request, length: usize) -> io::Result<()> {
        self.send_gathered();
        self.output.begin(length)?;
        let answer = Arc::new(Mutex::new(Some(self.answer(request, length))));
        let (theirs, file) = (Arc::clone(&answer), self.file.clone());
        let (agreed, workers) = (self.agreed, Arc::clone(self.workers));
        let answer_it = move || {
            let Some(answer) = theirs.lock().take() else { return };
            let mut reply = Vec::with_capacity(length + REPLY_HEADER_MAX);
            if read_cached(&file, &request, agreed, &mut reply) {
                answer.give(reply);
            } else {
                run_on(&workers, answer, file, Vec::new(), 0);
            }
        };
        let range = request.offset..request.offset + u64::from(request.length);
        let started = self.file.start_fetch(range, answer_it);
        if !started && let Some(answer) = answer.lock().take() {
            run_on(self.workers, answer, self.file.clone(), Vec::new(), 0);
        }
        Ok(())
    }

    fn answer(&self, request: Request, bytes: usize) -> Answer {
        Answer { output: Some(Arc::clone(self.output)), request, agreed: self.agreed, bytes }
    }

    /// Stores a write's data at once if nothing has to be waited for.
    fn write(&mut self, request: Request, length: usize) -> io::Result<()> {
        if length > INPUT_BYTES {
            return self.write_large(request, length);
        }
        if self.input.received() < length {
            self.send_gathered();
        }
        let Some(data) = self.input.peek(length)? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let durable = request.has(flag::FUA);
        let stored = if durable { 0 } else { store_now(&self.file, &request, data) };
        let left = (stored < length || durable).then(|| data.to_vec());
        self.input.consume(length);
        match left {
            Some(data) => self.hand_over(request, data, stored),
            None => {
                export::begin_reply(&mut self.gathered, &request, self.agreed, 0);
                Ok(())
            }
        }
    }

    /// Receives data that is too long to look at where it lies.
    fn write_large(&mut self, request: Request, length: usize) -> io::Result<()> {
        self.send_gathered();
        self.output.begin(length)?;
        self.socket.limit_receive(Some(STALL_LIMIT))?;
        let taken = self.input.take(length, || !self.output.is_in_the_way());
        let data = taken.inspect_err(|_| self.output.abandon(length))?;
        self.socket.limit_receive(None)?;
        let stored = match request.has(flag::FUA) {
            true => 0,
            false => store_now(&self.file, &request, &data),
        };
        if stored == length {
            let mut reply = Vec::new();
            export::begin_reply(&mut reply, &request, self.agreed, 0);
            drop(data);
            self.output.reply(length, reply);
            return Ok(());
        }
        self.run_later(request, data, stored);
        Ok(())
    }

    /// Has a worker do the request, once there is memory for it.
    fn hand_over(&mut self, request: Request, data: Vec<u8>, stored: usize) -> io::Result<()> {
        self.send_gathered();
        self.output.begin(bytes_of(&request, &data))?;
        self.run_later(request, data, stored);
        Ok(())
    }

    /// Has a worker do the request, which has begun. `stored` bytes of `data` are in the cache
    /// already.
    fn run_later(&self, request: Request, data: Vec<u8>, stored: usize) {
        let answer = self.answer(request, bytes_of(&request, &data));
        run_on(self.workers, answer, self.file.clone(), data, stored);
    }

    fn send_gathered(&mut self) {
        if !self.gathered.is_empty() {
            self.output.reply_now(std::mem::take(&mut self.gathered));
        }
    }
}

/// Puts the reply of a read at the end of `to` if all of it is cached.
fn read_cached(file: &CachedFile, request: &Request, agreed: Agreed, to: &mut Vec<u8>) -> bool {
    let before = to.len();
    export::begin_reply(to, request, agreed, request.length);
    let at = to.len();
    let length = usize::try_from(request.length).expect("32 bits");
    to.resize(at + length, 0);
    let all = file.try_read_at(&mut to[at..], request.offset) == Some(length);
    if !all {
        to.truncate(before);
    }
    all
}

/// Has a worker do a request, whose data is `data`; `stored` bytes of it are in the cache already.
fn run_on(workers: &Workers, answer: Answer, file: CachedFile, data: Vec<u8>, stored: usize) {
    let (request, agreed) = (answer.request, answer.agreed);
    let job = move || {
        let reply = Export::run(&file, &request, agreed, (&data, stored));
        drop(data);
        answer.give(reply);
    };
    workers.run(Export::lane(&request), Box::new(job));
}

/// How much of `data` could be stored without waiting. What failed, who waits tries again.
fn store_now(file: &CachedFile, request: &Request, data: &[u8]) -> usize {
    file.try_write_at(data, request.offset).unwrap_or(0)
}

/// The one answer that a request gets, whatever happens to who works on it.
struct Answer {
    /// `None` once it is given.
    output: Option<Arc<Output>>,
    request: Request,
    agreed: Agreed,
    bytes: usize,
}

impl Answer {
    fn give(mut self, reply: Vec<u8>) {
        let output = self.output.take().expect("an answer is given once");
        output.reply(self.bytes, reply);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let Some(output) = self.output.take() else { return };
        let mut reply = Vec::new();
        export::error_reply(&mut reply, &self.request, self.agreed, WireError::Io);
        output.reply(self.bytes, reply);
    }
}

/// The memory a request needs until its reply is sent.
fn bytes_of(request: &Request, data: &[u8]) -> usize {
    match request.command {
        Command::Read => usize::try_from(request.length).expect("32 bits"),
        _ => data.len(),
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
