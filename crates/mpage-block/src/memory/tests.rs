use super::*;
use crate::test_support::{arena, read, write};
use crate::{Sector, submit_and_wait};

#[test]
fn reads_see_what_was_written() {
    let arena = arena(8);
    let device = MemoryDevice::new(64 << 10, MemoryOptions::default());
    write(&device, &arena, 3, 7, 9 * 512);
    let bytes = read(&device, &arena, 2, 11 * 512);
    let expected: Vec<u8> = [vec![0; 512], vec![7; 9 * 512], vec![0; 512]].concat();
    assert!(bytes == expected);
    assert!(device.contents()[512..12 * 512] == [vec![0; 512], expected].concat()[..11 * 512]);
}

#[test]
fn contents_and_setup_pass_all_checks() {
    let device = MemoryDevice::from_contents(&[1; 8192], MemoryOptions::default());
    device.write_at(4095, &[2, 3]);
    let mut bytes = [0; 4];
    device.read_at(4094, &mut bytes);
    assert_eq!(bytes, [1, 2, 3, 1]);
    assert_eq!((device.len(), device.contents().len()), (8192, 8192));
}

#[test]
fn discarded_and_zeroed_ranges_read_as_zeros_and_nothing_else_does() {
    for bio in [Bio::discard(Sector(7), 10 * 512), Bio::write_zeroes(Sector(7), 10 * 512)] {
        let device = MemoryDevice::from_contents(&[9; 16384], MemoryOptions::default());
        assert_eq!(submit_and_wait(&device, bio), Ok(()));
        let expected = [vec![9; 7 * 512], vec![0; 10 * 512], vec![9; 15 * 512]].concat();
        assert!(device.contents() == expected);
    }
}

#[test]
fn a_huge_device_takes_room_only_for_what_was_written() {
    let arena = arena(4);
    let device = MemoryDevice::new(1 << 50, MemoryOptions::default());
    write(&device, &arena, (1 << 41) - 8, 5, 4096);
    assert!(read(&device, &arena, (1 << 41) - 8, 4096) == [5; 4096]);
    assert_eq!(submit_and_wait(&device, Bio::discard(Sector(0), 1 << 50)), Ok(()));
    assert!(read(&device, &arena, (1 << 41) - 8, 4096) == [0; 4096]);
}

#[test]
fn a_device_that_grows_is_as_long_as_its_last_write_or_size() {
    let arena = arena(8);
    let device = MemoryDevice::new(100, MemoryOptions { grows: true, ..MemoryOptions::default() });
    assert_eq!((device.len(), device.limits().capacity), (100, None));
    write(&device, &arena, 16, 4, 1024);
    assert_eq!(device.len(), 9216);
    assert_eq!(device.set_len(8500), Ok(()));
    assert_eq!(device.len(), 8500);
    assert_eq!(device.set_len(10_000), Ok(()));
    let expected = [vec![0; 8192], vec![4; 308], vec![0; 1500]].concat();
    assert!(device.contents() == expected);
    assert!(read(&device, &arena, 64, 4096) == [0; 4096], "behind the end");
    assert_eq!(device.len(), 10_000, "a read does not grow it");
}
