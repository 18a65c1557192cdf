//! What a workload does, and what it may rely on afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;

use mpage_ext4::{
    At, Error, Existing, File, FileKind, FileSystem, InodeNumber, New, Result, XattrFlags,
};
use mpage_sim::Instants;

use crate::content::{self, FileId};
use crate::facts::{self, Facts, State};

const FILE: New = New { kind: FileKind::Regular, permissions: 0o644, uid: 0, gid: 0, device: 0 };
const OWNER: (u32, u32) = (0, 0);

/// A file as it is in memory.
#[derive(Clone, Debug)]
struct Model {
    id: FileId,
    version: u16,
    content: Vec<u8>,
}

/// An image that is worked on, and what was promised of it.
pub struct World {
    /// The image.
    pub fs: Arc<FileSystem>,
    instants: Arc<Instants>,
    facts: Facts,
    files: BTreeMap<String, Model>,
    directories: BTreeMap<String, InodeNumber>,
    made: u16,
}

impl World {
    /// On `fs`, whose instants are counted by `instants`.
    pub fn new(fs: Arc<FileSystem>, instants: Arc<Instants>) -> World {
        let directories = BTreeMap::from([(String::new(), InodeNumber::ROOT)]);
        let (facts, files) = (Facts::default(), BTreeMap::new());
        World { fs, instants, facts, files, directories, made: 0 }
    }

    /// What was promised.
    pub fn into_facts(self) -> Facts {
        self.facts
    }

    fn now(&self) -> u64 {
        self.instants.next()
    }

