//! What reaches a block device: counted by the kernel, at a loop device that holds the image.

use std::path::Path;

use super::Run;
use super::image::EXT4;
use super::mounted::Mounter;
use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};
use crate::rig::image;
use crate::rig::mount::LoopDevice;

/// What is written.
const BYTES: u64 = 16 << 20;

/// The most writes that the device may get for a new file, and for one that is there.
const WRITES_MAX: [u64; 2] = [22, 20];

/// Writes 16 MiB and fsyncs: into a new file, and over the same one.
pub(super) fn device_writes(run: &Run) -> Result<String, Failure> {
    let folder = Folder::new("mounts-device")?;
    let under = folder.file("disk.img", 256 << 20)?;
    let device = LoopDevice::new(&under, &[])?;
    EXT4.make(device.path())?;
    let data = [folder.file("data-1", BYTES)?, folder.file("data-2", BYTES)?];
    for (path, seed) in data.iter().zip([1, 2]) {
        image::fill(path, BYTES, seed)?;
    }
    let mounted = run.mounter.mount(&folder, device.path(), "mount", &[])?;
    let file = mounted.path().join("file");
    let mut counts = Vec::new();
    for from in &data {
        counts.push(counted(&device, mounted.path(), || {
            let (from, to) = (format!("if={}", word(from)), format!("of={}", word(&file)));
            let words = ["bs=128k", "conv=notrunc,fsync", "status=none"];
            output(program("dd", words).args([from, to])).map(drop)
        })?);
    }
    mounted.unmount()?;
    let mounted = run.mounter.mount(&folder, device.path(), "mount", &[])?;
    let _printed = output(&mut program("cmp", [&word(&file), &word(&data[1])]))?;
    mounted.unmount()?;
    super::image::check(device.path())?;
    let most = device.says("queue/max_sectors_kb")?;
    device.detach()?;
    let told = format!(
        "16 MiB and fsync: a new file {} writes, {} KiB; the same one again {} writes, {} KiB; up \
         to {} KiB each",
        counts[0].0,
        counts[0].1 / 2,
        counts[1].0,
        counts[1].1 / 2,
        most.trim()
    );
    let over = counts.iter().zip(WRITES_MAX).any(|(count, most)| count.0 > most);
    if over && run.mounter == Mounter::Mpage {
        return Err(Failure::new(format!("{told}: more than {WRITES_MAX:?} writes")));
    }
    Ok(told)
}

/// How many writes and sectors the device gets by `work`, once all that was before is written.
fn counted(
    device: &LoopDevice,
    mount: &Path,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<(u64, u64), Failure> {
    let _printed = output(&mut program("sync", [word(mount)]))?;
    let before = device.writes()?;
    work()?;
    let after = device.writes()?;
    Ok((after.0 - before.0, after.1 - before.1))
}
