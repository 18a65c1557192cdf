//! Clients that break off, and clients that speak nonsense.

use crate::client::*;
use crate::rig::{MIB, Rig};

/// A whole session: handshake, write, read, flush, write, goodbye. Also where each write ends.
fn session() -> (Vec<u8>, [usize; 2]) {
    let mut bytes = 3_u32.to_be_bytes().to_vec();
    bytes.extend(option_bytes(OPT_STRUCTURED, &[]));
    bytes.extend(option_bytes(OPT_SET_META, &meta("", &["base:allocation"])));
    bytes.extend(option_bytes(OPT_GO, &wanted("disk", &[1, 3])));
    bytes.extend(request_bytes((WRITE, 0), 1, 4096, 100));
    bytes.extend([1; 100]);
    let first = bytes.len();
    bytes.extend(request_bytes((READ, 0), 2, 0, 512));
    bytes.extend(request_bytes((STATUS, 0), 3, 0, 512));
    bytes.extend(request_bytes((FLUSH, 0), 4, 0, 0));
    bytes.extend(request_bytes((WRITE, FUA), 5, 8192, 30));
    bytes.extend([2; 30]);
    let second = bytes.len();
    bytes.extend(request_bytes((ZEROES, 0), 6, 100, 50));
    bytes.extend(request_bytes((DISC, 0), 7, 0, 0));
    (bytes, [first, second])
}

#[test]
fn a_session_broken_off_at_any_byte_stores_whole_writes_alone() {
    let rig = Rig::in_memory(MIB);
    let mut other = rig.simple();
    let (bytes, writes) = session();
    for end in 0..=bytes.len() {
        assert_eq!(other.write(0, 0, &[9; 16_384]), 0);
        let mut client = Client::silent(rig.connect());
        client.send_raw(&bytes[..end]);
        let _told = client.leave();
        let mut model = vec![9; 16_384];
        if end >= writes[0] {
            model[4096..4196].fill(1);
        }
        if end >= writes[1] {
            model[8192..8222].fill(2);
        }
        if end >= writes[1] + 28 {
            model[100..150].fill(0);
        }
        assert!(other.read(0, 16_384).unwrap() == model, "{end} of {} bytes", bytes.len());
    }
}

#[test]
fn a_long_write_broken_off_is_not_stored() {
    let rig = Rig::in_memory(MIB);
    for (flags, sent) in [(0, 0), (0, 1), (FUA, 100_000), (0, 300_000), (FUA, 399_999)] {
        let mut client = rig.simple();
        let _cookie = client.send((WRITE, flags), 0, 400_000, &vec![1; sent]);
        assert_eq!(client.leave(), b"");
        assert!(rig.simple().read(0, 400_000).unwrap().iter().all(|byte| *byte == 0), "{sent}");
    }
}

#[test]
fn a_client_that_vanishes_with_requests_in_flight_harms_nobody() {
    let rig = Rig::in_memory(16 * MIB);
    let mut other = rig.simple();
    for round in 0..50 {
        let mut client = rig.structured();
        for place in 0..20 {
            let _cookie = client.send((READ, 0), place << 18, 1 << 18, &[]);
            let flags = if place % 2 == 0 { FUA } else { 0 };
            let _cookie = client.send((WRITE, flags), place << 18, 700, &[3; 700]);
        }
        drop(client);
        assert_eq!(other.write(0, 15 << 20, &pattern(round, 5000)), 0);
        assert_eq!(other.read(15 << 20, 5000), Ok(pattern(round, 5000)));
    }
    assert_eq!(other.flush(), 0);
    drop(other);
    rig.server.wait_until_nobody_is_connected();
}

#[test]
fn garbage_where_a_request_is_due_loses_its_connection_alone() {
    let rig = Rig::in_memory(MIB);
    let mut other = rig.simple();
    for seed in 0..100 {
        let mut client = if seed % 2 == 0 { rig.simple() } else { rig.structured() };
        assert_eq!(client.write(0, 0, b"mine"), 0);
        let mut garbage = pattern(seed, 300);
        garbage[0] = 0;
        client.send_nonsense(&garbage);
        assert_eq!(client.rest(), b"");
        assert_eq!(other.read(0, 5), Ok(b"mine\0".to_vec()));
    }
}
