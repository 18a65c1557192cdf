//! One error type: what went wrong, in which operation, where, and the device's own number for it.

use std::fmt;
use std::ops::Range;

use mpage_block::Errno;

/// A result of mpage.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Small and `Copy`: one write error is told to many opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The device, or the block map, refused or failed: its own error number, unchanged.
    Device(Errno),
    /// An argument is out of the range its function documents.
    InvalidInput,
    /// The offset or length reaches beyond the largest file. `EFBIG`.
    TooLarge,
    /// A page of the range is in use and cannot be dropped now. `EBUSY`.
    Busy,
    /// The operation would have to wait, and was told not to. `EAGAIN`.
    WouldBlock,
    /// Every frame is pinned by the application. `ENOMEM`.
    NoMemory,
    /// The file was opened for reading only. `EBADF`.
    ReadOnly,
}

impl ErrorKind {
    /// The number the operating system uses for this error.
    pub fn errno(self) -> Errno {
        match self {
            ErrorKind::Device(errno) => errno,
            ErrorKind::InvalidInput => Errno::INVAL,
            ErrorKind::TooLarge => Errno::FBIG,
            ErrorKind::Busy => Errno::BUSY,
            ErrorKind::WouldBlock => Errno::AGAIN,
            ErrorKind::NoMemory => Errno::NOMEM,
            ErrorKind::ReadOnly => Errno::BADF,
        }
    }
}

impl From<Errno> for ErrorKind {
    fn from(errno: Errno) -> ErrorKind {
        ErrorKind::Device(errno)
    }
}

/// An error of mpage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub kind: ErrorKind,
    /// The operation that met it.
    pub op: &'static str,
    /// The byte ranges of the file it is about, in ascending order; empty when it is not about
    /// some.
    pub at: Vec<Range<u64>>,
    /// True when the data of those ranges is still in the cache, dirty, and the next sync tries it
    /// again.
    pub retained: bool,
    /// What to do about it, or more of what happened; may be empty.
    pub detail: String,
}

impl Error {
    /// An error of `op` that is not about a range.
    pub fn new(kind: impl Into<ErrorKind>, op: &'static str) -> Error {
        Error { kind: kind.into(), op, at: Vec::new(), retained: false, detail: String::new() }
    }

    /// The same error with an explanation.
    #[must_use]
    pub fn because(mut self, detail: impl Into<String>) -> Error {
        self.detail = detail.into();
        self
    }

    /// The same error, about `ranges` of the file.
    #[must_use]
    pub fn at(mut self, ranges: Vec<Range<u64>>) -> Error {
        self.at = ranges;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ErrorKind::Device(errno) => write!(f, "{}: {errno}", self.op)?,
            kind => write!(f, "{}: {}", self.op, kind.errno())?,
        }
        for (n, range) in self.at.iter().enumerate() {
            let lead = if n == 0 { "; bytes" } else { "," };
            write!(f, "{lead} {}..{}", range.start, range.end)?;
        }
        if self.retained {
            write!(f, "; the data is still in the cache and will be tried again")?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> std::io::Error {
        let kind = std::io::Error::from(error.kind.errno()).kind();
        std::io::Error::new(kind, error)
    }
}
