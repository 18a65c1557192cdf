//! One connection's socket, of either family, used by several threads.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{RecvFlags, SendFlags, recv, send};

/// A connected stream.
#[derive(Debug)]
pub enum Socket {
    /// On this machine.
    Unix(UnixStream),
    /// Over the network.
    Tcp(TcpStream),
}

impl Socket {
    /// Reads what is there into `to`, waiting for the first byte; 0 at the end of the stream.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn receive(&self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(self, &mut *to, RecvFlags::empty()) {
                Ok((_, received)) => return Ok(received),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends from the front of `from`; returns how much. Waits until there is room for some.
    ///
    /// # Errors
    ///
    /// The system's; never a signal.
    pub fn send(&self, from: &[u8]) -> io::Result<usize> {
        self.send_with(from, SendFlags::NOSIGNAL)
    }

    /// As [`send`](Self::send), without waiting: `WouldBlock` when there is no room.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn send_now(&self, from: &[u8]) -> io::Result<usize> {
        self.send_with(from, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    fn send_with(&self, from: &[u8], flags: SendFlags) -> io::Result<usize> {
        loop {
            match send(self, from, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => return Ok(sent),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Lets a receive wait for `limit` at most; `None`: for ever.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn limit_receive(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => stream.set_read_timeout(limit),
            Socket::Tcp(stream) => stream.set_read_timeout(limit),
        }
    }

    /// Lets a send wait for `limit` at most for room.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn limit_send(&self, limit: Duration) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => stream.set_write_timeout(Some(limit)),
            Socket::Tcp(stream) => stream.set_write_timeout(Some(limit)),
        }
    }

    /// Ends one direction or both. What has arrived can still be received.
    pub fn shut(&self, how: Shutdown) {
        let shut = match self {
            Socket::Unix(stream) => stream.shutdown(how),
            Socket::Tcp(stream) => stream.shutdown(how),
        };
        if let Err(error) = shut {
            tracing::debug!(%error, "the client was gone before its connection was ended");
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.receive(to)
    }
}

impl Write for &Socket {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.send(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
