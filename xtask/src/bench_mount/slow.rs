//! A disk whose writes take 5 ms each, one after the other, and the stat of a file while another is
//! synced there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use mpage_locks::thread;
use mpage_locks::{Mutex, clock};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::figure::Figure;
use crate::clients::storage_daemon::FuseFile;
use crate::command::program;
use crate::failure::Failure;
use crate::rig::daemon::Daemon;
use crate::rig::folder::{Folder, word};
use crate::rig::mount::LoopDevice;

/// How long a write takes.
pub(super) const WRITE_MS: u64 = 5;

/// What is synced: each second page of a file, so that no write has more than one.
const PAGES: u64 = (4 << 20) / PAGE as u64;
const PAGE: usize = 4096;

/// What is looked at while nothing is synced.
const QUIET_LOOKS: usize = 2000;

/// What the row's figures are called.
pub(super) const FIGURES: [(&str, &str); 3] = [
    ("stat while nothing is synced, median", "us"),
    ("stat while 4 MiB are synced to a slow disk, median", "us"),
    ("the same, the longest", "us"),
];

/// A slow disk: a loop device over a file of FUSE, over NBD, over the image.
///
/// nbdkit takes requests one at a time, and lets each write wait.
pub(super) struct SlowDisk {
    device: LoopDevice,
    file: FuseFile,
    server: Daemon,
}

impl SlowDisk {
    /// Lays it over `image`.
    pub(super) fn new(folder: &Folder, image: &Path) -> Result<SlowDisk, Failure> {
        let socket = folder.path("slow.sock");
        if socket.exists() {
            let removed = fs::remove_file(&socket);
            removed.map_err(|error| Failure::at(&word(&socket), &error))?;
        }
        let filters = ["--foreground", "--filter=noparallel", "--filter=delay", "--unix"];
        let mut command = program("nbdkit", filters);
        let delay = format!("delay-write={WRITE_MS}ms");
        let _command = command.args([&word(&socket), "file", &word(image), &delay]);
        let mut server = Daemon::start(command, &folder.path("nbdkit.log"))?;
        server.until_ready(|| UnixStream::connect(&socket).is_ok())?;
        let file = FuseFile::of_export(folder, &socket)?;
        let device = LoopDevice::new(file.path(), &[])?;
        Ok(SlowDisk { device, file, server })
    }

    /// The block device.
    pub(super) fn path(&self) -> &Path {
        self.device.path()
    }

    /// Takes it apart.
    pub(super) fn end(self) -> Result<(), Failure> {
        self.device.detach()?;
        self.file.stop()?;
        self.server.stop()
    }
}

/// Makes the file that is synced, and the one that is looked at.
pub(super) fn prepare(place: &Path) -> io::Result<()> {
    let file = File::create_new(place.join("synced"))?;
    file.write_all_at(&vec![1; 8 << 20], 0)?;
    file.sync_all()?;
    fs::write(place.join("other"), "other")?;
    File::open(place.join("other"))?.sync_all()
}

/// Looks at a file, past what the kernel remembers of it; returns how long it took.
fn look(path: &Path) -> io::Result<u64> {
    let start_ns = clock::now_ns();
    let flags = AtFlags::from_bits_retain(FORCE_SYNC);
    let _found = statx(CWD, path, flags, StatxFlags::BASIC_STATS)?;
    Ok(clock::now_ns() - start_ns)
}

/// What statx(2) calls `AT_STATX_FORCE_SYNC`.
const FORCE_SYNC: u32 = 0x2000;

/// Looks at one file while the other is synced.
pub(super) fn run(place: &Path) -> io::Result<Vec<Figure>> {
    let other = place.join("other");
    let mut quiet = (0..QUIET_LOOKS).map(|_| look(&other)).collect::<io::Result<Vec<u64>>>()?;
    let file = OpenOptions::new().write(true).open(place.join("synced"))?;
    for page in 0..PAGES {
        file.write_all_at(&[2; PAGE], page * 2 * PAGE as u64)?;
    }
    let ended = std::sync::Arc::new(Mutex::new(false));
    let told = std::sync::Arc::clone(&ended);
    let sync = thread::spawn("sync", move || {
        let start_ns = clock::now_ns();
        let synced = file.sync_all();
        *told.lock() = true;
        synced.map(|()| clock::now_ns() - start_ns)
    })?;
    let mut times = Vec::new();
    while !*ended.lock() {
        times.push(look(&other)?);
    }
    let took_ns = sync.join().expect("a sync does not panic")?;
    if took_ns < PAGES * WRITE_MS * 1_000_000 / 2 {
        let ms = took_ns / 1_000_000;
        return Err(io::Error::other(format!("the sync took {ms} ms: the disk was not slow")));
    }
    let [quiet, median] = [&mut quiet, &mut times].map(|times| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or(0)
    });
    let longest = times.last().copied().unwrap_or(0);
    Ok([quiet, median, longest].map(Figure::microseconds).to_vec())
}
