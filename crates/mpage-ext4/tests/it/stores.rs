//! Trees of files, written and read in two ways: by Linux, in an image that it has mounted, and by
//! the library.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::hash::Hasher;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mpage_block::Errno;
use mpage_ext4::{
    Attributes, FileKind, FileSystem, InodeNumber, New, NewAttributes, Timestamp, XattrFlags,
};
use rustix::fs::{
    Advice, AtFlags, CWD, FallocateFlags, FileType, Mode, SeekFrom, Timespec, Timestamps, fadvise,
    fallocate, lgetxattr, llistxattr, lsetxattr, makedev, mknodat, seek, utimensat,
};

use crate::written::{FILE, OWNER, ROOT, list};

/// What content is compared by.
pub(crate) const CHUNK: usize = 4096;

/// What is to be known of a file beside its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) permissions: u16,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) accessed: Timestamp,
    pub(crate) modified: Timestamp,
}

/// A file as it is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) mode: u32,
    pub(crate) meta: Meta,
    pub(crate) size: u64,
    pub(crate) links: u64,
    pub(crate) device: u64,
    pub(crate) target: Option<Vec<u8>>,
    pub(crate) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Hashes of the chunks that are not all zeros.
    pub(crate) content: BTreeMap<u64, u64>,
    pub(crate) places: Places,
}

/// What of a file depends on who wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) inode: u64,
    pub(crate) sectors: u64,
    pub(crate) changed: Timestamp,
    pub(crate) data: Vec<Range<u64>>,
}

/// All files by their paths.
pub(crate) type Tree = BTreeMap<String, Seen>;

/// Notes what `bytes`, at `offset` of a file, which is that of a chunk, are.
pub(crate) fn note_content(content: &mut BTreeMap<u64, u64>, offset: u64, bytes: &[u8]) {
    for (number, chunk) in (offset / CHUNK as u64..).zip(bytes.chunks(CHUNK)) {
        let end = chunk.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if end > 0 {
            let mut hasher = DefaultHasher::new();
            hasher.write(&chunk[..end]);
            let _none = content.insert(number, hasher.finish());
        }
    }
}

/// Bytes `data` of a file of `size` bytes, widened to chunks.
fn chunks_of(data: &Range<u64>, size: u64) -> Range<u64> {
    let chunk = CHUNK as u64;
    data.start / chunk * chunk..data.end.next_multiple_of(chunk).min(size)
}

/// A regular file that is being written.
pub(crate) trait Content {
    fn write(&self, bytes: &[u8], offset: u64);
    /// False where the image cannot.
    fn allocate(&self, range: Range<u64>, keep_size: bool) -> bool;
    fn set_len(&self, size: u64);
    fn sync(&self);
}

/// Where trees are written to.
pub(crate) trait Store {
    fn create(&self, path: &str) -> Box<dyn Content>;
    fn mkdir(&self, path: &str);
    fn symlink(&self, path: &str, target: &str);
    fn link(&self, path: &str, to: &str);
    fn special(&self, path: &str, kind: FileKind, device: (u32, u32));
    fn set_attribute(&self, path: &str, name: &str, value: &[u8]);
    fn set(&self, path: &str, meta: &Meta);
    fn unlink(&self, path: &str);
    fn see(&self) -> Tree;
}

/// What Linux has mounted somewhere.
pub(crate) struct Linux(pub(crate) PathBuf);

impl Content for fs::File {
    fn write(&self, bytes: &[u8], offset: u64) {
        self.write_all_at(bytes, offset).unwrap();
    }

    fn allocate(&self, range: Range<u64>, keep_size: bool) -> bool {
        let mode = if keep_size { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        match fallocate(self, mode, range.start, range.end - range.start) {
            Err(Errno::OPNOTSUPP) => false,
            result => result.map(|()| true).unwrap(),
        }
    }

    fn set_len(&self, size: u64) {
        fs::File::set_len(self, size).unwrap();
    }

    fn sync(&self) {
        self.sync_all().unwrap();
    }
}

impl Store for Linux {
    fn create(&self, path: &str) -> Box<dyn Content> {
        Box::new(fs::File::create_new(self.0.join(path)).unwrap())
    }

    fn mkdir(&self, path: &str) {
        fs::create_dir(self.0.join(path)).unwrap();
    }

    fn symlink(&self, path: &str, target: &str) {
        symlink(target, self.0.join(path)).unwrap();
    }

    fn link(&self, path: &str, to: &str) {
        fs::hard_link(self.0.join(to), self.0.join(path)).unwrap();
    }

    fn special(&self, path: &str, kind: FileKind, (major, minor): (u32, u32)) {
        let kind = match kind {
            FileKind::CharacterDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::Socket => FileType::Socket,
            _ => FileType::Fifo,
        };
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, self.0.join(path), kind, mode, makedev(major, minor)).unwrap();
    }

    fn set_attribute(&self, path: &str, name: &str, value: &[u8]) {
        let flags = rustix::fs::XattrFlags::empty();
        lsetxattr(self.0.join(path), name, value, flags).unwrap();
    }

