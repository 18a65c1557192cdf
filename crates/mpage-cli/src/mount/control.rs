//! How a mount tells its end to those who wait for it.
//!
//! umount(2) returns when the kernel is done with a mount; the server writes out behind it. Who has
//! to know how that went connects to the server before: to an abstract Unix socket, whose name has
//! the number of the mount's device in it, so that the mount itself need not be asked. The server
//! says in lines:
//!
//! ```text
//! mpage DIRECTORY        where it is mounted
//! left BYTES             again and again, while it writes
//! end STATUS WORDS       how it went; STATUS 0 if all is on the image
//! ```
//!
//! A server that says no `end` was killed. Numbers of devices are given away again while a server
//! may still be writing: then the next name is taken, and the directory tells them apart.

use std::io::{self, BufRead, BufReader, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use mpage_block::{Mount, mounts};
use mpage_locks::{Mutex, thread};

/// Servers that may have had one device's number before.
const NAMES_MAX: u32 = 16;

fn address(device: &str, number: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("mpage/mount/{device}/{number}"))
}

/// What the server of a mount at `point` says first.
fn hello(point: &Path) -> String {
    format!("mpage {}\n", point.as_os_str().as_bytes().escape_ascii())
}

/// The newest mount at `point`.
pub(crate) fn mount_at(point: &Path) -> Option<Mount> {
    mounts().into_iter().rfind(|mount| mount.point == point)
}

/// Those who wait for a mount's end.
#[derive(Clone, Default)]
pub(super) struct Control {
    waiting: Arc<Mutex<Vec<UnixStream>>>,
}

impl Control {
    /// Lets those who wait for the mount on `device` connect.
    ///
    /// # Errors
    ///
    /// The system's.
    pub(super) fn listen(device: &str, point: &Path) -> io::Result<Control> {
        let mut bound = Err(io::ErrorKind::AddrInUse.into());
        for number in 0..NAMES_MAX {
            bound = UnixListener::bind_addr(&address(device, number)?);
            match &bound {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                _ => break,
            }
        }
        let (listener, control) = (bound?, Control::default());
        let waiting = Arc::clone(&control.waiting);
        let hello = hello(point);
        let _thread = thread::spawn("mpage-control", move || {
            for mut stream in listener.incoming().flatten() {
                let told = stream.write_all(hello.as_bytes());
                // Who connects and does not listen is not waited for.
                if told.and_then(|()| stream.set_nonblocking(true)).is_ok() {
                    waiting.lock().push(stream);
                }
            }
        })?;
        Ok(control)
    }

    /// Says that `bytes` are left to be written.
    pub(super) fn left(&self, bytes: u64) {
        self.say(&format!("left {bytes}\n"));
    }

    /// Says how it ended.
    pub(super) fn end(&self, status: i32, words: &str) {
        self.say(&format!("end {status} {}\n", words.replace('\n', " ")));
    }

    fn say(&self, line: &str) {
        // Who does not listen any more, or does not keep up, is not told.
        self.waiting.lock().retain_mut(|stream| stream.write_all(line.as_bytes()).is_ok());
    }
}

/// How a mount ended, or is going to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// So many bytes are left to be written.
    Left(u64),
    /// It ended, with this status, and said this.
    End(u8, String),
}

/// Somebody who waits for a mount's end.
pub(crate) struct Waiting(BufReader<UnixStream>);

impl Waiting {
    /// Connects to the server of `mount`; `None` if there is none.
    pub(crate) fn connect(mount: &Mount) -> Option<Waiting> {
        (0..NAMES_MAX).find_map(|number| {
            let connect =
                address(&mount.device, number).and_then(|it| UnixStream::connect_addr(&it));
            // Most of the names are nobody's.
            let Ok(stream) = connect else { return None };
            let mut waiting = Waiting(BufReader::new(stream));
            (waiting.line()? == hello(&mount.point)).then_some(waiting)
        })
    }

    /// Waits for news; `None` when the server is gone.
    pub(crate) fn next(&mut self) -> Option<News> {
        let line = self.line()?;
        let (kind, rest) = line.trim_end().split_once(' ')?;
        let (number, words) = rest.split_once(' ').unwrap_or((rest, ""));
        match (kind, number.parse::<u64>()) {
            ("left", Ok(bytes)) => Some(News::Left(bytes)),
            ("end", Ok(status)) => {
                Some(News::End(u8::try_from(status).unwrap_or(u8::MAX), words.into()))
            }
            _ => None,
        }
    }

    /// The next line, with its end; `None` when the server is gone.
    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(read) if read > 0 => Some(line),
            // A server that breaks off is gone.
            _ => None,
        }
    }
}
