//! What each request does.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;

use mpage::Options;
use mpage_block::{MemoryDevice, MemoryOptions};

use crate::client::*;
use crate::rig::{KIB, MIB, Rig};

fn sparse(bytes: u64) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    File::create(&path).unwrap().set_len(bytes).unwrap();
    (folder, path)
}

#[test]
fn what_was_written_is_read_from_every_connection() {
    let rig = Rig::in_memory(64 * MIB);
    let (mut simple, mut structured) = (rig.simple(), rig.structured());
    let lengths = [1, 511, 4096, 65_537, 300_000, 3_000_001, 32 << 20];
    for (seed, length) in (1_u64..).zip(lengths) {
        for (from, to) in [(0, 1), (1, 0)] {
            let clients = [&mut simple, &mut structured];
            let [one, two] = clients;
            let (writer, reader) = if from < to { (one, two) } else { (two, one) };
            let (data, offset) = (pattern(seed + from, length), seed * 4099 + from);
            assert_eq!(writer.write(0, offset, &data), 0);
            let length = u32::try_from(length).unwrap();
            assert!(reader.read(offset, length).unwrap() == data, "{length} bytes");
            assert!(writer.read(offset, length).unwrap() == data, "{length} bytes");
        }
    }
}

#[test]
fn requests_behind_the_end_fail_as_the_protocol_says() {
    let rig = Rig::in_memory(MIB);
    for mut client in [rig.simple(), rig.structured()] {
        for (offset, length) in [(MIB - 1, 2), (MIB, 1), (u64::MAX, 1), (u64::MAX - 8, u32::MAX)] {
            assert_eq!(client.tell((READ, 0), offset, length), EINVAL);
            assert_eq!(client.tell((TRIM, 0), offset, length), EINVAL);
            assert_eq!(client.tell((CACHE, 0), offset, length), EINVAL);
            assert_eq!(client.tell((STATUS, 0), offset, length), EINVAL);
            assert_eq!(client.tell((ZEROES, 0), offset, length), ENOSPC);
        }
        assert_eq!(client.write(0, MIB - 1, b"xy"), ENOSPC);
        assert_eq!(client.write(0, MIB - 2, b"xy"), 0, "the refused data was passed over");
        assert_eq!(client.read(MIB - 2, 2), Ok(b"xy".to_vec()));
    }
}

#[test]
fn a_read_longer_than_any_is_refused_and_the_connection_goes_on() {
    let rig = Rig::in_memory(64 * MIB);
    for mut client in [rig.simple(), rig.structured()] {
        assert_eq!(client.tell((READ, 0), 0, (32 << 20) + 1), EINVAL);
        assert_eq!(client.read(0, 1), Ok(vec![0]));
    }
}

#[test]
fn a_write_longer_than_any_loses_the_connection_alone() {
    let rig = Rig::in_memory(64 * MIB);
    let mut other = rig.simple();
    for length in [(32 << 20) + 1, u32::MAX] {
        let mut client = rig.simple();
        let _cookie = client.send((WRITE, 0), 0, length, b"some of it");
        assert_eq!(client.rest(), b"");
    }
    assert_eq!(other.read(0, 10), Ok(vec![0; 10]));
}

#[test]
fn unknown_requests_and_flags_are_invalid() {
    let rig = Rig::in_memory(MIB);
    for mut client in [rig.simple(), rig.structured()] {
        for command in [8, 9, 255, u16::MAX] {
            assert_eq!(client.tell((command, 0), 0, 0), EINVAL);
        }
        for command in [READ, FLUSH, TRIM, CACHE, ZEROES, STATUS] {
            assert_eq!(client.tell((command, 1 << 9), 0, 512), EINVAL);
        }
        assert_eq!(client.write(DF, 0, b"data"), EINVAL);
        assert_eq!(client.flush(), 0);
    }
    assert_eq!(rig.simple().tell((STATUS, 0), 0, 512), EINVAL, "no context was chosen");
    assert_eq!(rig.structured().tell((STATUS, 0), 0, 0), EINVAL, "about nothing");
}

