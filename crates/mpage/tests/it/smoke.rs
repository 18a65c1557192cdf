//! Random programs against a plain vector.

use crate::rig::{DEVICE_BYTES, Rig, memory_device};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Write { at: u64, len: usize, byte: u8 },
    Read { at: u64, len: usize },
    Sync,
    SyncRange { at: u64, len: u64 },
    StartWriting,
    SetLen(u64),
    Punch { at: u64, len: u64 },
    Invalidate,
    InvalidateStrict,
    WriteThrough { at: u64, len: usize, byte: u8 },
}

const END: u64 = 600 << 10;

fn op() -> impl Strategy<Value = Op> {
    let at = || prop_oneof![0..END, (0..END / 512).prop_map(|n| n * 512), 0..9000u64];
    let len = || prop_oneof![1..600usize, 1..20_000usize, Just(4096usize), Just(512usize)];
    prop_oneof![
        6 => (at(), len(), any::<u8>()).prop_map(|(at, len, byte)| Op::Write { at, len, byte }),
        4 => (at(), len()).prop_map(|(at, len)| Op::Read { at, len }),
        1 => Just(Op::Sync),
        1 => (at(), 0..50_000u64).prop_map(|(at, len)| Op::SyncRange { at, len }),
        1 => Just(Op::StartWriting),
        1 => at().prop_map(Op::SetLen),
        1 => (at(), 0..50_000u64).prop_map(|(at, len)| Op::Punch { at, len }),
        1 => Just(Op::Invalidate),
        1 => Just(Op::InvalidateStrict),
        1 => (at(), len(), any::<u8>())
            .prop_map(|(at, len, byte)| Op::WriteThrough { at, len, byte }),
    ]
}

fn bytes(n: u64) -> usize {
    usize::try_from(n).unwrap()
}

fn put(model: &mut Vec<u8>, at: u64, len: usize, byte: u8) {
    let end = bytes(at) + len;
    if model.len() < end {
        model.resize(end, 0);
    }
    model[bytes(at)..end].fill(byte);
}

fn check_read(rig: &Rig, model: &[u8], at: u64, len: usize) {
    let mut buffer = vec![0xaa; len];
    let got = rig.file.read_at(&mut buffer, at).unwrap();
    let start = bytes(at).min(model.len());
    let expected = &model[start..(start + len).min(model.len())];
    assert_eq!(got, expected.len());
    if let Some(n) = (0..got).find(|n| buffer[*n] != expected[*n]) {
        panic!("byte {} is {:x}, not {:x}", start + n, buffer[n], expected[n]);
    }
}

fn apply(rig: &Rig, model: &mut Vec<u8>, op: &Op) {
    match *op {
        Op::Write { at, len, byte } => {
            rig.file.write_all_at(&vec![byte; len], at).unwrap();
            put(model, at, len, byte);
        }
        Op::WriteThrough { at, len, byte } => {
            rig.file.write_through_at(&vec![byte; len], at, len % 2 == 0).unwrap();
            put(model, at, len, byte);
        }
        Op::Read { at, len } => check_read(rig, model, at, len),
        Op::Sync => rig.file.fsync().unwrap(),
        Op::SyncRange { at, len } => {
            rig.file.sync_range(at..at + len, mpage::SyncKind::Data).unwrap();
        }
        Op::StartWriting => rig.file.start_writing(0..u64::MAX / 2).unwrap(),
        Op::SetLen(size) => {
            rig.file.set_len(size).unwrap();
            model.resize(bytes(size), 0);
        }
        Op::Punch { at, len } => {
            rig.file.punch_hole(at..at + len).unwrap();
            let end = bytes(at + len).min(model.len());
            if bytes(at) < end {
                model[bytes(at)..end].fill(0);
            }
        }
        Op::Invalidate => rig.file.invalidate(0..END),
        Op::InvalidateStrict => rig.file.invalidate_strict(0..END).unwrap(),
    }
    assert_eq!(rig.file.size(), model.len() as u64);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn random_programs_agree_with_a_vector(
        block in prop_oneof![Just(512usize), Just(1024), Just(4096)],
        ops in proptest::collection::vec(op(), 1..120),
    ) {
        let device = memory_device(DEVICE_BYTES);
        let rig = Rig::over(device.clone(), block, 0);
        let mut model = Vec::new();
        for op in &ops {
            apply(&rig, &mut model, op);
        }
        check_read(&rig, &model, 0, model.len() + 10);
        rig.file.fsync().unwrap();
        let on_device = device.contents();
        prop_assert_eq!(&on_device[..model.len()], &model[..]);
        let counts = rig.mapping().set_counts();
        prop_assert_eq!((counts.dirty, counts.io, counts.locked), (0, 0, 0));
    }
}
