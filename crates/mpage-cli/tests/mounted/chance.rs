//! Random programs, decided by a seed.

use fastrand::Rng;
use rustix::fs::{
    Access, AtFlags, FallocateFlags, FileType, OFlags, RenameFlags, SeekFrom, XattrFlags,
};

use crate::acl;
use crate::call::{Call, Content, Name, Object, Permissions, SLOTS, Slot, Step, Time, Value};
use crate::user::USERS;

/// Calls of a program.
const STEPS: usize = 50;

/// Names that most paths are made of.
const NAMES: [&str; 8] = ["a", "b", "c", "dir", "sub", "deep", "link", "loop"];

/// Bytes that most of a file's offsets lie below.
const SPAN: u64 = 64 << 10;

/// What makes the calls of a program.
pub(crate) struct Chance {
    rng: Rng,
    user: usize,
}

/// The program that `seed` makes.
pub(crate) fn program(seed: u64) -> Vec<Step> {
    let mut chance = Chance { rng: Rng::with_seed(seed), user: 0 };
    let mut steps = Vec::new();
    for index in 0..STEPS {
        let call = if index < 8 { chance.first_call(index) } else { chance.call() };
        if chance.rng.u8(0..3) == 0 {
            chance.user = [0, 0, 1, 1, 2][chance.rng.usize(0..5)];
        }
        let user = if index < 8 { 0 } else { chance.user };
        steps.push(Step { user, call });
    }
    steps
}

