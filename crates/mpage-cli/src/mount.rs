//! `mpage mount`: an ext2, ext3 or ext4 image, read and written over FUSE.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, Session, SessionACL};
use mpage_ext4::FileSystem;
use mpage_locks::{clock, thread};
use signal_hook::iterator::Signals;

use crate::args::MountArgs;
use crate::background;
use crate::created::Created;
use crate::failure::{Failure, system};
use crate::report::{self, Progress};
use crate::signals;
use crate::umount::detach;

mod attributes;
mod content;
pub(crate) mod control;
mod convert;
mod handles;
mod image;
mod kernel;
mod listing;
mod names;
pub mod options;
mod pending_read;
mod privileges;
pub mod server;
mod shared;
mod time;

use control::{Control, Waiting, mount_at};
use image::Image;
use options::Words;
use server::{Ending, Server};

/// How long what was begun may take when the mount has ended.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// Threads that take requests, at least and at most.
const LOOPS: std::ops::RangeInclusive<usize> = 2..=8;

/// Mounts the image until it is unmounted or a signal comes; then writes everything, reports, and
/// says by the exit status whether all of it is on the image.
///
/// # Errors
///
/// What keeps it from being mounted, in one line with the remedy.
pub fn run(args: &MountArgs) -> Result<ExitCode, Failure> {
    if args.background {
        return background::start("--background", "--detached");
    }
    if args.detached {
        background::leave_terminal()?;
    }
    let began_ns = clock::now_ns();
    let mut words = Words::read(&args.options)?;
    words.allow_other |= args.allow_other;
    if args.read_only {
        words.set_read_only();
    }
    let point = check_directory(&args.directory)?;
    let created = args.create.map(|size| Created::new(&args.image, size, "mount")).transpose()?;
    if created.is_some() {
        image::make(&args.image)?;
    }
    become_flusher();
    let image = Image::open(args, words.is_read_only())?;
    announce_state(args, &image, &mut words);
    let signals = signals::take().map_err(system("cannot take signals"))?;
    let (session, ending) = start(&image.fs, &point, &source(args, &words), &words)?;
    let mounted = Mounted(&point);
    let device = mount_at(&point).ok_or_else(|| Failure("the mount is gone at once".into()))?;
    let control = Control::listen(&device.device, &point).map_err(system("no socket"))?;
    announce(args)?;
    if let Some(created) = created {
        created.keep();
    }
    if args.detached {
        background::let_go()?;
    }
    mounted.keep();
    let ended = wait_for_end(session, signals, &point, &image)?;
    conclude(args, &image, (&ending, &control), ended, began_ns)
}

/// Lets the kernel know that freeing memory may take this process: it is not to wait for the mount
/// when it needs some. Ordinary users must do without. Linux: `PR_SET_IO_FLUSHER`, prctl(2).
fn become_flusher() {
    if let Err(error) = rustix::process::configure_io_flusher_behavior(true) {
        tracing::debug!(%error, "the kernel may want memory of this mount while we need some");
    }
}

fn stale(directory: &std::path::Display<'_>) -> String {
    format!(
        "{directory}: a mount whose server is gone: clear it with `mpage umount {directory}` first"
    )
}

/// The directory to mount on, without links in its path.
fn check_directory(directory: &Path) -> Result<PathBuf, Failure> {
    let name = directory.display();
    let found = fs::metadata(directory).map_err(|error| {
        Failure(match error.kind() {
            io::ErrorKind::NotFound => format!("{name}: no such directory: make it with mkdir"),
            io::ErrorKind::NotConnected => stale(&name),
            _ => format!("{name}: {error}"),
        })
    })?;
    if !found.is_dir() {
        return Err(Failure(format!("{name}: not a directory")));
    }
    let point = directory.canonicalize().map_err(system("the directory"))?;
    match mount_at(&point) {
        Some(mount) if mount.kind == "fuse.mpage" && Waiting::connect(&mount).is_none() => {
            Err(Failure(stale(&name)))
        }
        Some(mount) => Err(Failure(format!(
            "{name}: {} is mounted there already: choose another directory, or unmount it",
            mount.source.display()
        ))),
        None => Ok(point),
    }
}

/// Mounts `fs` on `point`, with `source` as the name of what is mounted. Requests are answered when
/// the session runs.
///
/// # Errors
///
/// What keeps it from being mounted, with the remedy.
pub fn start(
    fs: &Arc<FileSystem>,
    point: &Path,
    source: &str,
    words: &Words,
) -> Result<(Session<Server>, Ending), Failure> {
    let (server, ending) = Server::new(Arc::clone(fs)).map_err(system("cannot start threads"))?;
    let connection = kernel::mount_on(point, source, words)?;
    let mounted = Mounted(point);
    let (config, who) = config(words);
    let session = Session::from_fd(server, connection, who, config).map_err(system("FUSE"))?;
    mounted.keep();
    Ok((session, ending))
}

