//! How a mount begins, and what keeps it from it.

use std::fs;
use std::path::Path;

use crate::process::{Mounted, Place, run, umount};

fn refused(args: &[&str]) -> String {
    let (status, out, told) = run(args);
    assert_eq!((status.code(), &out[..]), (Some(1), ""), "{told}");
    assert_eq!(told.lines().count(), 1, "one line says why: {told}");
    told
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_line_that_it_is_ready_says_how_to_stop_it() {
    let place = Place::new();
    let mut mounted = Mounted::start(&place, &[]);
    let (image, point) = (text(&place.image()), text(&place.point()));
    let line = format!("mounted {image} on {point}; stop with: mpage umount {point}\n");
    assert_eq!(mounted.ready, line);
    fs::write(place.point().join("file"), "content").unwrap();
    assert_eq!(umount(&place.point()), (Some(0), String::new()));
    let (code, told) = mounted.end();
    assert_eq!(code, Some(0), "{told}");
    assert!(told.starts_with("wrote "), "{told}");
    assert!(!place.point().join("file").exists());
    place.check();
    let mounted = Mounted::start(&place, &["--read-only"]);
    assert_eq!(fs::read(place.point().join("file")).unwrap(), b"content");
    let error = fs::write(place.point().join("other"), "").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    fs::File::open(place.point()).unwrap().sync_all().unwrap();
    drop(mounted);
}

#[test]
fn an_image_is_made_and_belongs_to_who_made_it() {
    let place = Place::empty();
    let mounted = Mounted::start(&place, &["--create", "16M"]);
    fs::create_dir(place.point().join("folder")).unwrap();
    assert_eq!(umount(&place.point()), (Some(0), String::new()));
    drop(mounted);
    place.check();
    let (image, point) = (text(&place.image()), text(&place.point()));
    let told = refused(&["mount", "--create", "16M", &image, &point]);
    assert!(told.contains("exists already") && told.contains("--create"), "{told}");
    place.check();
}

#[test]
fn an_image_made_for_a_mount_that_cannot_start_goes_again() {
    let place = Place::empty();
    let (image, nowhere) = (text(&place.image()), text(&place.point().join("nowhere")));
    let told = refused(&["mount", "--create", "16M", &image, &nowhere]);
    assert!(told.contains("mkdir"), "{told}");
    let told = refused(&["mount", "--create", "1K", &image, &text(&place.point())]);
    assert!(told.contains("mke2fs"), "{told}");
    assert!(!place.image().exists());
}

#[test]
fn what_cannot_be_mounted_is_named_with_the_remedy() {
    let place = Place::new();
    let (image, point) = (text(&place.image()), text(&place.point()));
    let told = refused(&["mount", &text(&place.point().join("missing")), &point]);
    assert!(told.contains("no such image") && told.contains("--create"), "{told}");
    let told = refused(&["mount", &image, &image]);
    assert!(told.contains("not a directory"), "{told}");
    let told = refused(&["mount", "-o", "journal=never", &image, &point]);
    assert!(told.contains("journal=never") && told.contains("noexec"), "{told}");
    let told = refused(&["mount", "--memory", "4K", &image, &point]);
    assert!(told.contains("--memory"), "{told}");
    let told = refused(&["mount", "--memory", "8M", "--dirty-limit", "9M", &image, &point]);
    assert!(told.contains("--dirty-limit"), "{told}");
    let other = place.image().with_extension("other");
    fs::write(&other, vec![7; 1 << 20]).unwrap();
    let told = refused(&["mount", &text(&other), &point]);
    assert!(told.contains("no ext2, ext3 or ext4 image") && told.contains("mke2fs"), "{told}");
}

#[test]
fn an_image_and_a_directory_in_use_are_refused_and_their_user_goes_on() {
    let place = Place::new();
    let mounted = Mounted::start(&place, &[]);
    fs::write(place.point().join("file"), "content").unwrap();
    let other = Place::new();
    let told = refused(&["mount", &text(&place.image()), &text(&other.point())]);
    assert!(told.contains("in use"), "{told}");
    let told = refused(&["mount", &text(&other.image()), &text(&place.point())]);
    assert!(told.contains("mounted there already"), "{told}");
    assert_eq!(fs::read(place.point().join("file")).unwrap(), b"content");
    assert_eq!(umount(&place.point()), (Some(0), String::new()));
    drop(mounted);
    place.check();
}

#[test]
fn in_the_background_it_is_ready_when_the_command_returns() {
    let place = Place::new();
    let (image, point) = (text(&place.image()), text(&place.point()));
    let (status, out, told) = run(&["mount", "--background", &image, &point]);
    assert!(status.success(), "{told}");
    assert!(out.starts_with("mounted "), "{out}");
    fs::write(place.point().join("file"), "content").unwrap();
    assert_eq!(umount(&place.point()), (Some(0), String::new()));
    place.check();
    let told = refused(&["mount", "--background", &image, &text(&place.image())]);
    assert!(told.contains("not a directory"), "{told}");
}

#[test]
fn each_command_has_a_manual_page_and_says_what_matters() {
    for (command, word) in [("mount", "dirty\\-limit"), ("umount", "DIR"), ("serve", "nbdcopy")] {
        let (status, out, told) = run(&["generate", "man", command]);
        assert!(status.success() && out.contains(word), "{command}: {told}");
    }
    let told = refused(&["generate", "man", "fly"]);
    assert!(told.contains("no such command"), "{told}");
    let (status, out, _) = run(&["mount", "--help"]);
    assert!(status.success());
    for word in ["256M", "kill -9", "mpage umount", "fsync", "64 MiB"] {
        assert!(out.contains(word), "{word}");
    }
}
