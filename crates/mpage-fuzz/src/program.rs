//! Steps: what is done to an image that is open for writing.
//!
//! The table of [`Program::step`] says what the numbers of a step mean.

use std::ops::Range;
use std::sync::Arc;

use mpage_ext4::{
    At, Existing, File, FileKind, FileSystem, InodeNumber, New, NewAttributes, XattrFlags,
};

use crate::base::NAMES;
use crate::input::{Record, STEP};
use crate::walk::{given, look};

const ROOT: InodeNumber = InodeNumber::ROOT;
const OWNER: (u32, u32) = (1, 2);
/// Files that one step makes.
const MANY: u16 = 48;
/// Names of attributes.
const ATTRIBUTES: [&[u8]; 6] = [
    b"user.name",
    b"user.long",
    b"user.new",
    b"security.label",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
];

/// A program that runs.
pub(crate) struct Program {
    fs: Arc<FileSystem>,
    /// Files that are open.
    held: Vec<File>,
}

impl Program {
    /// One that has done nothing.
    pub(crate) fn new(fs: &Arc<FileSystem>) -> Program {
        Program { fs: Arc::clone(fs), held: Vec::new() }
    }

    /// Does what `record` says, as far as it goes.
    pub(crate) fn step(&mut self, record: Record) {
        let Record { kind, one, two, three } = record;
        match kind - STEP {
            0..=6 | 22 | 23 => self.change_names(record),
            7..=12 | 17 => self.change_file(record),
            13 => drop(given(self.fs.sync())),
            14 | 15 => self.change_extended(record),
            16 => {
                let permissions = Some(two & 0o7777);
                let new = NewAttributes { permissions, uid: Some(three), ..Default::default() };
                let _set =
                    self.inode(one, three).and_then(|it| given(self.fs.set_attributes(it, &new)));
            }
            18 => drop(given(self.fs.statfs())),
            19 => drop(given(self.fs.trim(u64::from(three)..u64::MAX >> (two % 64), one.into()))),
            20 => {
                let file = self.inode(one, three).and_then(|it| given(self.fs.open_file(it)));
                self.held.extend(file);
            }
            21 => drop(self.held.pop()),
            24 | 25 => drop(self.inode(one, three).map(|inode| look(&self.fs, inode))),
            _ => {}
        }
    }

    /// The file that `which` of the names has, or that has a number.
    fn inode(&self, which: u8, number: u32) -> Option<InodeNumber> {
        let Some(path) = NAMES.get(usize::from(which % 32)) else {
            return Some(InodeNumber(number & 0xff));
        };
        let names = path.split('/').filter(|name| !name.is_empty());
        names.map(str::as_bytes).try_fold(ROOT, |parent, name| given(self.fs.lookup(parent, name)))
    }

    fn change_names(&self, Record { kind, one, two, three }: Record) {
        let fs = &self.fs;
        let Some(parent) = self.inode(one, three) else { return };
        let (new, old) = (new_name(two), old_name(two, three));
        match kind - STEP {
            0 => {
                let kinds = [FileKind::Regular, FileKind::Fifo, FileKind::CharacterDevice];
                let kind = kinds[index(three, kinds.len())];
                let _made = given(fs.create(parent, &new, &New { kind, ..FILE }));
            }
            1 => drop(given(fs.mkdir(parent, &new, 0o2755, OWNER))),
            2 => {
                let target = vec![b't'; index(three, 4200)];
                let _made = given(fs.symlink(parent, &new, &target, OWNER));
            }
            3 => drop(given(fs.link(parent, ROOT, &new))),
            4 => drop(given(fs.unlink(parent, &old))),
            5 => drop(given(fs.rmdir(parent, &old))),
            6 => {
                let [_, to, existing, _] = three.to_le_bytes();
                let kinds = [Existing::Replace, Existing::Keep, Existing::Exchange];
                let existing = kinds[usize::from(existing) % kinds.len()];
                let Some(to) = self.inode(to, three >> 8) else { return };
                let name = if three & 2 == 0 { new } else { old_name(two >> 4, 0) };
                let (from, to) = (At { parent, name: &old }, At { parent: to, name: &name });
                let _moved = given(fs.rename(from, to, existing));
            }
            22 => {
                for number in 0..two % MANY {
                    let _made = given(fs.create(parent, &new_name(two ^ number), &FILE));
                }
            }
            _ => {
                for number in 0..two % MANY {
                    let _gone = given(fs.unlink(parent, &new_name(two ^ number)));
                }
            }
        }
    }

    fn change_file(&self, Record { kind, one, two, three }: Record) {
        let file = self.inode(one, three).and_then(|inode| given(self.fs.open_file(inode)));
        let Some(file) = file else { return };
        let start = u64::from(three >> 8) << (two % 32);
        let len = u64::from(two >> 5) << (4 * (one >> 5));
        let range = start..start + len;
        let keep_size = three & 1 != 0;
        match kind - STEP {
            7 => {
                let bytes = vec![b'w'; usize::from(two >> 5) * 8];
                let _written = given(file.write_all_at(&bytes, start));
            }
            8 => drop(given(file.set_len(start))),
            9 => drop(given(file.allocate(range, keep_size))),
            10 => drop(given(file.punch_hole(range))),
            11 => drop(given(file.zero_range(range, keep_size))),
            12 => drop(given(file.fsync())),
            _ => read(&file, &range),
        }
    }

    fn change_extended(&self, Record { kind, one, two, three }: Record) {
        let Some(inode) = self.inode(one, three) else { return };
        let name = ATTRIBUTES[index(two.into(), ATTRIBUTES.len())];
        if kind == STEP + 15 {
            let _gone = given(self.fs.remove_extended_attribute(inode, name));
            return;
        }
        let value = match two >> 8 & 1 {
            0 => vec![b'v'; index(three & 0xffff, 5000)],
            _ => given(self.fs.extended_attribute(inode, name)).unwrap_or_default(),
        };
        let flags = [XattrFlags::None, XattrFlags::Create, XattrFlags::Replace];
        let flags = flags[index(three >> 16, flags.len())];
        let _set = given(self.fs.set_extended_attribute(inode, name, &value, flags));
    }
}

const FILE: New = New { kind: FileKind::Regular, permissions: 0o644, uid: 3, gid: 4, device: 5 };

fn read(file: &File, range: &Range<u64>) {
    let mut bytes = [0; 8192];
    let _count = given(file.read_at(&mut bytes, range.start));
    let _count = given(file.read_at(&mut bytes, range.end));
}

/// A name that no base has: one of a few, and long or short.
fn new_name(number: u16) -> Vec<u8> {
    let [which, len] = number.to_le_bytes();
    format!("{:n>len$}", which % 64, len = usize::from(len).min(250)).into_bytes()
}

/// A name that a base has, if `three` is even; else one that may have been made.
fn old_name(two: u16, three: u32) -> Vec<u8> {
    if three & 1 != 0 {
        return new_name(two);
    }
    let path = NAMES[index(two.into(), NAMES.len())];
    path.rsplit('/').next().unwrap_or_default().as_bytes().to_vec()
}

fn index(number: u32, count: usize) -> usize {
    usize::try_from(number).expect("a number of 32 bits") % count
}
