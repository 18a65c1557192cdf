//! Random work in a folder of an image, which knows what has to be there.

use std::collections::BTreeMap;
use std::sync::Arc;

use mpage::Advice;
use mpage_ext4::{At, Existing, FileSystem, InodeNumber, XattrFlags};

use crate::written::{FILE, OWNER, ROOT, names};

/// A regular file: what it holds, and its attribute.
struct Content {
    inode: InodeNumber,
    bytes: Vec<u8>,
    attribute: Option<Vec<u8>>,
}

/// What a name leads to.
enum Node {
    File(Content),
    Link(InodeNumber, Vec<u8>),
    Folder(InodeNumber),
}

/// How much a worker has at once.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) names: usize,
    pub(crate) file_bytes: usize,
    pub(crate) store_bytes: usize,
}

/// Who works in a folder that is nobody else's.
pub(crate) struct Worker<'a> {
    fs: Arc<FileSystem>,
    random: fastrand::Rng,
    limits: Limits,
    home: InodeNumber,
    nodes: BTreeMap<Vec<u8>, Node>,
    /// Gives words that nobody used: for names, targets, values.
    word: &'a (dyn Fn() -> Vec<u8> + Sync),
}

/// Attribute of files.
const ATTRIBUTE: &[u8] = b"user.word";

