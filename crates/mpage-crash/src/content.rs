//! Contents that tell whose they are.
//!
//! Each eight bytes of a file name the file, and their place in it. So bytes of another file, or of
//! another place, are known by looking at them; zeros are what nobody wrote.

/// Bytes of a word.
pub const WORD: usize = 8;

/// A file that was ever made. Two are never the same, whatever their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u16);

/// `len` bytes of `file` from `offset` on, as they are written the `version`th time.
pub fn bytes(file: FileId, version: u16, offset: u64, len: usize) -> Vec<u8> {
    let words = (offset / WORD as u64..).take(len / WORD);
    let words = words.map(|word| {
        let place = u32::try_from(word).expect("a small file");
        let head = u64::from(file.0) << 48 | u64::from(version) << 32;
        (head | u64::from(place)).to_be_bytes()
    });
    words.flatten().collect()
}

/// The first word of `content`, and what it is, that is neither zero nor of one of `files` at its
/// place.
pub fn foreign(content: &[u8], files: &[FileId]) -> Option<(usize, u64)> {
    let words = content.chunks(WORD).enumerate();
    let words = words.map(|(at, bytes)| {
        let mut word = [0; WORD];
        word[..bytes.len()].copy_from_slice(bytes);
        (at, u64::from_be_bytes(word))
    });
    words.filter(|(_, word)| *word != 0).find(|(at, word)| {
        let is_here = word & 0xffff_ffff == *at as u64;
        let is_of_file = files.iter().any(|file| u64::from(file.0) == word >> 48);
        !is_here || !is_of_file
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_others_and_of_elsewhere_are_known() {
        let (one, two) = (FileId(1), FileId(2));
        let mut content = bytes(one, 1, 0, 64);
        content[16..24].fill(0);
        assert_eq!(foreign(&content, &[one]), None);
        assert!(foreign(&content, &[two]).is_some_and(|(at, _)| at == 0));
        content[32..40].copy_from_slice(&bytes(one, 1, 64, 8));
        assert!(foreign(&content, &[one, two]).is_some_and(|(at, _)| at == 4));
    }
}
