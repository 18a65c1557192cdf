//! What is in a folder, entry by entry, so that two views of it can be compared.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, SeekFrom};

use crate::failure::Failure;
use crate::rig::folder::word;

/// Contents are summed up by blocks of this size, those of zeros left out.
const BLOCK: usize = 4096;

/// The most differences that are told.
const TOLD_MAX: usize = 8;

/// What is compared of two folders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// What a copy keeps: kinds, modes, owners, times of change, attributes, contents, links.
    Copy,
    /// All that one file system tells, inodes included, but for times of access.
    Own,
    /// Holes and blocks too, which change when what was written gets its place.
    Same,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    kind: char,
    /// What a copy keeps.
    kept: String,
    /// What it does not.
    own: String,
    /// What is known when it has its place.
    place: String,
}

/// The entries of a folder, by path.
#[derive(Clone, Debug, Default)]
pub(super) struct Manifest {
    entries: BTreeMap<PathBuf, Entry>,
    /// The first path of each inode.
    inodes: BTreeMap<u64, PathBuf>,
}

impl Manifest {
    /// Looks at all that is in `folder`, and at itself.
    pub(super) fn of(folder: &Path) -> Result<Manifest, Failure> {
        let mut manifest = Manifest::default();
        manifest.add(folder, Path::new("."))?;
        Ok(manifest)
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The same without the entries of one kind: `s` is a socket.
    pub(super) fn without(mut self, kind: char) -> Manifest {
        self.entries.retain(|_, entry| entry.kind != kind);
        self
    }

    /// The differences of `other`, a line each, as many as are worth reading.
    pub(super) fn differences(&self, other: &Manifest, depth: Depth) -> Vec<String> {
        let mut paths: Vec<&PathBuf> = self.entries.keys().chain(other.entries.keys()).collect();
        paths.sort_unstable();
        paths.dedup();
        let of = |manifest: &Manifest, path| {
            let entry: &Entry = manifest.entries.get(path)?;
            let own = if depth == Depth::Copy { "" } else { entry.own.as_str() };
            let place = if depth == Depth::Same { entry.place.as_str() } else { "" };
            Some(format!("{} {}{own}{place}", entry.kind, entry.kept))
        };
        let mut told = Vec::new();
        for path in paths {
            let (there, here) = (of(self, path), of(other, path));
            if there != here {
                let [there, here] = [there, here].map(|view| view.unwrap_or("is missing".into()));
                told.push(format!("{path:?}:\n  {there}\n  {here}"));
            }
        }
        let more = told.len().saturating_sub(TOLD_MAX);
        told.truncate(TOLD_MAX);
        if more > 0 {
            told.push(format!("and {more} more"));
        }
        told
    }

    /// Fails where `other` differs; `what` says what the two are.
    pub(super) fn expect(&self, other: &Manifest, depth: Depth, what: &str) -> Result<(), Failure> {
        let differences = self.differences(other, depth);
        if differences.is_empty() {
            return Ok(());
        }
        Err(Failure::new(format!("{what} differ:\n{}", differences.join("\n"))))
    }

    fn add(&mut self, root: &Path, below: &Path) -> Result<(), Failure> {
        let path = root.join(below);
        let at = |error| Failure::at(&word(&path), &error);
        let metadata = fs::symlink_metadata(&path).map_err(at)?;
        let first = self.inodes.entry(metadata.ino()).or_insert_with(|| below.to_owned()).clone();
        let entry = entry(&path, &metadata, &first).map_err(at)?;
        let _none = self.entries.insert(below.to_owned(), entry);
        if metadata.is_dir() {
            let names: io::Result<Vec<_>> = fs::read_dir(&path)
                .map_err(at)?
                .map(|found| found.map(|found| found.file_name()))
                .collect();
            let mut names = names.map_err(at)?;
            names.sort_unstable();
            for name in names {
                self.add(root, &below.join(name))?;
            }
        }
        Ok(())
    }
}

fn entry(path: &Path, metadata: &Metadata, first: &Path) -> io::Result<Entry> {
    let kind = kind(metadata);
    let mut kept = format!(
        "{:o} {}:{} modified {}.{:09} attributes {:?}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        attributes(path)?,
    );
    let mut own = format!(
        " | inode {} changed {}.{:09}",
        metadata.ino(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    );
    let mut place = format!(" | {} blocks", metadata.blocks());
    let links = format!(" {} links, {} bytes", metadata.nlink(), metadata.size());
    if kind == 'd' {
        own.push_str(&links);
    } else {
        kept.push_str(&links);
        kept.push_str(&format!(", the first {first:?}"));
    }
    match kind {
        '-' => {
            let (sum, data) = content(path)?;
            kept.push_str(&format!(", sum {sum:016x}"));
            place.push_str(&format!(", data at {data:?}"));
        }
        'l' => kept.push_str(&format!(" to {:?}", fs::read_link(path)?)),
        'c' | 'b' => kept.push_str(&format!(", device {:x}", metadata.rdev())),
        _ => {}
    }
    if matches!(kind, 'c' | 'b' | 'p' | 's') {
        own.push_str(&format!(", read {}.{:09}", metadata.atime(), metadata.atime_nsec()));
    }
    Ok(Entry { kind, kept, own, place })
}

fn kind(metadata: &Metadata) -> char {
    let kind = metadata.file_type();
    let kinds = [
        (kind.is_dir(), 'd'),
        (kind.is_symlink(), 'l'),
        (kind.is_fifo(), 'p'),
        (kind.is_socket(), 's'),
        (kind.is_char_device(), 'c'),
        (kind.is_block_device(), 'b'),
    ];
    kinds.iter().find(|(is, _)| *is).map_or('-', |(_, sign)| *sign)
}

/// The names of the attributes, each with a sum of its value, by name.
fn attributes(path: &Path) -> io::Result<Vec<String>> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    names.truncate(length);
    let mut told = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = std::ffi::OsString::from_vec(name.to_vec());
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::lgetxattr(path, name.as_bytes(), &mut value)?;
        told.push(format!("{}={length}:{:016x}", name.to_string_lossy(), sum(0, &value[..length])));
    }
    told.sort_unstable();
    Ok(told)
}

