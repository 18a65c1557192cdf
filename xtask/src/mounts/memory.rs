//! A shared mapping dirtied far beyond memory: it ends, it is right, and memory stays bounded.

use super::Run;
use super::image::{self, EXT4};
use super::memory_group::MemoryGroup;
use super::mounted::{Mounted, Mounter};
use super::served::{Served, mpage};
use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::folder::{Folder, word};

/// What the writer may have, with the pages of the files it maps, in MiB.
const WRITER_MIB: u64 = 64;

/// The cache's memory, in MiB.
const MEMORY_MIB: u64 = 32;

/// What the process may have besides: its code and its requests, in MiB.
const MORE_MIB: u64 = 96;

/// Dirties all of a mapped file in a control group with less memory, in order and at random.
pub(super) fn memory(run: &Run) -> Result<String, Failure> {
    let folder = Folder::new("mounts-memory")?;
    let image = EXT4.image(&folder, "disk.img", 2 << 30)?;
    let (orders, mib) = match run.short {
        true => (&["randwrite"][..], 256),
        false => (&["write", "randwrite"][..], 1024),
    };
    let writer = MemoryGroup::new("writer", WRITER_MIB << 20)?;
    let server = MemoryGroup::new("server", (MEMORY_MIB + MORE_MIB) << 20)?;
    let mounted = mount(run, &folder, &image, &server)?;
    let mut told = Vec::new();
    for order in orders {
        let job = job(&mounted, order, mib);
        let _printed = output(&mut writer.call(program("fio", &job).args(["--do_verify=0"])))?;
    }
    if let Some(served) = mounted.served() {
        let most_mib = served.memory_most_kib()? >> 10;
        told.push(format!("; {most_mib} MiB of memory, {MEMORY_MIB} of them given"));
        if most_mib > MEMORY_MIB + MORE_MIB {
            let most = MEMORY_MIB + MORE_MIB;
            return Err(Failure::new(format!("{most_mib} MiB of memory, more than {most}")));
        }
    }
    mounted.unmount()?;
    image::check(&image)?;
    let mounted = run.mounter.mount(&folder, &image, "mount", &[])?;
    for order in orders {
        let job = job(&mounted, order, mib);
        let _printed = output(program("fio", &job).args(["--verify_only=1"]))?;
    }
    mounted.unmount()?;
    Ok(format!("{mib} MiB mapped and dirtied in {WRITER_MIB} MiB, all verified{}", told.concat()))
}

/// Mounts with little memory, by a process that is in the group `server`.
fn mount(
    run: &Run,
    folder: &Folder,
    image: &std::path::Path,
    server: &MemoryGroup,
) -> Result<Mounted, Failure> {
    if run.mounter == Mounter::Kernel {
        return run.mounter.mount(folder, image, "mount", &[]);
    }
    let place = folder.path("mount");
    let memory = format!("{MEMORY_MIB}M");
    let words = ["mount", "--memory", &memory, &word(image), &word(&place)];
    let command = server.call(&mpage(&words));
    Served::start_as(folder, command, image, place).map(Mounted::Mpage)
}

fn job(mounted: &Mounted, order: &str, mib: u64) -> Vec<String> {
    vec![
        format!("--name={order}"),
        format!("--directory={}", word(mounted.path())),
        format!("--rw={order}"),
        format!("--size={mib}M"),
        "--ioengine=mmap".to_owned(),
        "--fallocate=truncate".to_owned(),
        "--bs=64k".to_owned(),
        "--verify=crc32c".to_owned(),
        "--verify_fatal=1".to_owned(),
        "--verify_state_save=0".to_owned(),
        "--end_fsync=1".to_owned(),
        "--minimal".to_owned(),
    ]
}
