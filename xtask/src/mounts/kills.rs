//! The process is killed while files are written: what was synced is there.

use std::fs;
use std::path::Path;

use super::Run;
use super::image::{self, EXT4, EXT4_SMALL, Format};
use super::mounted::Mounter;
use super::served::{self, Served, is_mounted};
use super::writer::{self, Writer};
use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};

/// Kills, clears the mount away, and has e2fsck or mpage bring the image into order.
pub(super) fn kills(run: &Run) -> Result<String, Failure> {
    if run.mounter == Mounter::Kernel {
        return Ok("the kernel has no process that could be killed".to_owned());
    }
    let rounds = if run.short { 2 } else { 24 };
    let mut synced = 0;
    for round in 0..rounds {
        let format = if round % 4 < 2 { EXT4 } else { EXT4_SMALL };
        synced += one(format, round)
            .map_err(|failure| Failure::new(format!("round {round}: {failure}")))?;
    }
    Ok(format!("{rounds} times: {synced} synced files are there to the byte, images mended"))
}

fn one(format: Format, round: u64) -> Result<u64, Failure> {
    let folder = Folder::new("mounts-kills")?;
    let image = format.image(&folder, "disk.img", 512 << 20)?;
    let mut served = Served::start(&folder, &image, folder.path("mount"), &[])?;
    let place = served.path().to_owned();
    let writer = Writer::start(place.join("written"))?;
    writer.until_synced(20 + round * 3)?;
    served.signal("KILL")?;
    let _status = served.until_ended()?;
    let (synced, error) = writer.ended();
    if error.is_none() {
        return Err(Failure::new("the writer went on without a process"));
    }
    cleared(&place, round)?;
    drop(served);
    let loops = output(&mut program("losetup", ["--associated", &word(&image)]))?;
    if !loops.is_empty() {
        return Err(Failure::new(format!("loop devices are left: {loops}")));
    }
    if round.is_multiple_of(2) {
        image::mend(&image)?;
    }
    let served = Served::start(&folder, &image, folder.path("again"), &[])?;
    writer::verify(&served.path().join("written"), synced)?;
    served.unmount()?;
    image::check(&image)?;
    let kernel = Mounter::Kernel.mount(&folder, &image, "kernel", &[])?;
    writer::verify(&kernel.path().join("written"), synced)?;
    kernel.unmount()?;
    Ok(synced)
}

/// Finds the mount gone or without a process behind it, and has `mpage umount` or umount clear it.
fn cleared(place: &Path, round: u64) -> Result<(), Failure> {
    if !is_mounted(place)? {
        return Ok(());
    }
    match fs::read_dir(place) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NOTCONN.raw_os_error()) => {}
        other => {
            let found = other.map(|_| "a folder");
            return Err(Failure::new(format!("{}: {found:?}", word(place))));
        }
    }
    let by_umount = || program("umount", [place]);
    let mut unmount = if round.is_multiple_of(2) { served::unmount(place) } else { by_umount() };
    let ended = unmount.output().map_err(|error| Failure::at("umount", &error))?;
    if is_mounted(place)? {
        let errors = String::from_utf8_lossy(&ended.stderr);
        return Err(Failure::new(format!("{} is mounted still: {errors}", word(place))));
    }
    Ok(())
}
