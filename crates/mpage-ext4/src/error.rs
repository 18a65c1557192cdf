//! What can go wrong, and what to do about it.

use std::fmt;

use mpage_block::Errno;

/// A result of mpage-ext4.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The image is not what the format says: `e2fsck` has to repair it. `EUCLEAN`, which Linux
    /// calls `EFSCORRUPTED`.
    Corrupt,
    /// It is no ext2, ext3 or ext4 image. `EINVAL`.
    NotExt,
    /// The image has a feature that is not supported. `EOPNOTSUPP`.
    Unsupported,
    /// The answer of a file system that is well, or of its device.
    Errno(Errno),
}

impl ErrorKind {
    /// The number the operating system uses for this error.
    pub fn errno(self) -> Errno {
        match self {
            ErrorKind::Corrupt => Errno::UCLEAN,
            ErrorKind::NotExt => Errno::INVAL,
            ErrorKind::Unsupported => Errno::OPNOTSUPP,
            ErrorKind::Errno(errno) => errno,
        }
    }
}

/// An error of mpage-ext4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What went wrong.
    pub kind: ErrorKind,
    /// What it is about: which block, inode or feature.
    pub detail: String,
}

impl Error {
    /// The image is damaged: `detail` says what, and which block or inode.
    pub(crate) fn corrupt(detail: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Corrupt, detail: detail.into() }
    }

    /// True when there was no room.
    pub(crate) fn is_no_space(&self) -> bool {
        self.kind == ErrorKind::Errno(Errno::NOSPC)
    }

    /// What a file system that is well answers.
    pub(crate) fn errno(errno: Errno, detail: impl Into<String>) -> Error {
        Error { kind: ErrorKind::Errno(errno), detail: detail.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ErrorKind::Corrupt => write!(f, "the image is damaged: {}; run e2fsck", self.detail),
            ErrorKind::NotExt => write!(f, "no ext2, ext3 or ext4 image: {}", self.detail),
            ErrorKind::Unsupported => write!(f, "not supported: {}", self.detail),
            ErrorKind::Errno(errno) => write!(f, "{}: {errno}", self.detail),
        }
    }
}

impl std::error::Error for Error {}

impl From<mpage::Error> for Error {
    fn from(error: mpage::Error) -> Error {
        Error { kind: ErrorKind::Errno(error.kind.errno()), detail: error.to_string() }
    }
}

impl From<Error> for mpage::Error {
    fn from(error: Error) -> mpage::Error {
        mpage::Error::new(error.kind.errno(), "ext4").because(error.detail)
    }
}