    fn set(&self, path: &str, meta: &Meta) {
        let path = self.0.join(path);
        std::os::unix::fs::lchown(&path, Some(meta.uid), Some(meta.gid)).unwrap();
        if !path.is_symlink() {
            let mode = fs::Permissions::from_mode(meta.permissions.into());
            fs::set_permissions(&path, mode).unwrap();
        }
        let time =
            |time: Timestamp| Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
        let times =
            Timestamps { last_access: time(meta.accessed), last_modification: time(meta.modified) };
        utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    fn unlink(&self, path: &str) {
        fs::remove_file(self.0.join(path)).unwrap();
    }

    fn see(&self) -> Tree {
        rustix::fs::syncfs(fs::File::open(&self.0).unwrap()).unwrap();
        let mut tree = Tree::new();
        see_linux(&self.0, "", &mut tree);
        tree
    }
}

fn see_linux(root: &Path, folder: &str, tree: &mut Tree) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        if path == "lost+found" {
            continue;
        }
        let seen = see_linux_file(&root.join(&path));
        let is_folder = seen.mode & 0o170_000 == 0o40_000;
        let _none = tree.insert(path.clone(), seen);
        if is_folder {
            see_linux(root, &path, tree);
        }
    }
}

fn see_linux_file(path: &Path) -> Seen {
    let found = fs::symlink_metadata(path).unwrap();
    let time = |seconds, nanoseconds: i64| Timestamp {
        seconds,
        nanoseconds: u32::try_from(nanoseconds).unwrap(),
    };
    let meta = Meta {
        permissions: u16::try_from(found.mode() & 0o7777).unwrap(),
        uid: found.uid(),
        gid: found.gid(),
        accessed: time(found.atime(), found.atime_nsec()),
        modified: time(found.mtime(), found.mtime_nsec()),
    };
    let mut places = Places {
        inode: found.ino(),
        sectors: found.blocks(),
        changed: time(found.ctime(), found.ctime_nsec()),
        data: Vec::new(),
    };
    let mut content = BTreeMap::new();
    if found.is_file() {
        let file = fs::File::open(path).unwrap();
        places.data = data_of_linux(&file);
        for run in &places.data {
            let chunks = chunks_of(run, found.size());
            let mut bytes = vec![0; usize::try_from(chunks.end - chunks.start).unwrap()];
            file.read_exact_at(&mut bytes, chunks.start).unwrap();
            note_content(&mut content, chunks.start, &bytes);
        }
        // What is cached counts as data.
        fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    }
    let is_link = found.is_symlink();
    let target =
        is_link.then(|| fs::read_link(path).unwrap().into_os_string().into_encoded_bytes());
    Seen {
        mode: found.mode(),
        meta,
        size: found.size(),
        links: found.nlink(),
        device: found.rdev(),
        target,
        attributes: attributes_of_linux(path),
        content,
        places,
    }
}

fn data_of_linux(file: &fs::File) -> Vec<Range<u64>> {
    let (mut data, mut at) = (Vec::new(), 0);
    while let Ok(start) = seek(file, SeekFrom::Data(at)) {
        at = seek(file, SeekFrom::Hole(start)).unwrap();
        data.push(start..at);
    }
    data
}

fn attributes_of_linux(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 65536];
    let len = llistxattr(path, &mut names[..]).unwrap();
    let names = names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let value = |name: &[u8]| {
        let mut value = vec![0; 65536];
        let len = lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(len);
        value
    };
    names.map(|name| (name.to_vec(), value(name))).collect()
}

/// The library.
pub(crate) struct Library(pub(crate) Arc<FileSystem>);

impl Library {
    /// The folder of `path`, and its name there.
    fn parent<'a>(&self, path: &'a str) -> (InodeNumber, &'a [u8]) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.find(folder), name.as_bytes())
    }

    fn find(&self, path: &str) -> InodeNumber {
        let names = path.split('/').filter(|name| !name.is_empty());
        names.fold(ROOT, |folder, name| self.0.lookup(folder, name.as_bytes()).unwrap())
    }
}

impl Content for mpage_ext4::File {
    fn write(&self, bytes: &[u8], offset: u64) {
        self.write_all_at(bytes, offset).unwrap();
    }

    fn allocate(&self, range: Range<u64>, keep_size: bool) -> bool {
        match mpage_ext4::File::allocate(self, range, keep_size) {
            Err(error) if error.kind.errno() == Errno::OPNOTSUPP => false,
            result => result.map(|()| true).unwrap(),
        }
    }

    fn set_len(&self, size: u64) {
        mpage_ext4::File::set_len(self, size).unwrap();
    }

    fn sync(&self) {
        self.fsync().unwrap();
    }
}

impl Store for Library {
    fn create(&self, path: &str) -> Box<dyn Content> {
        let (parent, name) = self.parent(path);
        let inode = self.0.create(parent, name, &FILE).unwrap();
        Box::new(self.0.open_file(inode).unwrap())
    }

