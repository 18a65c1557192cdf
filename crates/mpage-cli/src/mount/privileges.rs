//! Privileges that a program file has, which go when somebody changes its content or its owner: the
//! bits setuid and setgid, and capabilities.
//!
//! The kernel leaves it to us (`FUSE_HANDLE_KILLPRIV_V2`), since it would have to ask for the
//! capabilities before each write otherwise. A file that was seen to have none is not looked at
//! again before anybody gives some to any file.
//!
//! Linux: `file_remove_privs()`, `setattr_should_drop_suidgid()`, fs/attr.c.

use mpage_block::Errno;
use mpage_ext4::{Attributes, ErrorKind, FileKind, FileSystem, InodeNumber, NewAttributes, Result};
use mpage_locks::atomic::{AtomicU64, Ordering};

use super::handles::OpenFile;

const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;
const GROUP_EXECUTES: u16 = 0o0010;

/// The extended attribute that holds capabilities.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

/// How often privileges may have been given to a file.
pub(super) struct Privileges(AtomicU64);

impl Default for Privileges {
    fn default() -> Privileges {
        // An open file was never seen in state zero.
        Privileges(AtomicU64::new(1))
    }
}

/// `mode` without what a change of the content or owner takes from it.
pub(super) fn without(mode: u16) -> u16 {
    let setgid = if mode & GROUP_EXECUTES == 0 { 0 } else { SETGID };
    mode & !(SETUID | setgid)
}

impl Privileges {
    /// A file may have got some.
    pub(super) fn note(&self) {
        let _before = self.0.fetch_add(1, Ordering::Release);
    }

    /// Takes them from a file that is about to be written: its bits too if `takes_bits`.
    ///
    /// # Errors
    ///
    /// Those of looking at the inode, and of changing it.
    pub(super) fn take(&self, fs: &FileSystem, open: &OpenFile, takes_bits: bool) -> Result<()> {
        let now = self.0.load(Ordering::Acquire);
        if open.unprivileged_at.load(Ordering::Relaxed) == now {
            return Ok(());
        }
        if take_from(fs, open.file.inode(), takes_bits)? {
            open.unprivileged_at.store(now, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Takes privileges from `inode`: its bits too if `takes_bits`. True when it has none left.
///
/// # Errors
///
/// Those of looking at the inode, and of changing it.
pub(super) fn take_from(fs: &FileSystem, inode: InodeNumber, takes_bits: bool) -> Result<bool> {
    match fs.extended_attribute(inode, CAPABILITY) {
        Ok(value) if value.is_empty() => {}
        Ok(_) => fs.remove_extended_attribute(inode, CAPABILITY)?,
        Err(error) if error.kind == ErrorKind::Errno(Errno::NODATA) => {}
        Err(error) => return Err(error),
    }
    let Attributes { kind, mode, .. } = fs.attributes(inode)?;
    let permissions = mode & 0o7777;
    if kind != FileKind::Regular || without(permissions) == permissions {
        return Ok(true);
    }
    if takes_bits {
        let permissions = Some(without(permissions));
        fs.set_attributes(inode, &NewAttributes { permissions, ..NewAttributes::default() })?;
    }
    Ok(takes_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setgid_stays_where_the_group_executes_nothing() {
        for (before, after) in [(0o4755, 0o755), (0o2755, 0o755), (0o2644, 0o2644), (0o644, 0o644)]
        {
            assert_eq!(without(before), after);
        }
    }
}
