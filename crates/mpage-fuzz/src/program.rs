//! Steps: what is done to an image that is open for writing.
//!
//! The table of [`Program::step`] says what the numbers of a step mean.

use std::ops::Range;
use std::sync::Arc;

use mpage_ext4::{
    At, Existing, File, FileKind, FileSystem, InodeNumber, New, NewAttributes, XattrFlags,
};

use crate::base::{ACCESS_LIST, NAMES, ONE_HASH, name_of_one_hash};
use crate::input::{Record, STEP};
use crate::walk::{given, look};

/// What is written into files.
pub(crate) const CONTENT: u8 = b'w';
const ROOT: InodeNumber = InodeNumber::ROOT;
const OWNER: (u32, u32) = (1, 2);
/// Files that one step makes.
const MANY: u8 = 64;
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
    /// Files may be called by numbers that are nobody's, which looks like damage.
    by_number: bool,
    /// Files that are open.
    held: Vec<File>,
}

impl Program {
    /// One that has done nothing.
    pub(crate) fn new(fs: &Arc<FileSystem>, by_number: bool) -> Program {
        Program { fs: Arc::clone(fs), by_number, held: Vec::new() }
    }

    /// Does what `record` says, as far as it goes.
    pub(crate) fn step(&mut self, record: Record) {
        let Record { kind, one, two, three } = record;
        let fs = &self.fs;
        match kind - STEP {
            0..=6 | 22 | 23 => self.change_names(record),
            7..=12 | 17 | 26 => self.change_file(record),
            13 => drop(given(fs.sync())),
            14 | 15 => self.change_extended(record),
            16 => {
                let permissions = Some(two & 0o7777);
                let new = NewAttributes { permissions, uid: Some(three), ..Default::default() };
                let _set = self.file(one, three).map(|it| given(fs.set_attributes(it, &new)));
            }
            18 => drop(given(fs.statfs())),
            19 => drop(given(fs.trim(u64::from(three)..u64::MAX >> (two % 64), one.into()))),
            20 => {
                let file = self.file(one, three).and_then(|it| given(fs.open_file(it)));
                self.held.extend(file);
            }
            21 => drop(self.held.pop()),
            24 | 25 => drop(self.file(one, three).map(|inode| look(fs, inode))),
            _ => {}
        }
    }

    /// Closes the files that are open.
    pub(crate) fn end(&mut self) {
        self.held.clear();
    }

    fn find(&self, path: &str) -> Option<InodeNumber> {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.map(str::as_bytes).try_fold(ROOT, |parent, name| given(self.fs.lookup(parent, name)))
    }

    /// One of the directories of a base.
    fn directory(&self, which: u8) -> Option<InodeNumber> {
        self.find(
            ["", "", "", "dir", "dir/inner", "hashed", "hashed", "lost+found"]
                [usize::from(which & 7)],
        )
    }

    /// A file of the base, one that was made, or one that has `number`, and is none of those that
    /// belong to the file system: damage there ends all writing.
    fn file(&self, which: u8, number: u32) -> Option<InodeNumber> {
        let which = which & 0x1f;
        let folder = match which {
            0..16 => return self.find(NAMES[usize::from(which)]),
            16..24 => 0,
            24..28 => 3,
            28..30 => 5,
            _ => return self.by_number.then_some(InodeNumber(11 + (number & 0x3f))),
        };
        given(self.fs.lookup(self.directory(folder)?, &name(which)))
    }

