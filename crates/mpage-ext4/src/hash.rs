//! The hashes of names, by which hashed directories are in order.
//!
//! A name is cut into pieces of 32 or 16 bytes. The last is filled with the count of bytes that are
//! left, in each byte. A state of four words, begun with the image's seed, takes one piece after
//! the other; two of its words are the hash.
//!
//! Names were hashed as `char` once, which has a sign on some machines and none on others; the
//! superblock says which it was.
//!
//! Linux: `ext4fs_dirhash()`, fs/ext4/hash.c; RFC 1320 for MD4; Wheeler and Needham, "TEA, a Tiny
//! Encryption Algorithm".

use crate::superblock::Superblock;

/// The seed where the superblock has none: the state that MD4 begins with.
const DEFAULT_SEED: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
/// The even hash that marks the end of a directory; names with it get the one below.
const END: u32 = 0xffff_fffe;

/// The hash of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Hash {
    /// By which the index is in order: even, and below 0xfffffffe.
    pub(crate) major: u32,
    /// Tells names with an equal `major` apart; always zero for legacy hashes.
    pub(crate) minor: u32,
}

impl Hash {
    fn new(major: u32, minor: u32) -> Hash {
        Hash { major: (major & !1).min(END - 2), minor }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Legacy,
    HalfMd4,
    Tea,
}

/// How names are hashed in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hasher {
    algorithm: Algorithm,
    unsigned: bool,
    seed: [u32; 4],
}

impl Hasher {
    /// The hashes of `version`, as the index of a directory or the superblock has it; `None` when
    /// there is no such version.
    pub(crate) fn new(sb: &Superblock, version: u8) -> Option<Hasher> {
        let algorithm = match version {
            0 => Algorithm::Legacy,
            1 => Algorithm::HalfMd4,
            2 => Algorithm::Tea,
            _ => return None,
        };
        let seed = if sb.hash_seed == [0; 4] { DEFAULT_SEED } else { sb.hash_seed };
        Some(Hasher { algorithm, unsigned: sb.hash_unsigned, seed })
    }

    /// The hash of `name`.
    pub(crate) fn hash(&self, name: &[u8]) -> Hash {
        match self.algorithm {
            Algorithm::Legacy => Hash::new(self.legacy(name), 0),
            Algorithm::HalfMd4 => {
                let [_, major, minor, _] = self.digest(name, half_md4);
                Hash::new(major, minor)
            }
            Algorithm::Tea => {
                let [major, minor, ..] = self.digest(name, tea);
                Hash::new(major, minor)
            }
        }
    }

    /// The state behind all pieces of `name`, of `N` words each.
    fn digest<const N: usize>(
        &self,
        name: &[u8],
        take: impl Fn([u32; 4], &[u32; N]) -> [u32; 4],
    ) -> [u32; 4] {
        let mut state = self.seed;
        for start in (0..name.len()).step_by(4 * N) {
            state = take(state, &self.piece(&name[start..]));
        }
        state
    }

    /// The first `4 * N` bytes of `rest` as words, the first byte the highest of its word.
    fn piece<const N: usize>(&self, rest: &[u8]) -> [u32; N] {
        // The count is of more than a byte only in theory: names have 255 at most.
        let count = u32::try_from(rest.len()).expect("a name is short");
        let fill = count.wrapping_mul(0x0101_0101);
        let mut piece = [fill; N];
        for (word, bytes) in piece.iter_mut().zip(rest.chunks(4)) {
            let push = |word: u32, byte: &u8| (word << 8).wrapping_add(self.widen(*byte));
            *word = bytes.iter().fold(fill, push);
        }
        piece
    }

    fn widen(&self, byte: u8) -> u32 {
        match self.unsigned {
            true => byte.into(),
            false => i32::from(byte.cast_signed()).cast_unsigned(),
        }
    }

    /// The hash of the first versions, without a seed.
    fn legacy(&self, name: &[u8]) -> u32 {
        let (mut last, mut before) = (0x12a3_fe2du32, 0x37ab_e8f9u32);
        for byte in name {
            let mixed = last ^ self.widen(*byte).wrapping_mul(7_152_373);
            let sum = before.wrapping_add(mixed);
            let sum = if sum >> 31 == 1 { sum.wrapping_sub(0x7fff_ffff) } else { sum };
            (last, before) = (sum, last);
        }
        last << 1
    }
}

/// A round of [`half_md4`]: which words it takes in which order, by how much it rotates, and what
/// it adds.
struct Round {
    words: [usize; 8],
    rotations: [u32; 4],
    add: u32,
    mix: fn(u32, u32, u32) -> u32,
}

