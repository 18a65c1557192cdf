//! Fewer frames than everybody wants.

use crate::rig::{Build, PAGE, check, part, spawn, stamp, write};

/// Writers that wait for memory get it: the flusher writes, flushes, and tells them.
///
/// Failed when a flush did not tell those who wait, and when reclaim did not ask for the flush.
#[test]
fn shuttle_writers_wait_for_memory() {
    check(|| writers(48 << 10, true));
    check(|| writers(48 << 10, false));
    check(|| writers(64 << 10, true));
}

fn writers(memory: usize, volatile_cache: bool) {
    let rig = Build { memory, volatile_cache, ..Build::pages(8) }.rig();
    let writers = [0, 1].map(|odd| {
        let file = rig.file.clone();
        spawn(move || {
            for page in (0..8).filter(|page| page % 2 == odd) {
                write(&file, page * PAGE + 512, 1024 + 32, 1);
            }
        })
    });
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    rig.file.fsync().unwrap();
    for page in 0..8 {
        let at = page * PAGE + 512;
        assert!(part(&rig.device.durable(), at, 1056) == stamp(at, 1056, 1), "page {page}");
    }
    rig.end();
}