    fn change_names(&self, Record { kind, one, two, three }: Record) {
        let fs = &self.fs;
        let Some(parent) = self.directory(one) else { return };
        let [low, high] = two.to_le_bytes();
        let (first, second) = (name(low & 0x1f), name(high & 0x1f));
        match kind - STEP {
            0 => {
                let kinds = [FileKind::Regular, FileKind::Fifo, FileKind::CharacterDevice];
                let kind = kinds[index(three, kinds.len())];
                let _made = given(fs.create(parent, &first, &New { kind, ..FILE }));
            }
            1 => drop(given(fs.mkdir(parent, &first, 0o2755, OWNER))),
            2 => {
                let target = vec![b't'; index(three, 4200)];
                let _made = given(fs.symlink(parent, &first, &target, OWNER));
            }
            3 => {
                let Some(inode) = self.file(high, three) else { return };
                let _linked = given(fs.link(inode, parent, &first));
            }
            4 => drop(given(fs.unlink(parent, &first))),
            5 => drop(given(fs.rmdir(parent, &first))),
            6 => {
                let Some(to) = self.directory(one >> 3) else { return };
                let (from, to) = (At { parent, name: &first }, At { parent: to, name: &second });
                let kinds = [Existing::Replace, Existing::Keep, Existing::Exchange];
                let _moved = given(fs.rename(from, to, kinds[index(three, kinds.len())]));
            }
            22 => {
                for number in low..low.saturating_add(high % MANY) {
                    let _made = given(fs.create(parent, &name_of_many(number), &FILE));
                }
            }
            _ => {
                for number in low..low.saturating_add(high % MANY) {
                    let _gone = given(fs.unlink(parent, &name_of_many(number)));
                }
            }
        }
    }

    fn change_file(&self, Record { kind, one, two, three }: Record) {
        let file = self.file(one, three).and_then(|inode| given(self.fs.open_file(inode)));
        let Some(file) = file else { return };
        let start = u64::from(three >> 8) << (two % 32);
        let len = u64::from(two >> 5) << (4 * (one >> 5));
        let range = start..start + len;
        let keep_size = three & 1 != 0;
        match kind - STEP {
            7 => {
                let bytes = vec![CONTENT; usize::from(two >> 5) * 8];
                let _written = given(file.write_all_at(&bytes, start));
            }
            8 => drop(given(file.set_len(start))),
            9 => drop(given(file.allocate(range, keep_size))),
            10 => drop(given(file.punch_hole(range))),
            11 => drop(given(file.zero_range(range, keep_size))),
            12 => drop(given(file.fsync())),
            26 => drop(given(file.fdatasync())),
            _ => read(&file, &range),
        }
    }

    fn change_extended(&self, Record { kind, one, two, three }: Record) {
        let Some(inode) = self.file(one, three) else { return };
        let [which, what] = two.to_le_bytes();
        let name = ATTRIBUTES[usize::from(which) % ATTRIBUTES.len()];
        if kind == STEP + 15 {
            let _gone = given(self.fs.remove_extended_attribute(inode, name));
            return;
        }
        let value = match what % 4 {
            0 => vec![b'v'; index(three & 0xffff, 5000)],
            1 => given(self.fs.extended_attribute(inode, name)).unwrap_or_default(),
            _ => {
                let mut list = ACCESS_LIST.to_vec();
                let [at, byte, ..] = three.to_le_bytes();
                list[usize::from(at) % ACCESS_LIST.len()] ^= byte;
                list
            }
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

/// A name that files of the base have, or one of others that are long and short, some of which
/// cannot be.
fn name(number: u8) -> Vec<u8> {
    match NAMES.get(usize::from(number)) {
        Some(path) => path.rsplit('/').next().unwrap_or_default().as_bytes().to_vec(),
        None if number == 29 => vec![b'n'; 300],
        None if number == 30 => b".".to_vec(),
        None if number == 31 => b"..".to_vec(),
        None => format!("{number:0len$}", len = usize::from(number) * 73 % 256).into_bytes(),
    }
}

/// One of names of which each takes much of a block; the first ones have one hash.
fn name_of_many(number: u8) -> Vec<u8> {
    if let Some(end) = ONE_HASH.get(usize::from(number)) {
        return name_of_one_hash(end).into_bytes();
    }
    format!("{number:n>len$}", len = 240 + usize::from(number % 16)).into_bytes()
}

fn index(number: u32, count: usize) -> usize {
    usize::try_from(number).expect("a number of 32 bits") % count
}