impl<'a> Worker<'a> {
    pub(crate) fn new(
        fs: &Arc<FileSystem>,
        seed: u64,
        limits: Limits,
        word: &'a (dyn Fn() -> Vec<u8> + Sync),
    ) -> Worker<'a> {
        let home = fs.mkdir(ROOT, format!("home{seed}").as_bytes(), 0o755, OWNER).unwrap();
        let random = fastrand::Rng::with_seed(seed);
        Worker { fs: Arc::clone(fs), random, limits, home, nodes: BTreeMap::new(), word }
    }

    /// Goes on in `fs`, which is the same image.
    pub(crate) fn reopened(self, fs: &Arc<FileSystem>) -> Worker<'a> {
        Worker { fs: Arc::clone(fs), ..self }
    }

    /// A word with up to `more` bytes behind it.
    fn long_word(&mut self, more: usize) -> Vec<u8> {
        let mut word = (self.word)();
        word.resize(word.len() + self.random.usize(..=more), b'-');
        word
    }

    /// One of the names that `wanted` is true of.
    fn pick(&mut self, wanted: impl Fn(&Node) -> bool) -> Option<Vec<u8>> {
        let names: Vec<_> =
            self.nodes.iter().filter(|(_, node)| wanted(node)).map(|(name, _)| name).collect();
        self.random.choice(names).cloned()
    }

    fn is_full(&self) -> bool {
        self.nodes.len() >= self.limits.names
    }

    /// Changes names or what is known of a file.
    pub(crate) fn change(&mut self) {
        match self.random.u8(..20) {
            0..6 if !self.is_full() => self.create(),
            6..9 if !self.is_full() => self.symlink(),
            9..11 if !self.is_full() => self.mkdir(),
            11..13 => self.rename(),
            13..15 => self.truncate(),
            15..17 => self.set_attribute(),
            _ => self.remove(),
        }
    }

    fn create(&mut self) {
        let name = self.long_word(60);
        let inode = self.fs.create(self.home, &name, &FILE).unwrap();
        let node = Node::File(Content { inode, bytes: Vec::new(), attribute: None });
        let _none = self.nodes.insert(name, node);
    }

    fn symlink(&mut self) {
        let (name, target) = (self.long_word(60), self.long_word(900));
        let inode = self.fs.symlink(self.home, &name, &target, OWNER).unwrap();
        let _none = self.nodes.insert(name, Node::Link(inode, target));
    }

    fn mkdir(&mut self) {
        let name = self.long_word(60);
        let inode = self.fs.mkdir(self.home, &name, 0o755, OWNER).unwrap();
        let _none = self.nodes.insert(name, Node::Folder(inode));
    }

    fn rename(&mut self) {
        let Some(from) = self.pick(|_| true) else { return };
        let to = self.long_word(200);
        let at = |name| At { parent: self.home, name };
        self.fs.rename(at(&from), at(&to), Existing::Keep).unwrap();
        let node = self.nodes.remove(&from).unwrap();
        let _none = self.nodes.insert(to, node);
    }

    fn remove(&mut self) {
        let Some(name) = self.pick(|_| true) else { return };
        match self.nodes.remove(&name).unwrap() {
            Node::Folder(_) => self.fs.rmdir(self.home, &name).unwrap(),
            Node::Link(..) => self.fs.unlink(self.home, &name).unwrap(),
            Node::File(content) => {
                let open = self.random.bool().then(|| self.fs.open_file(content.inode).unwrap());
                self.fs.unlink(self.home, &name).unwrap();
                let Some(open) = open else { return };
                // What has no name any more is written all the same.
                open.write_all_at(&[b'x'; 3000], content.bytes.len() as u64).unwrap();
                let mut read = vec![0; content.bytes.len()];
                assert_eq!(open.read_at(&mut read, 0).unwrap(), read.len());
                assert!(read == content.bytes, "a file without a name");
            }
        }
    }

    fn file(&mut self) -> Option<(&mut Content, &mut fastrand::Rng)> {
        let name = self.pick(|node| matches!(node, Node::File(_)))?;
        match self.nodes.get_mut(&name) {
            Some(Node::File(content)) => Some((content, &mut self.random)),
            _ => None,
        }
    }

    fn truncate(&mut self) {
        let bytes_max = self.limits.file_bytes;
        let fs = Arc::clone(&self.fs);
        let Some((content, random)) = self.file() else { return };
        let size = random.usize(..bytes_max);
        fs.open_file(content.inode).unwrap().set_len(size as u64).unwrap();
        content.bytes.resize(size, 0);
    }

    fn set_attribute(&mut self) {
        let value = self.long_word(300);
        let fs = Arc::clone(&self.fs);
        let Some((content, _)) = self.file() else { return };
        fs.set_extended_attribute(content.inode, ATTRIBUTE, &value, XattrFlags::None).unwrap();
        content.attribute = Some(value);
    }

    /// Writes into a file.
    pub(crate) fn store(&mut self) {
        let limits = self.limits;
        let fs = Arc::clone(&self.fs);
        let Some((content, random)) = self.file() else { return };
        let len = random.usize(1..limits.store_bytes);
        let start = random.usize(..limits.file_bytes - len.min(limits.file_bytes - 1));
        let byte = random.u8(1..0xf0);
        fs.open_file(content.inode).unwrap().write_all_at(&vec![byte; len], start as u64).unwrap();
        content.bytes.resize(content.bytes.len().max(start + len), 0);
        content.bytes[start..start + len].fill(byte);
    }

    /// Reads a file.
    pub(crate) fn read(&mut self) {
        let fs = Arc::clone(&self.fs);
        let Some((content, _)) = self.file() else { return };
        assert_content(&fs, content);
    }

    /// Syncs a file.
    pub(crate) fn sync(&mut self) {
        let fs = Arc::clone(&self.fs);
        let Some((content, _)) = self.file() else { return };
        fs.open_file(content.inode).unwrap().fsync().unwrap();
    }

    /// Sees to it that everything is as it has to be.
    pub(crate) fn check(&self) {
        let expected: Vec<_> = self.nodes.keys().cloned().collect();
        assert!(names(&self.fs, self.home) == expected, "the names");
        for (name, node) in &self.nodes {
            let inode = self.fs.lookup(self.home, name).unwrap();
            match node {
                Node::File(content) => {
                    assert_eq!(inode, content.inode);
                    assert_content(&self.fs, content);
                }
                Node::Link(number, target) => {
                    assert_eq!(inode, *number);
                    assert!(self.fs.read_link(inode).unwrap() == *target, "a target");
                }
                Node::Folder(number) => {
                    assert_eq!(inode, *number);
                    assert!(names(&self.fs, inode).is_empty(), "a folder");
                }
            }
        }
    }

    /// Drops what of the files' content is clean.
    pub(crate) fn drop_clean(&self) {
        for node in self.nodes.values() {
            let Node::File(content) = node else { continue };
            let file = self.fs.open_file(content.inode).unwrap();
            file.cached().advise(0..u64::MAX >> 1, Advice::DontNeed).unwrap();
        }
    }
}

fn assert_content(fs: &Arc<FileSystem>, content: &Content) {
    let inode = content.inode;
    let file = fs.open_file(inode).unwrap();
    let mut bytes = vec![1; content.bytes.len() + 10];
    let count = file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(count, content.bytes.len(), "inode {inode}");
    let mut pairs = bytes.iter().zip(&content.bytes);
    let wrong = pairs.position(|(is, right)| is != right);
    assert_eq!(wrong, None, "inode {inode}, of {count} bytes");
    if let Some(value) = &content.attribute {
        assert!(fs.extended_attribute(inode, ATTRIBUTE).unwrap() == *value, "inode {inode}");
    }
}
