//! The features of an image, and which of them are supported.
//!
//! Linux: fs/ext4/ext4.h, `EXT4_FEATURE_*`; Documentation/filesystems/ext4/super.rst.

use crate::error::{Error, ErrorKind, Result};

/// Three sets of features: those an implementation may ignore, those without which it must not
/// touch the image, and those without which it must not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Features {
    pub(crate) compat: u32,
    pub(crate) incompat: u32,
    pub(crate) ro_compat: u32,
}

/// One feature: its set and bit, and the name that e2fsprogs has for it.
struct Named(u32, &'static str);

pub(crate) const HAS_JOURNAL: u32 = 0x4;
pub(crate) const EXT_ATTR: u32 = 0x8;
pub(crate) const DIR_INDEX: u32 = 0x20;
pub(crate) const SPARSE_SUPER2: u32 = 0x200;

pub(crate) const FILETYPE: u32 = 0x2;
pub(crate) const RECOVER: u32 = 0x4;
pub(crate) const META_BG: u32 = 0x10;
pub(crate) const EXTENTS: u32 = 0x40;
pub(crate) const SIXTY_FOUR_BIT: u32 = 0x80;
pub(crate) const FLEX_BG: u32 = 0x200;
pub(crate) const CSUM_SEED: u32 = 0x2000;

pub(crate) const SPARSE_SUPER: u32 = 0x1;
pub(crate) const LARGE_FILE: u32 = 0x2;
pub(crate) const HUGE_FILE: u32 = 0x8;
pub(crate) const GDT_CSUM: u32 = 0x10;
pub(crate) const DIR_NLINK: u32 = 0x20;
pub(crate) const EXTRA_ISIZE: u32 = 0x40;
pub(crate) const METADATA_CSUM: u32 = 0x400;
pub(crate) const ORPHAN_PRESENT: u32 = 0x10000;

const FAST_COMMIT: u32 = 0x400;
const BIGALLOC: u32 = 0x200;

/// Those without which an image is not touched.
const INCOMPAT: [Named; 16] = [
    Named(0x1, "compression"),
    Named(FILETYPE, "filetype"),
    Named(RECOVER, "needs_recovery"),
    Named(0x8, "journal_dev"),
    Named(META_BG, "meta_bg"),
    Named(EXTENTS, "extent"),
    Named(SIXTY_FOUR_BIT, "64bit"),
    Named(0x100, "mmp"),
    Named(FLEX_BG, "flex_bg"),
    Named(0x400, "ea_inode"),
    Named(0x1000, "dirdata"),
    Named(CSUM_SEED, "metadata_csum_seed"),
    Named(0x4000, "large_dir"),
    Named(0x8000, "inline_data"),
    Named(0x10000, "encrypt"),
    Named(0x20000, "casefold"),
];
const INCOMPAT_SUPPORTED: u32 =
    FILETYPE | RECOVER | META_BG | EXTENTS | SIXTY_FOUR_BIT | FLEX_BG | CSUM_SEED;

/// Those without which an image is not written.
const RO_COMPAT: [Named; 16] = [
    Named(SPARSE_SUPER, "sparse_super"),
    Named(LARGE_FILE, "large_file"),
    Named(0x4, "btree_dir"),
    Named(HUGE_FILE, "huge_file"),
    Named(GDT_CSUM, "uninit_bg"),
    Named(DIR_NLINK, "dir_nlink"),
    Named(EXTRA_ISIZE, "extra_isize"),
    Named(0x80, "snapshot"),
    Named(0x100, "quota"),
    Named(BIGALLOC, "bigalloc"),
    Named(METADATA_CSUM, "metadata_csum"),
    Named(0x800, "replica"),
    Named(0x1000, "read-only"),
    Named(0x2000, "project"),
    Named(0x4000, "shared_blocks"),
    Named(0x8000, "verity"),
];
const RO_COMPAT_SUPPORTED: u32 = SPARSE_SUPER
    | LARGE_FILE
    | HUGE_FILE
    | GDT_CSUM
    | DIR_NLINK
    | EXTRA_ISIZE
    | METADATA_CSUM
    | ORPHAN_PRESENT;

impl Features {
    /// True when the image has all of `bits` of the set that may be ignored.
    pub(crate) fn compat(self, bits: u32) -> bool {
        self.compat & bits == bits
    }

    /// As [`compat`](Self::compat), of those without which it must not be touched.
    pub(crate) fn incompat(self, bits: u32) -> bool {
        self.incompat & bits == bits
    }

    /// As [`compat`](Self::compat), of those without which it must not be written.
    pub(crate) fn ro_compat(self, bits: u32) -> bool {
        self.ro_compat & bits == bits
    }

    /// Looks for features without which the image must not be touched.
    ///
    /// # Errors
    ///
    /// `Unsupported`, with their names.
    pub(crate) fn check(self) -> Result<()> {
        let mut unknown = named(self.incompat & !INCOMPAT_SUPPORTED, &INCOMPAT);
        // Its block numbers count clusters.
        unknown.extend(named(self.ro_compat & BIGALLOC, &RO_COMPAT));
        if unknown.is_empty() {
            return Ok(());
        }
        let detail = format!("the image has {}", unknown.join(", "));
        Err(Error { kind: ErrorKind::Unsupported, detail })
    }

    /// Why the image can only be read, by the names of its features; `None` if it can be written.
    pub(crate) fn read_only(self) -> Option<String> {
        let mut unknown = named(self.ro_compat & !RO_COMPAT_SUPPORTED, &RO_COMPAT);
        if self.compat(FAST_COMMIT) {
            unknown.push("fast_commit".into());
        }
        (!unknown.is_empty()).then(|| unknown.join(", "))
    }
}

/// The names of `bits`; those that have none as numbers.
fn named(bits: u32, names: &[Named]) -> Vec<String> {
    let set = (0..32).map(|bit| 1u32 << bit).filter(|bit| bits & bit != 0);
    set.map(|bit| {
        let named = names.iter().find(|named| named.0 == bit);
        named.map_or(format!("feature {bit:#x}"), |named| named.1.to_owned())
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Features = Features { compat: 0, incompat: 0, ro_compat: 0 };

    #[test]
    fn what_must_not_be_touched_is_refused_by_name() {
        assert!(Features { incompat: INCOMPAT_SUPPORTED, ..NONE }.check().is_ok());
        let both = Features { incompat: EXTENTS | 0x8000 | 0x10000, ..NONE };
        let error = both.check().expect_err("neither is supported");
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert_eq!(error.detail, "the image has inline_data, encrypt");
        let clusters = Features { ro_compat: BIGALLOC, ..NONE };
        assert_eq!(clusters.check().expect_err("refused").detail, "the image has bigalloc");
        let unknown = Features { incompat: 0x8000_0000, ..NONE };
        let error = unknown.check().expect_err("unknown");
        assert_eq!(error.detail, "the image has feature 0x80000000");
    }

    #[test]
    fn what_must_not_be_written_is_told_by_name() {
        assert_eq!(Features { ro_compat: RO_COMPAT_SUPPORTED, ..NONE }.read_only(), None);
        let quota = Features { ro_compat: 0x100 | 0x8000, ..NONE };
        assert_eq!(quota.read_only().as_deref(), Some("quota, verity"));
        let fast = Features { compat: FAST_COMMIT, ..NONE };
        assert_eq!(fast.read_only().as_deref(), Some("fast_commit"));
    }
}
