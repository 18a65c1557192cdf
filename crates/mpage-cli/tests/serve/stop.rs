//! How a server ends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, OFlags};

use crate::client::*;
use crate::process::Served;

fn image(folder: &Path, bytes: u64) -> PathBuf {
    let path = folder.join("disk.img");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

#[test]
fn a_signal_writes_everything_reports_and_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), 16 << 20);
    for (seed, signal) in [(1, "TERM"), (2, "INT"), (3, "HUP")] {
        let mut served = Served::start(&image, &[]);
        let mut client = served.simple();
        assert_eq!(client.write(0, 4096, &pattern(seed, 3 << 20)), 0);
        served.signal(signal);
        let (code, told) = served.end();
        assert_eq!(code, Some(0), "{told}");
        assert!(told.starts_with("wrote 768 pages (3 MiB) in "), "{told}");
        assert!(told.contains("flush") && told.ends_with(" s\n"), "{told}");
        assert!(fs::read(&image).unwrap()[4096..][..3 << 20] == pattern(seed, 3 << 20));
        assert!(!folder.path().join("disk.img.sock").exists());
        assert_eq!(client.rest(), b"", "its clients see the end");
    }
}

#[test]
fn requests_that_arrived_are_finished_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), 64 << 20);
    let mut served = Served::start(&image, &["--memory", "16M"]);
    let mut client = served.simple();
    for place in 0..30 {
        let flags = if place % 3 == 0 { FUA } else { 0 };
        let data = pattern(place, 1 << 20);
        let _cookie = client.send((WRITE, flags), place << 20, 1 << 20, &data);
    }
    // All were sent, so all that is left to do is in the server's hands or on its way there.
    assert_eq!(client.reply().error, 0);
    served.signal("TERM");
    let replies = client.rest();
    let (code, told) = served.end();
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(replies.len() % 16, 0, "replies are whole");
    let content = fs::read(&image).unwrap();
    for reply in replies.chunks(16) {
        assert_eq!(number(&reply[4..8]), 0);
        let place = usize::try_from(number(&reply[8..]) - 1).unwrap();
        assert!(content[place << 20..][..1 << 20] == pattern(place as u64, 1 << 20));
    }
}

#[test]
fn clients_that_say_nothing_or_half_do_not_keep_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), 16 << 20);
    let mut served = Served::start(&image, &[]);
    let silent = Client::silent(served.connect());
    let idle = served.simple();
    let mut half = served.simple();
    half.send_raw(&request_bytes((WRITE, 0), 1, 0, 4096)[..20]);
    let mut data_missing = served.simple();
    let _cookie = data_missing.send((WRITE, 0), 0, 4096, &[1; 4000]);
    let (code, told) = served.stop();
    assert_eq!(code, Some(0), "{told}");
    assert!(!told.contains("could not be finished"), "{told}");
    assert!(fs::read(&image).unwrap().iter().all(|byte| *byte == 0), "half a write is none");
    drop((silent, idle, half, data_missing));
}

#[test]
fn a_second_signal_tells_what_is_lost_and_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), 64 << 20);
    let mut served = Served::start(&image, &[]);
    let mut writer = served.simple();
    assert_eq!(writer.write(0, 0, &pattern(1, 1 << 20)), 0);
    // The stop waits for a client that does not take its replies.
    let mut deaf = served.simple();
    for _ in 0..20 {
        let _cookie = deaf.send((READ, 0), 0, 1 << 20, &[]);
    }
    let _part = deaf.take(4);
    served.signal("TERM");
    assert_eq!(writer.rest(), b"", "the stop has begun");
    served.signal("INT");
    let (code, told) = served.end();
    assert_eq!(code, Some(1));
    assert!(told.contains("second signal") && told.contains("1 MiB"), "{told}");
}

