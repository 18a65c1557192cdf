//! The image behind a mount: made, opened and closed.

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mpage::{Options, PageCache};
use mpage_block::{FileDevice, FileOptions, OpenError};
use mpage_ext4::{ErrorKind, FileSystem};

use crate::args::MountArgs;
use crate::cache;
use crate::failure::Failure;
use crate::size::{self, Size};

/// The least that is dirty before writers wait, in percent of the memory.
const DIRTY_PERCENT: usize = 60;
const BACKGROUND_PERCENT: usize = 20;

/// Where mke2fs is, besides the places where programs are looked for.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/sbin", "/sbin"];

/// An open image.
pub(super) struct Image {
    pub(super) fs: Arc<FileSystem>,
    pub(super) cache: Arc<PageCache>,
}

impl Image {
    /// Opens the image that `args` say.
    ///
    /// # Errors
    ///
    /// What keeps it from being opened, with the remedy.
    pub(super) fn open(args: &MountArgs, read_only: bool) -> Result<Image, Failure> {
        let name = args.image.display();
        let cache = Arc::new(cache::new(args.memory, &limits(args)?)?);
        let options =
            FileOptions { read_only, backend: args.device.into(), ..FileOptions::default() };
        let device = FileDevice::open(&args.image, &options).map_err(|error| match error {
            OpenError::Missing { .. } => Failure(format!(
                "{name}: no such image: check the path, or make one with --create 1G"
            )),
            other => Failure(other.to_string()),
        })?;
        let failed = |errno| Failure(format!("{name}: {errno}"));
        let bytes = device.len().map_err(failed)?;
        let dev = cache.add_device(Arc::new(device))?;
        let how = mpage_ext4::Options { writable: !read_only, ..mpage_ext4::Options::default() };
        let fs = FileSystem::open(&cache, &dev, bytes, &how).map_err(|error| {
            let remedy = match error.kind {
                ErrorKind::NotExt => {
                    "; make one with `mke2fs -t ext4`, or a new image with --create 1G"
                }
                ErrorKind::Errno(mpage_block::Errno::ROFS) => {
                    "; its journal has to be replayed: mount it without --read-only once"
                }
                _ => "",
            };
            Failure(format!("{name}: {error}{remedy}"))
        })?;
        Ok(Image { fs, cache })
    }
}

fn limits(args: &MountArgs) -> Result<Options, Failure> {
    let Size(memory) = args.memory;
    let (background, limit) = match args.dirty_limit {
        None => (BACKGROUND_PERCENT, DIRTY_PERCENT),
        Some(Size(bytes)) if bytes > memory => {
            return Err(Failure(format!(
                "--dirty-limit of {} is more than the memory, {}",
                size::words(bytes),
                size::words(memory)
            )));
        }
        Some(Size(bytes)) => {
            let percent = u128::from(bytes) * 100 / u128::from(memory.max(1));
            let percent = usize::try_from(percent).expect("at most 100").max(1);
            (percent / 3, percent)
        }
    };
    Ok(Options {
        dirty_background_percent: background,
        dirty_percent: limit,
        dirty_expire: Duration::from_secs(args.dirty_expire),
        prefault: true,
        ..Options::default()
    })
}

/// Makes an ext4 file system of all of `image`, whose root belongs to who asks for it.
///
/// # Errors
///
/// The system's, and what mke2fs says.
pub(super) fn make(image: &Path) -> Result<(), Failure> {
    let owner = format!(
        "root_owner={}:{}",
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    let mut places = vec!["mke2fs".into()];
    places.extend(SYSTEM_FOLDERS.map(|folder| Path::new(folder).join("mke2fs")));
    for mke2fs in places {
        let mut command = Command::new(&mke2fs);
        let command = command.args(["-q", "-F", "-t", "ext4", "-E", &owner]).arg(image);
        match command.output() {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => {
                let words = String::from_utf8_lossy(&output.stderr);
                let line = words.lines().next_back().unwrap_or("it does not say why");
                return Err(Failure(format!("{}: {line}", mke2fs.display())));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Failure(format!("{}: {error}", mke2fs.display()))),
        }
    }
    Err(Failure("no mke2fs, which makes the image: install Debian's package e2fsprogs".into()))
}
