//! Access lists, as the attributes that hold them have them: a version, then entries of a tag,
//! permissions and an id.

use fastrand::Rng;

const VERSION: u32 = 2;
const USER_OBJ: u16 = 1;
const USER: u16 = 2;
const GROUP_OBJ: u16 = 4;
const GROUP: u16 = 8;
const MASK: u16 = 16;
const OTHER: u16 = 32;
const NOBODY: u32 = u32::MAX;

/// A list, sometimes one that is wrong.
pub(crate) fn random(rng: &mut Rng) -> Vec<u8> {
    let version = if rng.u8(0..20) == 0 { 3 } else { VERSION };
    let mut list = version.to_le_bytes().to_vec();
    let mut permissions = || rng.u16(0..8);
    let mut entries = vec![(USER_OBJ, permissions(), NOBODY)];
    let (owner, group, mask, other) = (permissions(), permissions(), permissions(), permissions());
    let users = rng.usize(0..3);
    entries.extend([1000, 1001].iter().take(users).map(|id| (USER, owner, *id)));
    entries.push((GROUP_OBJ, group, NOBODY));
    let groups = rng.usize(0..3);
    entries.extend([2000, 2001].iter().take(groups).map(|id| (GROUP, group ^ owner, *id)));
    if users + groups > 0 || rng.bool() {
        entries.push((MASK, mask, NOBODY));
    }
    entries.push((OTHER, other, NOBODY));
    match rng.u8(0..20) {
        0 => entries.reverse(),
        1 => drop(entries.pop()),
        2 => entries.push((OTHER, other, NOBODY)),
        3 => entries[0].1 = 9,
        4 => entries.clear(),
        _ => {}
    }
    for (tag, permissions, id) in entries {
        list.extend(tag.to_le_bytes());
        list.extend(permissions.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}
