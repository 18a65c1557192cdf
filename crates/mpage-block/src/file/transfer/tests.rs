use super::*;
use crate::file::{FileDevice, FileOptions};
use crate::test_support::{arena, flagged_write_of, read_of, write_of};
use crate::{BioFlags, BlockDevice, Sector};

const FUA: BioFlags = BioFlags { sync: false, background: false, fua: true };

/// A regular file of `len` bytes, with direct I/O.
fn device(len: usize) -> (tempfile::TempDir, FileDevice) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let image = folder.path().join("disk.img");
    std::fs::write(&image, vec![5; len]).expect("a file");
    let device = FileDevice::open(image, &FileOptions::default()).expect("a file");
    (folder, device)
}

/// What is asked: a letter, where, and how many bytes.
fn asked(transfer: &Transfer, target: &Target) -> (char, u64, u64) {
    let bytes = |memory: &IoVecs| memory.rest().iter().map(|vec| vec.iov_len as u64).sum();
    match transfer.next(target) {
        Call::Read { memory, at } => ('r', at, bytes(memory)),
        Call::Write { memory, at, flags: 0 } => ('w', at, bytes(memory)),
        Call::Write { memory, at, .. } => ('d', at, bytes(memory)),
        Call::Sync => ('s', 0, 0),
        Call::Fallocate { mode, at, bytes } if mode.contains(FallocateFlags::PUNCH_HOLE) => {
            ('p', at, bytes)
        }
        Call::Fallocate { at, bytes, .. } => ('z', at, bytes),
        Call::Discard { at, bytes } => ('t', at, bytes),
    }
}

#[test]
fn a_short_transfer_goes_on_where_it_stopped() {
    let (_folder, device) = device(1 << 20);
    let (target, arena) = (&device.target, arena(16));
    let (read, frames) = read_of(&arena, 8, 5 * 4096);
    for (bio, letter) in [(read, 'r'), (write_of(&arena, 8, 1, 5 * 4096), 'w')] {
        let mut transfer = Transfer::of(bio, target).unwrap();
        assert_eq!(asked(&transfer, target), (letter, 4096, 5 * 4096));
        assert_eq!(transfer.ended(target, Ok(8192)), None);
        assert_eq!(asked(&transfer, target), (letter, 4096 + 8192, 3 * 4096));
        let inside = 8192 + 100;
        assert_eq!(transfer.ended(target, Ok(inside)), None, "direct I/O begins at a sector");
        assert_eq!(asked(&transfer, target), (letter, 4096 + 16384, 4096));
        assert_eq!(transfer.ended(target, Ok(4096)), Some(Ok(())));
    }
    for frame in frames {
        assert!(arena.unpin(frame), "the bio has let go");
    }
}

#[test]
fn an_interrupted_call_is_made_again_and_one_that_moves_nothing_fails() {
    let (_folder, device) = device(1 << 20);
    let (target, arena) = (&device.target, arena(16));
    let mut transfer = Transfer::of(write_of(&arena, 8, 1, 8192), target).unwrap();
    assert_eq!(transfer.ended(target, Err(Errno::INTR)), None);
    assert_eq!(asked(&transfer, target), ('w', 4096, 8192));
    assert_eq!(transfer.ended(target, Ok(0)), Some(Err(Errno::IO)));
    assert_eq!(transfer.ended(target, Err(Errno::NOSPC)), Some(Err(Errno::NOSPC)));
    let mut flush = Transfer::of(Bio::flush(), target).unwrap();
    assert_eq!(flush.ended(target, Err(Errno::INTR)), None);
    assert_eq!(flush.ended(target, Err(Errno::OPNOTSUPP)), Some(Err(Errno::OPNOTSUPP)));
}

/// Seen to fail: without looking whether the file has grown, with EIO.
#[test]
fn a_read_that_found_the_end_reads_again_where_the_file_has_grown_since() {
    let (_folder, device) = device(4096);
    let (target, arena) = (&device.target, arena(16));
    let (bio, frames) = read_of(&arena, 16, 8192);
    let mut transfer = Transfer::of(bio, target).unwrap();
    // Others wrote between the call and its answer, twice, and the second time less than a sector.
    device.set_len(12288).unwrap();
    assert_eq!(transfer.ended(target, Ok(0)), None);
    assert_eq!(asked(&transfer, target), ('r', 8192, 8192));
    device.set_len(16384).unwrap();
    assert_eq!(transfer.ended(target, Ok(100)), None);
    assert_eq!(asked(&transfer, target), ('r', 8192, 8192));
    assert_eq!(transfer.ended(target, Ok(0)), Some(Err(Errno::IO)), "it has not grown again");
    drop(transfer);
    assert!(frames.iter().all(|frame| arena.unpin(*frame)), "the bio has let go");
}

#[test]
fn a_fua_write_is_synced_where_the_kernel_has_none() {
    let (_folder, device) = device(1 << 20);
    let (target, arena) = (&device.target, arena(16));
    let fua = || Transfer::of(flagged_write_of(&arena, 8, 1, 8192, FUA), target).unwrap();
    let mut transfer = fua();
    assert_eq!(asked(&transfer, target), ('d', 4096, 8192));
    assert_eq!(transfer.ended(target, Ok(8192)), Some(Ok(())));
    let mut transfer = fua();
    assert_eq!(transfer.ended(target, Err(Errno::OPNOTSUPP)), None);
    assert_eq!(asked(&transfer, target), ('w', 4096, 8192));
    assert_eq!(transfer.ended(target, Ok(8192)), None, "it is not durable yet");
    assert_eq!(asked(&transfer, target), ('s', 0, 0));
    assert_eq!(transfer.ended(target, Err(Errno::IO)), Some(Err(Errno::IO)));
}

#[test]
fn zeros_are_written_by_hand_where_the_file_system_has_no_call_for_it() {
    let (folder, device) = device(8192);
    let target = &device.target;
    let mut transfer = Transfer::of(Bio::write_zeroes(Sector(8), 4096), target).unwrap();
    assert_eq!(asked(&transfer, target), ('p', 4096, 4096));
    assert_eq!(transfer.ended(target, Err(Errno::OPNOTSUPP)), None);
    assert_eq!(asked(&transfer, target), ('z', 4096, 4096));

    let grows = Bio::write_zeroes(Sector(8), 200 << 10);
    let mut transfer = Transfer::of(grows, target).unwrap();
    assert_eq!(asked(&transfer, target), ('z', 4096, 200 << 10));
    assert_eq!(transfer.ended(target, Err(Errno::OPNOTSUPP)), None);
    assert_eq!(asked(&transfer, target), ('w', 4096, 64 << 10));
    target.finish(transfer);
    let expected = [vec![5; 4096], vec![0; 200 << 10]].concat();
    assert!(std::fs::read(folder.path().join("disk.img")).expect("a file") == expected);
}
