//! Who makes a call.

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// A user and the groups he is in.
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: &'static [u32],
}

/// The superuser, and two others with a group in common.
pub(crate) const USERS: [User; 3] = [
    User { uid: 0, gid: 0, groups: &[] },
    User { uid: 1000, gid: 1000, groups: &[2000] },
    User { uid: 1001, gid: 1001, groups: &[2000, 2001] },
];

/// Makes this thread the superuser's again when it is dropped.
struct Back;

/// Does `work` as one of [`USERS`].
///
/// The kernel keeps users by thread. The saved one stays the superuser, which is the way back.
pub(crate) fn as_user<T>(user: usize, work: impl FnOnce() -> T) -> T {
    let user = &USERS[user];
    if user.uid == 0 {
        return work();
    }
    let _back = Back;
    become_user(user);
    work()
}

fn become_user(user: &User) {
    let groups: Vec<Gid> = user.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    set_thread_groups(&groups).unwrap();
    let gid = Gid::from_raw(user.gid);
    set_thread_res_gid(gid, gid, Gid::ROOT).unwrap();
    let uid = Uid::from_raw(user.uid);
    set_thread_res_uid(uid, uid, Uid::ROOT).unwrap();
}

impl Drop for Back {
    fn drop(&mut self) {
        set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).unwrap();
        set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).unwrap();
        set_thread_groups(&[]).unwrap();
    }
}
