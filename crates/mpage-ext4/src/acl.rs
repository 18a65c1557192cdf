//! Access lists: as the image has them, and as programs do.
//!
//! Linux: `ext4_acl_from_disk()`, fs/ext4/acl.c; include/uapi/linux/posix_acl_xattr.h.

/// The version in front of a list in the image, and of one that a program sees.
const IMAGE: u32 = 1;
const PROGRAM: u32 = 2;
/// The kinds of entries that name a user or a group.
const NAMED: [u16; 2] = [0x2, 0x8];
/// Those that name nobody: owner, owning group, mask, others.
const UNNAMED: [u16; 4] = [0x1, 0x4, 0x10, 0x20];
/// In place of a name.
const NOBODY: u32 = u32::MAX;

/// The list `image`, as programs see it; `None` if it is no list.
pub(crate) fn to_program(image: &[u8]) -> Option<Vec<u8>> {
    let mut rest = image.strip_prefix(&IMAGE.to_le_bytes())?;
    let mut list = PROGRAM.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let (head, behind) = rest.split_first_chunk::<4>()?;
        let kind = u16::from_le_bytes([head[0], head[1]]);
        list.extend(head);
        if NAMED.contains(&kind) {
            let (name, behind) = behind.split_first_chunk::<4>()?;
            list.extend(name);
            rest = behind;
        } else if UNNAMED.contains(&kind) {
            list.extend(NOBODY.to_le_bytes());
            rest = behind;
        } else {
            return None;
        }
    }
    Some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_as_programs_see_it() {
        let image = [1, 0, 0, 0, 1, 0, 6, 0, 2, 0, 4, 0, 0xe8, 3, 0, 0, 0x20, 0, 0, 0];
        let nobody = [255; 4];
        let expected = [
            &[2, 0, 0, 0, 1, 0, 6, 0][..],
            &nobody,
            &[2, 0, 4, 0, 0xe8, 3, 0, 0, 0x20, 0, 0, 0],
            &nobody,
        ];
        assert_eq!(to_program(&image), Some(expected.concat()));
        assert_eq!(to_program(&image[..18]), None, "the last entry is cut off");
        assert_eq!(to_program(&[2, 0, 0, 0]), None, "another version");
        assert_eq!(to_program(&[1, 0, 0, 0, 3, 0, 0, 0]), None, "an unknown kind");
    }
}
