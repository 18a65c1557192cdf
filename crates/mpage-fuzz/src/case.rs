//! Cases: an image, and what is done with it. What has to hold is asserted on the way.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mpage::PageCache;
use mpage_ext4::{FileSystem, Options};

use crate::base::{self, Base, Of};
use crate::device::{Access, ImageDevice};
use crate::e2fsck;
use crate::edit;
use crate::failure::{Failure, Result};
use crate::image::Image;
use crate::input::{Input, Record};
use crate::program::Program;
use crate::seeds;
use crate::tree::tree;
use crate::walk::{given, walk};

/// Bytes of memory of the cache of most cases.
const MEMORY: usize = 1 << 20;

/// What is done with images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// All of one is read.
    Read,
    /// One is changed.
    Write,
    /// One that is not damaged is changed, and e2fsck looks at it.
    Check,
    /// A journal is replayed.
    Journal,
}

impl Target {
    /// All of them.
    pub const ALL: [Target; 4] = [Target::Read, Target::Write, Target::Check, Target::Journal];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Target::Read => "read",
            Target::Write => "write",
            Target::Check => "check",
            Target::Journal => "journal",
        }
    }

    /// The one that is called `name`.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn of_name(name: &str) -> Result<Target> {
        let found = Target::ALL.into_iter().find(|target| target.name() == name);
        found.ok_or_else(|| Failure::new(format!("no target is called {name}")))
    }

    fn of(self) -> Of {
        if self == Target::Journal { Of::Journal } else { Of::Tree }
    }

    /// The folder of its bases in `folder`, which has all.
    fn folder(self, folder: &Path) -> PathBuf {
        folder.join(if self == Target::Journal { "journals" } else { "trees" })
    }

    /// Makes its bases in a folder of `folder`.
    ///
    /// # Errors
    ///
    /// Those of e2fsprogs, which has to be there.
    pub fn make_bases(self, folder: &Path) -> Result<()> {
        base::make(self.of(), &self.folder(folder))
    }

    /// Writes inputs to begin with into a folder of `folder`, which has the bases.
    ///
    /// # Errors
    ///
    /// Those of the operating system; there are no bases.
    pub fn make_seeds(self, folder: &Path) -> Result<()> {
        seeds::write(self, &self.read_bases(folder)?, &folder.join("seeds").join(self.name()))
    }

    /// Reads its bases from where they were made.
    ///
    /// # Errors
    ///
    /// Those of the operating system; there are none.
    pub fn read_bases(self, folder: &Path) -> Result<Vec<Base>> {
        base::read(self.of(), &self.folder(folder))
    }
}

/// An image, and what is done with it.
#[derive(Clone, Debug)]
pub struct Case {
    /// What is done.
    pub target: Target,
    /// The cache has the least memory that it works with.
    pub least_memory: bool,
    /// The image.
    pub image: Image,
    /// How it is changed.
    pub steps: Vec<Record>,
}

impl Case {
    /// The case that `bytes` of the fuzzer are.
    pub fn of_input(target: Target, bases: &[Base], bytes: &[u8]) -> Case {
        let Input { header, edits, steps } = Input::new(bytes);
        let base = Case::base_of_input(bases, bytes);
        let mut image = base.image();
        if target == Target::Check {
            return Case { target, least_memory: header.least_memory, image, steps };
        }
        if header.without_checksums {
            edit::take_checksums_away(&mut image);
        }
        for record in edits {
            edit::edit(base, &mut image, record);
        }
        edit::sum_superblock(&mut image);
        Case { target, least_memory: header.least_memory, image, steps }
    }

    /// The one of `bases` that `bytes` of the fuzzer are about.
    pub fn base_of_input<'a>(bases: &'a [Base], bytes: &[u8]) -> &'a Base {
        &bases[Input::new(bytes).header.base % bases.len()]
    }

    /// Runs it.
    ///
    /// # Panics
    ///
    /// When something is not as it has to be.
    pub fn run(self) {
        let Case { target, least_memory, image, steps } = self;
        match target {
            Target::Read => drop(on(image, least_memory, false, walk)),
            Target::Check => check(image, least_memory, steps),
            Target::Write | Target::Journal => {
                let image = on(image, least_memory, true, |fs| {
                    let mut program = Program::new(fs, true);
                    steps.into_iter().for_each(|step| program.step(step));
                    let _closed = given(fs.close());
                });
                let _image = on(image, least_memory, false, walk);
            }
        }
    }
}

/// Does `steps` with `image`, which is not damaged: what is there is there too when it is opened
/// again, and right.
fn check(image: Image, least_memory: bool, steps: Vec<Record>) {
    let mut before = None;
    let image = on(image, least_memory, true, |fs| {
        let mut program = Program::new(fs, false);
        steps.into_iter().for_each(|step| program.step(step));
        program.end();
        assert_eq!(fs.read_only(), None, "it is not damaged");
        before = Some(tree(fs).expect("it can be read"));
        fs.close().expect("it can be closed");
    });
    e2fsck::check(&image);
    let _image = on(image, least_memory, false, |fs| {
        let after = tree(fs).expect("it can be read again");
        let before = before.as_ref().expect("it was open before");
        let differ = |path: &&Vec<u8>| before.get(*path) != after.get(*path);
        if let Some(path) = before.keys().chain(after.keys()).find(differ) {
            let told = [before, &after].map(|tree| tree.get(path).cloned().unwrap_or_default());
            panic!("{} was\n{}\nand is\n{}", path.escape_ascii(), told[0], told[1]);
        }
    });
}

/// Opens `image`, does `work` if it can be opened, and returns what is left of it.
fn on(
    image: Image,
    least_memory: bool,
    writable: bool,
    work: impl FnOnce(&Arc<FileSystem>),
) -> Image {
    let access = match writable || edit::needs_recovery(&image) {
        true => Access::Write,
        false => Access::Read,
    };
    let bytes = image.len() as u64;
    let device = Arc::new(ImageDevice::new(image, access));
    {
        let memory = if least_memory { mpage::Options::MEMORY_MIN } else { MEMORY };
        // Nothing is done at its own time.
        let dirty_interval = Duration::ZERO;
        let options = mpage::Options { memory, dirty_interval, ..mpage::Options::default() };
        let cache = Arc::new(PageCache::new(&options).expect("there is memory"));
        let dev = cache.add_device(Arc::clone(&device) as _).expect("there are threads");
        let how = Options { writable, commit_interval: Duration::ZERO };
        if let Some(fs) = given(FileSystem::open(&cache, &dev, bytes, &how)) {
            work(&fs);
        }
    }
    device.check();
    device.image()
}
