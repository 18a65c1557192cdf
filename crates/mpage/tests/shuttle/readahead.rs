//! What is read before somebody needs it.

use mpage::Advice;

use crate::rig::{Build, PAGE, below, check, read_versions, spawn};

/// Readahead x T, contract 88: what is read ahead of a reader, or on advice, brings nothing back
/// that is removed meanwhile.
///
/// Failed when a page that is read ahead could be inserted into a range that is being removed.
#[test]
fn shuttle_readahead_beside_a_removal_brings_nothing_back() {
    check(|| {
        // An eighth of the memory is the longest window: some pages.
        let rig = Build { memory: 192 << 10, ..Build::pages(6) }.rig();
        let file = rig.file.clone();
        let reader = spawn(move || {
            if below(2) == 0 {
                file.advise(PAGE..6 * PAGE, Advice::WillNeed).unwrap();
            }
            (0..3).for_each(|page| drop(read_versions(&file, page * PAGE, 16)));
        });
        if below(2) == 0 {
            rig.file.punch_hole(PAGE..6 * PAGE).unwrap();
        } else {
            rig.file.set_len(PAGE).unwrap();
            rig.file.set_len(6 * PAGE).unwrap();
        }
        let removed = read_versions(&rig.file, PAGE, 5 * 4096);
        assert!(removed.iter().all(Option::is_none), "what was removed is back");
        reader.join().unwrap();
        let removed = read_versions(&rig.file, PAGE, 5 * 4096);
        assert!(removed.iter().all(Option::is_none), "what was removed came back");
        assert_eq!(read_versions(&rig.file, 0, 4096), vec![Some(0); 512]);
        rig.end();
    });
}