    fn mkdir(&self, path: &str) {
        let (parent, name) = self.parent(path);
        let _inode = self.0.mkdir(parent, name, 0o755, OWNER).unwrap();
    }

    fn symlink(&self, path: &str, target: &str) {
        let (parent, name) = self.parent(path);
        let _inode = self.0.symlink(parent, name, target.as_bytes(), OWNER).unwrap();
    }

    fn link(&self, path: &str, to: &str) {
        let (parent, name) = self.parent(path);
        self.0.link(self.find(to), parent, name).unwrap();
    }

    fn special(&self, path: &str, kind: FileKind, (major, minor): (u32, u32)) {
        let (parent, name) = self.parent(path);
        let device = minor & 0xff | major << 8 | (minor & !0xff) << 12;
        let _inode = self.0.create(parent, name, &New { kind, device, ..FILE }).unwrap();
    }

    fn set_attribute(&self, path: &str, name: &str, value: &[u8]) {
        let inode = self.find(path);
        self.0.set_extended_attribute(inode, name.as_bytes(), value, XattrFlags::None).unwrap();
    }

    fn set(&self, path: &str, meta: &Meta) {
        let inode = self.find(path);
        let is_link = self.0.attributes(inode).unwrap().kind == FileKind::SymbolicLink;
        let new = NewAttributes {
            permissions: (!is_link).then_some(meta.permissions),
            uid: Some(meta.uid),
            gid: Some(meta.gid),
            accessed: Some(meta.accessed),
            modified: Some(meta.modified),
            changed: None,
        };
        self.0.set_attributes(inode, &new).unwrap();
    }

    fn unlink(&self, path: &str) {
        let (parent, name) = self.parent(path);
        self.0.unlink(parent, name).unwrap();
    }

    fn see(&self) -> Tree {
        let mut tree = Tree::new();
        self.see_folder(ROOT, "", &mut tree);
        tree
    }
}

impl Library {
    fn see_folder(&self, folder: InodeNumber, at: &str, tree: &mut Tree) {
        let mut names = BTreeSet::new();
        for entry in list(&self.0, folder) {
            let name = String::from_utf8(entry.name).unwrap();
            assert!(names.insert(name.clone()), "{name} is in {at} twice");
            let path = if at.is_empty() { name.clone() } else { format!("{at}/{name}") };
            if name == "." || name == ".." || path == "lost+found" {
                continue;
            }
            assert_eq!(self.0.lookup(folder, name.as_bytes()).unwrap(), entry.inode, "{path}");
            let found = self.0.attributes(entry.inode).unwrap();
            assert!(entry.kind.is_none_or(|kind| kind == found.kind), "{path}");
            let _none = tree.insert(path.clone(), self.see_file(&found));
            if found.kind == FileKind::Directory {
                self.see_folder(entry.inode, &path, tree);
            }
        }
    }

    fn see_file(&self, found: &Attributes) -> Seen {
        let inode = found.inode;
        let mut places = Places {
            inode: inode.0.into(),
            sectors: found.sectors,
            changed: found.changed,
            data: Vec::new(),
        };
        let mut content = BTreeMap::new();
        if found.kind == FileKind::Regular {
            (content, places.data) = self.content(inode);
        }
        let is_link = found.kind == FileKind::SymbolicLink;
        let names = self.0.extended_attribute_names(inode).unwrap();
        let value = |name: &[u8]| self.0.extended_attribute(inode, name).unwrap();
        let (major, minor) = (found.device >> 8 & 0xfff, found.device & 0xff);
        Seen {
            mode: found.mode.into(),
            meta: Meta {
                permissions: found.mode & 0o7777,
                uid: found.uid,
                gid: found.gid,
                accessed: found.accessed,
                modified: found.modified,
            },
            size: found.size,
            links: found.links.into(),
            device: makedev(major, minor | found.device >> 12 & 0xf_ff00),
            target: is_link.then(|| self.0.read_link(inode).unwrap()),
            attributes: names.into_iter().map(|name| (name.clone(), value(&name))).collect(),
            content,
            places,
        }
    }

    /// The chunks of a file, and where it has data.
    fn content(&self, inode: InodeNumber) -> (BTreeMap<u64, u64>, Vec<Range<u64>>) {
        let file = self.0.open_file(inode).unwrap();
        let size = file.size();
        let (mut content, mut data, mut at) = (BTreeMap::new(), Vec::<Range<u64>>::new(), 0);
        while at < size {
            let span = file.span_at(at).unwrap();
            let end = span.bytes.end.min(size);
            if !span.hole {
                let chunks = chunks_of(&(at..end), size);
                let mut bytes = vec![1; usize::try_from(chunks.end - chunks.start).unwrap()];
                assert_eq!(file.read_at(&mut bytes, chunks.start).unwrap(), bytes.len());
                note_content(&mut content, chunks.start, &bytes);
                match data.last_mut() {
                    Some(last) if last.end == at => last.end = end,
                    _ => data.push(at..end),
                }
            }
            at = end;
        }
        (content, data)
    }
}
