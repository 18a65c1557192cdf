//! `mpage serve`: a disk image as an NBD export.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mpage::{CachedFile, OpenOptions, Options, PageCache};
use mpage_locks::{clock, thread};
use signal_hook::iterator::Signals;

use crate::args::ServeArgs;
use crate::failure::Failure;
use crate::size::{self, Size};

pub mod budget;
pub mod connection;
pub mod export;
pub mod handshake;
pub mod input;
pub mod listener;
pub mod output;
pub mod report;
pub mod server;
pub mod signals;
pub mod socket;
pub mod wire;
pub mod workers;

use export::{Export, Terms};
use listener::Listener;
use server::Server;

/// How long requests that have arrived may take when the server stops.
const FINISH_LIMIT: Duration = Duration::from_secs(10);

/// Serves the image until a signal comes; then writes everything, reports, and says by the exit
/// status whether all of it is on the image.
///
/// # Errors
///
/// What keeps it from serving, in one line with the remedy.
pub fn run(args: &ServeArgs) -> Result<ExitCode, Failure> {
    let began_ns = clock::now_ns();
    let cache = new_cache(args.memory)?;
    let created = args.create.map(|size| Created::new(&args.image, size)).transpose()?;
    let fast_zero = check_image(&args.image)?;
    let file = cache.open(&args.image, &open_options(args))?;
    if file.size() == 0 {
        return Err(empty(&args.image));
    }
    // From here on a signal stops the server; until now it would have ended the process, which had
    // nothing to lose.
    let mut signals = signals::take().map_err(system("cannot take signals"))?;
    let terms = Terms { name: args.export.clone(), read_only: args.read_only, fast_zero };
    let server =
        Server::new(Export::new(file.mapping(), terms)).map_err(system("cannot start threads"))?;
    let listener = listen(args)?;
    let (stop, stopped) = UnixStream::pair().map_err(system("no pipe"))?;
    announce(args, &file, &listener)?;
    if let Some(created) = created {
        created.keep();
    }

    let taker = {
        let server = Arc::clone(&server);
        thread::spawn("mpage-accept", move || server.listen(&listener, &stopped))
            .map_err(system("cannot start a thread"))?
    };
    let _signal = signals.forever().next();
    drop(stop);
    give_up_on_second_signal(signals, &file)?;
    if taker.join().is_err() {
        tracing::error!("taking connections ended by a panic, which is a bug: please report it");
    }
    let unfinished = server.stop(FINISH_LIMIT);
    if unfinished > 0 {
        eprintln!("mpage: requests of {unfinished} clients could not be finished");
    }
    let written = report::sync(&file);
    report::print(&cache.stats(), clock::now_ns() - began_ns);
    let status = conclude(written, &args.image);
    if unfinished > 0 {
        // Threads that wait for what never comes would be waited for; nothing is left to be saved.
        std::process::exit(status);
    }
    Ok(if status == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says what could not be written; the exit status.
fn conclude(written: mpage::Result<()>, image: &Path) -> i32 {
    let Err(mut error) = written else { return 0 };
    // Nobody will try again.
    error.retained = false;
    eprintln!("mpage: {}: not all of it is on the image: {error}", image.display());
    1
}

fn give_up_on_second_signal(mut signals: Signals, file: &CachedFile) -> Result<(), Failure> {
    // Who waits for a signal for ever must not keep the image open.
    let space = Arc::downgrade(file.mapping());
    let _thread = thread::spawn("mpage-signals", move || {
        let _second = signals.forever().next();
        let bytes = space.upgrade().map_or(0, |space| report::unwritten_bytes(&space));
        eprintln!("mpage: stopped by a second signal: {} are lost", size::words(bytes));
        std::process::exit(1);
    })
    .map_err(system("cannot start a thread"))?;
    Ok(())
}

fn open_options(args: &ServeArgs) -> OpenOptions {
    OpenOptions {
        write: !args.read_only,
        create: false,
        image: true,
        keep_room: args.preallocate,
        backend: args.device.into(),
        ..OpenOptions::default()
    }
}

/// An image that was just made; it goes again unless it is served.
struct Created<'a> {
    path: &'a Path,
    kept: bool,
}

impl Created<'_> {
    /// Makes an image without any data.
    fn new(path: &Path, Size(bytes): Size) -> Result<Created<'_>, Failure> {
        if bytes == 0 {
            return Err(Failure("an image of no bytes: give --create a size, like 1G".into()));
        }
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure(format!(
                "{}: exists already: leave out --create to serve it, or choose another name",
                path.display()
            )),
            _ => Failure(format!("{}: cannot be made: {error}", path.display())),
        };
        let made = fs::OpenOptions::new().write(true).create_new(true).open(path);
        let file = made.map_err(failed)?;
        let created = Created { path, kept: false };
        file.set_len(bytes).map_err(failed)?;
        Ok(created)
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Created<'_> {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_file(self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the new image stays");
        }
    }
}

/// Whether zeros cost nothing on the image: a regular file has holes.
fn check_image(path: &Path) -> Result<bool, Failure> {
    match fs::metadata(path) {
        Ok(found) if found.is_file() && found.len() == 0 => Err(empty(path)),
        Ok(found) => Ok(!found.file_type().is_block_device()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure(format!(
            "{}: no such image: check the path, or make one with --create 1G",
            path.display()
        ))),
        Err(error) => Err(Failure(format!("{}: {error}", path.display()))),
    }
}

fn empty(path: &Path) -> Failure {
    Failure(format!(
        "{}: the image is empty: give it a size with `truncate -s 1G`, or make another with \
         --create 1G",
        path.display()
    ))
}

fn new_cache(Size(bytes): Size) -> Result<PageCache, Failure> {
    let least = Options::MEMORY_MIN as u64;
    if bytes < least {
        return Err(Failure(format!(
            "--memory of {} is too small: give at least {}",
            size::words(bytes),
            size::words(least)
        )));
    }
    let memory = usize::try_from(bytes).expect("64-bit machines only");
    let options =
        Options { memory, dirty_background_percent: 20, dirty_percent: 60, ..Options::default() };
    Ok(PageCache::new(&options)?)
}

fn listen(args: &ServeArgs) -> Result<Listener, Failure> {
    let listener = match (&args.socket, args.listen) {
        (_, Some(address)) => Listener::tcp(address),
        (Some(path), None) => Listener::unix(path),
        (None, None) => {
            let mut path = args.image.clone().into_os_string();
            path.push(".sock");
            // The socket of a device does not belong among the devices.
            let path = match PathBuf::from(path) {
                path if path.starts_with("/dev") => {
                    PathBuf::from(path.file_name().expect("it has just got one"))
                }
                path => path,
            };
            Listener::unix(&path)
        }
    };
    listener.map_err(|error| Failure(error.to_string()))
}

/// Says what is served where, and what to try.
fn announce(args: &ServeArgs, file: &CachedFile, listener: &Listener) -> Result<(), Failure> {
    let uri = listener.uri(&args.export);
    let access = if args.read_only { ", read-only" } else { "" };
    let line = format!(
        "serving {} ({}{access}) at {uri}; try: nbdinfo '{uri}'; stop with Ctrl-C",
        args.image.display(),
        size::words(file.size()),
    );
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(system("cannot write"))
}

fn system(what: &'static str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure(format!("{what}: {error}"))
}
