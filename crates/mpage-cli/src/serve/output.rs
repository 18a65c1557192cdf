//! The replies of a connection on their way to the client.
//!
//! Whoever has a reply puts it into the queue. If nobody is sending, it sends what is in the queue,
//! as far as the socket takes it without waiting; so a reply mostly goes out on the thread that
//! made it. What is left then is the sender's, a thread that may wait and is started when it is
//! first needed: a client that does not read its replies holds nobody else's thread.
//!
//! 1. `sending` is true while somebody sends; only that thread writes to the socket.
//! 2. A reply is sent whole before the next begins.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use mpage_locks::{Condvar, Mutex, thread};

use super::socket::Socket;

/// The replies of one connection.
#[derive(Debug)]
pub struct Output {
    socket: Arc<Socket>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Vec<u8>>,
    /// Bytes of the first in the queue that are sent.
    sent: usize,
    /// Invariant 1.
    sending: bool,
    sender: Sender,
    /// Requests that have no reply in the queue yet, and the bytes they and the queue need.
    unanswered: usize,
    bytes: usize,
    /// The client is gone: replies are dropped.
    broken: bool,
    /// No more replies come.
    closed: bool,
}

/// The thread that may wait for the client.
#[derive(Debug, Default, PartialEq, Eq)]
enum Sender {
    #[default]
    NotStarted,
    Idle,
    /// It is sending.
    Busy,
}

/// Requests of one connection that may be unanswered at once.
const UNANSWERED_MAX: usize = 128;
/// Bytes of their data, in either direction, that may be in memory at once; one request may always.
pub const BYTES_MAX: usize = 32 << 20;

impl Output {
    /// No replies, for `socket`.
    pub fn new(socket: Arc<Socket>) -> Arc<Output> {
        Arc::new(Output { socket, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Waits until one more request, with `bytes` of data, may be worked on.
    pub fn begin(&self, bytes: usize) {
        let mut state = self.state.lock();
        let is_full = |state: &State| {
            let idle = state.unanswered == 0 && state.queue.is_empty();
            let full = state.unanswered >= UNANSWERED_MAX || state.bytes + bytes > BYTES_MAX;
            full && !idle && !state.broken
        };
        while is_full(&state) {
            state = self.changed.wait(state);
        }
        state.unanswered += 1;
        state.bytes += bytes;
    }

    /// The reply of a request that began with `bytes` of data.
    pub fn reply(self: &Arc<Output>, bytes: usize, reply: Vec<u8>) {
        let mut state = self.state.lock();
        state.unanswered -= 1;
        state.bytes = state.bytes - bytes + reply.len();
        state.queue.push_back(reply);
        if state.broken {
            state.drop_queue();
        }
        let sends = !state.sending && !state.queue.is_empty();
        state.sending |= sends;
        drop(state);
        self.changed.notify_all();
        if sends {
            self.send(Socket::send_now);
        }
    }

    /// The replies of requests that did not begin, made by the thread that receives: it waits for
    /// the client.
    pub fn reply_now(self: &Arc<Output>, replies: Vec<u8>) {
        let mut state = self.state.lock();
        state.bytes += replies.len();
        state.queue.push_back(replies);
        if state.broken {
            state.drop_queue();
        }
        let sends = !state.sending && !state.queue.is_empty();
        state.sending |= sends;
        drop(state);
        if sends {
            self.send(Socket::send);
        }
    }

    /// Sends the queue. The caller has set `sending`.
    fn send(self: &Arc<Output>, send: fn(&Socket, &[u8]) -> io::Result<usize>) {
        let mut state = self.state.lock();
        loop {
            let Some(reply) = state.queue.pop_front() else {
                state.sending = false;
                drop(state);
                self.changed.notify_all();
                return;
            };
            let mut sent = std::mem::take(&mut state.sent);
            drop(state);
            let result = loop {
                if sent == reply.len() {
                    break Ok(());
                }
                match send(&self.socket, &reply[sent..]) {
                    Ok(more) => sent += more,
                    Err(error) => break Err(error),
                }
            };
            state = self.state.lock();
            match result {
                Ok(()) => state.bytes -= reply.len(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    state.queue.push_front(reply);
                    state.sent = sent;
                    return self.hand_over(state);
                }
                Err(error) => {
                    tracing::debug!(%error, "a client does not take its replies");
                    state.bytes -= reply.len();
                    state.broken = true;
                    state.drop_queue();
                }
            }
        }
    }

    /// Lets the thread that may wait go on sending; `sending` is its from now on.
    fn hand_over(self: &Arc<Output>, mut state: mpage_locks::MutexGuard<'_, State>) {
        let before = std::mem::replace(&mut state.sender, Sender::Busy);
        drop(state);
        self.changed.notify_all();
        if before != Sender::NotStarted {
            return;
        }
        let output = Arc::clone(self);
        if let Err(error) = thread::spawn("mpage-nbd-send", move || output.run_sender()) {
            tracing::error!(%error, "no thread to send replies: a client loses its connection");
            let mut state = self.state.lock();
            state.broken = true;
            state.drop_queue();
            state.sending = false;
            drop(state);
            self.changed.notify_all();
        }
    }

    fn run_sender(self: Arc<Output>) {
        let mut state = self.state.lock();
        loop {
            if state.sender == Sender::Busy {
                drop(state);
                self.send(Socket::send);
                state = self.state.lock();
                state.sender = Sender::Idle;
            } else if state.closed {
                return;
            } else {
                state = self.changed.wait(state);
            }
        }
    }

    /// Waits until every request has its reply and the client has them all, or is gone.
    pub fn finish(&self) {
        let mut state = self.state.lock();
        while state.unanswered > 0 || state.sending {
            state = self.changed.wait(state);
        }
        state.closed = true;
        drop(state);
        self.changed.notify_all();
    }

    /// The client is gone, or shall be: nothing more is sent.
    pub fn break_off(&self) {
        let mut state = self.state.lock();
        state.broken = true;
        if !state.sending {
            state.drop_queue();
        }
        drop(state);
        self.socket.shut(std::net::Shutdown::Both);
        self.changed.notify_all();
    }
}

impl State {
    fn drop_queue(&mut self) {
        let dropped: usize = self.queue.iter().map(Vec::len).sum();
        self.bytes -= dropped;
        self.queue.clear();
        self.sent = 0;
    }
}
