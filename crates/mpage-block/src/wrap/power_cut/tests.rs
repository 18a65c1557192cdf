use std::collections::BTreeSet;

use mpage_mem::Arena;

use super::*;
use crate::test_support::{arena, flagged_write_of, read, write, write_of};
use crate::wrap::{Delay, DeviceOp, Effect, Fault, Rule, Times};
use crate::{BioFlags, MemoryDevice, MemoryOptions, Sector, submit_and_wait};

const SEEDS: std::ops::Range<u64> = 0..400;
const FUA: BioFlags = BioFlags { sync: false, background: false, fua: true };

struct Setup {
    arena: Arc<Arena>,
    cut: PowerCut,
    delay: Arc<Delay>,
    fault: Arc<Fault>,
}

/// A power cut around a delay that holds nothing, around faults, around 32 KiB of ones that grow.
fn setup() -> Setup {
    let options = MemoryOptions { grows: true, ..MemoryOptions::default() };
    let contents = vec![1; 32 << 10];
    let memory = Arc::new(MemoryDevice::from_contents(&contents, options));
    let fault = Arc::new(Fault::new(memory));
    let delay = Arc::new(Delay::manual(Arc::clone(&fault) as Arc<dyn BlockDevice>));
    delay.hold_only(|_| false);
    let cut = PowerCut::new(Arc::clone(&delay) as Arc<dyn BlockDevice>, contents);
    Setup { arena: arena(64), cut, delay, fault }
}

fn flush(cut: &PowerCut) {
    submit_and_wait(cut, Bio::flush()).expect("a flush that works");
}

/// The values that byte `at` has over many cuts.
fn seen(cut: &PowerCut, at: usize) -> BTreeSet<Option<u8>> {
    SEEDS.map(|seed| cut.cut(seed).get(at).copied()).collect()
}

fn set(values: &[u8]) -> BTreeSet<Option<u8>> {
    values.iter().copied().map(Some).collect()
}

#[test]
fn flushed_data_survives_every_cut() {
    let Setup { arena, cut, .. } = setup();
    write(&cut, &arena, 3, 7, 8192);
    flush(&cut);
    write(&cut, &arena, 30, 8, 4096);
    for seed in SEEDS {
        assert!(cut.cut(seed)[3 * 512..3 * 512 + 8192] == [7; 8192], "seed {seed}");
    }
}

#[test]
fn data_never_written_appears_in_no_cut() {
    let Setup { arena, cut, .. } = setup();
    let sectors = [0, 5, 2, 40, 3, 17, 40];
    for (byte, sector) in (2..).zip(sectors) {
        write(&cut, &arena, sector, byte, 3 * 512);
    }
    for seed in SEEDS {
        for (sector, bytes) in (0..).zip(cut.cut(seed).chunks(512)) {
            let is = |byte: u8| bytes == [byte; 512];
            let written = (2..)
                .zip(sectors)
                .any(|(byte, start)| is(byte) && (start..start + 3).contains(&sector));
            assert!(is(1) || written, "seed {seed}: {} at sector {sector}", bytes[0]);
        }
    }
}

#[test]
fn unflushed_writes_are_kept_lost_torn_and_reordered() {
    let Setup { arena, cut, .. } = setup();
    write(&cut, &arena, 0, 2, 1024);
    write(&cut, &arena, 0, 3, 1024);
    let pairs: BTreeSet<(u8, u8)> =
        SEEDS.map(|seed| cut.cut(seed)).map(|image| (image[0], image[512])).collect();
    for pair in [(1, 1), (2, 2), (3, 3), (1, 2), (3, 1), (3, 2), (2, 3)] {
        assert!(pairs.contains(&pair), "{pair:?} is not among {pairs:?}");
    }
}

#[test]
fn sectors_are_never_torn() {
    let Setup { arena, cut, .. } = setup();
    write(&cut, &arena, 2, 9, 8192);
    for seed in SEEDS {
        for sector in cut.cut(seed).chunks(512) {
            assert!(sector == [sector[0]; 512], "seed {seed}");
        }
    }
}

#[test]
fn a_cut_is_the_same_for_the_same_seed_and_changes_nothing() {
    let Setup { arena, cut, .. } = setup();
    write(&cut, &arena, 2, 9, 8192);
    assert!(cut.cut(5) == cut.cut(5));
    assert_eq!(cut.uncertain(), 1);
    assert!(read(&cut, &arena, 2, 8192) == [9; 8192], "reads see the newest");
    assert!(cut.durable() == [1; 32 << 10]);
}

#[test]
fn a_flush_covers_only_what_had_completed_before_it() {
    let Setup { arena, cut, delay, .. } = setup();
    delay.hold_only(|_| true);
    cut.submit(write_of(&arena, 0, 2, 512)).expect("it is taken");
    cut.submit(Bio::flush()).expect("it is taken");
    assert_eq!(delay.release_all(), 2);
    assert_eq!(seen(&cut, 0), set(&[1, 2]), "the write was in flight");
    delay.hold_only(|_| false);
    flush(&cut);
    assert_eq!(seen(&cut, 0), set(&[2]));
}

#[test]
fn a_flush_in_flight_makes_nothing_certain() {
    let Setup { arena, cut, delay, .. } = setup();
    write(&cut, &arena, 0, 2, 512);
    delay.hold_only(|_| true);
    cut.submit(Bio::flush()).expect("it is taken");
    assert_eq!(seen(&cut, 0), set(&[1, 2]));
    assert_eq!(delay.release_all(), 1);
    assert_eq!(seen(&cut, 0), set(&[2]));
}