#[test]
fn requests_about_nothing_succeed() {
    let rig = Rig::in_memory(MIB);
    for mut client in [rig.simple(), rig.structured()] {
        for offset in [0, 7, MIB] {
            assert_eq!(client.read(offset, 0), Ok(vec![]));
            for flags in [0, FUA] {
                assert_eq!(client.write(flags, offset, b""), 0);
                assert_eq!(client.tell((TRIM, flags), offset, 0), 0);
                assert_eq!(client.tell((ZEROES, flags), offset, 0), 0);
            }
            assert_eq!(client.tell((CACHE, 0), offset, 0), 0);
        }
    }
}

#[test]
fn a_read_only_export_refuses_what_writes() {
    let device = MemoryDevice::from_contents(&pattern(1, 65_536), MemoryOptions::default());
    let rig = Rig::on_device_as(std::sync::Arc::new(device), 65_536, 64 * MIB, true);
    let mut client = rig.structured();
    assert_eq!(client.flags & 0b11, 0b11, "read-only is told");
    for flags in [0, FUA] {
        assert_eq!(client.write(flags, 0, b"data"), EPERM);
        assert_eq!(client.tell((TRIM, flags), 0, 4096), EPERM);
        assert_eq!(client.tell((ZEROES, flags), 0, 4096), EPERM);
    }
    assert_eq!(client.flush(), 0);
    assert_eq!(client.read(0, 65_536), Ok(pattern(1, 65_536)));
}

#[test]
fn zeros_read_as_zeros_and_leave_their_neighbours() {
    let rig = Rig::in_memory(MIB);
    let mut client = rig.simple();
    let ways = [0, NO_HOLE, FAST_ZERO, NO_HOLE | FAST_ZERO, FUA, FUA | NO_HOLE];
    for (seed, flags) in (1..).zip(ways) {
        let mut model = pattern(seed, 65_536);
        assert_eq!(client.write(0, 0, &model), 0);
        for (offset, length) in [(1, 1), (700, 9000), (20_480, 8192), (40_000, 25_536)] {
            assert_eq!(client.tell((ZEROES, flags), offset, length), 0);
            let at = usize::try_from(offset).unwrap();
            model[at..at + length as usize].fill(0);
        }
        assert!(client.read(0, 65_536).unwrap() == model, "flags {flags}");
    }
}

#[test]
fn a_trim_leaves_its_neighbours() {
    let rig = Rig::in_memory(MIB);
    let mut client = rig.simple();
    let model = pattern(1, 65_536);
    assert_eq!(client.write(0, 0, &model), 0);
    assert_eq!(client.tell((TRIM, 0), 4000, 20_000), 0);
    assert_eq!(client.tell((TRIM, FUA), 30_000, 1), 0);
    assert_eq!(client.read(0, 4000), Ok(model[..4000].to_vec()));
    assert_eq!(client.read(24_000, 41_536), Ok(model[24_000..].to_vec()));
}

#[test]
fn holes_are_told_instead_of_sent() {
    let (_folder, path) = sparse(8 * MIB);
    let rig = Rig::on_file(&path, 64 * MIB);
    let mut client = rig.structured();
    assert_eq!(client.write(0, MIB, &pattern(1, 65_536)), 0);
    let reply = client.ask((READ, 0), 0, 4 << 20);
    let kinds: Vec<_> = reply.chunks.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [CHUNK_HOLE, CHUNK_DATA, CHUNK_HOLE]);
    let content = reply.content(0, 4 << 20);
    assert!(content[1 << 20..][..65_536] == pattern(1, 65_536));
    assert!(content[..1 << 20].iter().all(|byte| *byte == 0));
    let whole = client.ask((READ, DF), 0, 4 << 20);
    assert_eq!(whole.chunks.len(), 1, "one chunk for who asks for one");
    assert!(whole.content(0, 4 << 20) == content);
    assert!(rig.simple().read(0, 4 << 20).unwrap() == content);
}

