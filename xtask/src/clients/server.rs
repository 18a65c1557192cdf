//! The programs that serve a disk image over NBD: mpage, and those it is measured against.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{self, cargo, program};
use crate::failure::Failure;
use crate::rig::daemon::Daemon;
use crate::rig::folder::{Folder, word};
use crate::workspace::target;

/// A program that serves an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// `mpage serve`.
    Mpage,
    /// `nbdkit file`: reads and writes through the kernel's page cache.
    NbdkitFile,
    /// `nbdkit file` behind nbdkit's write-back cache filter.
    NbdkitCache,
    /// `qemu-nbd` through the kernel's page cache.
    QemuWriteback,
    /// `qemu-nbd` with direct I/O by io_uring.
    QemuDirect,
}

impl Program {
    /// All of them.
    pub(crate) const ALL: [Program; 5] = [
        Program::Mpage,
        Program::NbdkitFile,
        Program::NbdkitCache,
        Program::QemuWriteback,
        Program::QemuDirect,
    ];

    /// Its name in tables and arguments.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Program::Mpage => "mpage",
            Program::NbdkitFile => "nbdkit-file",
            Program::NbdkitCache => "nbdkit-cache",
            Program::QemuWriteback => "qemu-writeback",
            Program::QemuDirect => "qemu-direct",
        }
    }

    /// The program of that name.
    pub(crate) fn named(name: &str) -> Result<Program, Failure> {
        let found = Program::ALL.into_iter().find(|program| program.name() == name);
        found.ok_or_else(|| {
            let names = Program::ALL.map(Program::name).join(", ");
            Failure::new(format!("no server is called {name}: there are {names}"))
        })
    }

    /// What a flush makes of data that a write was told to be done with.
    pub(crate) fn flush(self) -> &'static str {
        match self {
            Program::Mpage => "writes its dirty pages with direct I/O, then fdatasync",
            Program::NbdkitFile => "fdatasync of the kernel's page cache",
            Program::NbdkitCache => "writes its dirty blocks back, then fdatasync",
            Program::QemuWriteback => "fdatasync of the kernel's page cache",
            Program::QemuDirect => "fdatasync; writes were direct",
        }
    }

    /// The command that serves `image` at `socket`; `arguments` are for mpage alone.
    fn command(self, socket: &Path, image: &Path, arguments: &[&str]) -> Command {
        let (socket, image) = (word(socket), word(image));
        let qemu = |cache: &[&str]| {
            let mut command = program("qemu-nbd", ["--persistent", "--shared=16", "--format=raw"]);
            let _command = command.args(cache).arg(format!("--socket={socket}")).arg(&image);
            command
        };
        let nbdkit = |filter: &[&str]| {
            let mut command = program("nbdkit", ["--foreground", "--unix", &socket]);
            let _command = command.args(filter).args(["file", &image]);
            command
        };
        match self {
            Program::Mpage => {
                let mut command = program(&word(&binary()), ["serve", "--socket", &socket]);
                let _command = command.args(arguments).arg(image);
                command
            }
            Program::NbdkitFile => nbdkit(&[]),
            Program::NbdkitCache => {
                let mut command = nbdkit(&["--filter=cache"]);
                let _command = command.args(["cache=writeback", "cache-on-read=true"]);
                command
            }
            Program::QemuWriteback => qemu(&["--cache=writeback"]),
            Program::QemuDirect => qemu(&["--cache=none", "--aio=io_uring"]),
        }
    }
}

/// Builds `program` if it is ours.
pub(crate) fn build(program: Program) -> Result<(), Failure> {
    match program {
        Program::Mpage => {
            command::run(&mut cargo(["build", "--release", "--package", "mpage-cli"]))
        }
        _ => Ok(()),
    }
}

/// The command, once it is built.
pub(crate) fn binary() -> PathBuf {
    target().join("release/mpage")
}

/// A server that takes connections on a Unix socket.
pub(crate) struct Server {
    daemon: Daemon,
    socket: PathBuf,
}

impl Server {
    /// Serves `image` with `program`, to which `arguments` go if it is mpage.
    pub(crate) fn start(
        program: Program,
        folder: &Folder,
        image: &Path,
        arguments: &[&str],
    ) -> Result<Server, Failure> {
        let socket = folder.path("nbd.sock");
        if socket.exists() {
            let removed = std::fs::remove_file(&socket);
            removed.map_err(|error| Failure::at(&word(&socket), &error))?;
        }
        let command = program.command(&socket, image, arguments);
        let mut daemon = Daemon::start(command, &folder.path("server.log"))?;
        daemon.until_ready(|| UnixStream::connect(&socket).is_ok())?;
        Ok(Server { daemon, socket })
    }

    /// Where clients find the export.
    pub(crate) fn uri(&self) -> String {
        format!("nbd+unix:///?socket={}", word(&self.socket))
    }

    /// The socket it listens on.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The most memory it had so far, in KiB.
    pub(crate) fn memory_most_kib(&self) -> Result<u64, Failure> {
        self.daemon.memory_most_kib()
    }

    /// Ends it by SIGTERM; it has to succeed.
    pub(crate) fn stop(self) -> Result<(), Failure> {
        self.daemon.stop()
    }
}
