//! Writes at full speed that are many times the memory: nothing is lost, and memory stays bounded.

use super::Run;
use super::server::{Program, Server};
use crate::failure::Failure;
use crate::rig::fio::{Verified, nbd};
use crate::rig::folder::Folder;

/// The cache's memory, in MiB.
const MEMORY_MIB: u64 = 64;

/// What the process may have besides: its code, and the requests of four connections, in MiB.
const MORE_MIB: u64 = 96;

/// Writes all over a sparse image of 4 GiB from four connections, and verifies.
pub(super) fn memory(run: &Run) -> Result<String, Failure> {
    let folder = Folder::new("memory")?;
    let image = folder.file("disk.img", 4 << 30)?;
    let server = Server::start(run.program, &folder, &image, &["--memory", "64M"])?;
    let (jobs, mib) = (4, if run.short { 192 } else { 1024 });
    let sizes = "--bssplit=4k/50:16k/20:64k/20:256k/10";
    let written = Verified { jobs, mib, apart_mib: 1024, sizes, checksum: "crc32c", seed: 11 };
    let report = written.write(&nbd(&server.uri()))?;
    let most_mib = server.memory_most_kib()? >> 10;
    server.stop()?;
    let told = format!(
        "{jobs} x {mib} MiB at {} MiB/s, all verified; {most_mib} MiB of memory, {MEMORY_MIB} \
         of them given",
        report.write.kib_per_s >> 10
    );
    if most_mib > MEMORY_MIB + MORE_MIB && run.program == Program::Mpage {
        return Err(Failure::new(format!("{told}: more than {MORE_MIB} MiB above")));
    }
    Ok(told)
}
