//! What is wrong with what a crash left.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use mpage::PageCache;
use mpage_block::{BlockDevice, MemoryDevice, MemoryOptions};
use mpage_ext4::{Cookie, ErrorKind, FileKind, FileSystem, InodeNumber, Options};

use crate::facts::{Fact, Facts, State};
use crate::{content, e2fsck, linux};

/// Of so many states Linux mounts one.
const LINUX_EACH: u64 = 400;

/// Bytes of the cache that an image is looked at through.
const MEMORY: usize = 2 << 20;

/// Judges states of one run.
pub struct Judge {
    facts: Facts,
    /// States are looked at by this chance, in thousandths.
    per_mille: u64,
    random: RefCell<fastrand::Rng>,
    seen: RefCell<HashSet<u64>>,
    judged: Cell<u64>,
    mounted: Cell<u64>,
}

impl Judge {
    /// Of a run that promised `facts`; of its states `per_mille` of a thousand are looked at, which
    /// ones `seed` says.
    pub fn new(facts: Facts, per_mille: u64, seed: u64) -> Judge {
        Judge {
            facts,
            per_mille,
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            seen: RefCell::default(),
            judged: Cell::default(),
            mounted: Cell::default(),
        }
    }

    /// How many different states were judged, and how many of them by Linux.
    pub fn counts(&self) -> (u64, u64) {
        (self.judged.get(), self.mounted.get())
    }
}

impl mpage_sim::Judge for Judge {
    fn judge(&self, image: &[u8], crash: u64) -> Result<(), String> {
        if self.random.borrow_mut().u64(..1000) >= self.per_mille {
            return Ok(());
        }
        let facts: Vec<&Fact> = self.facts.at(crash).collect();
        let mut hasher = DefaultHasher::new();
        image.hash(&mut hasher);
        facts.iter().for_each(|fact| fact.from.hash(&mut hasher));
        if !self.seen.borrow_mut().insert(hasher.finish()) {
            return Ok(());
        }
        self.judged.set(self.judged.get() + 1);
        by_library(image, &self.facts, &facts).map_err(|wrong| format!("by mpage: {wrong}"))?;
        let replayed = e2fsck::replay(image)?;
        e2fsck::check(&replayed, false)?;
        let opened = Opened::new(&replayed, false)?;
        opened.judge(&self.facts, &facts).map_err(|wrong| format!("by e2fsck: {wrong}"))?;
        if self.random.borrow_mut().u64(..LINUX_EACH) == 0 {
            self.mounted.set(self.mounted.get() + 1);
            linux::judge(image, &facts).map_err(|wrong| format!("by Linux: {wrong}"))?;
        }
        Ok(())
    }
}

/// Lets the library replay `image`, close it, and e2fsck judge it.
fn by_library(image: &[u8], all: &Facts, facts: &[&Fact]) -> Result<(), String> {
    let opened = Opened::new(image, true)?;
    opened.judge(all, facts)?;
    opened.fs.close().map_err(|error| format!("it cannot be closed: {error}"))?;
    e2fsck::check(&opened.device.contents(), true)
}

/// An image that is looked at.
struct Opened {
    fs: Arc<FileSystem>,
    device: Arc<MemoryDevice>,
    _cache: Arc<PageCache>,
}

impl Opened {
    fn new(image: &[u8], writable: bool) -> Result<Opened, String> {
        let device = Arc::new(MemoryDevice::from_contents(image, MemoryOptions::default()));
        let options = mpage::Options { memory: MEMORY, ..mpage::Options::default() };
        let open = || {
            let cache = Arc::new(PageCache::new(&options)?);
            let below: Arc<dyn BlockDevice> = Arc::clone(&device) as _;
            let dev = cache.add_device(below)?;
            let how = Options { writable, commit_interval: Duration::ZERO };
            let fs = FileSystem::open(&cache, &dev, image.len() as u64, &how)?;
            Ok::<_, mpage_ext4::Error>((cache, fs))
        };
        let (cache, fs) = open().map_err(|error| format!("it cannot be opened: {error}"))?;
        Ok(Opened { fs, device, _cache: cache })
    }

