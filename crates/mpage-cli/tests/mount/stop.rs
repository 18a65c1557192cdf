//! How a mount ends.

use std::fs::{self, File};
use std::process::Command;

use crate::process::{Mounted, Place, run, umount};

#[test]
fn each_way_to_end_it_writes_everything_and_ends_well() {
    let place = Place::new();
    for (number, way) in (1..).zip(["TERM", "INT", "HUP", "umount", "fusermount3"]) {
        let mut mounted = Mounted::start(&place, &[]);
        let content = vec![number; 3 << 20];
        fs::write(place.point().join(way), &content).unwrap();
        match way {
            "umount" => assert!(Command::new(way).arg(place.point()).status().unwrap().success()),
            "fusermount3" => {
                let status = Command::new(way).arg("-u").arg(place.point()).status();
                assert!(status.expect("fusermount3 is in Debian's package fuse3").success());
            }
            signal => mounted.signal(signal),
        }
        let (code, told) = mounted.end();
        assert_eq!(code, Some(0), "{way}: {told}");
        assert!(told.starts_with("wrote "), "{way}: {told}");
        place.check();
        let mounted = Mounted::start(&place, &[]);
        assert!(fs::read(place.point().join(way)).unwrap() == content, "{way}");
        assert_eq!(umount(&place.point()), (Some(0), String::new()));
        drop(mounted);
    }
}

#[test]
fn a_mount_in_use_is_not_unmounted_and_goes_on() {
    let place = Place::new();
    let mut mounted = Mounted::start(&place, &[]);
    let open = File::create(place.point().join("file")).unwrap();
    let (code, told) = umount(&place.point());
    assert_eq!(code, Some(1));
    assert!(told.contains("in use"), "{told}");
    fs::write(place.point().join("other"), "content").unwrap();
    drop(open);
    assert_eq!(umount(&place.point()), (Some(0), String::new()));
    assert_eq!(mounted.end().0, Some(0));
    place.check();
}

#[test]
fn a_signal_ends_a_mount_in_use_with_all_of_it_on_the_image() {
    let place = Place::new();
    let mut mounted = Mounted::start(&place, &[]);
    let file = File::create(place.point().join("file")).unwrap();
    fs::write(place.point().join("other"), vec![7; 1 << 20]).unwrap();
    mounted.signal("TERM");
    let (code, told) = mounted.end();
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("in use"), "{told}");
    assert!(file.sync_all().is_err(), "who had it open is told");
    drop(file);
    place.check();
}

#[test]
fn a_mount_whose_server_was_killed_is_cleared_and_what_that_means_is_told() {
    let place = Place::new();
    let mut mounted = Mounted::start(&place, &[]);
    fs::write(place.point().join("file"), "content").unwrap();
    mounted.signal("KILL");
    assert_eq!(mounted.end().0, None);
    let image = place.image();
    let point = place.point();
    let [image, point] = [&image, &point].map(|path| path.to_str().unwrap());
    let (status, _, told) = run(&["mount", image, point]);
    assert_eq!(status.code(), Some(1));
    assert!(told.contains("server is gone") && told.contains("mpage umount"), "{told}");
    let (code, told) = umount(&place.point());
    assert_eq!(code, Some(1));
    assert!(told.contains("not synced is lost") && told.contains("e2fsck -f"), "{told}");
    let (status, _, told) = run(&["umount", point]);
    assert_eq!(status.code(), Some(1));
    assert!(told.contains("nothing is mounted"), "{told}");
    let repaired = Command::new("e2fsck").args(["-fy", image]).output().unwrap();
    assert!(repaired.status.code().is_some_and(|code| code <= 1));
    let mounted = Mounted::start(&place, &[]);
    assert_eq!(umount(&place.point()), (Some(0), String::new()));
    drop(mounted);
}
