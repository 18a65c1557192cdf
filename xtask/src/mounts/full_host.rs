//! No room below a sparse image: syncs are told, and the end; with room again all goes on.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use mpage_locks::thread;

use super::Run;
use super::full::{data, fill, holds};
use super::image::{self, EXT4, Format};
use super::mounted::{Mounted, Mounter};
use super::served::Served;
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};
use crate::rig::mount::Mount;
use crate::rig::wait::until;

/// What the file system below the image has.
const HOST_BYTES: u64 = 32 << 20;

/// What it has when there is room again.
const ROOM_BYTES: u64 = 1 << 30;

/// What is written: more than there is room for, less than memory can hold.
const BEYOND: usize = 48 << 20;

const EXT2: Format = Format { name: "ext2", block_bytes: 4096 };

/// How long what is told may take.
const LIMIT: Duration = Duration::from_secs(120);

/// An image without room, mounted, with a small file that is synced.
///
/// Dropped in this order.
struct Full {
    mounted: Mounted,
    host: Mount,
    image: PathBuf,
    folder: Folder,
}

/// Fills the file system below an image; ends the mount then, with room again, and while one waits.
pub(super) fn full_host(run: &Run) -> Result<String, Failure> {
    let (told, ended) = full(run)?;
    freed(run)?;
    if run.mounter == Mounter::Mpage && !run.short {
        waiting()?;
    }
    Ok(format!("{told}; {ended}; what was synced before is there; goes on when there is room"))
}

/// Returns what syncs are told, and the end.
fn full(run: &Run) -> Result<(String, String), Failure> {
    let full = start(run.mounter, EXT4, "128M")?;
    let (file, told) = refused(&full)?;
    drop(file);
    let ended = match full.mounted {
        Mounted::Kernel(mount) => mount.unmount().map(|()| "umount says nothing".to_owned())?,
        Mounted::Mpage(served) => {
            let codes = served.unmount_badly()?;
            format!("mpage umount and mpage mount end with {codes:?}")
        }
    };
    full.host.enlarge(ROOM_BYTES)?;
    image::mend(&full.image)?;
    let kernel = Mounter::Kernel.mount(&full.folder, &full.image, "kernel", &[])?;
    holds(&kernel.path().join("small"), 1 << 20)?;
    kernel.unmount()?;
    full.host.unmount_when_free()?;
    Ok((told, ended))
}

/// With room again, a sync succeeds, and so does the end.
///
/// There is no journal: one that cannot be written leaves an image that can only be read.
fn freed(run: &Run) -> Result<(), Failure> {
    if run.mounter == Mounter::Kernel {
        // The kernel gives up the pages that could not be written.
        return Ok(());
    }
    let full = start(run.mounter, EXT2, "128M")?;
    let (file, _told) = refused(&full)?;
    full.host.enlarge(ROOM_BYTES)?;
    until("fsync with room again", LIMIT, || Ok(file.sync_all().is_ok().then_some(())))?;
    drop(file);
    full.mounted.unmount()?;
    image::check(&full.image)?;
    let kernel = Mounter::Kernel.mount(&full.folder, &full.image, "kernel", &[])?;
    holds(&kernel.path().join("large"), BEYOND)?;
    kernel.unmount()?;
    full.host.unmount_when_free()
}

/// A writer waits, since memory is full of what has no room: SIGTERM ends all of it.
fn waiting() -> Result<(), Failure> {
    let full = start(Mounter::Mpage, EXT4, "16M")?;
    let place = full.mounted.path().join("large");
    let writer = thread::spawn("writer", move || {
        File::create(place).map(|mut file| fill(&mut file, BEYOND).1)
    });
    let writer = writer.map_err(|error| Failure::at("a thread", &error))?;
    let Mounted::Mpage(mut served) = full.mounted else {
        return Err(Failure::new("mpage was to mount"));
    };
    let status = ended_while_full(&mut served);
    drop(served);
    let error = writer.join().expect("a thread that writes does not panic");
    let code = status?.code();
    if code.is_none_or(|code| code == 0) || matches!(error, Ok(None)) {
        return Err(Failure::new(format!("SIGTERM: {code:?}, and the writer was told {error:?}")));
    }
    full.host.enlarge(ROOM_BYTES)?;
    image::mend(&full.image)?;
    full.host.unmount_when_free()
}

fn ended_while_full(served: &mut Served) -> Result<std::process::ExitStatus, Failure> {
    until("word that there is no room", LIMIT, || {
        Ok(served.printed()?.contains("No space left on device").then_some(()))
    })?;
    served.signal("TERM")?;
    served.until_ended()
}

fn start(mounter: Mounter, format: Format, memory: &str) -> Result<Full, Failure> {
    let folder = Folder::new("mounts-host")?;
    let host = Mount::of_memory(folder.path("host"), HOST_BYTES)?;
    let image = host.path().join("disk.img");
    let made = File::create(&image).and_then(|file| file.set_len(512 << 20));
    made.map_err(|error| Failure::at(&word(&image), &error))?;
    format.make(&image)?;
    let mounted = mounter.mount(&folder, &image, "mount", &["--memory", memory])?;
    let written = File::create(mounted.path().join("small"))
        .and_then(|mut file| file.write_all(&data(1 << 20)).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::at("a file that has room", &error))?;
    Ok(Full { mounted, host, image, folder })
}

/// Writes more than there is room for. Returns the file, and what its sync was told.
fn refused(full: &Full) -> Result<(File, String), Failure> {
    let mut file = File::create(full.mounted.path().join("large"))
        .map_err(|error| Failure::at("a file that has no room", &error))?;
    let (length, written) = fill(&mut file, BEYOND);
    let written = written.as_ref().map_or("all taken".to_owned(), io::Error::to_string);
    match file.sync_all() {
        Err(error) => {
            Ok((file, format!("write of {} MiB: {written}; fsync: {error}", length >> 20)))
        }
        Ok(()) => {
            Err(Failure::new(format!("fsync of {length} bytes succeeded without room ({written})")))
        }
    }
}
