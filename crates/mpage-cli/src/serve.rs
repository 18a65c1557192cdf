//! `mpage serve`: a disk image as an NBD export.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use mpage::{CachedFile, OpenOptions, Options};
use mpage_locks::{clock, thread};

use crate::args::ServeArgs;
use crate::cache;
use crate::created::Created;
use crate::failure::{Failure, system};
use crate::report::{self, Progress};
use crate::signals;
use crate::size;

pub mod connection;
pub mod export;
pub mod handshake;
pub mod input;
pub mod listener;
pub mod output;
pub mod server;
pub mod socket;
pub mod wire;

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
    let limits = Options { dirty_background_percent: 20, dirty_percent: 60, ..Options::default() };
    let cache = Arc::new(cache::new(args.memory, &limits)?);
    let created = args.create.map(|size| Created::new(&args.image, size, "serve")).transpose()?;
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
    signals::give_up_on_second(signals, &cache)?;
    if taker.join().is_err() {
        tracing::error!("taking connections ended by a panic, which is a bug: please report it");
    }
    let unfinished = server.stop(FINISH_LIMIT);
    if unfinished > 0 {
        eprintln!("mpage: requests of {unfinished} clients could not be finished");
    }
    // An error that was about bytes that could be written after all is no error any more.
    let progress = Progress::new(cache.unwritten_bytes());
    let left = Arc::clone(&cache);
    let written = report::watched(
        move || left.unwritten_bytes(),
        move |bytes| progress.left(bytes),
        || file.fsync().or_else(|_| file.fsync()),
    );
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
