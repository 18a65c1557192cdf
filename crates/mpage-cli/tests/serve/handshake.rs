//! From the greeting to the export.

use crate::client::*;
use crate::rig::{MIB, Rig};

fn greeted(rig: &Rig) -> Client {
    Client::greeted(rig.connect(), 3)
}

#[test]
fn the_export_is_found_by_its_name_and_by_the_empty_name() {
    let rig = Rig::in_memory(MIB);
    for name in ["", "disk"] {
        let mut client = greeted(&rig);
        client.go(name);
        assert_eq!(client.size, MIB);
        assert_eq!(client.read(0, 1), Ok(vec![0]));
    }
}

#[test]
fn another_name_is_refused_and_the_talk_goes_on() {
    let rig = Rig::in_memory(MIB);
    let mut client = greeted(&rig);
    for option in [OPT_INFO, OPT_GO] {
        let replies = client.option(option, &wanted("other", &[]));
        assert_eq!(replies.last().unwrap().0, ERR_UNKNOWN);
    }
    client.go("disk");
    assert_eq!(client.flush(), 0);
}

#[test]
fn an_old_client_gets_size_flags_and_zeros() {
    let rig = Rig::in_memory(MIB);
    for (flags, zeros) in [(3, 0), (1, 124)] {
        let mut client = Client::greeted(rig.connect(), flags);
        client.send_raw(&option_bytes(OPT_EXPORT_NAME, b"disk"));
        let told = client.take(10 + zeros);
        client.learn(&told);
        assert_eq!(client.size, MIB);
        assert!(told[10..].iter().all(|byte| *byte == 0));
        assert_eq!(client.write(0, 5, b"old"), 0);
        assert_eq!(client.read(5, 3), Ok(b"old".to_vec()));
    }
    let mut client = greeted(&rig);
    client.send_raw(&option_bytes(OPT_EXPORT_NAME, b"other"));
    assert_eq!(client.rest(), b"", "the protocol leaves no other answer");
}

#[test]
fn what_can_be_done_is_told() {
    let rig = Rig::in_memory(MIB);
    let client = rig.structured();
    // has flags, flush, fua, trim, zeroes, don't fragment, several connections, cache, fast zero
    let all = [0, 2, 3, 5, 6, 7, 8, 10, 11].iter().fold(0, |flags, bit| flags | 1 << bit);
    assert_eq!(client.flags, all);
    assert_eq!(rig.simple().flags, all & !(1 << 7), "chunks are for structured replies");
}

#[test]
fn info_tells_name_description_and_sizes_and_the_talk_goes_on() {
    let rig = Rig::in_memory(MIB);
    let mut client = greeted(&rig);
    let replies = client.option(OPT_INFO, &wanted("disk", &[1, 2, 3, 99]));
    let kinds: Vec<_> = replies.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [REP_INFO, REP_INFO, REP_INFO, REP_INFO, REP_ACK]);
    assert_eq!(replies[1].1, b"\0\x01disk");
    assert_eq!(
        &replies[3].1[..],
        [[0, 3].as_slice(), &[0, 0, 0, 1, 0, 0, 16, 0, 2, 0, 0, 0]].concat()
    );
    client.go("disk");
}

#[test]
fn the_export_is_listed() {
    let rig = Rig::in_memory(MIB);
    let mut client = greeted(&rig);
    let listed = client.option(OPT_LIST, &[]);
    assert_eq!(listed, [(REP_SERVER, b"\0\0\0\x04disk".to_vec()), (REP_ACK, vec![])]);
    assert_eq!(client.option(OPT_LIST, b"x")[0].0, ERR_INVALID);
    client.go("");
}

#[test]
fn what_is_not_there_is_refused_and_the_talk_goes_on() {
    let rig = Rig::in_memory(MIB);
    let mut client = greeted(&rig);
    assert_eq!(client.option(OPT_STARTTLS, &[])[0].0, ERR_POLICY);
    for option in [0, 4, 11, 12, u32::MAX] {
        assert_eq!(client.option(option, b"data")[0].0, ERR_UNSUP, "{option}");
    }
    for broken in [&b""[..], b"\0\0\0\x09short", b"\0\0\0\0\0\x02\0\x01", b"\0\0\0\0\0\0more"] {
        assert_eq!(client.option(OPT_GO, broken)[0].0, ERR_INVALID, "{broken:?}");
        assert_eq!(client.option(OPT_LIST_META, broken)[0].0, ERR_INVALID, "{broken:?}");
    }
    assert_eq!(client.option(OPT_LIST, &[0; 70_000])[0].0, ERR_TOO_BIG);
    client.go("");
    assert_eq!(client.flush(), 0);
}

#[test]
fn the_allocation_context_is_listed_and_chosen() {
    let rig = Rig::in_memory(MIB);
    let mut client = greeted(&rig);
    let all = ["base:allocation"];
    assert_eq!(client.option(OPT_SET_META, &meta("", &all))[0].0, ERR_INVALID, "structure first");
    client.agree_on_structure();
    for queries in [&[][..], &["base:"], &["other:thing", "base:allocation"]] {
        let replies = client.option(OPT_LIST_META, &meta("disk", queries));
        assert_eq!(replies[0], (REP_META, b"\0\0\0\0base:allocation".to_vec()), "{queries:?}");
    }
    assert_eq!(client.option(OPT_LIST_META, &meta("", &["other:"])), [(REP_ACK, vec![])]);
    assert_eq!(client.option(OPT_SET_META, &meta("x", &all))[0].0, ERR_UNKNOWN);
    let replies = client.option(OPT_SET_META, &meta("", &all));
    assert_eq!(replies[0], (REP_META, b"\0\0\0\x01base:allocation".to_vec()));
    assert_eq!(client.option(OPT_SET_META, &meta("", &[])), [(REP_ACK, vec![])], "none again");
    client.go("");
    assert_eq!(client.tell((STATUS, 0), 0, 4096), EINVAL, "the last choice counts");
}

#[test]
fn abort_is_acknowledged() {
    let rig = Rig::in_memory(MIB);
    let mut client = greeted(&rig);
    assert_eq!(client.option(OPT_ABORT, &[]), [(REP_ACK, vec![])]);
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_broken_handshake_loses_its_connection_alone() {
    let rig = Rig::in_memory(MIB);
    let mut other = rig.simple();
    let long_name = option_bytes(OPT_EXPORT_NAME, &[b'x'; 70_000]);
    let long_option = [&b"IHAVEOPT"[..], &[0, 0, 0, 7, 255, 255, 255, 255]].concat();
    let broken: [&[u8]; 5] = [
        b"\0\0\0\x04",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\0\0\0\x03NOTMAGIC",
        &[b"\0\0\0\x03".as_slice(), &long_name].concat(),
        &[b"\0\0\0\x03".as_slice(), &long_option].concat(),
    ];
    for bytes in broken {
        let mut client = Client::silent(rig.connect());
        let _greeting = client.take(18);
        client.send_nonsense(bytes);
        assert_eq!(client.rest(), b"", "{:?}", &bytes[..bytes.len().min(30)]);
        assert_eq!(other.flush(), 0);
    }
}