/// How requests are taken.
fn config(words: &Words) -> (Config, SessionACL) {
    let mut config = Config::default();
    let loops = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    config.n_threads = Some(loops.clamp(*LOOPS.start(), *LOOPS.end()));
    config.clone_fd = true;
    let who = if words.allow_other { SessionACL::All } else { SessionACL::Owner };
    (config, who)
}

/// What is mounted, as lists of mounts show it.
fn source(args: &MountArgs, words: &Words) -> String {
    let path = || fs::canonicalize(&args.image).unwrap_or_else(|_| args.image.clone());
    words.name.clone().unwrap_or_else(|| path().to_string_lossy().into_owned())
}

/// Says what is mounted where.
fn announce(args: &MountArgs) -> Result<(), Failure> {
    let (name, directory) = (args.image.display(), args.directory.display());
    let line = format!("mounted {name} on {directory}; stop with: mpage umount {directory}");
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(system("cannot write"))
}

/// Says what is to be known of an image beside where it is mounted.
fn announce_state(args: &MountArgs, image: &Image, words: &mut Words) {
    let name = args.image.display();
    if let Some(reason) = image.fs.read_only().filter(|_| !words.is_read_only()) {
        eprintln!("mpage: {name}: mounted for reading only: {reason}");
        words.set_read_only();
    }
    if !image.fs.was_clean() {
        eprintln!("mpage: {name}: was not closed when it was used last: e2fsck -f should check it");
    }
}

/// A mount that goes again unless it is served.
struct Mounted<'a>(&'a Path);

impl Mounted<'_> {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(failure) = detach(self.0) {
            tracing::warn!(%failure, "the mount stays");
        }
    }
}

/// Why a mount came to its end.
enum Ended {
    /// It was unmounted.
    Unmounted,
    /// The connection to the kernel broke.
    Broken(String),
    /// A signal came, and programs still use it.
    InUse,
}

/// Serves `session` until it was unmounted, by whoever, or a signal has it unmounted.
fn wait_for_end(
    session: Session<Server>,
    mut signals: Signals,
    point: &Path,
    image: &Image,
) -> Result<Ended, Failure> {
    let handle = signals.handle();
    let serving = thread::spawn("mpage-fuse", move || {
        let result = session.run();
        handle.close();
        result
    });
    let serving = serving.map_err(system("cannot start a thread"))?;
    if signals.forever().next().is_some() {
        signals::give_up_on_second(signals, &image.cache)?;
        if let Err(failure) = detach(point) {
            eprintln!("mpage: {failure}; ending all the same");
            let _taken_off = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
            return Ok(Ended::InUse);
        }
    }
    Ok(match serving.join() {
        Ok(Ok(())) => Ended::Unmounted,
        Ok(Err(error)) => Ended::Broken(error.to_string()),
        Err(_) => Ended::Broken("a panic, which is a bug: please report it".into()),
    })
}

/// Writes everything, and says how that went, here and to those who wait for it.
fn conclude(
    args: &MountArgs,
    image: &Image,
    (ending, control): (&Ending, &Control),
    ended: Ended,
    began_ns: u64,
) -> Result<ExitCode, Failure> {
    let name = args.image.display();
    let mut words = Vec::new();
    if let Ended::Broken(why) = &ended {
        words.push(format!("{name}: the connection to the kernel broke: {why}"));
    }
    if !ending.finish(FINISH_LIMIT) {
        words.push(format!("{name}: some requests could not be finished"));
    }
    let progress = Progress::new(image.cache.unwritten_bytes());
    let (left, told) = (Arc::clone(&image.cache), control.clone());
    let closed = report::watched(
        move || left.unwritten_bytes(),
        move |bytes| {
            progress.left(bytes);
            told.left(bytes);
        },
        || {
            // An error that was about bytes that could be written after all is no error any more.
            let _told_again = image.fs.sync();
            image.fs.close()
        },
    );
    if let Err(error) = closed {
        words.push(format!("{name}: not all of it is on the image: {error}"));
    }
    report::print(&image.cache.stats(), clock::now_ns() - began_ns);
    for line in &words {
        eprintln!("mpage: {line}");
    }
    let status = i32::from(!words.is_empty());
    control.end(status, &words.join("; "));
    if matches!(ended, Ended::InUse) {
        // Who still uses it is told that it is gone; nothing is left to be saved.
        std::process::exit(status);
    }
    Ok(if status == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