    fn judge(&self, all: &Facts, facts: &[&Fact]) -> Result<(), String> {
        self.look(InodeNumber::ROOT, "", all).map_err(|wrong| format!("looking: {wrong}"))?;
        facts.iter().try_for_each(|fact| {
            let path = fact.path.replace('\0', " ");
            let wrong = |why: String| format!("{path} is not {}: {why}", fact.state);
            self.check(fact).map_err(wrong)
        })
    }

    /// Goes through all files: none has bytes of another.
    fn look(&self, directory: InodeNumber, path: &str, all: &Facts) -> Result<(), String> {
        let mut from = Some(Cookie::START);
        while let Some(cookie) = from {
            let listing =
                self.fs.read_directory(directory, cookie).map_err(|error| error.to_string())?;
            from = listing.next;
            for entry in listing.entries {
                if matches!(&entry.name[..], b"." | b".." | b"lost+found") {
                    continue;
                }
                let name = String::from_utf8_lossy(&entry.name).into_owned();
                let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                let known =
                    self.fs.attributes(entry.inode).map_err(|error| format!("{path}: {error}"))?;
                match known.kind {
                    FileKind::Directory => self.look(entry.inode, &path, all)?,
                    FileKind::Regular => {
                        let content = self.read(entry.inode)?;
                        if let Some((word, found)) = content::foreign(&content, all.files(&path)) {
                            return Err(format!(
                                "{path} has {found:#x} at byte {}, which is not its own",
                                word * content::WORD
                            ));
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn read(&self, inode: InodeNumber) -> Result<Vec<u8>, String> {
        let read = || {
            let file = self.fs.open_file(inode)?;
            let mut bytes = vec![0; usize::try_from(file.size()).expect("a small file")];
            let mut done = 0;
            while done < bytes.len() {
                match file.read_at(&mut bytes[done..], done as u64)? {
                    0 => break,
                    count => done += count,
                }
            }
            bytes.truncate(done);
            Ok::<_, mpage_ext4::Error>(bytes)
        };
        read().map_err(|error| format!("inode {inode}: {error}"))
    }

    fn find(&self, path: &str) -> mpage_ext4::Result<InodeNumber> {
        path.split('/').try_fold(InodeNumber::ROOT, |at, name| self.fs.lookup(at, name.as_bytes()))
    }

    fn check(&self, fact: &Fact) -> Result<(), String> {
        let path = fact.path.split('\0').next().unwrap_or_default();
        let inode = match (self.find(path), &fact.state) {
            (Ok(_), State::Absent) => return Err("it is there".into()),
            (Ok(inode), _) => inode,
            (Err(error), State::Absent)
                if error.kind == ErrorKind::Errno(mpage_block::Errno::NOENT) =>
            {
                return Ok(());
            }
            (Err(error), _) => return Err(error.to_string()),
        };
        match &fact.state {
            State::File(content) => differs(&self.read(inode)?, &[content]),
            State::OneOf(contents) => {
                differs(&self.read(inode)?, &contents.iter().collect::<Vec<_>>())
            }
            State::Directory | State::Absent => Ok(()),
            State::Attribute(name, value) => {
                let found = self.fs.extended_attribute(inode, name.as_bytes());
                match found.map_err(|error| error.to_string())? == *value {
                    true => Ok(()),
                    false => Err("it has another value".into()),
                }
            }
        }
    }
}

/// Where `found` is none of `contents`.
pub(crate) fn differs(found: &[u8], contents: &[&Vec<u8>]) -> Result<(), String> {
    if contents.iter().any(|content| &content[..] == found) {
        return Ok(());
    }
    let first = contents[0];
    let at = found.iter().zip(first).position(|(one, other)| one != other);
    Err(format!("it has {} bytes, of which {at:?} is the first that differs", found.len()))
}