    /// The directory of `path`, and its last name.
    fn place<'a>(&self, path: &'a str) -> (InodeNumber, &'a [u8]) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.directories[directory], name.as_bytes())
    }

    /// Opens the file at `path`.
    ///
    /// # Errors
    ///
    /// The image's, as of all that follow.
    pub fn open(&self, path: &str) -> Result<File> {
        let (parent, name) = self.place(path);
        self.fs.open_file(self.fs.lookup(parent, name)?)
    }

    /// Makes an empty file.
    pub fn create(&mut self, path: &str) -> Result<()> {
        let now = self.now();
        self.facts.end(path, now);
        self.made += 1;
        let id = FileId(self.made);
        self.facts.note_file(path, id);
        let (parent, name) = self.place(path);
        let _inode = self.fs.create(parent, name, &FILE)?;
        let model = Model { id, version: 0, content: Vec::new() };
        let _none = self.files.insert(path.into(), model);
        Ok(())
    }

    /// Writes `len` bytes, a multiple of eight as `offset` is, at `offset`.
    pub fn write(&mut self, path: &str, offset: u64, len: usize) -> Result<()> {
        let now = self.now();
        self.facts.end(path, now);
        let file = self.open(path)?;
        let model = self.files.get_mut(path).expect("it was made");
        model.version += 1;
        let bytes = content::bytes(model.id, model.version, offset, len);
        let start = usize::try_from(offset).expect("a small file");
        if model.content.len() < start + len {
            model.content.resize(start + len, 0);
        }
        model.content[start..start + len].copy_from_slice(&bytes);
        file.write_all_at(&bytes, offset)
    }

    /// Writes behind the end.
    pub fn append(&mut self, path: &str, len: usize) -> Result<()> {
        let end = self.files[path].content.len();
        self.write(path, end as u64, len)
    }

    /// Sets the size, a multiple of eight.
    pub fn truncate(&mut self, path: &str, size: usize) -> Result<()> {
        let now = self.now();
        self.facts.end(path, now);
        let file = self.open(path)?;
        self.files.get_mut(path).expect("it was made").content.resize(size, 0);
        file.set_len(size as u64)
    }

    /// Makes a hole.
    pub fn punch(&mut self, path: &str, start: usize, end: usize) -> Result<()> {
        let now = self.now();
        self.facts.end(path, now);
        let file = self.open(path)?;
        let content = &mut self.files.get_mut(path).expect("it was made").content;
        let inside = start.min(content.len())..end.min(content.len());
        content[inside].fill(0);
        file.punch_hole(start as u64..end as u64)
    }

    /// Gets room for bytes that are not written yet.
    pub fn allocate(&mut self, path: &str, start: usize, end: usize) -> Result<()> {
        let now = self.now();
        self.facts.end(path, now);
        let file = self.open(path)?;
        let content = &mut self.files.get_mut(path).expect("it was made").content;
        if content.len() < end {
            content.resize(end, 0);
        }
        file.allocate(start as u64..end as u64, false)
    }

    /// Syncs a file: it is there from then on, by its name, to the byte.
    pub fn sync(&mut self, path: &str) -> Result<()> {
        self.open(path)?.fsync()?;
        let now = self.now();
        let content = self.files[path].content.clone();
        self.facts.renew(path, State::File(content), now);
        Ok(())
    }

    /// Syncs names: all directories are there from then on, and files are where they are.
    pub fn sync_names(&mut self) -> Result<()> {
        self.fs.sync_names()?;
        let now = self.now();
        for path in self.directories.keys().filter(|path| !path.is_empty()) {
            self.facts.renew(path, State::Directory, now);
        }
        Ok(())
    }

    /// Syncs everything.
    pub fn sync_all(&mut self) -> Result<()> {
        self.fs.sync()?;
        let now = self.now();
        for (path, model) in &self.files {
            self.facts.renew(path, State::File(model.content.clone()), now);
        }
        for path in self.directories.keys().filter(|path| !path.is_empty()) {
            self.facts.renew(path, State::Directory, now);
        }
        Ok(())
    }

    /// Makes a directory.
    pub fn mkdir(&mut self, path: &str) -> Result<()> {
        let now = self.now();
        self.facts.end(path, now);
        let (parent, name) = self.place(path);
        let inode = self.fs.mkdir(parent, name, 0o755, OWNER)?;
        let _none = self.directories.insert(path.into(), inode);
        Ok(())
    }

    /// Removes an empty directory, durably.
    pub fn rmdir(&mut self, path: &str) -> Result<()> {
        let now = self.now();
        self.facts.end(path, now);
        let (parent, name) = self.place(path);
        self.fs.rmdir(parent, name)?;
        let _gone = self.directories.remove(path);
        self.gone(path)
    }

    fn gone(&mut self, path: &str) -> Result<()> {
        self.fs.sync_names()?;
        let now = self.now();
        self.facts.begin(path, State::Absent, now);
        Ok(())
    }

    /// Removes a file; nothing is known of it until [`remove`](Self::remove), or a sync.
    pub fn unlink(&mut self, path: &str) -> Result<()> {
        let now = self.now();
        self.facts.end(path, now);
        let (parent, name) = self.place(path);
        self.fs.unlink(parent, name)?;
        let _gone = self.files.remove(path);
        Ok(())
    }

    /// Removes a file, durably.
    pub fn remove(&mut self, path: &str) -> Result<()> {
        self.unlink(path)?;
        self.gone(path)
    }

    /// Gives a file another name.
    pub fn link(&mut self, path: &str, to: &str) -> Result<()> {
        let now = self.now();
        self.facts.end(to, now);
        let model = self.files[path].clone();
        self.facts.note_file(to, model.id);
        let (parent, name) = self.place(path);
        let inode = self.fs.lookup(parent, name)?;
        let (parent, name) = self.place(to);
        self.fs.link(inode, parent, name)?;
        let _none = self.files.insert(to.into(), model);
        Ok(())
    }

    /// Gives a file, which was synced, the name of another, which was too, or of none: from then on
    /// that name is one of the two.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let now = self.now();
        self.facts.end(from, now);
        self.facts.end(to, now);
        let model = self.files.remove(from).expect("it was made");
        self.facts.note_file(to, model.id);
        let before = self.files.insert(to.into(), model.clone());
        if let Some(before) = before {
            let either = vec![before.content, model.content];
            self.facts.begin(to, State::OneOf(either), now);
        }
        let (source, target) = (self.place(from), self.place(to));
        let from = At { parent: source.0, name: source.1 };
        let to = At { parent: target.0, name: target.1 };
        self.fs.rename(from, to, Existing::Replace)
    }

    /// Gives a file an extended attribute, durably.
    pub fn attribute(&mut self, path: &str, name: &'static str, len: usize) -> Result<()> {
        let value = vec![b'a' + u8::try_from(len % 26).expect("a letter"); len];
        let (parent, last) = self.place(path);
        let inode = self.fs.lookup(parent, last)?;
        let key = facts::of(path, name);
        let now = self.now();
        self.facts.end(&key, now);
        self.fs.set_extended_attribute(inode, name.as_bytes(), &value, XattrFlags::None)?;
        self.open(path)?.fsync()?;
        let now = self.now();
        self.facts.begin(&key, State::Attribute(name, value), now);
        Ok(())
    }

    /// True when `error` says that there is no space.
    pub fn is_full(error: &Error) -> bool {
        error.kind.errno() == mpage_block::Errno::NOSPC
    }
}
