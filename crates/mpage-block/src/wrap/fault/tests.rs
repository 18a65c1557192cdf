use super::*;
use crate::test_support::{Results, arena, read, write, write_of};
use crate::{MemoryDevice, MemoryOptions, submit_and_wait};

const ANY: Rule = Rule { op: None, sectors: None, times: Times::All, effect: FAIL };
const FAIL: Effect = Effect::Fail(Errno::IO);
const WRITE: Option<DeviceOp> = Some(DeviceOp::Bio(BioOp::Write));

fn devices() -> (Arc<MemoryDevice>, Fault) {
    let options = MemoryOptions { grows: true, ..MemoryOptions::default() };
    let memory = Arc::new(MemoryDevice::new(64 << 10, options));
    let fault = Fault::new(Arc::clone(&memory) as Arc<dyn BlockDevice>);
    (memory, fault)
}

#[test]
fn without_rules_everything_passes() {
    let (memory, fault) = devices();
    let arena = arena(4);
    write(&fault, &arena, 8, 3, 4096);
    assert!(read(&fault, &arena, 8, 4096) == [3; 4096]);
    assert_eq!(fault.set_len(512), Ok(()));
    assert_eq!((memory.len(), fault.operations(), fault.failed()), (512, 3, 0));
}

#[test]
fn operation_number_n_fails_and_no_other() {
    for nth in 1..=4 {
        let (_, fault) = devices();
        let arena = arena(4);
        let _rule: RuleId = fault.fail_nth(nth, Errno::NOSPC);
        let results = [
            submit_and_wait(&fault, write_of(&arena, 0, 1, 512)),
            fault.set_len(100),
            submit_and_wait(&fault, Bio::flush()),
            submit_and_wait(&fault, write_of(&arena, 0, 1, 512)),
        ];
        for (number, result) in (1..).zip(results) {
            assert_eq!(result, if number == nth { Err(Errno::NOSPC) } else { Ok(()) });
        }
        assert_eq!((fault.operations(), fault.failed()), (4, 1));
    }
}

#[test]
fn a_rule_is_about_its_operation_and_its_sectors() {
    let (_, fault) = devices();
    let arena = arena(4);
    let _rule = fault.add(Rule { op: WRITE, sectors: Some(Sector(8)..Sector(9)), ..ANY });
    for (sector, fails) in [(0, false), (1, true), (8, true), (9, false)] {
        let result = submit_and_wait(&fault, write_of(&arena, sector, 1, 4096));
        assert_eq!(result.is_err(), fails, "sector {sector}");
    }
    assert!(read(&fault, &arena, 8, 512) == [0; 512]);
    assert_eq!(submit_and_wait(&fault, Bio::flush()), Ok(()));
}

#[test]
fn the_first_operations_fail_until_the_rule_is_removed() {
    let (_, fault) = devices();
    let flush = || submit_and_wait(&fault, Bio::flush());
    let _first = fault.add(Rule { times: Times::First(2), ..ANY });
    assert_eq!([flush(), flush(), flush()], [Err(Errno::IO), Err(Errno::IO), Ok(())]);
    let all = fault.add(ANY);
    assert_eq!(flush(), Err(Errno::IO));
    assert!(fault.remove(all));
    assert!(!fault.remove(all));
    assert_eq!(flush(), Ok(()));
    let _again = fault.add(ANY);
    fault.clear();
    assert_eq!(flush(), Ok(()));
}

#[test]
fn the_rule_added_first_says_how_and_all_count() {
    let (_, fault) = devices();
    let _first =
        fault.add(Rule { times: Times::Nth(1), effect: Effect::Fail(Errno::NOSPC), ..ANY });
    let _second = fault.add(Rule { times: Times::First(2), ..ANY });
    let flush = || submit_and_wait(&fault, Bio::flush());
    assert_eq!([flush(), flush(), flush()], [Err(Errno::NOSPC), Err(Errno::IO), Ok(())]);
}

#[test]
fn a_refusal_gives_the_bio_back_untold() {
    let (memory, fault) = devices();
    let arena = arena(4);
    let _rule = fault.add(Rule { effect: Effect::Refuse(Errno::AGAIN), ..ANY });
    let results = Results::default();
    let bio = results.of(write_of(&arena, 0, 1, 512));
    let refused = fault.submit(bio).expect_err("the rule");
    assert_eq!((refused.error, results.so_far().len()), (Errno::AGAIN, 0));
    fault.clear();
    fault.submit(refused.bio).expect("no rule");
    assert_eq!(results.so_far(), [Ok(())]);
    assert_eq!(memory.contents()[..512], [1; 512]);
}

#[test]
fn a_failed_write_may_have_been_done() {
    let (memory, fault) = devices();
    let arena = arena(4);
    let _rule = fault.add(Rule { effect: Effect::DoneButFail(Errno::IO), ..ANY });
    let results = Results::default();
    fault.submit(results.of(write_of(&arena, 0, 1, 512))).expect("it is taken");
    assert_eq!(results.so_far(), [Err(Errno::IO)]);
    assert_eq!(memory.contents()[..512], [1; 512]);
    assert_eq!(fault.set_len(700), Err(Errno::IO));
    assert_eq!(memory.len(), 700);
}

#[test]
fn a_torn_write_leaves_its_first_sectors_and_fails() {
    let arena = arena(8);
    for (sectors, written) in [(0, 0), (1, 512), (11, 5632), (99, 8192)] {
        let (memory, fault) = devices();
        let torn = Effect::Torn { sectors, error: Errno::IO };
        let _rule = fault.add(Rule { op: WRITE, effect: torn, ..ANY });
        let results = Results::default();
        fault.submit(results.of(write_of(&arena, 2, 6, 8192))).expect("it is taken");
        assert_eq!(results.so_far(), [Err(Errno::IO)]);
        let expected = [vec![0; 1024], vec![6; written], vec![0; (64 << 10) - 1024 - written]];
        assert!(memory.contents() == expected.concat(), "{sectors} sectors");
        assert_eq!(arena.free_frames(), 8);
    }
}

#[test]
fn what_the_device_inside_refuses_can_be_submitted_again() {
    let inner = Arc::new(devices().1);
    let _refuse = inner.add(Rule { effect: Effect::Refuse(Errno::AGAIN), ..ANY });
    let fault = Fault::new(Arc::clone(&inner) as Arc<dyn BlockDevice>);
    let _rule = fault.add(Rule { effect: Effect::DoneButFail(Errno::PERM), ..ANY });
    let results = Results::default();
    let refused = fault.submit(results.of(Bio::flush())).expect_err("the rule");
    inner.clear();
    fault.clear();
    fault.submit(refused.bio).expect("no rule");
    assert_eq!(results.so_far(), [Ok(())], "the interceptor is gone");
}