#[test]
fn a_failed_flush_makes_nothing_certain() {
    let Setup { arena, cut, fault, .. } = setup();
    write(&cut, &arena, 0, 2, 512);
    let _rule = fault.fail_nth(1, Errno::IO);
    assert_eq!(submit_and_wait(&cut, Bio::flush()), Err(Errno::IO));
    assert_eq!(seen(&cut, 0), set(&[1, 2]));
}

#[test]
fn a_fua_write_is_certain_when_it_completes_and_nothing_older_covers_it() {
    let Setup { arena, cut, .. } = setup();
    write(&cut, &arena, 0, 2, 1024);
    submit_and_wait(&cut, flagged_write_of(&arena, 0, 3, 512, FUA)).expect("a write that works");
    assert_eq!(seen(&cut, 0), set(&[3]));
    assert_eq!(seen(&cut, 512), set(&[1, 2]), "it is no flush");
}

#[test]
fn a_failed_write_stays_uncertain_until_a_later_one_is_certain() {
    let Setup { arena, cut, fault, .. } = setup();
    let effect = Effect::DoneButFail(Errno::IO);
    let op = Some(DeviceOp::Bio(BioOp::Write));
    let _rule = fault.add(Rule { op, sectors: None, times: Times::First(1), effect });
    assert_eq!(submit_and_wait(&cut, write_of(&arena, 0, 2, 512)), Err(Errno::IO));
    flush(&cut);
    assert_eq!(seen(&cut, 0), set(&[1, 2]));
    write(&cut, &arena, 0, 3, 512);
    flush(&cut);
    assert_eq!((seen(&cut, 0), cut.uncertain()), (set(&[3]), 0));
}

#[test]
fn a_refused_write_never_was() {
    let Setup { arena, cut, fault, .. } = setup();
    let effect = Effect::Refuse(Errno::AGAIN);
    let _rule = fault.add(Rule { op: None, sectors: None, times: Times::First(1), effect });
    let refused = cut.submit(write_of(&arena, 0, 2, 512)).expect_err("the rule");
    assert_eq!(cut.uncertain(), 0);
    submit_and_wait(&cut, refused.bio).expect("the rule is used up");
    assert_eq!(cut.uncertain(), 1);
}

#[test]
fn zeros_and_discards_are_lost_or_kept_as_writes_are() {
    let Setup { cut, .. } = setup();
    submit_and_wait(&cut, Bio::write_zeroes(Sector(0), 512)).expect("it works");
    submit_and_wait(&cut, Bio::discard(Sector(1), 512)).expect("it works");
    assert_eq!((seen(&cut, 0), seen(&cut, 512)), (set(&[0, 1]), set(&[0, 1])));
    flush(&cut);
    assert_eq!((seen(&cut, 0), seen(&cut, 512)), (set(&[0]), set(&[0])));
}

#[test]
fn a_new_size_is_uncertain_until_a_flush_and_what_it_cut_off_does_not_come_back() {
    let Setup { arena, cut, .. } = setup();
    write(&cut, &arena, 64, 2, 512);
    assert_eq!(cut.set_len(100), Ok(()));
    let lens: BTreeSet<usize> = SEEDS.map(|seed| cut.cut(seed).len()).collect();
    assert_eq!(lens, BTreeSet::from([100, 32 << 10, (32 << 10) + 512]));
    submit_and_wait(&cut, flagged_write_of(&arena, 8, 4, 512, FUA)).expect("a write that works");
    for seed in SEEDS {
        let expected = [vec![1; 100], vec![0; 3996], vec![4; 512]].concat();
        assert!(cut.cut(seed) == expected, "seed {seed}");
    }
}

#[test]
fn the_padding_behind_an_exact_size_does_not_come_back() {
    let Setup { arena, cut, .. } = setup();
    write(&cut, &arena, 64, 2, 1024);
    assert_eq!(cut.set_len((32 << 10) + 700), Ok(()));
    submit_and_wait(&cut, flagged_write_of(&arena, 0, 4, 512, FUA)).expect("a write that works");
    for seed in SEEDS {
        assert_eq!(cut.cut(seed).len(), (32 << 10) + 700, "seed {seed}");
    }
}

#[test]
fn a_write_in_flight_may_come_out_on_top_of_a_later_one_that_is_certain() {
    let Setup { arena, cut, delay, .. } = setup();
    delay.hold_only(|bio| bio.bytes() == 1024);
    cut.submit(write_of(&arena, 0, 2, 1024)).expect("it is taken");
    submit_and_wait(&cut, flagged_write_of(&arena, 0, 3, 512, FUA)).expect("a write that works");
    assert_eq!(seen(&cut, 0), set(&[2, 3]));
    assert_eq!(delay.release_all(), 1);
    flush(&cut);
    assert_eq!(seen(&cut, 0), set(&[2]));
}

#[test]
fn a_size_that_the_device_cannot_take_never_was() {
    let memory = Arc::new(MemoryDevice::new(4096, MemoryOptions::default()));
    let cut = PowerCut::new(memory, vec![0; 4096]);
    assert_eq!(cut.set_len(100), Err(Errno::OPNOTSUPP));
    assert_eq!(cut.uncertain(), 0);
}
