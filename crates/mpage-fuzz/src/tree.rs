//! What a tree holds, in lines that can be compared.

use std::collections::BTreeMap;
use std::sync::Arc;

use mpage_ext4::{Cookie, File, FileKind, FileSystem, InodeNumber, Result};

/// Bytes that have one sum.
const PIECE: usize = 4096;

/// What is known of all that has a name, by its path.
///
/// # Errors
///
/// The first met: of an image that is not damaged there is none.
pub(crate) fn tree(fs: &Arc<FileSystem>) -> Result<BTreeMap<Vec<u8>, String>> {
    let mut tree = BTreeMap::new();
    let mut left = vec![(Vec::new(), InodeNumber::ROOT)];
    while let Some((path, inode)) = left.pop() {
        let mut from = Some(Cookie::START);
        while let Some(cookie) = from {
            let listing = fs.read_directory(inode, cookie)?;
            for entry in listing.entries {
                if matches!(&entry.name[..], b"." | b"..") {
                    continue;
                }
                let path = [&path[..], b"/", &entry.name].concat();
                if fs.attributes(entry.inode)?.kind == FileKind::Directory {
                    left.push((path.clone(), entry.inode));
                }
                let told = tell(fs, entry.inode)?;
                let twice = tree.insert(path, told);
                assert!(twice.is_none(), "'{}' is twice there", entry.name.escape_ascii());
            }
            from = listing.next;
        }
    }
    Ok(tree)
}

/// What is known of `inode`, but what reading and closing change.
fn tell(fs: &Arc<FileSystem>, inode: InodeNumber) -> Result<String> {
    let is = fs.attributes(inode)?;
    let (modified, changed) = (is.modified.seconds, is.changed.seconds);
    let mut told = format!(
        "{inode} {:?} {:o} {} {} {} {} {} {modified} {changed}",
        is.kind, is.mode, is.uid, is.gid, is.size, is.links, is.device
    );
    for name in fs.extended_attribute_names(inode)? {
        let value = fs.extended_attribute(inode, &name)?;
        told += &format!(" {}={}", name.escape_ascii(), value.escape_ascii());
    }
    match is.kind {
        FileKind::Regular => told += &content(&fs.open_file(inode)?)?,
        FileKind::SymbolicLink => {
            told += &format!(" -> {}", fs.read_link(inode)?.escape_ascii());
        }
        _ => {}
    }
    Ok(told)
}

/// The sums of what is not zeros in `file`.
fn content(file: &File) -> Result<String> {
    let (mut told, mut at) = (String::new(), 0);
    let mut bytes = [0; PIECE];
    while at < file.size() {
        let span = file.span_at(at)?;
        if span.hole {
            at = span.bytes.end;
            continue;
        }
        // Where data begins may be known to the page, or to the block: a piece begins with neither.
        at -= at % PIECE as u64;
        let count = file.read_at(&mut bytes, at)?;
        assert!(count > 0, "inode {} ends before its size", file.inode());
        if bytes[..count].iter().any(|byte| *byte != 0) {
            told += &format!(" {at}:{:08x}", crc32c::crc32c(&bytes[..count]));
        }
        at += PIECE as u64;
    }
    Ok(told)
}
