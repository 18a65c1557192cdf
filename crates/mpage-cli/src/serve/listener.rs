//! Where clients connect.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};

use super::socket::Socket;

/// A socket that takes connections. A Unix socket's file goes with it.
#[derive(Debug)]
pub enum Listener {
    /// On this machine.
    Unix(UnixListener, PathBuf),
    /// Over the network.
    Tcp(TcpListener),
}

/// Why nobody can connect. Each message has the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another server answers there.
    #[error("{}: another server listens on this socket: stop it, or choose another path with \
             --socket", .0.display())]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{}: is no socket: remove it, or choose another path with --socket", .0.display())]
    NotASocket(PathBuf),
    /// The path cannot be a socket's.
    #[error("{}: cannot make a socket there: {source}: check that the folder exists and can be \
             written, and that the path is shorter than 108 bytes", .path.display())]
    Unix {
        /// The path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The address cannot be listened on.
    #[error(
        "{address}: cannot listen there: {source}: choose another address or port with \
             --listen"
    )]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
}

impl Listener {
    /// Listens on a Unix socket at `path`. The socket of a server that is no more is replaced.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub fn unix(path: &Path) -> Result<Listener, ListenError> {
        let failed = |source| ListenError::Unix { path: path.into(), source };
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(ListenError::NotASocket(path.into()));
            }
            match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(failed)?;
                }
                _ => return Err(ListenError::InUse(path.into())),
            }
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Listener::Unix(listener, path.into()))
    }

    /// Listens on a TCP address.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub fn tcp(address: SocketAddr) -> Result<Listener, ListenError> {
        let failed = |source| ListenError::Tcp { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Listener::Tcp(listener))
    }

    /// How a client names the export `name` here.
    pub fn uri(&self, name: &str) -> String {
        match self {
            Listener::Unix(_, path) => {
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                let path = path.as_os_str().as_encoded_bytes();
                format!("nbd+unix:///{}?socket={}", escaped(name.as_bytes()), escaped(path))
            }
            Listener::Tcp(listener) => match listener.local_addr() {
                Ok(address) => format!("nbd://{address}/{}", escaped(name.as_bytes())),
                Err(_) => "nbd://?".into(),
            },
        }
    }

    /// The next client; `None` once `stop` can be read.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn accept(&self, stop: impl AsFd) -> io::Result<Option<Socket>> {
        loop {
            let mut fds = [
                PollFd::new(self, PollFlags::IN),
                PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
            ];
            let _ready: usize = match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            if !fds[1].revents().is_empty() {
                return Ok(None);
            }
            match self.take() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                taken => return taken.map(Some),
            }
        }
    }

    fn take(&self) -> io::Result<Socket> {
        match self {
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                Ok(Socket::Unix(stream))
            }
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept()?;
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                Ok(Socket::Tcp(stream))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(listener, _) => listener.as_fd(),
            Listener::Tcp(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Listener::Unix(_, path) = self
            && let Err(error) = fs::remove_file(&*path)
        {
            tracing::warn!(path = %path.display(), %error, "the socket's file stays");
        }
    }
}

/// `bytes` as a part of a URI.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, &byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
        text
    })
}
