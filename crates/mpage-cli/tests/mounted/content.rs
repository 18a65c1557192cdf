//! What files hold: bytes and extended attributes.

use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, SeekFrom, lgetxattr, llistxattr, openat, seek};
use rustix::io::{Errno, pread};

/// Bytes up to which all of a file is read.
const SHORT: u64 = 1 << 20;

/// The most bytes of an attribute.
const VALUE_MAX: usize = 1 << 16;

/// A file that is open a second time, for reading.
pub(crate) fn again(file: &OwnedFd) -> Result<OwnedFd, Errno> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// The runs of bytes that may be something else than zeros, in a file of `size` bytes.
pub(crate) fn data(file: &OwnedFd, size: u64) -> Result<Vec<Range<u64>>, Errno> {
    let (mut runs, mut at) = (Vec::new(), 0);
    if size <= SHORT {
        runs.push(0..size);
        return Ok(runs);
    }
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(errno) => return Err(errno),
        };
        let end = seek(file, SeekFrom::Hole(start))?;
        assert!(at <= start && start < end && end <= size, "a run {start}..{end} of {size} bytes");
        runs.push(start..end);
        at = end;
    }
    Ok(runs)
}

/// The bytes `range`, as far as the file goes.
pub(crate) fn bytes(file: &OwnedFd, range: &Range<u64>) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
    let mut done = 0;
    while done < bytes.len() {
        match pread(file, &mut bytes[done..], range.start + done as u64)? {
            0 => break,
            count => done += count,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// Where the contents of two open files of `size` bytes differ, in words.
pub(crate) fn difference(files: [&OwnedFd; 2], size: u64) -> Result<Option<String>, Errno> {
    for of in files {
        for range in data(of, size)? {
            let [kernel, other] = [bytes(files[0], &range)?, bytes(files[1], &range)?];
            if kernel.len() != other.len() {
                return Ok(Some(format!("{} and {} bytes", kernel.len(), other.len())));
            }
            let place = kernel.iter().zip(&other).position(|(kernel, other)| kernel != other);
            if let Some(n) = place {
                let (at, kernel, other) = (range.start + n as u64, kernel[n], other[n]);
                return Ok(Some(format!("byte {at} is {kernel:#x} and {other:#x}")));
            }
        }
    }
    Ok(None)
}

/// The extended attributes of the file at `path`, which is no link that is followed.
pub(crate) fn attributes(path: &str) -> Result<BTreeMap<String, Vec<u8>>, Errno> {
    let mut names = vec![0; VALUE_MAX];
    let len = llistxattr(path, &mut names[..])?;
    let mut found = BTreeMap::new();
    for name in names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; VALUE_MAX];
        let len = lgetxattr(path, name, &mut value[..])?;
        value.truncate(len);
        let none = found.insert(String::from_utf8_lossy(name).into_owned(), value);
        assert!(none.is_none(), "{path} has an attribute twice");
    }
    Ok(found)
}
