//! The replies of a connection on their way to the client.
//!
//! Whoever has a reply puts it into the queue. If nobody is sending, it sends what is in the queue,
//! as far as the socket takes it without waiting; so a reply mostly goes out on the thread that
//! made it. What is left then is the sender's, a thread that may wait and is started when it is
//! first needed: a client that does not read its replies holds nobody else's thread.
//!
//! 1. `sending` is true while somebody sends; only that thread writes to the socket.
//! 2. A reply is sent whole before the next begins.
//! 3. `shared` is what the connection has of the shared memory: enough for all of `bytes` that
//!    began, beyond its own.

use std::collections::VecDeque;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;

use mpage_locks::atomic::{AtomicBool, Ordering};
use mpage_locks::{Condvar, Mutex, MutexGuard, thread};

use super::socket::Socket;
use crate::budget::{Budget, beyond_own};

/// The replies of one connection.
#[derive(Debug)]
pub struct Output {
    socket: Arc<Socket>,
    budget: Arc<Budget>,
    state: Mutex<State>,
    changed: Condvar,
    /// The client is gone, or shall be: replies are dropped.
    broken: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Vec<u8>>,
    /// Bytes of the first in the queue that are sent.
    sent: usize,
    /// Invariant 1.
    sending: bool,
    sender: Sender,
    /// Requests that have no reply in the queue yet.
    unanswered: usize,
    /// Bytes that they and the queue need.
    bytes: usize,
    /// Invariant 3.
    shared: usize,
    /// No more replies come.
    closed: bool,
}

/// The thread that may wait for the client.
#[derive(Debug, Default, PartialEq, Eq)]
enum Sender {
    #[default]
    NotStarted,
    Idle,
    /// It has to send.
    Busy,
}

/// Requests of one connection that may be unanswered at once.
const UNANSWERED_MAX: usize = 128;
/// Bytes of their data, in either direction, that may be in memory at once; one request may always.
pub const BYTES_MAX: usize = 32 << 20;

impl Output {
    /// No replies, for `socket`.
    pub fn new(socket: Arc<Socket>, budget: Arc<Budget>) -> Arc<Output> {
        Arc::new(Output {
            socket,
            budget,
            state: Mutex::default(),
            changed: Condvar::new(),
            broken: AtomicBool::new(false),
        })
    }

    /// Waits until one more request, with `bytes` of data, may be worked on.
    ///
    /// # Errors
    ///
    /// `BrokenPipe` when the client is gone: the request has not begun then.
    pub fn begin(&self, bytes: usize) -> io::Result<()> {
        let mut state = self.state.lock();
        let is_full = |state: &State| {
            let idle = state.unanswered == 0 && state.queue.is_empty();
            let full = state.unanswered >= UNANSWERED_MAX || state.bytes + bytes > BYTES_MAX;
            full && !idle && !self.is_broken()
        };
        while is_full(&state) {
            state = self.changed.wait(state);
        }
        let needed = beyond_own(state.bytes + bytes).saturating_sub(state.shared);
        if needed > 0 {
            drop(state);
            if !self.budget.take(needed, &self.broken) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            state = self.state.lock();
            state.shared += needed;
        }
        state.unanswered += 1;
        state.bytes += bytes;
        self.settle(&mut state);
        Ok(())
    }

    /// The reply of a request that began with `bytes` of data.
    pub fn reply(self: &Arc<Output>, bytes: usize, reply: Vec<u8>) {
        let mut state = self.state.lock();
        state.unanswered -= 1;
        state.bytes -= bytes;
        self.send_also(state, reply, false);
    }

    /// The replies of requests that did not begin, made by the thread that receives: it waits for
    /// the client.
    pub fn reply_now(self: &Arc<Output>, replies: Vec<u8>) {
        self.send_also(self.state.lock(), replies, true);
    }

    /// A request that began with `bytes` of data and gets no reply: its data never came.
    pub fn abandon(&self, bytes: usize) {
        let mut state = self.state.lock();
        state.unanswered -= 1;
        state.bytes -= bytes;
        self.settle(&mut state);
        drop(state);
        self.changed.notify_all();
    }

