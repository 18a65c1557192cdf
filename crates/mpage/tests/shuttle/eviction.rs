//! Pages that leave the cache while they are written.

use crate::rig::{Build, PAGE, check, part, read_versions, spawn, stamp, write};

/// W x E, contract 127, over a volatile cache: a page that a walk writes is there, dirty or on the
/// device for good, whoever wants its memory, and though a flush fails meanwhile.
///
/// Failed when eviction did not ask whether the page is durable.
#[test]
fn shuttle_walk_beside_eviction_keeps_what_is_not_durable() {
    check(|| {
        let rig = Build { volatile_cache: true, ..Build::pages(8) }.rig();
        rig.device.fail_flushes(1);
        let (file, device) = (rig.file.clone(), rig.device.clone());
        let walker = spawn(move || {
            for version in 1..3 {
                write(&file, 0, 16, version);
                file.start_writing(0..PAGE).unwrap();
            }
            if file.fsync().is_ok() {
                assert!(part(&device.durable(), 0, 16) == stamp(0, 16, 2), "synced");
            }
        });
        for page in 1..8 {
            let _read = read_versions(&rig.file, page * PAGE, 16);
            rig.file.invalidate(0..PAGE);
        }
        walker.join().unwrap();
        rig.file.invalidate(0..PAGE);
        assert_eq!(read_versions(&rig.file, 0, 16), [Some(2); 2], "a page that was not durable");
        // The first may tell of the flush that failed.
        if rig.file.fsync().is_err() {
            rig.file.fsync().unwrap();
        }
        assert!(part(&rig.device.durable(), 0, 16) == stamp(0, 16, 2), "not on the device");
        rig.end();
    });
}
