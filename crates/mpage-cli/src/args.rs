//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mpage::Backend;

use crate::size::Size;

/// A page cache in user space, put to work on disk images.
#[derive(Debug, Parser)]
#[command(name = "mpage", version, about, long_about = None, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the command can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount an ext2, ext3 or ext4 image, read-write, over FUSE
    ///
    /// The image is a regular file or a block device. It is opened past the kernel's page cache,
    /// for this process alone.
    Mount(MountArgs),
    /// End a mount, and wait until all of it is on the image
    ///
    /// The exit status is the mount's own: 0 only if everything was written.
    Umount(UmountArgs),
    /// Serve a disk image over NBD, with the cache as the disk's write-back cache
    ///
    /// The image is a regular file or a block device. It is opened past the kernel's page cache,
    /// for this process alone. Any NBD client can use it: nbdcopy, qemu, fio, the kernel's
    /// nbd-client.
    Serve(ServeArgs),
    /// Print a manual page, or completions for a shell
    #[command(hide = true)]
    Generate {
        /// What to print.
        what: Generated,
        /// Of which command: serve, if it is not said.
        of: Option<String>,
    },
}

/// What can be generated from the command line's own description.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Generated {
    /// The manual page of a command.
    Man,
    /// Completions for bash.
    Bash,
    /// Completions for fish.
    Fish,
    /// Completions for zsh.
    Zsh,
}

const MOUNT_AFTER: &str = "\
EXAMPLES:
    mpage mount --create 1G disk.img dir
        makes an image with an ext4 file system, and mounts it
    mpage mount --background --allow-other /dev/sdb1 /mnt
        mounts a disk, for everybody
    mpage umount dir
        writes everything, and says by its exit status whether all is on the image

DURABILITY:
    What a program wrote is in this process, and on the image within about 35 s. It is durable once
    fsync(2) has returned. A mount that is killed (kill -9) loses what was not synced; its image has
    to be checked with e2fsck -f then. SIGTERM, SIGHUP and Ctrl-C write everything first, and so do
    umount(8) and fusermount3 -u, but these return before: `mpage umount` waits. A second signal
    gives the rest up. sync(2) does not reach a mount over FUSE.

MEMORY:
    The cache stays within --memory. Requests need up to 64 MiB besides while writes wait, and 1 MiB
    for each thread that reads; what the kernel keeps of files that were read is its own.

ENVIRONMENT:
    MPAGE_LOG    what is logged to stderr: error, warn (default), info, debug";

/// What `mpage mount` is told.
#[derive(Args, Debug)]
#[command(after_long_help = MOUNT_AFTER, after_help = "More, with examples: --help")]
pub struct MountArgs {
    /// The image: a regular file or a block device
    pub image: PathBuf,
    /// The directory to mount it on
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Make the image first, of this size, with an ext4 file system (by mke2fs); refuses to touch
    /// an existing file
    #[arg(long, value_name = "SIZE", conflicts_with = "read_only")]
    pub create: Option<Size>,
    /// Refuse everything that writes
    #[arg(long)]
    pub read_only: bool,
    /// Return when the mount can be used, and go on in the background
    #[arg(long)]
    pub background: bool,
    /// Be the process in the background
    #[arg(long, hide = true, conflicts_with = "background")]
    pub detached: bool,
    /// Let other users use the mount, as far as permissions allow
    #[arg(long)]
    pub allow_other: bool,
    /// Memory of the cache in all, like 64M or 2G
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    pub memory: Size,
    /// What may be written and not be on the image yet; then writers wait [default: 60% of the
    /// memory]
    #[arg(long, value_name = "SIZE")]
    pub dirty_limit: Option<Size>,
    /// After how many seconds what was written goes to the image unasked
    #[arg(long, value_name = "SECS", default_value_t = 30)]
    pub dirty_expire: u64,
    /// What moves the image's blocks: io_uring, a pool of threads, or io_uring if the kernel lets
    /// us
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub device: Device,
    /// Options as of mount(8), with commas between them: ro, allow_other, dev, suid, noexec, ...
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
}

/// What `mpage umount` is told.
#[derive(Args, Debug)]
pub struct UmountArgs {
    /// Where it is mounted
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

const SERVE_AFTER: &str = "\
EXAMPLES:
    mpage serve --create 1G disk.img
        makes an image and serves it on the Unix socket disk.img.sock
    mpage serve --listen 127.0.0.1:10809 --memory 1G /dev/sdb
        serves a disk over the network

    nbdinfo 'nbd+unix:///?socket=disk.img.sock'
    nbdcopy other.img 'nbd+unix:///?socket=disk.img.sock'
    qemu-system-x86_64 -drive file='nbd+unix:///?socket=disk.img.sock',format=raw

DURABILITY:
    What a client wrote is in the cache, and on the image within about 35 s. It is durable once a
    flush, or a write with FUA, was answered. A server that is killed (kill -9) loses what was not
    flushed, as a disk does when the power goes. SIGTERM, SIGHUP and Ctrl-C write everything first;
    the exit status is 0 only if all of it is on the image. A second signal gives the rest up.

MEMORY:
    The cache stays within --memory. Requests that are being worked on need up to 128 MiB besides
    for all clients together, mostly much less, each client up to 1 MiB, and the process itself
    about 16 MiB.

ENVIRONMENT:
    MPAGE_LOG    what is logged to stderr: error, warn (default), info, debug";

/// What `mpage serve` is told.
#[derive(Args, Debug)]
#[command(after_long_help = SERVE_AFTER, after_help = "More, with examples: --help")]
pub struct ServeArgs {
    /// The disk image: a regular file or a block device
    pub image: PathBuf,
    /// Listen on this Unix socket [default: IMAGE.sock]
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    pub socket: Option<PathBuf>,
    /// Listen on this TCP address. There is no encryption and no password: whoever reaches it has
    /// the disk
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// Make the image first, of this size and without any data; refuses to touch an existing file
    #[arg(long, value_name = "SIZE", conflicts_with = "read_only")]
    pub create: Option<Size>,
    /// Refuse everything that writes
    #[arg(long)]
    pub read_only: bool,
    /// Memory of the cache in all, like 64M or 2G
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    pub memory: Size,
    /// What moves the image's blocks: io_uring, a pool of threads, or io_uring if the kernel lets
    /// us
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    pub device: Device,
    /// The export's name; the empty name works always
    #[arg(long, value_name = "NAME", default_value = "")]
    pub export: String,
    /// Get room for the whole image at the start and give none back, so that no write can meet a
    /// full file system
    #[arg(long, conflicts_with = "read_only")]
    pub preallocate: bool,
}

/// What moves blocks between the cache and the image.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Device {
    /// io_uring, or threads where the kernel has none for us.
    Auto,
    /// io_uring.
    Uring,
    /// A pool of threads.
    Threads,
}

impl From<Device> for Backend {
    fn from(device: Device) -> Backend {
        match device {
            Device::Auto => Backend::Auto,
            Device::Uring => Backend::Uring,
            Device::Threads => Backend::Threads,
        }
    }
}
