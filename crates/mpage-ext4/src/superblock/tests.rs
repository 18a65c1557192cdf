use zerocopy::FromZeros;

use super::*;

/// The superblock of an image of 64 MiB in blocks of 4 KiB, as mke2fs makes it.
fn raw() -> RawSuperblock {
    let mut raw = RawSuperblock::new_zeroed();
    raw.inodes_count = 16384.into();
    raw.blocks_count_lo = 16384.into();
    raw.log_block_size = 2.into();
    raw.blocks_per_group = 32768.into();
    raw.inodes_per_group = 16384.into();
    raw.magic = MAGIC.into();
    raw.rev_level = 1.into();
    raw.first_ino = 11.into();
    raw.inode_size = 256.into();
    raw.want_extra_isize = 32.into();
    raw.feature_incompat = 0x2c2.into();
    raw.feature_ro_compat = 0x46b.into();
    raw.desc_size = 64.into();
    raw.checksum_type = 1;
    raw
}

fn refused(change: impl FnOnce(&mut RawSuperblock)) -> ErrorKind {
    let mut raw = raw();
    change(&mut raw);
    Superblock::new(&raw, 64 << 20).expect_err("it cannot be").kind
}

#[test]
fn an_image_is_as_its_superblock_says() {
    let mut raw = raw();
    raw.checksum = raw.right_checksum();
    let read = RawSuperblock::of(raw.as_bytes()).expect("a right one");
    let sb = Superblock::new(&read, 64 << 20).expect("a right one");
    assert_eq!((sb.block_bytes, sb.blocks, sb.groups()), (4096, 16384, 1));
    assert_eq!((sb.inode_bytes, sb.descriptor_bytes, sb.blocks_of(0)), (256, 64, 16384));
    assert!(sb.has_blocks(1, 16383) && !sb.has_blocks(1, 16384) && !sb.has_blocks(0, 1));
    assert!(!sb.has_blocks(u64::MAX, 2));
}

#[test]
fn a_wrong_checksum_and_another_format_are_told_apart() {
    let mut raw = raw();
    raw.checksum = 7.into();
    let error = RawSuperblock::of(raw.as_bytes()).err().expect("a wrong checksum");
    assert_eq!(error.kind, ErrorKind::Corrupt);
    let error = RawSuperblock::of(&[0; LEN]).err().expect("nothing is there");
    assert_eq!(error.kind, ErrorKind::NotExt);
}

#[test]
fn a_superblock_torn_when_its_flag_was_cleared_needs_recovery() {
    let mut before = raw();
    before.set_needs_recovery(true);
    let mut after = before.clone();
    after.set_needs_recovery(false);
    let (before, after) = (before.bytes(), after.bytes());
    let needs = |front: &[u8], back: &[u8]| {
        let bytes = [&front[..512], &back[512..]].concat();
        RawSuperblock::of(&bytes).expect("it was right").features().incompat(RECOVER)
    };
    assert!(needs(before, before) && needs(before, after) && needs(after, before));
    assert!(!needs(after, after));
}

#[test]
fn a_superblock_with_a_wrong_checksum_is_used_to_find_the_journal_alone() {
    let mut torn = raw();
    torn.set_needs_recovery(true);
    torn.mnt_count = 7.into();
    assert!(RawSuperblock::of(torn.bytes()).is_err());
    assert!(RawSuperblock::before_recovery(torn.bytes()).is_ok());
    torn.feature_incompat = 0x2c2.into();
    assert!(RawSuperblock::before_recovery(torn.bytes()).is_err());
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    assert_eq!(refused(|raw| raw.log_block_size = 99.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.log_block_size = 4.into()), ErrorKind::Unsupported);
    assert_eq!(refused(|raw| raw.blocks_per_group = 0.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.blocks_per_group = 32769.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.inodes_per_group = 0.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.inodes_count = 1.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.inode_size = 200.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.inode_size = 8192.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.want_extra_isize = 129.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.desc_size = 8.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.first_data_block = 1.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.blocks_count_lo = 0.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.blocks_count_lo = 16385.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.blocks_count_hi = (1 << 30).into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.first_ino = 5.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.reserved_gdt_blocks = 5000.into()), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.checksum_type = 2), ErrorKind::Corrupt);
    assert_eq!(refused(|raw| raw.feature_incompat = 0x100.into()), ErrorKind::Unsupported);
}
