//! Requests and clients side by side.

use std::os::unix::net::UnixStream;

use mpage_block::BioOp;
use mpage_cli::budget::SHARED_BYTES;
use mpage_cli::serve::server::CONNECTIONS_MAX;
use mpage_locks::thread;

use crate::client::*;
use crate::rig::{MIB, Rig, Stack};

#[test]
fn slow_reads_hold_up_neither_cached_ones_nor_writes_nor_flushes() {
    let stack = Stack::new(64 * MIB);
    let rig = stack.serve(64 * MIB, 64 * MIB);
    let (mut client, mut other) = (rig.simple(), rig.structured());
    assert_eq!(client.write(0, 0, &pattern(1, 4096)), 0);
    stack.delay.hold_only(|bio| bio.op() == BioOp::Read);
    // Short ones need no worker, long ones do.
    let lengths = [4096, 300 << 10];
    let read = |place: u64| {
        client.send((READ, 0), place * MIB, lengths[usize::from(!place.is_multiple_of(3))], &[])
    };
    let slow: Vec<u64> = (1..61).map(read).collect();
    stack.delay.wait_for_held(40);
    let cached = client.send((READ, 0), 0, 4096, &[]);
    assert_eq!(client.reply().cookie, cached);
    let write = client.send((WRITE, 0), 8192, 4096, &pattern(2, 4096));
    assert_eq!(client.reply().cookie, write);
    let flush = client.send((FLUSH, 0), 0, 0, &[]);
    assert_eq!(client.reply().cookie, flush);
    assert_eq!(other.write(FUA, 16_384, &pattern(3, 4096)), 0);
    assert_eq!(other.read(8192, 4096), Ok(pattern(2, 4096)));
    stack.let_go();
    let mut answered: Vec<u64> = slow.iter().map(|_| client.reply().cookie).collect();
    answered.sort_unstable();
    assert_eq!(answered, slow);
}

#[test]
fn writers_held_back_hold_up_no_reader() {
    let stack = Stack::new(64 * MIB);
    let rig = stack.serve(64 * MIB, 16 * MIB);
    let (mut writer, mut reader) = (rig.simple(), rig.structured());
    stack.delay.hold_only(|bio| bio.op() == BioOp::Write);
    // Less than a connection may have in memory: the client does not wait before it is to.
    let pieces = 24;
    for piece in 0..pieces {
        let _cookie = writer.send((WRITE, 0), piece * MIB, 1 << 20, &pattern(piece, 1 << 20));
    }
    stack.delay.wait_for_held(1);
    for place in 0..40 {
        assert_eq!(reader.read(63 * MIB + place * 512, 512), Ok(vec![0; 512]));
    }
    stack.let_go();
    for _ in 0..pieces {
        assert_eq!(writer.reply().error, 0);
    }
    for piece in 0..pieces {
        assert!(reader.read(piece * MIB, 1 << 20).unwrap() == pattern(piece, 1 << 20));
    }
}

#[test]
fn clients_that_read_no_replies_hold_up_nobody() {
    let rig = Rig::in_memory(16 * MIB);
    // More clients than any lane has workers, each with more replies than a socket takes.
    let mut deaf: Vec<Client> = (0..40).map(|_| rig.simple()).collect();
    for client in &mut deaf {
        for place in 0..3 {
            let _cookie = client.send((READ, 0), place * 4096, 400 << 10, &[]);
        }
        let _part = client.take(1);
    }
    for mut client in [rig.simple(), rig.structured()] {
        for place in 0..10 {
            assert_eq!(client.read(place * 100, 400 << 10), Ok(vec![0; 400 << 10]));
            assert_eq!(client.write(FUA, 15 << 20, &pattern(place, 1000)), 0);
            assert_eq!(client.flush(), 0);
        }
    }
    for client in &mut deaf {
        // The first byte of the three is taken already.
        let rest = client.take(3 * (16 + (400 << 10)) - 1);
        assert_eq!(rest[..3], [0x44, 0x66, 0x98], "who listens late hears it all");
    }
}

