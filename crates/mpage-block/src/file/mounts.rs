//! What is mounted where.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// A line of the kernel's list of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of the file system.
    pub device: String,
    /// The kind of file system, as mount(8) has it.
    pub kind: String,
    /// What is mounted: often the path of a block device, or of an image.
    pub source: PathBuf,
    /// Where.
    pub point: PathBuf,
}

impl Mount {
    /// Reads a line of mountinfo: proc_pid_mountinfo(5).
    fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = String::from_utf8_lossy(fields.nth(2)?).into_owned();
        let point = unescaped(fields.nth(1)?);
        let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
        let kind = String::from_utf8_lossy(behind.next()?).into_owned();
        Some(Mount { device, kind, source: unescaped(behind.next()?), point })
    }
}

/// The mounts that this process sees; none where there is no proc.
pub fn mounts() -> Vec<Mount> {
    let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
    text.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect()
}

/// A field of mountinfo, in which blanks and backslashes are three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, behind)) = rest.split_first() {
        let escape = if first == b'\\' { behind.get(..3).and_then(octal) } else { None };
        bytes.push(escape.unwrap_or(first));
        rest = if escape.is_some() { &behind[3..] } else { behind };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The byte that three octal digits are.
fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0_u8, |byte, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        byte.checked_mul(8)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_its_optional_fields_and_escapes() {
        let line =
            br"36 35 98:0 /root /mnt\040two rw,noatime master:1 shared:2 - ext4 /dev/a\134b rw";
        let mount = Mount::parse(line).expect("a line");
        assert_eq!(mount.device, "98:0");
        assert_eq!(mount.kind, "ext4");
        assert_eq!(mount.point, Path::new("/mnt two"));
        assert_eq!(mount.source, Path::new(r"/dev/a\b"));
    }

    #[test]
    fn a_line_that_is_none_is_passed_over() {
        for line in ["", "36 35", "36 35 98:0 / /mnt rw", "36 35 98:0 / /mnt rw - ext4"] {
            assert!(Mount::parse(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn what_only_looks_like_an_escape_stays() {
        for text in [r"a\", r"a\04", r"a\0x0", r"a\777", r"\8"] {
            assert_eq!(unescaped(text.as_bytes()), Path::new(text));
        }
    }

    #[test]
    fn the_mount_of_the_root_is_known() {
        let root = mounts().into_iter().find(|mount| mount.point == Path::new("/"));
        assert!(root.is_some(), "a process has a root");
    }
}
