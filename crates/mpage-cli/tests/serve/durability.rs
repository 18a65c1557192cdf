//! What survives the power going.

use mpage_block::wrap::{DeviceOp, Effect, Rule, Times};
use mpage_block::{BioOp, Errno};

use crate::client::*;
use crate::rig::{MIB, Stack};

const BYTES: u64 = 4 * MIB;

fn durable(stack: &Stack, offset: usize, length: usize) -> Vec<u8> {
    stack.cut.durable()[offset..offset + length].to_vec()
}

#[test]
fn a_flush_on_one_connection_covers_what_all_were_told() {
    let stack = Stack::new(BYTES);
    let rig = stack.serve(BYTES, 64 * MIB);
    let (mut one, mut two, mut three) = (rig.simple(), rig.structured(), rig.simple());
    assert_eq!(one.write(0, 10, &pattern(1, 5000)), 0);
    assert_eq!(two.write(0, 2 << 20, &pattern(2, 300_000)), 0);
    assert_ne!(durable(&stack, 10, 5000), pattern(1, 5000), "nothing was asked for yet");
    assert_eq!(three.flush(), 0);
    assert_eq!(durable(&stack, 10, 5000), pattern(1, 5000));
    assert_eq!(durable(&stack, 2 << 20, 300_000), pattern(2, 300_000));
    assert_eq!(two.tell((ZEROES, 0), 2 << 20, 300_000), 0);
    assert_eq!(one.flush(), 0);
    assert_eq!(durable(&stack, 2 << 20, 300_000), vec![0; 300_000]);
}

#[test]
fn a_fua_write_is_durable_and_writes_nobody_elses_data() {
    let stack = Stack::new(BYTES);
    let rig = stack.serve(BYTES, 64 * MIB);
    let (mut one, mut two) = (rig.simple(), rig.simple());
    assert_eq!(one.write(0, 0, &pattern(1, 1 << 20)), 0);
    for (seed, length) in [(2, 512), (3, 4096), (4, 400_000)] {
        let _before = stack.trace.take();
        assert_eq!(two.write(FUA, 2 << 20, &pattern(seed, length)), 0);
        assert_eq!(durable(&stack, 2 << 20, length), pattern(seed, length));
        for event in stack.trace.take() {
            let theirs = event.sector.0 < 2 << 11;
            let writes = event.op == DeviceOp::Bio(BioOp::Write);
            assert!(!(writes && theirs), "{event}");
        }
    }
    assert_eq!(durable(&stack, 0, 1 << 20), vec![0; 1 << 20]);
}

#[test]
fn fua_zeroes_are_durable() {
    let stack = Stack::new(BYTES);
    let rig = stack.serve(BYTES, 64 * MIB);
    let mut client = rig.simple();
    for (flags, offset) in [(FUA, 0), (FUA | NO_HOLE, 1 << 20)] {
        assert_eq!(client.write(FUA, offset, &pattern(1, 10_000)), 0);
        assert_eq!(client.tell((ZEROES, flags), offset + 100, 8000), 0);
        let mut expected = pattern(1, 10_000);
        expected[100..8100].fill(0);
        assert_eq!(durable(&stack, usize::try_from(offset).unwrap(), 10_000), expected);
    }
}

#[test]
fn a_failed_flush_is_told_to_each_connection_and_loses_nothing() {
    let stack = Stack::new(BYTES);
    let rig = stack.serve(BYTES, 64 * MIB);
    let (mut one, mut two) = (rig.simple(), rig.simple());
    assert_eq!(one.write(0, 0, &pattern(1, 9000)), 0);
    let op = Some(DeviceOp::Bio(BioOp::Write));
    let effect = Effect::Fail(Errno::NOSPC);
    let _rule = stack.fault.add(Rule { op, sectors: None, times: Times::All, effect });
    assert_eq!(one.flush(), ENOSPC);
    assert_eq!(two.flush(), ENOSPC);
    assert_eq!(one.write(FUA, 1 << 20, b"more"), ENOSPC);
    assert_eq!(one.read(0, 9000), Ok(pattern(1, 9000)), "it can be read all the while");
    stack.fault.clear();
    // An error that came with the last tries may still be told once.
    let tries = [&mut one, &mut two].map(|client| (0..3).map(|_| client.flush()).last());
    assert_eq!(tries, [Some(0), Some(0)]);
    assert_eq!(durable(&stack, 0, 9000), pattern(1, 9000));
    assert_eq!(durable(&stack, 1 << 20, 4), b"more");
}

#[test]
fn a_failed_read_is_an_error_of_that_read_alone() {
    let stack = Stack::new(BYTES);
    let rig = stack.serve(BYTES, 64 * MIB);
    let op = Some(DeviceOp::Bio(BioOp::Read));
    let effect = Effect::Fail(Errno::IO);
    let sectors = Some(mpage_block::Sector(0)..mpage_block::Sector(8));
    let _rule = stack.fault.add(Rule { op, sectors, times: Times::All, effect });
    for mut client in [rig.simple(), rig.structured()] {
        assert_eq!(client.read(0, 4096), Err(EIO));
        assert_eq!(client.read(0, 1 << 20), Err(EIO));
        assert_eq!(client.read(1 << 20, 4096), Ok(vec![0; 4096]));
    }
}