#[test]
fn a_killed_server_has_kept_what_was_flushed() {
    let folder = tempfile::tempdir().unwrap();
    let image = image(folder.path(), 16 << 20);
    for round in 0..5 {
        let mut served = Served::start(&image, &[]);
        let mut client = served.simple();
        assert_eq!(client.write(0, round << 20, &pattern(round, 300_000)), 0);
        assert_eq!(client.flush(), 0);
        assert_eq!(client.write(FUA, (round << 20) + 500_000, &pattern(round, 5000)), 0);
        for place in 0..50 {
            assert_eq!(client.write(0, (8 << 20) + place * 5000, &[7; 5000]), 0);
        }
        served.signal("KILL");
        assert_eq!(served.end().0, None);
        let mut served = Served::start(&image, &[]);
        let mut client = served.simple();
        for earlier in 0..=round {
            assert_eq!(client.read(earlier << 20, 300_000), Ok(pattern(earlier, 300_000)));
            let fua = client.read((earlier << 20) + 500_000, 5000);
            assert_eq!(fua, Ok(pattern(earlier, 5000)));
        }
        assert_eq!(served.stop().0, Some(0));
    }
}

/// A small file system in memory.
struct Small(PathBuf);

impl Small {
    /// `None` where we may not mount, or the file system has no direct I/O, as before Linux 6.6.
    fn mount(at: &Path) -> Option<Small> {
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=8M", "mpage-test"]).arg(at);
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        let small = mounted.then(|| Small(at.into()))?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::DIRECT;
        let direct = rustix::fs::open(at.join("probe"), flags, Mode::RWXU);
        direct.is_ok().then_some(small)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // The kernel may hold a file for a moment after its process has ended.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status().unwrap();
        assert!(unmounted.success() || std::thread::panicking());
    }
}

#[test]
fn a_full_host_loses_nothing_and_writing_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(folder.path()) else {
        eprintln!("not tested: no small file system with direct I/O can be mounted");
        return;
    };
    let ballast = folder.path().join("ballast");
    fs::write(&ballast, vec![1; 5 << 20]).unwrap();
    let image = image(folder.path(), 64 << 20);
    let mut served = Served::start(&image, &["--memory", "64M"]);
    let mut client = served.simple();
    for place in 0..6 {
        assert_eq!(client.write(0, place << 20, &pattern(place, 1 << 20)), 0);
    }
    assert_eq!(client.flush(), ENOSPC);
    assert_eq!(client.read(5 << 20, 1 << 20), Ok(pattern(5, 1 << 20)));
    fs::remove_file(&ballast).unwrap();
    let tries = (0..3).map(|_| client.flush()).last();
    assert_eq!(tries, Some(0));
    assert_eq!(client.write(0, 6 << 20, &pattern(6, 1 << 20)), 0);
    let (code, told) = served.stop();
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(told.matches("full").count(), 1, "it is told once: {told}");
    assert!(told.contains("disk.img") && told.contains("free some room"), "{told}");
    let content = fs::read(&image).unwrap();
    for place in 0..7 {
        assert!(content[place << 20..][..1 << 20] == pattern(place as u64, 1 << 20));
    }
}

#[test]
fn what_cannot_be_written_at_the_end_is_told_by_its_ranges() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_small) = Small::mount(folder.path()) else {
        eprintln!("not tested: no small file system with direct I/O can be mounted");
        return;
    };
    fs::write(folder.path().join("ballast"), vec![1; 7 << 20]).unwrap();
    let image = image(folder.path(), 64 << 20);
    let mut served = Served::start(&image, &["--memory", "16M"]);
    let mut client = served.simple();
    // More than the cache lets be dirty: writers are held back, which the stop does not wait for.
    for place in 0..16 {
        let _cookie = client.send((WRITE, 0), place << 20, 1 << 20, &pattern(place, 1 << 20));
    }
    assert_eq!(client.reply().error, 0);
    let (code, told) = served.stop();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("disk.img") && told.contains("bytes "), "{told}");
    assert!(told.contains("wrote "), "{told}");
}
