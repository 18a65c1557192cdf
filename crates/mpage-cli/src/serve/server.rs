//! The connections of a server: taking them, and ending them.

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use mpage_locks::{Condvar, Mutex, clock, thread};

use super::connection::Connection;
use super::export::Export;
use super::listener::Listener;
use super::socket::Socket;
use crate::budget::Budget;
use crate::workers::Workers;

/// Clients at once; one more is turned away.
pub const CONNECTIONS_MAX: usize = 64;

/// A server: an export and who is connected to it.
pub struct Server {
    export: Arc<Export>,
    workers: Arc<Workers>,
    budget: Arc<Budget>,
    connections: Mutex<Connections>,
    ended: Condvar,
}

#[derive(Default)]
struct Connections {
    open: HashMap<u64, Arc<Connection>>,
    taken: u64,
    stopping: bool,
}

impl Server {
    /// A server nobody is connected to.
    ///
    /// # Errors
    ///
    /// The system's, when it has no threads for us.
    pub fn new(export: Export) -> io::Result<Arc<Server>> {
        Ok(Arc::new(Server {
            export: Arc::new(export),
            workers: Arc::new(Workers::start()?),
            budget: Arc::default(),
            connections: Mutex::default(),
            ended: Condvar::new(),
        }))
    }

    /// What it exports.
    pub fn export(&self) -> &Export {
        &self.export
    }

    /// The memory of requests.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Waits until fewer than `count` clients are connected.
    pub fn wait_until_fewer_are_connected(&self, count: usize) {
        let mut connections = self.connections.lock();
        while connections.open.len() >= count {
            connections = self.ended.wait(connections);
        }
    }

    /// Waits until no client is connected.
    pub fn wait_until_nobody_is_connected(&self) {
        self.wait_until_fewer_are_connected(1);
    }

    /// Takes connections until `stop` can be read; each is served by a thread of its own.
    pub fn listen(self: &Arc<Server>, listener: &Listener, stop: &UnixStream) {
        loop {
            match listener.accept(stop) {
                Ok(Some(socket)) => self.connect(socket),
                Ok(None) => return,
                Err(error) => {
                    tracing::error!(%error, "a client could not connect");
                    if is_lasting(&error) && self.wait_for_an_end() {
                        return;
                    }
                }
            }
        }
    }

    /// Serves one more client, unless there are too many.
    pub fn connect(self: &Arc<Server>, socket: Socket) {
        let connection = Arc::new(Connection::new(socket, Arc::clone(&self.budget)));
        let mut connections = self.connections.lock();
        if connections.stopping || connections.open.len() >= CONNECTIONS_MAX {
            drop(connections);
            tracing::warn!(max = CONNECTIONS_MAX, "a client was turned away: too many connections");
            connection.break_off();
            return;
        }
        let id = connections.taken;
        connections.taken += 1;
        let _none = connections.open.insert(id, Arc::clone(&connection));
        drop(connections);
        let server = Arc::clone(self);
        let served = thread::spawn("mpage-nbd", move || {
            let ended = Ended { server: &server, id };
            connection.serve(&server.export, &server.workers);
            drop(ended);
        });
        if let Err(error) = served {
            tracing::error!(%error, "no thread for another client");
            self.forget(id);
        }
    }

    /// Takes no more requests, and waits for at most `limit` until those that have arrived are
    /// answered. Then all connections are ended; returns how many were not done.
    pub fn stop(&self, limit: Duration) -> usize {
        let until_ns = clock::now_ns() + u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let mut connections = self.connections.lock();
        connections.stopping = true;
        connections.open.values().for_each(|connection| connection.stop_receiving());
        while !connections.open.is_empty() {
            let left = until_ns.saturating_sub(clock::now_ns());
            if left == 0 {
                break;
            }
            let limit = Duration::from_nanos(left);
            (connections, _) = self.ended.wait_for(&self.connections, connections, limit);
        }
        connections.open.values().for_each(|connection| connection.break_off());
        connections.open.len()
    }

    /// Waits until a connection ends, where the process has no descriptors for another; true when
    /// the server stops.
    fn wait_for_an_end(&self) -> bool {
        let connections = self.connections.lock();
        let limit = Duration::from_secs(1);
        let (connections, _) = self.ended.wait_for(&self.connections, connections, limit);
        connections.stopping
    }

    fn forget(&self, id: u64) {
        let _ended = self.connections.lock().open.remove(&id);
        self.ended.notify_all();
    }
}

/// Takes a connection off the list, also when its thread panics.
struct Ended<'a> {
    server: &'a Server,
    id: u64,
}

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.server.forget(self.id);
    }
}

/// True for an error that trying again at once would meet again.
fn is_lasting(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    use rustix::io::Errno;
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}
