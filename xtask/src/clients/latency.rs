//! How long cached reads take while a slow device is flushed.
//!
//! The device takes 10 ms for each 64 KiB of a write: a throttled node of qemu-storage-daemon, as a
//! file.

use mpage_locks::clock;
use mpage_locks::thread::{self, JoinHandle};

use super::Run;
use super::nbd_client::Client;
use super::server::{Program, Server};
use super::storage_daemon::FuseFile;
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};
use crate::rig::image::Random;

/// What is dirty when the flush begins; as much lies behind it, clean and cached.
const DIRTY: u64 = 16 << 20;

const PAGE: usize = 4096;

/// The most that 99 of 100 cached reads may take.
const READ_NS_MAX: u64 = 1_000_000;

/// Reads what is cached while a flush writes 16 MiB, with a durable write of 4 KiB between.
pub(super) fn latency(run: &Run) -> Result<String, Failure> {
    let mut told = vec![one(run.program)?];
    if !run.short && run.program == Program::Mpage {
        told.push(one(Program::NbdkitCache)?);
    }
    Ok(told.join("\n"))
}

fn one(program: Program) -> Result<String, Failure> {
    let folder = Folder::new("latency")?;
    let image = folder.file("slow.img", DIRTY * 2 + (1 << 20))?;
    let file = FuseFile::start(&folder, &throttled(&word(&image)), "slow")?;
    let server = Server::start(program, &folder, file.path(), &[])?;
    let times = measure(&server).map_err(|error| Failure::at("a client", &error))?;
    server.stop()?;
    file.stop()?;
    let told = format!(
        "{}: flush {} ms, FUA meanwhile {} ms, {} reads meanwhile, p50 {} p99 {} most {} us",
        program.name(),
        times.flush_ns / 1_000_000,
        times.fua_ns / 1_000_000,
        times.reads_ns.len(),
        times.percentile(50) / 1000,
        times.percentile(99) / 1000,
        times.percentile(100) / 1000,
    );
    if program == Program::Mpage {
        if times.flush_ns < 500_000_000 || times.reads_ns.len() < 100 {
            return Err(Failure::new(format!("{told}: the device was not slow")));
        }
        if times.percentile(99) > READ_NS_MAX {
            return Err(Failure::new(format!("{told}: p99 over {} us", READ_NS_MAX / 1000)));
        }
    }
    Ok(told)
}

/// The arguments that make of `image` the node `slow`.
fn throttled(image: &str) -> Vec<String> {
    let words = [
        "--object",
        "throttle-group,id=slow-writes,x-iops-write=100,x-iops-size=65536",
        "--blockdev",
        &format!("driver=file,node-name=file,filename={image}"),
        "--blockdev",
        "driver=throttle,node-name=slow,throttle-group=slow-writes,file=file",
    ];
    words.map(str::to_owned).to_vec()
}

/// What was measured.
struct Times {
    flush_ns: u64,
    fua_ns: u64,
    /// In order of size.
    reads_ns: Vec<u64>,
}

impl Times {
    /// The time that `percent` of the reads took at most.
    fn percentile(&self, percent: usize) -> u64 {
        let index = (self.reads_ns.len() * percent).div_ceil(100).max(1) - 1;
        self.reads_ns.get(index).copied().unwrap_or(0)
    }
}

fn measure(server: &Server) -> std::io::Result<Times> {
    let mut reader = Client::connect(server.socket())?;
    let mut writer = Client::connect(server.socket())?;
    let mut other = Some(Client::connect(server.socket())?);
    let mut page = vec![0; PAGE];
    for offset in (0..DIRTY * 2).step_by(PAGE) {
        reader.read(offset, &mut page)?;
    }
    Random(5).fill(&mut page);
    for offset in (0..DIRTY).step_by(PAGE) {
        writer.write(offset, &page)?;
    }
    let flush = timed("flush", move || writer.flush())?;
    let mut random = Random(6);
    let mut reads_ns = Vec::new();
    let mut fua = None;
    let data = page.clone();
    while !flush.is_finished() {
        let offset = random.below(DIRTY * 2 / PAGE as u64) * PAGE as u64;
        let start_ns = clock::now_ns();
        reader.read(offset, &mut page)?;
        reads_ns.push(clock::now_ns() - start_ns);
        if let Some(mut client) = other.take_if(|_| reads_ns.len() > 50) {
            let data = data.clone();
            fua = Some(timed("fua", move || client.write_fua(DIRTY * 2, &data))?);
        }
    }
    reads_ns.sort_unstable();
    let flush_ns = joined(flush)?;
    let fua_ns = fua.map_or(Ok(0), joined)?;
    Ok(Times { flush_ns, fua_ns, reads_ns })
}

/// Starts a thread that does one thing, and returns how long it took.
fn timed(
    name: &str,
    work: impl FnOnce() -> std::io::Result<()> + Send + 'static,
) -> std::io::Result<JoinHandle<std::io::Result<u64>>> {
    thread::spawn(name, move || {
        let start_ns = clock::now_ns();
        work().map(|()| clock::now_ns() - start_ns)
    })
}

fn joined(handle: JoinHandle<std::io::Result<u64>>) -> std::io::Result<u64> {
    handle.join().expect("a thread that waits for an answer does not panic")
}
