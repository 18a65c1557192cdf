use std::collections::BTreeMap;

use zerocopy::FromZeros;

use super::record::MAGIC;
use super::superblock::{RawJournal, Sums};
use super::*;

const BLOCK: usize = 1024;
/// Blocks of the image, and of the journal with its superblock.
const IMAGE: u64 = 100;
const RING: u32 = 40;

const ESCAPED: u32 = 0x1;
const SAME_UUID: u32 = 0x2;
const DELETED: u32 = 0x4;
const LAST: u32 = 0x8;

const ASYNC: u32 = 0x4;

/// Features of journals: compatible ones, and others. All forms of tags.
const FORMS: [(u32, u32); 7] =
    [(0, 0x1), (0, 0x3), (1, 0x3), (0, 0x9), (0, 0xb), (0, 0x11), (0, 0x13)];
/// One of them with sums of everything.
const SUMMED: (u32, u32) = (0, 0x13);

/// A log, as it is made.
struct Made {
    raw: RawJournal,
    blocks: Vec<Vec<u8>>,
    at: u32,
    sequence: u32,
    crc: u32,
    seconds: u64,
    /// Where the records of the log are.
    records: Vec<u32>,
}

/// A content and its block, which the image holds once it is replayed.
type Image = BTreeMap<u64, Vec<u8>>;

fn content(byte: u8) -> Vec<u8> {
    vec![byte; BLOCK]
}

/// The crc32 that begins with the highest bit, of what was summed `before` and `bytes`.
fn crc_of(before: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(before, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 0 { 0 } else { 0x04c1_1db7 }
        })
    })
}

impl Made {
    /// An empty log whose next block is `start`, and next transaction `sequence`.
    fn new((compat, incompat): (u32, u32), start: u32, sequence: u32) -> Made {
        let mut raw = RawJournal::new_zeroed();
        raw.magic = MAGIC.into();
        raw.kind = 4.into();
        raw.block_size = 1024.into();
        raw.max_len = RING.into();
        raw.first = 1.into();
        raw.sequence = sequence.into();
        raw.start = start.into();
        raw.feature_compat = compat.into();
        raw.feature_incompat = incompat.into();
        raw.uuid = [9; 16];
        raw.checksum_type = 4;
        raw.sum();
        let blocks = vec![content(0); RING as usize];
        let records = Vec::new();
        Made { raw, blocks, at: start, sequence, crc: !0, seconds: 1000, records }
    }

    fn journal(&self) -> Result<Journal> {
        Journal::new(&RawJournal::of(self.raw.bytes())?, BLOCK, RING.into())
    }

    fn put(&mut self, block: Vec<u8>) {
        self.blocks[self.at as usize] = block;
        self.at = if self.at + 1 == RING { 1 } else { self.at + 1 };
    }

    fn record(&mut self, kind: u32, body: &[u8], has_tail: bool) -> Vec<u8> {
        let journal = self.journal().unwrap();
        let mut block = [MAGIC, kind, self.sequence].map(u32::to_be_bytes).concat();
        block.extend(body);
        block.resize(BLOCK, 0);
        if has_tail && journal.tail_bytes() != 0 {
            let sum = journal.seed.of(&block).0.to_be_bytes();
            block[BLOCK - 4..].copy_from_slice(&sum);
        }
        self.records.push(self.at);
        self.put(block.clone());
        block
    }

    /// A tag with `flags`, as the journal's features have it.
    fn tag(&self, number: u64, flags: u32, stored: &[u8]) -> Vec<u8> {
        let journal = self.journal().unwrap();
        let sum = journal.seed.of(&self.sequence.to_be_bytes()).of(stored).0.to_be_bytes();
        let low = &number.to_be_bytes()[4..];
        let high = &number.to_be_bytes()[..4];
        let flags_bytes = flags.to_be_bytes();
        let high = if journal.wide { high } else { &[] };
        let mut tag = match journal.sums {
            Sums::Each { wide: true } => [low, &flags_bytes, &[0; 4], &sum].concat(),
            Sums::Each { wide: false } => {
                [low, &sum[2..], &flags_bytes[2..], high, &[0; 2]].concat()
            }
            _ => [low, &[0; 2], &flags_bytes[2..], high].concat(),
        };
        if flags & SAME_UUID == 0 {
            tag.extend([9; 16]);
        }
        tag
    }