    /// True when the client holds memory that others wait for.
    pub fn is_in_the_way(&self) -> bool {
        self.state.lock().shared > 0 && self.budget.is_wanted()
    }

    /// Puts `reply` into the queue, and sends if nobody else does.
    fn send_also(
        self: &Arc<Output>,
        mut state: MutexGuard<'_, State>,
        reply: Vec<u8>,
        waits: bool,
    ) {
        state.bytes += reply.len();
        state.queue.push_back(reply);
        if self.is_broken() && !state.sending {
            state.drop_queue();
        }
        self.settle(&mut state);
        let sends = !state.sending && !state.queue.is_empty();
        state.sending |= sends;
        drop(state);
        self.changed.notify_all();
        if sends {
            self.send(waits);
        }
    }

    /// Sends the queue; where that takes waiting and the caller does not wait, the sender's thread
    /// goes on. The caller has set `sending`.
    fn send(self: &Arc<Output>, waits: bool) {
        let mut state = self.state.lock();
        while let Some(reply) = state.queue.pop_front() {
            let mut sent = std::mem::take(&mut state.sent);
            drop(state);
            let result = self.send_rest(&reply, &mut sent, waits);
            state = self.state.lock();
            match result {
                Ok(()) => state.bytes -= reply.len(),
                Err(error) if self.goes_on(&state, &error, waits) => {
                    state.queue.push_front(reply);
                    state.sent = sent;
                    if !waits {
                        return self.hand_over(state);
                    }
                }
                Err(error) => {
                    tracing::info!(%error, "a client does not take its replies");
                    state.bytes -= reply.len();
                    self.lose_client(&mut state);
                }
            }
            self.settle(&mut state);
            self.changed.notify_all();
        }
        state.sending = false;
        drop(state);
        self.changed.notify_all();
    }

    fn send_rest(&self, reply: &[u8], sent: &mut usize, waits: bool) -> io::Result<()> {
        while *sent < reply.len() {
            *sent += match waits {
                true => self.socket.send(&reply[*sent..])?,
                false => self.socket.send_now(&reply[*sent..])?,
            };
        }
        Ok(())
    }

    /// True when a client that took nothing is waited for.
    fn goes_on(&self, state: &State, error: &io::Error, waits: bool) -> bool {
        let in_the_way = || state.shared > 0 && self.budget.is_wanted();
        error.kind() == io::ErrorKind::WouldBlock && !self.is_broken() && !(waits && in_the_way())
    }

    /// Lets the thread that may wait go on sending; `sending` is its from now on.
    fn hand_over(self: &Arc<Output>, mut state: MutexGuard<'_, State>) {
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
            self.lose_client(&mut state);
            state.sending = false;
            drop(state);
            self.changed.notify_all();
        }
    }

    fn run_sender(self: Arc<Output>) {
        let mut state = self.state.lock();
        loop {
            if state.sender == Sender::Busy {
                // Set before it sends: who hands over next may do so as soon as it is done.
                state.sender = Sender::Idle;
                drop(state);
                self.send(true);
                state = self.state.lock();
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
        self.broken.store(true, Ordering::Relaxed);
        if !state.sending {
            state.drop_queue();
            self.settle(&mut state);
        }
        drop(state);
        self.socket.shut(Shutdown::Both);
        self.changed.notify_all();
    }

    /// Drops what is queued; who receives from the client ends.
    fn lose_client(&self, state: &mut State) {
        self.broken.store(true, Ordering::Relaxed);
        state.drop_queue();
        self.settle(state);
        self.socket.shut(Shutdown::Both);
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Gives shared memory back that is needed no longer. Invariant 3.
    fn settle(&self, state: &mut State) {
        let unneeded = state.shared.saturating_sub(beyond_own(state.bytes));
        if unneeded > 0 {
            state.shared -= unneeded;
            self.budget.give(unneeded);
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.budget.give(self.state.lock().shared);
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
