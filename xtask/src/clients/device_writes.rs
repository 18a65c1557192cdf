//! What reaches a block device: counted by the kernel, at a loop device.

use super::Run;
use super::nbd_client::Client;
use super::server::{Program, Server};
use crate::command::{self, program};
use crate::failure::Failure;
use crate::rig::fio::{fio, nbd};
use crate::rig::folder::{Folder, word};
use crate::rig::image::Random;
use crate::rig::mount::LoopDevice;

/// What is written, in requests of 4 KiB.
const BYTES: u64 = 16 << 20;

/// The most writes that the device may get for it.
const WRITES_MAX: u64 = 20;

/// Writes 16 MiB in order, by many requests at once and by one after the other, and flushes.
pub(super) fn device_writes(run: &Run) -> Result<String, Failure> {
    let folder = Folder::new("device-writes")?;
    let image = folder.file("disk.img", BYTES * 2)?;
    let device = LoopDevice::new(&image, &[])?;
    let server = Server::start(run.program, &folder, device.path(), &[])?;
    let before = device.writes()?;
    let size = format!("--size={BYTES}");
    let words = ["--rw=write", "--bs=4k", "--iodepth=16", "--end_fsync=1", &size];
    let _report = fio(&nbd(&server.uri()), &words)?;
    let between = device.writes()?;
    let written = one_by_one(&server)?;
    let after = device.writes()?;
    server.stop()?;
    let file = folder.path("expected.img");
    std::fs::write(&file, &written).map_err(|error| Failure::at(&word(&file), &error))?;
    let skip = format!("--ignore-initial={BYTES}:0");
    command::run(&mut program("cmp", [&skip, &word(device.path()), &word(&file)]))?;

    let counts = [between.0 - before.0, after.0 - between.0];
    let sectors = [between.1 - before.1, after.1 - between.1];
    let most = device.says("queue/max_sectors_kb")?;
    let told = format!(
        "{} KiB in {} writes at depth 16, {} KiB in {} writes one by one; up to {} KiB each",
        sectors[0] / 2,
        counts[0],
        sectors[1] / 2,
        counts[1],
        most.trim()
    );
    let over = counts.iter().any(|&count| count > WRITES_MAX);
    let wrong = sectors.iter().any(|&sectors| sectors != BYTES / 512);
    if (over || wrong) && run.program == Program::Mpage {
        return Err(Failure::new(format!("{told}: more than {WRITES_MAX} writes, or other data")));
    }
    device.detach()?;
    Ok(told)
}

/// Writes the second half of the export, and returns what it wrote.
fn one_by_one(server: &Server) -> Result<Vec<u8>, Failure> {
    let failed = |error| Failure::at("a client", &error);
    let mut client = Client::connect(server.socket()).map_err(failed)?;
    if client.size() != BYTES * 2 {
        return Err(Failure::new(format!("the export has {} bytes", client.size())));
    }
    let mut data = vec![0; usize::try_from(BYTES).expect("16 MiB fit into memory")];
    Random(4).fill(&mut data);
    let mut offset = BYTES;
    for block in data.chunks(4096) {
        client.write(offset, block).map_err(failed)?;
        offset += 4096;
    }
    client.flush().map_err(failed)?;
    client.disconnect().map_err(failed)?;
    Ok(data)
}