    /// A descriptor and `contents`, with `flags` in each of its tags.
    fn contents(&mut self, contents: &[(u64, u8)], flags: u32) {
        let stored = |byte: u8| {
            let mut block = content(byte);
            if flags & ESCAPED != 0 {
                block[..4].fill(0);
            }
            block
        };
        let mut tags = Vec::new();
        for (n, (number, byte)) in contents.iter().enumerate() {
            let same = if n == 0 { 0 } else { SAME_UUID };
            let last = if n + 1 == contents.len() { LAST } else { 0 };
            tags.extend(self.tag(*number, flags | same | last, &stored(*byte)));
        }
        let descriptor = self.record(1, &tags, true);
        self.crc = crc_of(self.crc, &descriptor);
        for (_, byte) in contents {
            self.crc = crc_of(self.crc, &stored(*byte));
            self.put(stored(*byte));
        }
    }

    fn revoke(&mut self, numbers: &[u64]) {
        let wide = self.journal().unwrap().wide;
        let len = if wide { 8 } else { 4 };
        let count = u32::try_from(16 + len * numbers.len()).unwrap();
        let mut body = count.to_be_bytes().to_vec();
        for number in numbers {
            body.extend(&number.to_be_bytes()[8 - len..]);
        }
        let _block = self.record(5, &body, true);
    }

