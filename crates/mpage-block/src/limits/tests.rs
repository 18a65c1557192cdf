use std::sync::Arc;

use super::*;
use crate::test_support::{arena, flagged_write_of, frames, write_of};
use crate::{BioFlags, Sector};

const ALL: Limits = Limits {
    bytes_max: 8192,
    segments_max: 2,
    alignment: 1024,
    parallel: false,
    queue_depth: 1,
    volatile_cache: true,
    fua: true,
    discard: true,
    write_zeroes: true,
    capacity: Some(64 << 10),
};

#[test]
fn an_aligned_bio_within_the_limits_is_taken() {
    let arena = arena(4);
    assert_eq!(ALL.check(&write_of(&arena, 112, 0, 8192)), Ok(()));
    assert_eq!(ALL.check(&Bio::flush()), Ok(()));
    assert_eq!(ALL.check(&Bio::discard(Sector(0), 64 << 10)), Ok(()));
}

#[test]
fn what_the_device_cannot_do_is_not_supported() {
    let arena = arena(4);
    let plain = Limits { fua: false, discard: false, write_zeroes: false, ..ALL };
    let fua = BioFlags { fua: true, ..BioFlags::default() };
    let bios = [
        Bio::discard(Sector(0), 1024),
        Bio::write_zeroes(Sector(0), 1024),
        flagged_write_of(&arena, 0, 0, 1024, fua),
    ];
    for bio in bios {
        assert_eq!(plain.check(&bio), Err(Errno::OPNOTSUPP), "{bio:?}");
        assert_eq!(ALL.check(&bio), Ok(()), "{bio:?}");
    }
}

#[test]
fn misaligned_and_empty_bios_are_invalid() {
    let arena = arena(4);
    let frame = frames(&arena, 1, 0)[0];
    let mut split = Bio::write(&arena, Sector(0), BioFlags::default());
    assert!(split.push(frame, 0, 512, &ALL));
    assert!(split.push(frame, 1024, 512, &ALL));
    let mut inside = Bio::write(&arena, Sector(0), BioFlags::default());
    assert!(inside.push(frame, 512, 1024, &ALL));
    let bios = [
        write_of(&arena, 1, 0, 1024),
        write_of(&arena, 0, 0, 512),
        split,
        inside,
        Bio::read(&arena, Sector(0)),
        Bio::discard(Sector(0), 0),
        Bio::write_zeroes(Sector(0), 1000),
    ];
    for bio in bios {
        assert_eq!(ALL.check(&bio), Err(Errno::INVAL), "{bio:?}");
    }
}

#[test]
fn bios_larger_than_the_limits_are_invalid() {
    let arena = arena(8);
    assert_eq!(ALL.check(&write_of(&arena, 0, 0, 12 << 10)), Err(Errno::INVAL));
    let narrow = Limits { segments_max: 0, ..ALL };
    assert_eq!(narrow.check(&write_of(&arena, 0, 0, 4096)), Err(Errno::INVAL));
}

#[test]
fn behind_the_capacity_writes_have_no_space_and_the_rest_is_invalid() {
    let arena = arena(4);
    let mut read = Bio::read(&arena, Sector(126));
    let frame = frames(&arena, 1, 0)[0];
    assert!(read.push(frame, 0, 2048, &ALL));
    assert_eq!(ALL.check(&read), Err(Errno::INVAL));
    assert_eq!(ALL.check(&write_of(&arena, 126, 0, 2048)), Err(Errno::NOSPC));
    assert_eq!(ALL.check(&Bio::write_zeroes(Sector(0), 65 << 10)), Err(Errno::NOSPC));
    assert_eq!(ALL.check(&Bio::discard(Sector(128), 1024)), Err(Errno::INVAL));
    assert_eq!(ALL.check(&write_of(&arena, 126, 0, 1024)), Ok(()));
}

#[test]
fn a_range_that_no_file_offset_counts_is_invalid() {
    let arena: Arc<mpage_mem::Arena> = arena(4);
    let grows = Limits { capacity: None, ..ALL };
    for sector in [u64::MAX - 1, 1 << 55, (1 << 54) - 2] {
        let bio = write_of(&arena, sector, 0, 2048);
        assert_eq!(grows.check(&bio), Err(Errno::INVAL), "sector {sector}");
        assert_eq!(bio.end_sector().0, sector.saturating_add(4));
    }
}