/// A sum of the bytes that are not zeros, with their places, and the spans of data.
fn content(path: &Path) -> io::Result<(u64, Vec<(u64, u64)>)> {
    let quiet = OFlags::NOATIME.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(quiet).open(path)?;
    let mut total = 0_u64;
    let mut spans = Vec::new();
    let mut at = 0;
    while let Some((start, end)) = span(&file, at)? {
        spans.push((start, end));
        let mut offset = start - start % BLOCK as u64;
        let mut buffer = vec![0; 64 * BLOCK];
        while offset < end {
            let length = read_at(&file, &mut buffer, offset)?;
            for block in buffer[..length].chunks(BLOCK) {
                if block.iter().any(|byte| *byte != 0) {
                    total = total.wrapping_add(sum(offset, block));
                }
                offset += block.len() as u64;
            }
            if length == 0 {
                return Err(io::Error::new(ErrorKind::UnexpectedEof, "data behind the end"));
            }
        }
        at = offset.max(end);
    }
    Ok((total, spans))
}

/// The next span of data at or behind `at`.
fn span(file: &File, at: u64) -> io::Result<Option<(u64, u64)>> {
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) => Ok(Some((start, rustix::fs::seek(file, SeekFrom::Hole(start))?))),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Reads until `buffer` is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// FNV-1a, begun with `seed`, of the bytes up to the last that is not zero.
fn sum(seed: u64, bytes: &[u8]) -> u64 {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let start = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bytes[..end]
        .iter()
        .fold(start, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::folder::Folder;

    fn changed(change: impl FnOnce(&Path)) -> (usize, usize) {
        let folder = Folder::new("manifest").expect("a folder is made");
        let file = folder.path("file");
        fs::write(&file, "words").unwrap();
        let before = Manifest::of(&folder.path("")).expect("all can be read");
        change(&file);
        let after = Manifest::of(&folder.path("")).expect("all can be read");
        let count = |depth| before.differences(&after, depth).len();
        (count(Depth::Copy), count(Depth::Same))
    }

    #[test]
    fn a_byte_a_mode_and_a_link_are_differences_of_every_depth() {
        assert_eq!(changed(|_| {}), (0, 0));
        let keep_time = |file: &Path, text: &str| {
            let time = fs::metadata(file).unwrap().modified().unwrap();
            fs::write(file, text).unwrap();
            File::options().write(true).open(file).unwrap().set_modified(time).unwrap();
        };
        assert_eq!(changed(|file| keep_time(file, "wordz")), (1, 1));
        assert_eq!(changed(|file| keep_time(file, "words\0")), (1, 1));
        let (copy, same) = changed(|file| fs::hard_link(file, file.with_extension("b")).unwrap());
        assert!(copy >= 2 && same >= 2);
    }
}
