//! What the fuzzer's bytes say: which image, what to damage in it, and what to do with it.
//!
//! They are records of eight bytes. The first says how to begin; each other one is an edit of the
//! image or, when its first byte is [`STEP`] or more, a step. What is left at the end is not read.
//! A kind that nobody has a meaning for does nothing, so that new kinds change no old input.

/// Bytes of a record.
pub(crate) const RECORD: usize = 8;
/// Edits and steps that are looked at.
const RECORDS_MAX: usize = 64;
/// The first kind of a step.
pub(crate) const STEP: u8 = 0x80;

/// One record: a kind, and three numbers whose meaning it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub kind: u8,
    /// Which of a few.
    pub one: u8,
    /// Which of some more.
    pub two: u16,
    /// Any number.
    pub three: u32,
}

impl Record {
    /// The record that is `bytes`.
    pub fn from_bytes(bytes: [u8; RECORD]) -> Record {
        let [kind, one, two @ .., a, b, c, d] = bytes;
        let three = u32::from_le_bytes([a, b, c, d]);
        Record { kind, one, two: u16::from_le_bytes(two), three }
    }

    /// Its bytes.
    pub fn to_bytes(self) -> [u8; RECORD] {
        let [a, b] = self.two.to_le_bytes();
        let [c, d, e, f] = self.three.to_le_bytes();
        [self.kind, self.one, a, b, c, d, e, f]
    }
}

/// How an input begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    /// Which base, of as many as there are.
    pub(crate) base: usize,
    /// The image says that it has no checksums, so that damage is not found by them.
    pub(crate) without_checksums: bool,
    /// The cache has the least memory that it works with.
    pub(crate) least_memory: bool,
}

/// An input in its parts.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(crate) header: Header,
    pub(crate) edits: Vec<Record>,
    pub(crate) steps: Vec<Record>,
}

impl Input {
    /// What `bytes` say.
    pub(crate) fn new(bytes: &[u8]) -> Input {
        let mut records = bytes
            .chunks_exact(RECORD)
            .take(RECORDS_MAX)
            .map(|bytes| Record::from_bytes(bytes.try_into().expect("as long as a record")));
        let none = Record::from_bytes([0; RECORD]);
        let first = records.next().unwrap_or(none);
        let header = Header {
            base: first.kind.into(),
            without_checksums: first.one & 1 != 0,
            least_memory: first.one & 2 != 0,
        };
        let (steps, edits) = records.partition(|record: &Record| record.kind >= STEP);
        Input { header, edits, steps }
    }

    /// The first record of an input for base number `base`.
    pub(crate) fn header(base: u8, without_checksums: bool, least_memory: bool) -> Record {
        let one = u8::from(without_checksums) | u8::from(least_memory) << 1;
        Record { kind: base, one, two: 0, three: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_what_its_records_say() {
        let edit = Record { kind: 3, one: 4, two: 0x0605, three: 0x0a09_0807 };
        assert_eq!(edit.to_bytes(), [3, 4, 5, 6, 7, 8, 9, 10]);
        let step = Record { kind: STEP, ..edit };
        let records = [Input::header(9, true, false), step, edit, step];
        let bytes: Vec<u8> = records.iter().flat_map(|record| record.to_bytes()).collect();
        let input = Input::new(&[&bytes[..], &[1; 7]].concat());
        assert_eq!(input.header.base, 9);
        assert!(input.header.without_checksums);
        assert!(!input.header.least_memory);
        assert_eq!(input.edits, [edit]);
        assert_eq!(input.steps, [step, step]);
        assert!(Input::new(&[]).edits.is_empty());
    }
}