#[test]
fn large_requests_of_many_clients_share_the_memory_and_give_it_back() {
    let rig = Rig::in_memory(64 * MIB);
    let clients: Vec<UnixStream> = (0..6).map(|_| rig.connect()).collect();
    let threads = clients.into_iter().enumerate().map(|(seed, stream)| {
        let work = move || {
            let mut client = Client::simple(stream);
            for round in 0..3 {
                let data = pattern(seed as u64 + round, 20 << 20);
                assert_eq!(client.write(0, round, &data), 0);
                let reads = (0..4).map(|_| client.send((READ, 0), 0, 20 << 20, &[])).count();
                for _ in 0..reads {
                    assert_eq!(client.reply().data.len(), 20 << 20);
                }
            }
        };
        thread::spawn("client", work).unwrap()
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    rig.server.wait_until_nobody_is_connected();
    assert_eq!(rig.server.budget().free(), SHARED_BYTES);
}

#[test]
fn who_stalls_with_memory_that_others_wait_for_loses_the_connection() {
    let rig = Rig::in_memory(64 * MIB);
    let mut hogs: Vec<Client> = (0..4).map(|_| rig.simple()).collect();
    for hog in &mut hogs {
        let _cookie = hog.send((WRITE, 0), 0, 32 << 20, b"and no more");
    }
    let mut other = rig.simple();
    assert_eq!(other.write(0, 0, &pattern(1, 100_000)), 0, "small requests wait for nobody");
    assert_eq!(other.write(0, 0, &pattern(1, 32 << 20)), 0);
    assert!(other.read(0, 32 << 20).unwrap() == pattern(1, 32 << 20));
}

/// What one of many clients does in its own part of the disk, and what it expects there.
struct Tenant {
    client: Client,
    start: u64,
    model: Vec<u8>,
    state: u64,
}

impl Tenant {
    fn below(&mut self, end: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % end
    }

    fn act(&mut self) {
        let whole = self.model.len() as u64;
        let longest = [600, 20_000, whole][usize::try_from(self.below(3)).unwrap()];
        let from = self.below(whole);
        let length = 1 + self.below(longest.min(whole - from));
        let range = usize::try_from(from).unwrap()..usize::try_from(from + length).unwrap();
        let (offset, length) = (self.start + from, u32::try_from(length).unwrap());
        let fua = if self.below(8) == 0 { FUA } else { 0 };
        match self.below(9) {
            0..4 => {
                let data = pattern(self.state, range.len());
                assert_eq!(self.client.write(fua, offset, &data), 0);
                self.model[range].copy_from_slice(&data);
            }
            4 => {
                let flags = fua | if self.below(2) == 0 { NO_HOLE } else { 0 };
                assert_eq!(self.client.tell((ZEROES, flags), offset, length), 0);
                self.model[range].fill(0);
            }
            5 => assert_eq!(self.client.flush(), 0),
            6 => assert_eq!(self.client.tell((CACHE, 0), offset, length), 0),
            _ => {
                let read = self.client.read(offset, length).unwrap();
                assert!(read == self.model[range], "{offset}, {length} bytes");
            }
        }
    }
}

#[test]
fn many_clients_find_what_they_wrote_in_little_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    let part: u64 = 700 << 10;
    let tenants = 24;
    // Parts meet inside blocks: neighbours write the same pages.
    let bytes = (tenants * (part + 100)).next_multiple_of(4096);
    std::fs::write(&path, vec![0; usize::try_from(bytes).unwrap()]).unwrap();
    let rig = Rig::on_file(&path, 4 * MIB);
    let threads = (0..tenants).map(|number| {
        let stream = rig.connect();
        let work = move || {
            let structured = number % 2 == 0;
            let client =
                if structured { Client::structured(stream) } else { Client::simple(stream) };
            let model = vec![0; usize::try_from(part + 100).unwrap()];
            let start = number * (part + 100);
            let mut tenant = Tenant { client, start, model, state: number * 77 + 1 };
            (0..120).for_each(|_| tenant.act());
            assert_eq!(tenant.client.flush(), 0);
            (start, tenant.model)
        };
        thread::spawn("tenant", work).unwrap()
    });
    let models: Vec<_> =
        threads.collect::<Vec<_>>().into_iter().map(|thread| thread.join().unwrap()).collect();
    let image = std::fs::read(&path).unwrap();
    for (start, model) in models {
        assert!(image[usize::try_from(start).unwrap()..][..model.len()] == model);
    }
}

#[test]
fn one_client_too_many_is_turned_away_and_may_come_again() {
    let rig = Rig::in_memory(MIB);
    let mut clients: Vec<Client> = (0..CONNECTIONS_MAX).map(|_| rig.simple()).collect();
    let turned_away = Client::silent(rig.connect());
    assert_eq!(turned_away.rest(), b"");
    for client in &mut clients {
        assert_eq!(client.flush(), 0);
    }
    let _greeting = clients.pop().unwrap().leave();
    rig.server.wait_until_fewer_are_connected(CONNECTIONS_MAX);
    assert_eq!(rig.simple().flush(), 0);
}

#[test]
fn overlapping_writes_leave_bytes_of_one_or_the_other() {
    let rig = Rig::in_memory(MIB);
    let streams = [rig.connect(), rig.connect()];
    let threads = [1_u8, 2].into_iter().zip(streams).map(|(byte, stream)| {
        let work = move || {
            let mut client = Client::simple(stream);
            for round in 0..300 {
                let flags = if round % 10 == 0 { FUA } else { 0 };
                assert_eq!(client.write(flags, 1000, &[byte; 30_000]), 0);
            }
        };
        thread::spawn("client", work).unwrap()
    });
    threads.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
    let mut client = rig.simple();
    assert!(client.read(1000, 30_000).unwrap().iter().all(|byte| [1, 2].contains(byte)));
    assert_eq!(client.read(0, 1000), Ok(vec![0; 1000]));
    assert_eq!(client.read(31_000, 1000), Ok(vec![0; 1000]));
}
