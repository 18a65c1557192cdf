//! Who waits for the device, and who does not.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;

use mpage_block::BioOp;
use mpage_block::Errno;
use mpage_block::wrap::{DeviceOp, Effect, Rule, Times};
use mpage_locks::thread;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::rig::Rig;

const MIB: usize = 1 << 20;

/// More than threads that take requests.
const SYNCS: usize = 9;

#[test]
fn nothing_else_waits_for_syncs() {
    let rig = Rig::new(32 * MIB);
    let point = rig.point();
    fs::write(point.join("other"), "content").unwrap();
    fs::create_dir(point.join("folder")).unwrap();
    let mut files = Vec::new();
    for number in 0..SYNCS {
        let mut file = File::create(point.join(format!("file{number}"))).unwrap();
        file.write_all(&vec![7; MIB]).unwrap();
        files.push(file);
    }
    rig.hold_writes();
    let sync = |file: File| thread::spawn("syncing", move || file.sync_all()).unwrap();
    let syncing: Vec<_> = files.into_iter().map(sync).collect();
    rig.delay.wait_for_held(1);
    // The server itself is asked, each time.
    let flags = AtFlags::STATX_FORCE_SYNC;
    let seen = statx(CWD, point.join("other"), flags, StatxFlags::BASIC_STATS).unwrap();
    assert_eq!(seen.stx_size, 7);
    assert_eq!(fs::read(point.join("other")).unwrap(), b"content");
    fs::write(point.join("folder/new"), "more").unwrap();
    fs::rename(point.join("folder/new"), point.join("moved")).unwrap();
    fs::remove_file(point.join("moved")).unwrap();
    assert_eq!(fs::read_dir(&point).unwrap().count(), SYNCS + 3);
    assert!(!rig.delay.held().is_empty(), "the syncs have not ended");
    rig.let_go();
    syncing.into_iter().for_each(|each| each.join().unwrap().unwrap());
    rig.close();
}

#[test]
fn writers_that_wait_for_memory_keep_nobody_else() {
    let rig = Rig::new(8 * MIB);
    let point = rig.point();
    fs::write(point.join("other"), "content").unwrap();
    rig.hold_writes();
    let path = point.join("file");
    let writing = thread::spawn("writing", move || fs::write(path, vec![7; 12 * MIB])).unwrap();
    rig.delay.wait_for_held(1);
    for _ in 0..100 {
        let flags = AtFlags::STATX_FORCE_SYNC;
        let seen = statx(CWD, point.join("other"), flags, StatxFlags::BASIC_STATS).unwrap();
        assert_eq!(seen.stx_size, 7);
    }
    rig.let_go();
    writing.join().unwrap().unwrap();
    assert!(fs::read(point.join("file")).unwrap() == vec![7; 12 * MIB]);
    rig.close();
}

#[test]
fn a_write_that_failed_is_told_by_fsync_and_nothing_is_lost() {
    let rig = Rig::new(32 * MIB);
    let point = rig.point();
    let file = File::create(point.join("file")).unwrap();
    file.sync_all().unwrap();
    file.write_all_at(&vec![7; MIB], 0).unwrap();
    let effect = Effect::Fail(Errno::IO);
    let rule = Rule {
        op: Some(DeviceOp::Bio(BioOp::Write)),
        sectors: None,
        times: Times::First(1),
        effect,
    };
    let id = rig.fault.add(rule);
    let error = file.sync_all().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()));
    assert!(rig.fault.remove(id));
    file.sync_all().unwrap();
    assert!(fs::read(point.join("file")).unwrap() == vec![7; MIB]);
    drop(file);
    rig.close();
}

#[test]
fn names_that_cannot_be_made_durable_fail_each_sync_of_their_folder() {
    let rig = Rig::new(32 * MIB);
    let folder = File::open(rig.point()).unwrap();
    folder.sync_all().unwrap();
    fs::write(rig.point().join("file"), "content").unwrap();
    let effect = Effect::Fail(Errno::IO);
    let op = Some(DeviceOp::Bio(BioOp::Write));
    let id = rig.fault.add(Rule { op, sectors: None, times: Times::All, effect });
    assert!(folder.sync_all().is_err());
    assert!(rig.fault.remove(id));
    // Nobody knows what the log has on the medium.
    let error = folder.sync_all().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::ROFS.raw_os_error()));
}
