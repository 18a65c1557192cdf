//! Reading all that there is to read of an image that may be damaged, as far as it goes.

use std::collections::BTreeSet;
use std::sync::Arc;

use mpage_block::Errno;
use mpage_ext4::{Attributes, Cookie, ErrorKind, FileKind, FileSystem, InodeNumber, Result};

/// Inodes that are looked at because they have the first numbers.
const FIRST: u32 = 40;
/// Inodes that are looked at because they have names.
const NAMED_MAX: usize = 160;
/// Parts of one directory that are listed.
const LISTINGS_MAX: usize = 64;
/// Names of one directory that are looked up again.
const LOOKUPS_MAX: usize = 24;
/// Spans of one file that are asked for.
const SPANS_MAX: usize = 24;
/// Bytes of one read.
const READ: usize = 4 << 10;

/// What `result` gave. A device that does not fail is the reason of no error.
///
/// # Panics
///
/// When the error says that it has.
pub(crate) fn given<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(error.kind != ErrorKind::Errno(Errno::IO), "the device is well: {error}");
            None
        }
    }
}

/// Reads the tree from the root on, then the first inodes.
pub(crate) fn walk(fs: &Arc<FileSystem>) {
    let (mut seen, mut left) = (BTreeSet::new(), vec![InodeNumber::ROOT]);
    while let Some(number) = left.pop() {
        if seen.len() >= NAMED_MAX || !seen.insert(number) {
            continue;
        }
        left.extend(look(fs, number));
    }
    for number in (0..FIRST).map(InodeNumber) {
        if !seen.contains(&number) {
            let _names = look(fs, number);
        }
    }
    let _room = given(fs.statfs());
}

/// Reads all of inode `number`; what it names, if it is a directory.
pub(crate) fn look(fs: &Arc<FileSystem>, number: InodeNumber) -> Vec<InodeNumber> {
    let Some(attributes) = given(fs.attributes(number)) else { return Vec::new() };
    read_extended(fs, number);
    match attributes.kind {
        FileKind::Directory => return list(fs, number),
        FileKind::Regular => read_file(fs, &attributes),
        _ => {
            let _target = given(fs.read_link(number));
        }
    }
    Vec::new()
}

fn read_extended(fs: &FileSystem, number: InodeNumber) {
    let mut names = given(fs.extended_attribute_names(number)).unwrap_or_default();
    names.truncate(LOOKUPS_MAX);
    names.extend([b"system.posix_acl_access".to_vec(), b"user.none".to_vec()]);
    for name in names {
        let _value = given(fs.extended_attribute(number, &name));
    }
}

fn list(fs: &FileSystem, number: InodeNumber) -> Vec<InodeNumber> {
    let (mut found, mut lookups) = (Vec::new(), 0);
    let mut from = Cookie::START;
    for _ in 0..LISTINGS_MAX {
        let Some(listing) = given(fs.read_directory(number, from)) else { break };
        for entry in listing.entries {
            let name = &entry.name;
            let is_plain = !name.iter().any(|byte| matches!(byte, 0 | b'/'));
            assert!((1..256).contains(&name.len()) && is_plain, "'{}'", name.escape_ascii());
            assert!(entry.next > from, "inode {number}, {:?} at {from:?}", entry.next);
            if lookups < LOOKUPS_MAX {
                lookups += 1;
                let _found = given(fs.lookup(number, name));
            }
            found.push(entry.inode);
        }
        let Some(next) = listing.next else { break };
        assert!(next > from, "inode {number}, {next:?} behind {from:?}");
        from = next;
    }
    let _none = given(fs.lookup(number, b"a name that is not there"));
    found.truncate(NAMED_MAX);
    found
}

fn read_file(fs: &Arc<FileSystem>, attributes: &Attributes) {
    let Some(file) = given(fs.open_file(attributes.inode)) else { return };
    let size = file.size();
    let mut bytes = vec![0; READ];
    for at in [0, 60_000, 1 << 20, 1 << 27, 1 << 32, size / 2, size.saturating_sub(1), size] {
        let count = given(file.read_at(&mut bytes, at)).unwrap_or(0);
        let most = size.saturating_sub(at).min(READ as u64);
        assert!(count as u64 <= most, "{count} bytes at {at} of {size}");
    }
    let mut at = 0;
    for _ in 0..SPANS_MAX {
        let Some(span) = given(file.span_at(at)) else { return };
        assert!(span.bytes.contains(&at), "{span:?} at {at}");
        at = span.bytes.end;
    }
}