impl Chance {
    fn one_in(&mut self, count: u32) -> bool {
        self.rng.u32(0..count) == 0
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.rng.usize(0..all.len())]
    }

    /// Something for the others to work on.
    fn first_call(&mut self, index: usize) -> Call {
        let mode = Permissions(self.pick(&[0o777, 0o1777, 0o2775, 0o755]));
        match index {
            0 => Call::Mkdir { path: Name("dir".into()), mode },
            1 => Call::Mkdir { path: Name("dir/sub".into()), mode },
            2 => self.open(),
            3 => Call::Symlink { target: Name("loop".into()), path: Name("loop".into()) },
            4 => Call::Symlink { target: self.path(), path: Name("link".into()) },
            5 => Call::Open {
                slot: 0,
                path: Name("a".into()),
                flags: OFlags::RDWR | OFlags::CREATE,
                mode: Permissions(0o666),
            },
            _ => self.call(),
        }
    }

    fn call(&mut self) -> Call {
        match self.rng.u32(0..100) {
            0..=12 => self.open(),
            13..=15 => Call::Close { slot: self.slot() },
            16..=20 => Call::Mkdir { path: self.path(), mode: self.mode() },
            21..=26 => {
                let flags = [AtFlags::empty(), AtFlags::empty(), AtFlags::REMOVEDIR];
                let odd = self.one_in(30);
                let flags = if odd { AtFlags::SYMLINK_NOFOLLOW } else { self.pick(&flags) };
                Call::Unlink { path: self.path(), flags }
            }
            27..=34 => Call::Rename { from: self.path(), to: self.path(), flags: self.rename() },
            35..=37 => {
                let flags = [AtFlags::empty(), AtFlags::SYMLINK_FOLLOW, AtFlags::REMOVEDIR];
                Call::Link { from: self.path(), to: self.path(), flags: self.pick(&flags) }
            }
            38 => Call::LinkOpen { slot: self.slot(), to: self.path() },
            39..=41 => Call::Symlink { target: self.target(), path: self.path() },
            42 => Call::ReadLink { path: self.path() },
            43..=44 => self.mknod(),
            45..=48 => Call::Chmod { object: self.object(), mode: self.mode() },
            49..=51 => Call::Chown { object: self.object(), uid: self.id(), gid: self.id() },
            52..=54 => Call::Times {
                object: self.object(),
                access: self.time(),
                modification: self.time(),
            },
            _ => self.more(),
        }
    }

    fn more(&mut self) -> Call {
        match self.rng.u32(0..46) {
            0..=2 => Call::Truncate { slot: self.slot(), len: self.offset() },
            3..=6 => self.allocate(),
            7..=9 => Call::Seek { slot: self.slot(), to: self.seek() },
            10..=12 => Call::Read { slot: self.slot(), at: self.at(), len: self.len() },
            13..=19 => Call::Write { slot: self.slot(), at: self.at(), content: self.content() },
            20..=21 => Call::Copy {
                from: (self.slot(), self.at()),
                to: (self.slot(), self.at()),
                len: self.len(),
            },
            22 => Call::Sync { slot: self.slot(), data: self.rng.bool() },
            23 if self.one_in(4) => Call::SyncAll,
            24 if self.one_in(2) => Call::Room,
            25..=27 => self.access(),
            28..=29 => Call::GetXattr {
                object: self.object(),
                name: self.attribute(),
                len: self.pick(&[0, 1, 28, 100, 4096, 65536]),
            },
            30..=34 => self.set_xattr(),
            35 => {
                let len = self.pick(&[0, 1, 10, 300, 65536]);
                Call::ListXattrs { object: self.object(), len }
            }
            36..=37 => Call::RemoveXattr { object: self.object(), name: self.attribute() },
            38..=39 => Call::List { slot: self.slot() },
            40..=42 => Call::Stat { object: self.object() },
            43 => Call::Umask { mode: Permissions(self.pick(&[0, 0, 0o22, 0o77, 0o777, 0o7])) },
            44 if self.one_in(6) => {
                Call::Fill { path: self.path(), count: self.pick(&[3, 40, 200]) }
            }
            45 if self.one_in(6) => {
                Call::Thin { path: self.path(), count: self.pick(&[3, 40, 200]) }
            }
            _ => self.open(),
        }
    }

    fn slot(&mut self) -> Slot {
        self.rng.usize(0..SLOTS).min(self.rng.usize(0..SLOTS))
    }

    fn path(&mut self) -> Name {
        let name = self.pick(&NAMES);
        let long = |len: usize| "n".repeat(len);
        Name(match self.rng.u32(0..60) {
            0..=29 => name.to_owned(),
            30..=39 => format!("dir/{name}"),
            40..=44 => format!("dir/sub/{name}"),
            45..=47 => format!("{}/{name}", self.pick(&NAMES)),
            48 => format!("link/{name}"),
            49 => format!("{name}/"),
            50 => format!("{name}/."),
            51 => format!("{name}/.."),
            52 => format!("dir//./{name}"),
            53 => format!("dir/sub/../{name}"),
            54 => long(255),
            55 => format!("dir/{}", long(self.pick(&[254, 255]))),
            56 => long(self.pick(&[256, 300])),
            57 => self.pick(&["", ".", "..", "./", "../", "no", "no/a"]).to_owned(),
            58 => "d/".repeat(self.pick(&[1500, 2047, 2048])),
            _ => format!("sub/{name}"),
        })
    }

    fn target(&mut self) -> Name {
        if !self.one_in(4) {
            return self.path();
        }
        let len = self.pick(&[1, 59, 60, 61, 255, 1000, 1020, 1023, 1024, 4000, 4094, 4095, 4096]);
        Name("t".repeat(len))
    }

    fn object(&mut self) -> Object {
        match self.rng.u8(0..10) {
            0..=4 => Object::Path(self.path()),
            5 => Object::Link(self.path()),
            _ => Object::Open(self.slot()),
        }
    }

    fn mode(&mut self) -> Permissions {
        let usual = [0o644, 0o666, 0o755, 0o777, 0o600, 0o700, 0o640, 0o660];
        let odd = [0, 0o4755, 0o2755, 0o2775, 0o1777, 0o6777, 0o2644, 0o111, 0o444, 0o222];
        Permissions(match self.rng.u8(0..10) {
            0..=4 => self.pick(&usual),
            5..=8 => self.pick(&odd),
            _ => self.rng.u32(0..0o10000),
        })
    }

    fn open(&mut self) -> Call {
        let access = [OFlags::RDWR, OFlags::RDWR, OFlags::RDONLY, OFlags::WRONLY];
        let mut flags = self.pick(&access);
        if self.one_in(40) {
            flags |= OFlags::RDWR | OFlags::WRONLY;
        }
        if self.one_in(2) {
            flags |= OFlags::CREATE;
        }
        let others = [
            (OFlags::EXCL, 6),
            (OFlags::TRUNC, 6),
            (OFlags::APPEND, 8),
            (OFlags::DIRECTORY, 6),
            (OFlags::NOFOLLOW, 10),
            (OFlags::PATH, 16),
            (OFlags::SYNC, 20),
            (OFlags::DSYNC, 20),
            (OFlags::DIRECT, 25),
            (OFlags::NOATIME, 30),
        ];
        for (flag, rare) in others {
            if self.one_in(rare) {
                flags |= flag;
            }
        }
        if self.one_in(16) {
            flags = OFlags::TMPFILE | self.pick(&access) | (flags & OFlags::EXCL);
        }
        if flags.contains(OFlags::DIRECTORY) && !self.one_in(3) {
            flags = flags & OFlags::TMPFILE | flags & OFlags::RWMODE;
            if !flags.contains(OFlags::TMPFILE) {
                flags = OFlags::DIRECTORY;
            }
        }
        Call::Open { slot: self.slot(), path: self.path(), flags, mode: self.mode() }
    }

    fn rename(&mut self) -> RenameFlags {
        let flags = [
            RenameFlags::empty(),
            RenameFlags::empty(),
            RenameFlags::empty(),
            RenameFlags::NOREPLACE,
            RenameFlags::EXCHANGE,
            RenameFlags::WHITEOUT,
            RenameFlags::NOREPLACE | RenameFlags::EXCHANGE,
            RenameFlags::NOREPLACE | RenameFlags::WHITEOUT,
            RenameFlags::EXCHANGE | RenameFlags::WHITEOUT,
            RenameFlags::from_bits_retain(8),
        ];
        self.pick(&flags)
    }

    fn mknod(&mut self) -> Call {
        let kinds = [
            FileType::RegularFile,
            FileType::Fifo,
            FileType::Socket,
            FileType::CharacterDevice,
            FileType::BlockDevice,
            FileType::Directory,
            FileType::Symlink,
            FileType::Unknown,
        ];
        let devices = [(1, 3), (0, 0), (255, 255), (300, 70000), (4095, 0xfffff)];
        Call::Mknod {
            path: self.path(),
            kind: self.pick(&kinds),
            mode: self.mode(),
            device: self.pick(&devices),
        }
    }

    fn id(&mut self) -> Option<u32> {
        let ids = [0, 1000, 1001, 2000, 2001, 65534, 65536, 70_000, u32::MAX - 1];
        match self.one_in(3) {
            true => None,
            false if self.rng.bool() => Some(USERS[self.user].gid),
            false => Some(self.pick(&ids)),
        }
    }

    fn time(&mut self) -> Time {
        // What utimensat(2) calls UTIME_NOW and UTIME_OMIT.
        let nanoseconds =
            self.pick(&[0, 1, 999, 999_999_999, 1_000_000_000, (1 << 30) - 1, (1 << 30) - 2, -1]);
        let seconds = [
            0,
            1,
            -1,
            1_000_000_000,
            (1 << 31) - 1,
            1 << 31,
            -(1 << 31),
            -(1 << 31) - 1,
            (1 << 32) + 5,
            (3 << 32) - 1,
            15_032_385_535,
            15_032_385_536,
            i64::MAX,
            // The library for FUSE panics at the last one before.
            i64::MIN + 1,
        ];
        Time { seconds: self.pick(&seconds), nanoseconds }
    }

    /// A number near a place where things change.
    fn near(&mut self, place: u64) -> u64 {
        let step = self.pick(&[0, 1, 2, 511, 512, 1000, 4096]);
        if self.rng.bool() { place.wrapping_add(step) } else { place.wrapping_sub(step) }
    }

    fn offset(&mut self) -> u64 {
        match self.rng.u8(0..30) {
            0..=9 => self.rng.u64(0..SPAN),
            10..=14 => self.rng.u64(0..SPAN / 4096) * 4096,
            15..=18 => self.rng.u64(0..SPAN / 1024) * 1024,
            19..=21 => 0,
            22..=26 => self.rng.u64(0..300),
            27 => {
                let place = 1 << self.rng.u32(20..45);
                self.near(place)
            }
            28 => {
                let far = [
                    i64::MAX as u64,
                    1 << 63,
                    u64::MAX,
                    (1 << 44) - 4096,
                    (1 << 42) - 1024,
                    17_247_252_480,
                    4_402_345_721_856,
                ];
                let place = self.pick(&far);
                self.near(place)
            }
            _ => self.near(12 * 4096),
        }
    }

    fn at(&mut self) -> Option<u64> {
        (!self.one_in(3)).then(|| self.offset())
    }

    fn len(&mut self) -> usize {
        match self.rng.u8(0..12) {
            0 => 0,
            1..=4 => self.rng.usize(1..300),
            5..=8 => self.rng.usize(1..9) * 1024,
            9..=10 => self.rng.usize(1..20_000),
            _ => self.rng.usize(1..200_000),
        }
    }

    fn content(&mut self) -> Content {
        Content { seed: self.rng.u64(..), len: self.len() }
    }

    fn allocate(&mut self) -> Call {
        let keep = FallocateFlags::KEEP_SIZE;
        let modes = [
            FallocateFlags::empty(),
            FallocateFlags::empty(),
            keep,
            keep,
            FallocateFlags::PUNCH_HOLE | keep,
            FallocateFlags::PUNCH_HOLE | keep,
            FallocateFlags::PUNCH_HOLE,
            FallocateFlags::ZERO_RANGE,
            FallocateFlags::ZERO_RANGE | keep,
            FallocateFlags::ZERO_RANGE | keep,
            FallocateFlags::COLLAPSE_RANGE,
            FallocateFlags::INSERT_RANGE,
            FallocateFlags::UNSHARE_RANGE,
            FallocateFlags::COLLAPSE_RANGE | keep,
            FallocateFlags::from_bits_retain(0x100),
        ];
        // A long range would fill the image.
        let len = match self.rng.u8(0..12) {
            0 => self.pick(&[0, u64::MAX, 1 << 63, i64::MAX as u64]),
            1..=5 => self.rng.u64(0..16) * 4096,
            _ => self.rng.u64(0..SPAN),
        };
        Call::Allocate { slot: self.slot(), mode: self.pick(&modes), at: self.offset(), len }
    }

    fn seek(&mut self) -> SeekFrom {
        let offset = self.offset();
        let signed = self.pick(&[0, -1, 1, -100, 5000, i64::MIN, i64::MAX]);
        match self.rng.u8(0..10) {
            0..=1 => SeekFrom::Start(offset),
            2 => SeekFrom::End(signed),
            3 => SeekFrom::Current(signed),
            4..=6 => SeekFrom::Data(offset),
            _ => SeekFrom::Hole(offset),
        }
    }

    fn access(&mut self) -> Call {
        let flags = [AtFlags::empty(), AtFlags::EACCESS, AtFlags::SYMLINK_NOFOLLOW];
        let mut access = Access::EXISTS;
        for bit in [Access::READ_OK, Access::WRITE_OK, Access::EXEC_OK] {
            if self.rng.bool() {
                access |= bit;
            }
        }
        Call::Access { path: self.path(), access, flags: self.pick(&flags) }
    }

    fn attribute(&mut self) -> Name {
        let usual = ["user.a", "user.b", "user.a", "trusted.t", "security.s"];
        let acls = ["system.posix_acl_access", "system.posix_acl_default"];
        let odd = ["", "user.", "user", "bogus.x", "trusted.", "system.other", "."];
        Name(match self.rng.u8(0..20) {
            0..=10 => self.pick(&usual).to_owned(),
            11..=16 => self.pick(&acls).to_owned(),
            17 => format!("user.{}", "n".repeat(self.pick(&[200, 250, 251, 300]))),
            18 => "security.capability".to_owned(),
            _ => self.pick(&odd).to_owned(),
        })
    }

    fn set_xattr(&mut self) -> Call {
        let name = self.attribute();
        let value = if name.0.contains("acl") && !self.one_in(10) {
            acl::random(&mut self.rng)
        } else {
            let len = self.pick(&[0, 1, 4, 20, 28, 40, 100, 500, 900, 1000, 3000, 4096, 65536]);
            let len = if self.one_in(20) { 65537 } else { len };
            let first = self.rng.u8(..);
            (0..len).map(|index: usize| first.wrapping_add(index.to_le_bytes()[0])).collect()
        };
        let flags = [
            XattrFlags::empty(),
            XattrFlags::empty(),
            XattrFlags::CREATE,
            XattrFlags::REPLACE,
            XattrFlags::CREATE | XattrFlags::REPLACE,
            XattrFlags::from_bits_retain(4),
        ];
        Call::SetXattr {
            object: self.object(),
            name,
            value: Value(value),
            flags: self.pick(&flags),
        }
    }
}
