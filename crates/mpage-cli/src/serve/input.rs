//! What a connection received and did not look at yet.

use std::io;
use std::sync::Arc;

use super::socket::Socket;

/// Bytes received at a time. A request with data up to this length is looked at where it lies.
pub const INPUT_BYTES: usize = 256 << 10;

/// A socket's received bytes.
#[derive(Debug)]
pub struct Input {
    socket: Arc<Socket>,
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Input {
    /// Nothing, of `socket`.
    pub fn new(socket: Arc<Socket>) -> Input {
        Input { socket, bytes: vec![0; INPUT_BYTES].into(), start: 0, end: 0 }
    }

    /// How much is there.
    pub fn received(&self) -> usize {
        self.end - self.start
    }

    /// Waits until the next `count` bytes are there, at most [`INPUT_BYTES`]; `None` when the
    /// stream ends before the first of them.
    ///
    /// # Errors
    ///
    /// The socket's; `UnexpectedEof` when the stream ends between them.
    pub fn peek(&mut self, count: usize) -> io::Result<Option<&[u8]>> {
        if self.bytes.len() - self.start < count || self.start == self.end {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.received() < count {
            let received = self.socket.receive(&mut self.bytes[self.end..])?;
            match received {
                0 if self.received() == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => self.end += received,
            }
        }
        Ok(Some(&self.bytes[self.start..self.start + count]))
    }

    /// Passes over `count` bytes that were looked at.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.received(), "only what is there can be passed over");
        self.start += count;
    }

    /// Takes the next `count` bytes out, waiting for them. Where the socket limits the wait for a
    /// byte, `goes_on` says each time whether to wait on.
    ///
    /// # Errors
    ///
    /// The socket's; `UnexpectedEof` when the stream ends before the last.
    pub fn take(&mut self, count: usize, goes_on: impl Fn() -> bool) -> io::Result<Vec<u8>> {
        let mut taken = vec![0; count];
        let mut done = self.received().min(count);
        taken[..done].copy_from_slice(&self.bytes[self.start..self.start + done]);
        self.start += done;
        while done < count {
            match self.socket.receive(&mut taken[done..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(received) => done += received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && goes_on() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(taken)
    }

    /// Passes over the next `count` bytes, waiting for them.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub fn skip(&mut self, mut count: usize) -> io::Result<()> {
        while count > 0 {
            if self.peek(1)?.is_none() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let here = self.received().min(count);
            self.consume(here);
            count -= here;
        }
        Ok(())
    }
}
