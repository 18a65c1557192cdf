use super::*;
use crate::test_support::{arena, flagged_write_of, read, write, write_of};
use crate::wrap::{Delay, Fault};
use crate::{MemoryDevice, MemoryOptions, submit_and_wait};

fn memory() -> Arc<MemoryDevice> {
    let options = MemoryOptions { grows: true, ..MemoryOptions::default() };
    Arc::new(MemoryDevice::new(64 << 10, options))
}

#[test]
fn each_operation_is_a_line() {
    let (arena, fault) = (arena(4), Arc::new(Fault::new(memory())));
    let trace = Trace::new(Arc::clone(&fault) as Arc<dyn BlockDevice>);
    let sync_fua = BioFlags { sync: true, background: false, fua: true };
    let bio = flagged_write_of(&arena, 0, 1, 8192, sync_fua);
    assert_eq!(submit_and_wait(&trace, bio), Ok(()));
    let background = BioFlags { background: true, ..BioFlags::default() };
    let bio = flagged_write_of(&arena, 16, 1, 512, background);
    assert_eq!(submit_and_wait(&trace, bio), Ok(()));
    let _read = read(&trace, &arena, 8, 4096);
    let _rule = fault.fail_nth(2, Errno::IO);
    for bio in [Bio::flush(), Bio::flush(), Bio::discard(Sector(2), 512)] {
        let _result = submit_and_wait(&trace, bio);
    }
    assert_eq!(submit_and_wait(&trace, Bio::write_zeroes(Sector(3), 1024)), Ok(()));
    assert_eq!(submit_and_wait(&trace, Bio::discard(Sector(0), 7)), Err(Errno::INVAL));
    assert_eq!(trace.set_len(700), Ok(()));
    let expected = [
        "W 0+16 sync fua".to_owned(),
        "W 16+1 background".to_owned(),
        "R 8+8".to_owned(),
        "F".to_owned(),
        format!("F failed: {}", Errno::IO),
        "D 2+1".to_owned(),
        "Z 3+2".to_owned(),
        format!("D 0+1 refused: {}", Errno::INVAL),
        "L 700".to_owned(),
    ];
    assert_eq!(trace.take_lines(), expected);
    assert!(trace.take().is_empty());
}

#[test]
fn the_order_of_completions_is_kept() {
    let arena = arena(4);
    let delay = Arc::new(Delay::manual(memory()));
    let trace = Trace::new(Arc::clone(&delay) as Arc<dyn BlockDevice>);
    for sector in 0..3 {
        trace.submit(write_of(&arena, sector, 1, 512)).expect("it is taken");
    }
    assert_eq!(trace.events()[2].to_string(), "W 2+1 in flight");
    assert!(delay.release_nth(2));
    assert!(delay.release_next());
    let order = trace.take().into_iter().map(|event| (event.submitted, event.completed));
    assert!(order.eq([(0, Some(4)), (1, None), (2, Some(3))]));
    assert!(delay.release_next(), "a completion after the list was taken");
    assert!(trace.take().is_empty());
}

#[test]
fn equal_content_has_equal_hashes() {
    let arena = arena(4);
    let trace = Trace::with_hashes(memory());
    for (sector, byte) in [(0, 1), (8, 1), (16, 2)] {
        write(&trace, &arena, sector, byte, 4096);
    }
    let hashes: Vec<_> = trace.take().into_iter().map(|event| event.hash).collect();
    assert!(hashes[0].is_some());
    assert_eq!(hashes[0], hashes[1]);
    assert_ne!(hashes[0], hashes[2]);
}

#[test]
fn a_refused_bio_is_recorded_once_each_time_it_is_submitted() {
    let fault = Arc::new(Fault::new(memory()));
    let trace = Trace::new(Arc::clone(&fault) as Arc<dyn BlockDevice>);
    let effect = crate::wrap::Effect::Refuse(Errno::AGAIN);
    let times = crate::wrap::Times::First(1);
    let _rule = fault.add(crate::wrap::Rule { op: None, sectors: None, times, effect });
    let refused = trace.submit(Bio::flush()).expect_err("the rule");
    trace.submit(refused.bio).expect("the rule is used up");
    assert_eq!(trace.take_lines(), [format!("F refused: {}", Errno::AGAIN), "F".to_owned()]);
}
