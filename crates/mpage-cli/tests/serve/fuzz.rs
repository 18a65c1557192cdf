//! Bytes of all kinds at every stage: no panic, no hang, and nothing stored that was not asked for.
//!
//! `MPAGE_FUZZ_CASES` says how many sessions of each kind are tried.

use std::io::{self, Read, Write};
use std::ops::Range;

use mpage_cli::budget::SHARED_BYTES;
use mpage_cli::serve::handshake::{Offer, negotiate};
use mpage_locks::thread;
use proptest::prelude::*;

use crate::client::*;
use crate::rig::{MIB, Rig};

const IMAGE: usize = 256 << 10;

fn cases() -> ProptestConfig {
    let cases = std::env::var("MPAGE_FUZZ_CASES").map_or(100, |cases| cases.parse().unwrap());
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// What a client says to a handshake, and what it is told.
struct Script<'a> {
    says: &'a [u8],
    told: Vec<u8>,
}

impl Read for Script<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.says.read(to)
    }
}

impl Write for Script<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.told.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Options as clients send them, and as none should.
fn options() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![Just(""), Just("disk"), Just("other")];
    let query = prop_oneof![Just("base:allocation"), Just("base:"), Just("x:y"), Just("")];
    let option = prop_oneof![
        name.clone().prop_map(|name| option_bytes(OPT_INFO, &wanted(name, &[0, 1, 2, 3, 4]))),
        Just(option_bytes(OPT_STRUCTURED, &[])),
        Just(option_bytes(OPT_LIST, &[])),
        (OPT_LIST_META..=OPT_SET_META, name, prop::collection::vec(query, 0..4))
            .prop_map(|(option, name, queries)| option_bytes(option, &meta(name, &queries))),
        (0..14_u32, prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(option, data)| option_bytes(option, &data)),
    ];
    prop::collection::vec(option, 0..8).prop_map(|options| options.concat())
}

/// Requests, mostly inside the image, some with their data cut or numbers out of range.
fn request() -> impl Strategy<Value = Vec<u8>> {
    let size = IMAGE as u64;
    let offset = prop_oneof![8 => 0..size, 1 => size - 10..size + 10, 1 => any::<u64>()];
    let length = prop_oneof![8 => 0..5000_u32, 2 => 0..300_000_u32, 1 => any::<u32>()];
    let flags = prop_oneof![6 => Just(0), 3 => 0..32_u16, 1 => any::<u16>()];
    let command = prop_oneof![9 => 0..8_u16, 1 => any::<u16>()];
    (command, flags, offset, length, any::<u8>(), 0..20_u8).prop_map(
        |(command, flags, offset, length, byte, cut)| {
            let mut bytes = request_bytes((command, flags), 7, offset, length);
            if command == WRITE && length <= 1 << 20 {
                bytes.resize(bytes.len() + length as usize, byte);
                if cut == 0 {
                    bytes.truncate(bytes.len() - bytes.len() / 3);
                }
            }
            bytes
        },
    )
}

/// Changes to bytes: where, and to what.
fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ]
}

fn mutate(bytes: &mut [u8], mutations: &[(prop::sample::Index, u8)]) {
    for (place, byte) in mutations {
        if !bytes.is_empty() {
            bytes[place.index(bytes.len())] = *byte;
        }
    }
}

/// The ranges that a stream of requests may change.
fn changed_by(mut stream: &[u8]) -> Vec<Range<usize>> {
    let mut changed = Vec::new();
    while stream.len() >= 28 && number(&stream[..4]) == 0x2560_9513 {
        let command = u16::try_from(number(&stream[6..8])).unwrap();
        let (offset, length) = (number(&stream[16..24]), number(&stream[24..28]));
        stream = &stream[28..];
        let data = usize::try_from(length).unwrap();
        if command == DISC || command == WRITE && (length > 32 << 20 || data > stream.len()) {
            break;
        }
        if command == WRITE {
            stream = &stream[data..];
        }
        let inside = offset.checked_add(length).is_some_and(|end| end <= IMAGE as u64);
        if inside && [WRITE, TRIM, ZEROES].contains(&command) {
            let start = usize::try_from(offset).unwrap();
            changed.push(start..start + data);
        }
    }
    changed
}

/// Says `bytes` while it listens, then leaves; returns when the server has hung up.
fn say(rig: &Rig, bytes: &[u8]) {
    let client = Client::silent(rig.connect());
    let mut speaking = client.stream.try_clone().unwrap();
    let bytes = bytes.to_vec();
    let speaker = thread::spawn("speaker", move || {
        // The server may hang up on nonsense before it has heard all of it.
        let said = speaking.write_all(&bytes);
        let left = speaking.shutdown(std::net::Shutdown::Write);
        (said.is_ok(), left.is_ok())
    });
    let _told = client.rest();
    let _said = speaker.unwrap().join().unwrap();
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_handshake_ends(
        mut says in options(),
        changes in mutations(),
        flags in prop_oneof![8 => Just(3_u32), 1 => any::<u32>()],
    ) {
        mutate(&mut says, &changes);
        let says = [&flags.to_be_bytes()[..], &says].concat();
        let offer = Offer { name: "disk".into(), size: MIB, flags: 1 };
        let mut script = Script { says: &says, told: Vec::new() };
        let _outcome = negotiate(&mut script, &offer);
        prop_assert!(script.told.len() <= 1000 + 20 * says.len(), "no more is told than asked");
    }

    #[test]
    fn any_requests_change_what_they_name_alone(
        requests in prop::collection::vec(request(), 0..12),
        changes in mutations(),
        structured in any::<bool>(),
    ) {
        let rig = Rig::in_memory(IMAGE as u64);
        let mut other = rig.simple();
        let before = pattern(1, IMAGE);
        prop_assert_eq!(other.write(0, 0, &before), 0);
        let mut stream = requests.concat();
        mutate(&mut stream, &changes);
        let mut says = 3_u32.to_be_bytes().to_vec();
        if structured {
            says.extend(option_bytes(OPT_STRUCTURED, &[]));
            says.extend(option_bytes(OPT_SET_META, &meta("", &["base:allocation"])));
        }
        says.extend(option_bytes(OPT_GO, &wanted("", &[])));
        says.extend(&stream);
        say(&rig, &says);
        let mut expected = before;
        let mut found = other.read(0, u32::try_from(IMAGE).unwrap()).unwrap();
        for range in changed_by(&stream) {
            expected[range.clone()].fill(0);
            found[range].fill(0);
        }
        prop_assert!(found == expected, "bytes changed that nobody named");
        prop_assert_eq!(rig.server.budget().free(), SHARED_BYTES);
    }

    #[test]
    fn any_bytes_at_all_leave_the_server_serving(
        says in prop::collection::vec(any::<u8>(), 0..300),
        greets in any::<bool>(),
    ) {
        let rig = Rig::in_memory(IMAGE as u64);
        let greeting = if greets { &[0, 0, 0, 3][..] } else { &[] };
        say(&rig, &[greeting, &says].concat());
        prop_assert_eq!(rig.simple().read(0, 4096), Ok(vec![0; 4096]));
    }
}
