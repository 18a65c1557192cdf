//! Mounts, as the kernel makes them: by mount(2) where we may, else by fusermount3.
//!
//! The library for FUSE could do it too, but takes mounts off again by their paths when it ends,
//! where by then there may be another.
//!
//! Linux: Documentation/filesystems/fuse.rst.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::mount::mount;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{getegid, geteuid};

use super::options::Words;
use crate::failure::Failure;

const DEVICE: &str = "/dev/fuse";

/// The variable by which fusermount3 is told where to send the device's file to.
const SOCKET_VARIABLE: &str = "_FUSE_COMMFD";

/// Mounts on `point`, with `source` as the name of what is mounted; returns the connection to the
/// kernel.
///
/// # Errors
///
/// Why not, with the remedy.
pub(super) fn mount_on(point: &Path, source: &str, words: &Words) -> Result<OwnedFd, Failure> {
    let failed = |why: String| Failure(format!("{}: cannot be mounted on: {why}", point.display()));
    match directly(point, source, words) {
        Ok(connection) => Ok(connection),
        Err(Errno::PERM | Errno::ACCESS) => with_help(point, source, words).map_err(failed),
        Err(Errno::NOENT) => {
            let remedy = "load the kernel's module with `modprobe fuse`";
            Err(failed(format!("there is no {DEVICE}: {remedy}")))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

fn directly(point: &Path, source: &str, words: &Words) -> Result<OwnedFd, Errno> {
    let connection = open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let mut data = format!(
        "fd={},rootmode=40000,user_id={uid},group_id={gid},default_permissions",
        connection.as_raw_fd()
    );
    if words.allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    let kind = format!("fuse.{}", words.subtype);
    mount(source, point, kind, words.flags, Some(&*data))?;
    Ok(connection)
}

/// Lets fusermount3 mount, which may. It sends the connection through a socket that it inherits.
fn with_help(point: &Path, source: &str, words: &Words) -> Result<OwnedFd, String> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
    fcntl_setfd(&theirs, FdFlags::empty()).map_err(|error| error.to_string())?;
    // A comma in a name would begin another word.
    let source = source.replace('\\', "\\\\").replace(',', "\\,");
    let mut list = vec![
        "default_permissions".into(),
        format!("fsname={source}"),
        format!("subtype={}", words.subtype),
    ];
    list.extend(words.allow_other.then(|| "allow_other".into()));
    list.extend(words.words.iter().cloned());
    let mut command = Command::new("fusermount3");
    let command = command.arg("-o").arg(list.join(",")).arg("--").arg(point);
    let command = command.env(SOCKET_VARIABLE, theirs.as_raw_fd().to_string());
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            "ordinary users need fusermount3: install Debian's package fuse3".to_owned()
        }
        _ => format!("fusermount3: {error}"),
    })?;
    drop(theirs);
    let received = receive(&ours);
    let output = child.wait_with_output().map_err(|error| format!("fusermount3: {error}"))?;
    let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    received.map_err(|error| format!("fusermount3: {error}"))?.ok_or(words)
}

/// The file that was sent through `socket`; `None` when it was closed without one.
fn receive(socket: &UnixStream) -> Result<Option<OwnedFd>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut sent = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut slices = [io::IoSliceMut::new(&mut byte)];
    let _message = recvmsg(socket.as_fd(), &mut slices, &mut sent, RecvFlags::CMSG_CLOEXEC)?;
    let mut files = sent.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok(files.next().and_then(|mut files| files.next()))
}