    fn commit(&mut self) {
        let journal = self.journal().unwrap();
        let mut body = [0; 48];
        if journal.sums == Sums::Commit {
            body[..2].copy_from_slice(&[1, 4]);
            body[4..8].copy_from_slice(&self.crc.to_be_bytes());
        }
        body[36..44].copy_from_slice(&self.seconds.to_be_bytes());
        let at = self.at as usize;
        let block = self.record(2, &body, false);
        if journal.tail_bytes() != 0 {
            self.blocks[at][16..20].copy_from_slice(&journal.seed.of(&block).0.to_be_bytes());
        }
        (self.crc, self.seconds) = (!0, self.seconds + 1);
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn transaction(&mut self, contents: &[(u64, u8)]) {
        self.contents(contents, 0);
        self.commit();
    }

    /// What the image holds once the log is replayed, and the number behind the last transaction.
    fn replayed(&self) -> Result<(Image, u32)> {
        let mut image = Image::new();
        let end = self.replay_into(&mut image)?;
        Ok((image, end))
    }

    fn replay_into(&self, image: &mut Image) -> Result<u32> {
        let journal = self.journal()?;
        let read = |index: u32, block: &mut [u8]| {
            block.copy_from_slice(&self.blocks[index as usize]);
            Ok(())
        };
        let log = Log::of(&journal, &read).expect("it is not empty");
        replay::replay(&log, &(1..IMAGE), |number, content| {
            let _before = image.insert(number, content.to_vec());
            Ok(())
        })
    }

    fn damage(&mut self, record: usize, at: usize) {
        self.blocks[self.records[record] as usize][at] ^= 0x40;
    }
}

/// The first byte of each block that was written.
fn bytes(image: &Image) -> Vec<(u64, u8)> {
    image.iter().map(|(number, content)| (*number, content[0])).collect()
}

#[test]
fn contents_reach_their_blocks_with_every_form_of_tag() {
    for form in FORMS {
        let mut made = Made::new(form, 1, 5);
        made.contents(&[(10, 1), (11, 2)], 0);
        made.contents(&[(12, 3)], DELETED);
        made.commit();
        made.transaction(&[(11, 4)]);
        let (image, end) = made.replayed().unwrap();
        assert_eq!(bytes(&image), [(10, 1), (11, 4), (12, 3)], "{form:x?}");
        assert_eq!(end, 7);
    }
}

#[test]
fn a_full_descriptor_needs_no_last_tag() {
    for form in FORMS {
        let mut made = Made::new(form, 1, 5);
        let journal = made.journal().unwrap();
        // As many as there is room for after the header and the first one's UUID.
        let len = made.tag(10, SAME_UUID, &content(7)).len();
        let count = ((BLOCK - 12 - journal.tail_bytes() - 16) / len).min(30);
        let stored = content(7);
        let mut tags = made.tag(10, 0, &stored);
        for n in 1..count as u64 {
            tags.extend(made.tag(10 + n, SAME_UUID, &stored));
        }
        let is_full = 12 + tags.len() + len > BLOCK - journal.tail_bytes();
        if !is_full {
            continue;
        }
        let descriptor = made.record(1, &tags, true);
        made.crc = crc_of(made.crc, &descriptor);
        for _ in 0..count {
            made.crc = crc_of(made.crc, &stored);
            made.put(stored.clone());
        }
        made.commit();
        assert_eq!(made.replayed().unwrap().0.len(), count, "{form:x?}");
    }
}

#[test]
fn escaped_contents_get_their_magic_number_back() {
    for form in FORMS {
        let mut made = Made::new(form, 1, 5);
        made.contents(&[(10, 1), (11, 2)], ESCAPED);
        made.commit();
        let (image, _) = made.replayed().unwrap();
        for (number, byte) in [(10, 1), (11, 2)] {
            assert_eq!(image[&number][..4], MAGIC.to_be_bytes(), "{form:x?}");
            assert_eq!(image[&number][4..], content(byte)[4..], "{form:x?}");
        }
    }
}

#[test]
fn a_revoke_hides_contents_of_its_own_and_earlier_transactions() {
    for form in FORMS {
        let mut made = Made::new(form, 1, u32::MAX - 1);
        made.transaction(&[(10, 1), (11, 1), (12, 1)]);
        made.contents(&[(13, 2)], 0);
        made.revoke(&[11, 13, IMAGE + 5]);
        made.commit();
        made.revoke(&[12]);
        made.contents(&[(11, 3)], 0);
        made.commit();
        let (image, end) = made.replayed().unwrap();
        assert_eq!(bytes(&image), [(10, 1), (11, 3)], "{form:x?}");
        assert_eq!(end, 1, "numbers wrap around");
    }
}

#[test]
fn a_log_goes_on_at_the_front_of_its_ring() {
    for form in FORMS {
        for start in RING - 12..RING {
            let mut made = Made::new(form, start, 5);
            made.transaction(&[(10, 1), (11, 2), (12, 3)]);
            made.revoke(&[12]);
            made.commit();
            made.transaction(&[(13, 4)]);
            let (image, end) = made.replayed().unwrap();
            assert_eq!(bytes(&image), [(10, 1), (11, 2), (13, 4)], "{form:x?}, {start}");
            assert_eq!(end, 8);
        }
    }
}

#[test]
fn a_transaction_without_a_commit_block_is_not_replayed() {
    for form in FORMS {
        let mut made = Made::new(form, 1, 5);
        made.transaction(&[(10, 1)]);
        made.revoke(&[10]);
        made.contents(&[(10, 2), (IMAGE + 1, 2)], 0);
        let (image, end) = made.replayed().unwrap();
        assert_eq!((bytes(&image), end), (vec![(10, 1)], 6), "{form:x?}");
    }
}

#[test]
fn what_lies_behind_the_log_from_an_earlier_round_is_not_replayed() {
    for form in FORMS {
        let mut made = Made::new(form, 1, 3);
        (0..8).for_each(|_| made.transaction(&[(20, 9)]));
        (made.at, made.sequence) = (1, 30);
        made.raw.sequence = 30.into();
        made.raw.sum();
        made.transaction(&[(10, 1)]);
        let (image, end) = made.replayed().unwrap();
        assert_eq!((bytes(&image), end), (vec![(10, 1)], 31), "{form:x?}");
    }
}

#[test]
fn a_torn_commit_block_ends_the_log() {
    for form in [(1, 0x1), (0, 0x9), SUMMED] {
        let mut made = Made::new(form, 1, 5);
        made.transaction(&[(10, 1)]);
        made.transaction(&[(11, 2)]);
        made.damage(3, 18);
        let (image, end) = made.replayed().unwrap();
        assert_eq!((bytes(&image), end), (vec![(10, 1)], 6), "{form:x?}");
        made.transaction(&[(11, 3)]);
        made.damage(5, 18);
        let (image, end) = made.replayed().unwrap();
        assert_eq!((bytes(&image), end), (vec![(10, 1)], 6), "{form:x?}, two of them");
        // A whole one behind it says that it was not a crash.
        made.transaction(&[(12, 3)]);
        let mut image = Image::new();
        let error = made.replay_into(&mut image).expect_err("damage");
        assert_eq!((error.kind, image.len()), (ErrorKind::Corrupt, 0), "{form:x?}");
    }
}

#[test]
fn a_commit_block_may_leave_out_the_sum_of_what_it_commits() {
    let mut made = Made::new((1, 0x1), 1, 5);
    made.transaction(&[(10, 1)]);
    let commit = made.records[1] as usize;
    made.blocks[commit][12..20].fill(0);
    assert_eq!(bytes(&made.replayed().unwrap().0), [(10, 1)]);
    made.blocks[commit][17] = 1;
    assert_eq!(made.replayed().unwrap().1, 5, "a sum of no kind");
}

#[test]
fn damage_before_a_commit_block_is_told_unless_commits_may_be_early() {
    // The descriptor's tag, its tail, the revoke, and the content.
    for (record, behind, at) in [(2, 0, 13), (2, 0, BLOCK - 1), (2, 1, 500), (3, 0, 17)] {
        for early in [0, ASYNC] {
            let mut made = Made::new((0, SUMMED.1 | early), 1, 5);
            made.transaction(&[(10, 1)]);
            made.contents(&[(11, 2)], 0);
            made.revoke(&[12]);
            made.commit();
            let block = made.records[record] as usize + behind;
            made.blocks[block][at] ^= 0x40;
            match early {
                0 => {
                    let error = made.replayed().expect_err("damage");
                    assert_eq!(error.kind, ErrorKind::Corrupt);
                }
                _ => {
                    let (image, end) = made.replayed().unwrap();
                    assert_eq!((bytes(&image), end), (vec![(10, 1)], 6));
                }
            }
            made.transaction(&[(12, 3)]);
            assert!(made.replayed().is_err(), "a whole one follows");
        }
    }
}

#[test]
fn a_damaged_transaction_from_an_earlier_life_of_the_log_ends_it() {
    let mut made = Made::new(SUMMED, 1, 5);
    made.transaction(&[(10, 1)]);
    made.seconds = 7;
    made.transaction(&[(11, 2)]);
    made.damage(2, 13);
    let (image, end) = made.replayed().unwrap();
    assert_eq!((bytes(&image), end), (vec![(10, 1)], 6));
}

#[test]
fn a_block_outside_of_the_image_is_told_before_anything_is_written() {
    for number in [0, IMAGE, u64::from(u32::MAX)] {
        let mut made = Made::new(SUMMED, 1, 5);
        made.transaction(&[(10, 1)]);
        made.transaction(&[(number, 1)]);
        let mut image = Image::new();
        let error = made.replay_into(&mut image).expect_err("outside");
        assert_eq!((error.kind, image.len()), (ErrorKind::Corrupt, 0));
    }
}

#[test]
fn a_transaction_that_fills_the_ring_with_no_end_is_not_replayed() {
    let mut made = Made::new((0, 1), 1, 5);
    for _ in 0..RING {
        made.revoke(&[10]);
    }
    assert_eq!(made.replayed().unwrap(), (Image::new(), 5));
    let mut made = Made::new((0, 1), 3, 5);
    for _ in 0..RING {
        made.contents(&[(10, 1), (11, 1)], 0);
    }
    assert_eq!(made.replayed().unwrap(), (Image::new(), 5));
}

#[test]
fn a_superblock_is_refused_by_name_or_as_damage() {
    let refused = |change: &dyn Fn(&mut RawJournal)| {
        let mut made = Made::new(SUMMED, 1, 5);
        change(&mut made.raw);
        made.raw.sum();
        made.journal().expect_err("it cannot be")
    };
    let error = refused(&|raw| raw.feature_incompat = 0x33.into());
    assert_eq!(
        (error.kind, &*error.detail),
        (ErrorKind::Unsupported, "the journal has fast_commit")
    );
    let kind = |change: &dyn Fn(&mut RawJournal)| refused(change).kind;
    assert_eq!(kind(&|raw| raw.feature_incompat = 0x8001.into()), ErrorKind::Unsupported);
    assert_eq!(kind(&|raw| raw.feature_ro_compat = 1.into()), ErrorKind::Unsupported);
    assert_eq!(kind(&|raw| raw.feature_incompat = 0x18.into()), ErrorKind::Corrupt);
    assert_eq!(kind(&|raw| raw.feature_compat = 1.into()), ErrorKind::Corrupt);
    assert_eq!(kind(&|raw| raw.checksum_type = 1), ErrorKind::Corrupt);
    assert_eq!(kind(&|raw| raw.magic = 1.into()), ErrorKind::Corrupt);
    assert_eq!(kind(&|raw| raw.kind = 1.into()), ErrorKind::Corrupt);
    assert_eq!(kind(&|raw| raw.block_size = 4096.into()), ErrorKind::Corrupt);
    assert_eq!(kind(&|raw| raw.first = 0.into()), ErrorKind::Corrupt);
    assert_eq!(kind(&|raw| raw.max_len = 1.into()), ErrorKind::Corrupt);
    assert_eq!(kind(&|raw| raw.max_len = 1000.into()), ErrorKind::Corrupt);
    assert_eq!(kind(&|raw| raw.start = RING.into()), ErrorKind::Corrupt);
    let mut made = Made::new(SUMMED, 1, 5);
    made.raw.sequence = 6.into();
    assert_eq!(made.journal().expect_err("a wrong sum").kind, ErrorKind::Corrupt);
}

#[test]
fn a_superblock_of_the_first_version_has_no_features() {
    let mut made = Made::new((0, 0), 1, 5);
    made.transaction(&[(10, 1)]);
    made.raw.kind = 3.into();
    made.raw.feature_incompat = u32::MAX.into();
    assert_eq!(bytes(&made.replayed().unwrap().0), [(10, 1)]);
}

#[test]
fn an_emptied_log_has_nothing_to_replay() {
    let mut made = Made::new(SUMMED, 1, 5);
    made.raw.empty(9);
    let journal = made.journal().unwrap();
    assert_eq!((journal.start, journal.sequence), (None, 9));
}
