//! Random writes of many sizes by several connections, read back, by fio.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use super::Run;
use super::server::Server;
use crate::failure::Failure;
use crate::rig::fio::{Verified, nbd};
use crate::rig::folder::{Folder, word};

/// Requests from one sector to a quarter of a MiB, many of them no page's size.
const SIZES: &str = "--bssplit=512/20:1k/10:3584/10:4k/30:16k/15:64k/10:256k/5";

/// Writes twice and verifies: at once, connected anew, and with the server started anew.
pub(super) fn verify(run: &Run) -> Result<String, Failure> {
    let mib = if run.short { 12 } else { 192 };
    let first =
        Verified { jobs: 4, mib, apart_mib: 256, sizes: SIZES, checksum: "xxhash", seed: 7 };
    let second = Verified { checksum: "crc32c", seed: 8, ..first.clone() };
    let mut saw = Vec::new();
    for arguments in [&[][..], &["--memory", "16M"]] {
        let folder = Folder::new("verify")?;
        let image = folder.file("disk.img", 1 << 30)?;
        let server = Server::start(run.program, &folder, &image, arguments)?;
        let place = nbd(&server.uri());
        let _report = first.write(&place)?;
        if second.verify(&place).is_ok() {
            return Err(Failure::new("fio took the first writes for the second"));
        }
        let report = second.write(&place)?;
        let _report = second.verify(&place)?;
        server.stop()?;
        let server = Server::start(run.program, &folder, &image, arguments)?;
        let _report = second.verify(&place)?;
        server.stop()?;
        let memory = if arguments.is_empty() { "default memory" } else { "16 MiB" };
        saw.push(format!("{} MiB/s with {memory}", report.write.kib_per_s >> 10));
        if !arguments.is_empty() {
            damage_is_found(run, &folder, &image, &second)?;
        }
    }
    let pairs = saw.join(", ");
    Ok(format!("4 x {mib} MiB twice, {pairs}; verified after reconnect and restart"))
}

/// Ends the server and starts it again on the same image at once, many times.
pub(super) fn restart(run: &Run) -> Result<String, Failure> {
    const TIMES: u64 = 12;
    let folder = Folder::new("restart")?;
    let image = folder.file("disk.img", 64 << 20)?;
    let sizes = "--bs=4k";
    for seed in 0..TIMES {
        let server = Server::start(run.program, &folder, &image, &[])?;
        let written = Verified { jobs: 2, mib: 1, apart_mib: 8, sizes, checksum: "crc32c", seed };
        let _report = written.write(&nbd(&server.uri()))?;
        server.stop()?;
    }
    Ok(format!("{TIMES} times, each at once after the end of the one before"))
}

/// Changes a sector of the image, and has fio find it: the check can fail.
fn damage_is_found(
    run: &Run,
    folder: &Folder,
    image: &std::path::Path,
    written: &Verified,
) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).open(image);
    let damaged = file.and_then(|file| file.write_all_at(&[0; 512], 5 << 20));
    damaged.map_err(|error| Failure::at(&word(image), &error))?;
    let server = Server::start(run.program, folder, image, &[])?;
    if written.verify(&nbd(&server.uri())).is_ok() {
        return Err(Failure::new("fio found nothing where a sector was changed"));
    }
    server.stop()
}
