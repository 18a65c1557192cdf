//! What a program consists of.

use std::fmt;

use rustix::fs::{
    Access, AtFlags, FallocateFlags, FileType, OFlags, RenameFlags, SeekFrom, XattrFlags,
};

/// A place for an open file in a program.
pub(crate) type Slot = usize;

/// Open files a program has at most.
pub(crate) const SLOTS: usize = 5;

/// A path, relative to the folder of the program; failures show the start of a long one.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) String);

/// What a call is about: a path, whose last link is followed or not, or an open file.
#[derive(Clone, Debug)]
pub(crate) enum Object {
    Path(Name),
    Link(Name),
    Open(Slot),
}

/// Bytes, told by a number and how many they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub(crate) seed: u64,
    pub(crate) len: usize,
}

/// A time to set, as utimensat(2) takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: i64,
}

/// Permissions, told as octal numbers are.
#[derive(Clone, Copy)]
pub(crate) struct Permissions(pub(crate) u32);

/// The value of an extended attribute.
#[derive(Clone)]
pub(crate) struct Value(pub(crate) Vec<u8>);

/// A call of a program.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Open {
        slot: Slot,
        path: Name,
        flags: OFlags,
        mode: Permissions,
    },
    Close {
        slot: Slot,
    },
    Mkdir {
        path: Name,
        mode: Permissions,
    },
    Unlink {
        path: Name,
        flags: AtFlags,
    },
    Rename {
        from: Name,
        to: Name,
        flags: RenameFlags,
    },
    Link {
        from: Name,
        to: Name,
        flags: AtFlags,
    },
    LinkOpen {
        slot: Slot,
        to: Name,
    },
    Symlink {
        target: Name,
        path: Name,
    },
    ReadLink {
        path: Name,
    },
    Mknod {
        path: Name,
        kind: FileType,
        mode: Permissions,
        device: (u32, u32),
    },
    Chmod {
        object: Object,
        mode: Permissions,
    },
    Chown {
        object: Object,
        uid: Option<u32>,
        gid: Option<u32>,
    },
    Times {
        object: Object,
        access: Time,
        modification: Time,
    },
    Truncate {
        slot: Slot,
        len: u64,
    },
    Allocate {
        slot: Slot,
        mode: FallocateFlags,
        at: u64,
        len: u64,
    },
    Seek {
        slot: Slot,
        to: SeekFrom,
    },
    Read {
        slot: Slot,
        at: Option<u64>,
        len: usize,
    },
    Write {
        slot: Slot,
        at: Option<u64>,
        content: Content,
    },
    Copy {
        from: (Slot, Option<u64>),
        to: (Slot, Option<u64>),
        len: usize,
    },
    Sync {
        slot: Slot,
        data: bool,
    },
    SyncAll,
    Room,
    Access {
        path: Name,
        access: Access,
        flags: AtFlags,
    },
    GetXattr {
        object: Object,
        name: Name,
        len: usize,
    },
    SetXattr {
        object: Object,
        name: Name,
        value: Value,
        flags: XattrFlags,
    },
    ListXattrs {
        object: Object,
        len: usize,
    },
    RemoveXattr {
        object: Object,
        name: Name,
    },
    List {
        slot: Slot,
    },
    Stat {
        object: Object,
    },
    Umask {
        mode: Permissions,
    },
    /// Makes many names in a folder.
    Fill {
        path: Name,
        count: usize,
    },
    /// Removes each second of them.
    Thin {
        path: Name,
        count: usize,
    },
}

/// A call and who makes it.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) user: usize,
    pub(crate) call: Call,
}

impl Call {
    /// The call's name.
    pub(crate) fn name(&self) -> String {
        let text = format!("{self:?}");
        text.split([' ', '{']).next().unwrap_or_default().to_owned()
    }
}

impl Content {
    pub(crate) fn byte(self, index: usize) -> u8 {
        // Never a zero, which a hole has.
        (self.seed.wrapping_add(index as u64 / 3).to_le_bytes()[0]) | 1
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0..=40 => write!(f, "{:?}", self.0),
            len => write!(f, "{:?}.. ({len} bytes)", &self.0[..30]),
        }
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0..=44 => write!(f, "{:02x?}", self.0),
            len => write!(f, "{:02x?}.. ({len} bytes)", &self.0[..8]),
        }
    }
}
