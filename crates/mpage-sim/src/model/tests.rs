//! Each rule of the model, with what it allows and what it does not.

use super::*;

const A: Content = Content::Stamp(100);
const B: Content = Content::Stamp(200);

/// A file of 1000 bytes of `A`.
fn file() -> FileModel {
    FileModel::new(1000, A)
}

fn read(file: &mut FileModel, content: Content, began: u64, ended: u64) -> Result<(), Wrong> {
    let bytes = content.bytes(0, 1000);
    file.read(0, 1000, (&bytes, false, true), began, ended)
}

#[test]
fn a_read_returns_the_last_change_that_had_ended() {
    let mut file = file();
    let change = file.begin(0..1000, B, 10);
    file.end(change, true, 11);
    assert!(read(&mut file, B, 12, 13).is_ok());
    assert!(read(&mut file, A, 14, 15).is_err(), "it went back");
    assert!(read(&mut file, Content::Stamp(7), 16, 17).is_err(), "nobody wrote it");
}

#[test]
fn a_read_beside_a_change_returns_either_and_later_ones_do_not_go_back() {
    let mut file = file();
    let change = file.begin(0..1000, B, 10);
    assert!(read(&mut file, A, 11, 12).is_ok());
    assert!(read(&mut file, B, 13, 14).is_ok());
    assert!(read(&mut file, A, 15, 16).is_err(), "the change was seen before");
    file.end(change, true, 17);
}

#[test]
fn each_byte_is_of_a_change_of_its_own() {
    let mut file = file();
    let change = file.begin(300..600, B, 10);
    file.end(change, true, 11);
    let mut bytes = A.bytes(0, 1000);
    B.fill(300, &mut bytes[300..600]);
    assert!(file.read(0, 1000, (&bytes, false, true), 12, 13).is_ok());
    bytes[600] ^= 1;
    assert!(file.read(0, 1000, (&bytes, false, true), 14, 15).is_err());
}

#[test]
fn a_change_that_failed_is_there_or_not_and_not_later() {
    let mut file = file();
    let failed = file.begin(0..1000, B, 10);
    file.end(failed, false, 11);
    let newest = Content::Stamp(300);
    assert!(read(&mut file, A, 12, 13).is_ok());
    let change = file.begin(0..1000, newest, 14);
    file.end(change, true, 15);
    assert!(read(&mut file, B, 16, 17).is_err(), "it happened behind a newer one");
    assert!(read(&mut file, newest, 18, 19).is_ok());
}

#[test]
fn a_removal_that_failed_may_bring_older_bytes_back_until_they_are_written() {
    let mut file = file();
    let change = file.begin(0..1000, B, 10);
    file.end(change, true, 11);
    let removal = file.begin(0..1000, Content::Zeros, 12);
    file.uncover(removal, 13);
    assert!(read(&mut file, A, 14, 15).is_ok());
    assert!(read(&mut file, Content::Zeros, 16, 17).is_ok());
    let change = file.begin(0..1000, B, 18);
    file.end(change, true, 19);
    assert!(read(&mut file, A, 20, 21).is_err());
}

#[test]
fn a_crash_leaves_what_was_synced_or_newer() {
    let mut file = file();
    let change = file.begin(0..1000, B, 10);
    file.end(change, true, 11);
    let (old, new) = (A.bytes(0, 1000), B.bytes(0, 1000));
    assert!(file.after_crash(&old, 1, 13).is_ok(), "it was not synced");
    assert!(file.after_crash(&new, 1, 13).is_ok(), "it may be there all the same");
    assert!(file.after_crash(&new, 1, 9).is_err(), "it is there before it began");
    file.synced(0..500, false, 14, 16);
    assert!(file.after_crash(&old, 1, 15).is_ok(), "the sync was not over");
    let wrong = file.after_crash(&old, 1, 17).expect_err("the first half was synced");
    assert!(wrong.starts_with("byte 0 "), "{wrong}");
    let mut half = old.clone();
    half[..500].copy_from_slice(&new[..500]);
    assert!(file.after_crash(&half, 1, 17).is_ok());
}

#[test]
fn a_sync_does_not_cover_what_had_not_ended_before_it() {
    let mut file = file();
    let change = file.begin(0..1000, B, 10);
    assert!(read(&mut file, B, 11, 12).is_ok());
    file.synced(0..NEVER, true, 13, 14);
    file.end(change, true, 15);
    assert!(file.after_crash(&A.bytes(0, 1000), 1, 16).is_ok());
}

#[test]
fn sizes_are_exact_at_rest_and_bounds_beside_changes() {
    let mut file = file();
    file.begin_resize(Resize::To(200), 10);
    assert_eq!(file.size(), 200..1001);
    let short = A.bytes(0, 200);
    assert!(file.read(0, 1000, (&short, false, true), 11, 12).is_ok());
    assert!(file.end_resize(Resize::To(200), true, 13, || 0).is_ok());
    assert_eq!(file.size(), 200..201);
    assert!(file.read(0, 1000, (&short[..100], false, true), 14, 15).is_err(), "bytes are missing");
    assert!(file.read(0, 1000, (&short[..100], true, true), 16, 17).is_ok(), "an error stopped it");
    file.begin_resize(Resize::AtLeast(500), 18);
    file.begin_resize(Resize::To(300), 19);
    assert!(file.end_resize(Resize::AtLeast(500), true, 20, || 0).is_ok());
    let wrong = file.end_resize(Resize::To(300), true, 21, || 700);
    assert!(wrong.is_err(), "no order of the two gives 700");
}

#[test]
fn a_synced_size_is_not_lost() {
    let mut file = file();
    file.begin_resize(Resize::To(400), 10);
    let cut = file.begin(400..NEVER, Content::Zeros, 11);
    file.end(cut, true, 12);
    assert!(file.end_resize(Resize::To(400), true, 13, || 0).is_ok());
    let (long, short) = (A.bytes(0, 1000), A.bytes(0, 400));
    assert!(file.after_crash(&long, 1, 14).is_ok());
    assert!(file.after_crash(&short, 1, 14).is_ok());
    assert!(file.after_crash(&[long.as_slice(), &[0]].concat(), 1, 14).is_err(), "never that long");
    file.synced(0..NEVER, true, 15, 16);
    assert!(file.after_crash(&long, 1, 17).is_err());
    assert!(file.after_crash(&short, 1, 17).is_ok());
}