/// The three rounds: the functions and the numbers that they add are those of MD4.
const ROUNDS: [Round; 3] = [
    Round {
        words: [0, 1, 2, 3, 4, 5, 6, 7],
        rotations: [3, 7, 11, 19],
        add: 0,
        mix: |x, y, z| x & y | !x & z,
    },
    Round {
        words: [1, 3, 5, 7, 0, 2, 4, 6],
        rotations: [3, 5, 9, 13],
        add: 0x5a82_7999,
        mix: |x, y, z| x & y | x & z | y & z,
    },
    Round {
        words: [3, 7, 2, 6, 1, 5, 0, 4],
        rotations: [3, 9, 11, 15],
        add: 0x6ed9_eba1,
        mix: |x, y, z| x ^ y ^ z,
    },
];

/// MD4 with half of the words and half of the steps.
fn half_md4(state: [u32; 4], words: &[u32; 8]) -> [u32; 4] {
    let [mut a, mut b, mut c, mut d] = state;
    for round in &ROUNDS {
        for (word, rotation) in round.words.iter().zip(round.rotations.iter().cycle()) {
            let sum = a.wrapping_add((round.mix)(b, c, d));
            let sum = sum.wrapping_add(words[*word]).wrapping_add(round.add);
            (a, b, c, d) = (d, sum.rotate_left(*rotation), b, c);
        }
    }
    let add = |at: usize, word: u32| state[at].wrapping_add(word);
    [add(0, a), add(1, b), add(2, c), add(3, d)]
}

/// TEA with half of its cycles: the words are the key, the first half of the state is the text.
fn tea(state: [u32; 4], key: &[u32; 4]) -> [u32; 4] {
    const DELTA: u32 = 0x9e37_79b9;
    let mix = |word: u32, sum: u32, key: [u32; 2]| {
        let left = (word << 4).wrapping_add(key[0]);
        let right = (word >> 5).wrapping_add(key[1]);
        left ^ word.wrapping_add(sum) ^ right
    };
    let [mut left, mut right, third, fourth] = state;
    let mut sum = 0u32;
    for _ in 0..16 {
        sum = sum.wrapping_add(DELTA);
        left = left.wrapping_add(mix(right, sum, [key[0], key[1]]));
        right = right.wrapping_add(mix(left, sum, [key[2], key[3]]));
    }
    [state[0].wrapping_add(left), state[1].wrapping_add(right), third, fourth]
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::Command;

    use super::*;

    const SEED: [u32; 4] = [0x0403_0201, 0x0807_0605, 0x0c0b_0a09, 0x100f_0e0d];
    /// The same, as debugfs takes it.
    const UUID: &str = "01020304-0506-0708-090a-0b0c0d0e0f10";

    /// What debugfs says for each of `names`, hashed with `version`.
    fn debugfs(version: u8, names: &[Vec<u8>]) -> Vec<Hash> {
        let mut commands = tempfile::NamedTempFile::new().unwrap();
        for name in names {
            let start = format!("dx_hash -h {version} -s {UUID} ");
            commands.write_all(&[start.as_bytes(), name, b"\n"].concat()).unwrap();
        }
        let output = Command::new("debugfs").arg("-f").arg(commands.path()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answers = text.lines().filter(|line| line.starts_with("Hash of "));
        let number = |text: &str| u32::from_str_radix(text.trim_end_matches(')'), 16).unwrap();
        let hash = |line: &str| {
            let (start, minor) = line.rsplit_once(" (minor 0x").unwrap();
            let major = start.rsplit_once(" 0x").unwrap().1;
            Hash { major: number(major), minor: number(minor) }
        };
        answers.map(hash).collect()
    }

    #[test]
    fn hashes_are_those_of_e2fsprogs() {
        let mut random = fastrand::Rng::with_seed(1);
        // Without what debugfs takes as the end of a word, a quote, or the end of the line.
        let plain: Vec<u8> = (0x21..=0xff).filter(|byte| *byte != b'"').collect();
        let byte = |random: &mut fastrand::Rng| plain[random.usize(..plain.len())];
        let name = |len: usize| (0..len).map(|_| byte(&mut random)).collect::<Vec<u8>>();
        let names: Vec<Vec<u8>> = (1..=255).chain(1..=255).map(name).collect();
        let algorithms = [Algorithm::Legacy, Algorithm::HalfMd4, Algorithm::Tea];
        for version in 0..6u8 {
            let algorithm = algorithms[usize::from(version % 3)];
            let hasher = Hasher { algorithm, unsigned: version >= 3, seed: SEED };
            let right = debugfs(version, &names);
            assert_eq!(right.len(), names.len());
            for (name, right) in names.iter().zip(right) {
                assert_eq!(hasher.hash(name), right, "version {version}, {name:x?}");
            }
        }
    }

    #[test]
    fn no_name_has_the_hash_of_the_end() {
        assert_eq!(Hash::new(0xffff_ffff, 1), Hash { major: 0xffff_fffc, minor: 1 });
        assert_eq!(Hash::new(0xffff_fffd, 0).major, 0xffff_fffc);
        assert_eq!(Hash::new(7, 0).major, 6);
    }
}
