//! A mount is ended while others write: it refuses, or it ends with all that was synced.

use std::path::Path;
use std::process::Command;

use super::Run;
use super::image::{self, EXT4};
use super::mounted::Mounter;
use super::served::{self, Served, is_mounted};
use super::writer::{self, Writer};
use crate::command::program;
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};

/// The call that unmounts what is at a folder.
type Unmount = fn(&Path) -> Command;

fn by_umount(place: &Path) -> Command {
    program("timeout", ["120", "umount", &word(place)])
}

/// Ends mounts under load by umount, `mpage umount` and SIGTERM.
pub(super) fn load(run: &Run) -> Result<String, Failure> {
    if run.mounter == Mounter::Kernel {
        return Ok("the kernel refuses".to_owned());
    }
    let asked = [
        ("umount", Some(by_umount as Unmount)),
        ("mpage umount", Some(served::unmount as Unmount)),
        ("SIGTERM", None),
    ];
    let mut saw = Vec::new();
    for (name, unmount) in asked {
        let told = one(unmount).map_err(|failure| Failure::new(format!("{name}: {failure}")))?;
        saw.push(format!("{name}: {told}"));
    }
    Ok(saw.join("; "))
}

/// Asks a mount that is written to to end, by a program or by SIGTERM.
fn one(unmount: Option<Unmount>) -> Result<String, Failure> {
    let folder = Folder::new("mounts-load")?;
    let image = EXT4.image(&folder, "disk.img", 512 << 20)?;
    let mut served = Served::start(&folder, &image, folder.path("mount"), &[])?;
    let place = served.path().to_owned();
    let writers = ["one", "other"].map(|name| Writer::start(place.join(name)));
    let [one, other] = writers;
    let (one, other) = (one?, other?);
    one.until_synced(10)?;
    other.until_synced(10)?;
    let refused = match unmount {
        Some(unmount) => {
            let ended = unmount(&place).output();
            !ended.map_err(|error| Failure::at("umount", &error))?.status.success()
        }
        None => {
            served.signal("TERM")?;
            false
        }
    };
    let told = if refused {
        if !is_mounted(&place)? {
            return Err(Failure::new("refused, and the mount is gone all the same"));
        }
        one.until_synced(20)?;
        let synced = stopped([one.stop(), other.stop()], true)?;
        served.unmount()?;
        verified(&folder, &image, synced)?;
        format!("refused, and {} files went on to be synced", synced[0] + synced[1])
    } else {
        let status = served.until_ended()?;
        let synced = stopped([one.ended(), other.ended()], false)?;
        if !status.success() || is_mounted(&place)? {
            return Err(Failure::new(format!("{status}: {}", served.printed()?)));
        }
        verified(&folder, &image, synced)?;
        format!("ended, with all {} files that were synced", synced[0] + synced[1])
    };
    Ok(told)
}

fn stopped(ends: [(u64, Option<std::io::Error>); 2], at_will: bool) -> Result<[u64; 2], Failure> {
    if let Some(error) = ends.iter().find_map(|(_, error)| error.as_ref().filter(|_| at_will)) {
        return Err(Failure::at("a writer that was to go on", error));
    }
    Ok([ends[0].0, ends[1].0])
}

fn verified(folder: &Folder, image: &Path, synced: [u64; 2]) -> Result<(), Failure> {
    image::check(image)?;
    let kernel = Mounter::Kernel.mount(folder, image, "kernel", &[])?;
    writer::verify(&kernel.path().join("one"), synced[0])?;
    writer::verify(&kernel.path().join("other"), synced[1])?;
    kernel.unmount()
}