#[test]
fn block_status_tells_data_from_holes_before_and_after_it_is_written_back() {
    let (_folder, path) = sparse(8 * MIB);
    let rig = Rig::on_file(&path, 64 * MIB);
    let mut client = rig.structured();
    let mib = 1 << 20;
    assert_eq!(client.ask((STATUS, 0), 0, 8 * mib).extents(), [(8 * mib, 3)]);
    assert_eq!(client.write(0, MIB, &pattern(1, 65_536)), 0);
    let expected = [(mib, 3), (65_536, 0), (7 * mib - 65_536, 3)];
    for _ in 0..2 {
        assert_eq!(client.ask((STATUS, 0), 0, 8 * mib).extents(), expected);
        let one = client.ask((STATUS, REQ_ONE), MIB, 4 * mib).extents();
        assert_eq!(one, [(65_536, 0)]);
        assert_eq!(client.ask((STATUS, 0), MIB + 100, 1000).extents(), [(1000, 0)]);
        assert_eq!(client.flush(), 0);
    }
    assert_eq!(client.tell((TRIM, 0), MIB, 65_536), 0);
    assert_eq!(client.ask((STATUS, 0), 0, 8 * mib).extents(), [(8 * mib, 3)]);
}

#[test]
fn zeros_and_trims_of_gigabytes_need_no_memory() {
    let gib = 1 << 30;
    let (_folder, path) = sparse(8 * gib);
    let rig = Rig::on_file(&path, Options::MEMORY_MIN as u64);
    let mut client = rig.structured();
    for command in [TRIM, ZEROES] {
        for place in 0..8 {
            assert_eq!(client.write(0, place * gib + 5, &pattern(place, 10_000)), 0);
        }
        assert_eq!(client.tell((command, 0), 4096, u32::MAX), 0);
        assert_eq!(client.tell((command, 0), 4 * gib, u32::MAX), 0);
        assert_eq!(client.read(gib + 5, 10_000), Ok(vec![0; 10_000]));
        assert_eq!(client.read(5, 4091), Ok(pattern(0, 10_000)[..4091].to_vec()));
    }
    assert_eq!(client.flush(), 0);
    assert!(client.read(7 * gib, 20_000).unwrap() == vec![0; 20_000]);
}

#[test]
fn a_cache_request_begins_to_read() {
    let device = MemoryDevice::from_contents(&pattern(1, 1 << 20), MemoryOptions::default());
    let rig = Rig::on_device(std::sync::Arc::new(device), MIB, 64 * MIB);
    let mut client = rig.simple();
    assert_eq!(client.tell((CACHE, 0), 0, 1 << 20), 0);
    assert_eq!(client.flush(), 0);
    assert!(rig.cache.stats().bytes_read > 0);
    assert!(client.read(0, 1 << 20).unwrap() == pattern(1, 1 << 20));
}

#[test]
fn many_requests_in_flight_are_each_answered_once() {
    let rig = Rig::in_memory(16 * MIB);
    for mut client in [rig.simple(), rig.structured()] {
        let piece = 3 * KIB;
        let mut open = HashMap::new();
        for place in 0..1000 {
            let data = pattern(place, 3 << 10);
            let cookie = client.send((WRITE, 0), place * piece, 3 << 10, &data);
            let _none = open.insert(cookie, place);
            if place % 97 == 0 {
                let _none = open.insert(client.send((FLUSH, 0), 0, 0, &[]), place);
            }
            // A client that never listened would wait for a server that waits for it.
            while open.len() > 64 || place == 999 && !open.is_empty() {
                let reply = client.reply();
                assert!(open.remove(&reply.cookie).is_some() && reply.error == 0);
            }
        }
        for place in 0..1000 {
            let cookie = client.send((READ, 0), place * piece, 3 << 10, &[]);
            let _none = open.insert(cookie, place);
            while open.len() > 32 || place == 999 && !open.is_empty() {
                let reply = client.reply();
                let place = open.remove(&reply.cookie).expect("a reply for each request");
                assert!(reply.content(place * piece, 3 << 10) == pattern(place, 3 << 10));
            }
        }
    }
}

#[test]
fn a_client_that_says_goodbye_gets_its_replies_first() {
    let rig = Rig::in_memory(MIB);
    let mut client = rig.simple();
    for place in 0..10 {
        let _cookie = client.send((WRITE, FUA), place * 512, 512, &[1; 512]);
    }
    let _cookie = client.send((DISC, 0), 0, 0, &[]);
    assert_eq!(client.rest().len(), 10 * 16);
}
