//! Runs a program on the engine: sets it up, and judges what crashes would have left.

use std::sync::Arc;
use std::time::Duration;

use mpage::units::BlockSize;
use mpage::{
    AddressSpace, BackingDev, CachedFile, Clock, GetBlock, Identity, ManualClock, Operations,
    Options, PageCache,
};
use mpage_block::{Bio, submit_and_wait};
use mpage_ext4::{File, FileSystem, InodeNumber};
use mpage_locks::Mutex;
use mpage_locks::atomic::{AtomicBool, Ordering};
use mpage_locks::thread::{self, JoinHandle};

use crate::books::{Books, Pages};
use crate::client::{Client, TRIES};
use crate::crash::{self, Judge};
use crate::device::{SimDevice, SimOptions};
use crate::fs::{Commit, SimFile, SimFs};
use crate::image;
use crate::instants::Instants;
use crate::model::{Content, FileModel};
use crate::program::{Kind, PAGE, Program, Setup};

/// What a run was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Calls made.
    pub ops: u64,
    /// States after a crash that were looked at.
    pub crash_states: u64,
    /// Stands for all results: equal for equal runs.
    pub digest: u64,
}

/// The stamp of what is there at the start.
const FIRST: Content = Content::Stamp(1);
/// The stamp of what nobody wrote.
pub(crate) const JUNK: Content = Content::Stamp(2);

/// States of an image that are looked at as if the power had gone then.
const CUTS_MAX: usize = 3;

/// Turns of other threads before the clock moves to the next alarm.
const PAUSES: [u32; 3] = [2, 20, 200];

/// What the threads of a program share.
pub(crate) struct World {
    pub(crate) setup: Setup,
    pub(crate) books: Arc<Books>,
    pub(crate) device: Arc<SimDevice>,
    pub(crate) clock: Arc<ManualClock>,
    start: Vec<u8>,
    fs: Option<Arc<SimFs>>,
    /// What was durable of an image behind a sync, and when.
    cuts: Mutex<Vec<(Vec<u8>, u64)>>,
    /// No two calls are made at once.
    pub(crate) alone: AtomicBool,
    over: AtomicBool,
}

/// An image that is open, and its files.
pub(crate) struct Ext4 {
    pub(crate) fs: Arc<FileSystem>,
    pub(crate) files: Vec<File>,
}

/// Runs `program`; chance, but not the order of threads, is `seed`'s.
///
/// # Panics
///
/// When anything is not as it has to be.
pub(crate) fn run(program: &Program, seed: u64, start: Vec<u8>) -> Ran {
    let setup = &program.setup;
    let instants = Arc::<Instants>::default();
    let (clock, hand) = Clock::manual(Duration::from_secs(1));
    let hand = Arc::new(hand);
    // An image is opened first.
    let faults = if setup.kind == Kind::Ext4 { Vec::new() } else { setup.faults.clone() };
    let options = SimOptions { limits: setup.limits, faults, seed };
    let device = SimDevice::new(start.clone(), &options, &instants, Some(hand.clone()));
    let size = setup.pages * PAGE;
    let files = (0..setup.files).map(|_| FileModel::new(size, FIRST)).collect();
    let books = Arc::new(Books::new(Arc::clone(&instants), files));
    let blocks = |bytes: u64| bytes / setup.block as u64;
    let fs = (setup.kind == Kind::Files).then(|| {
        let whole = (blocks(setup.device_bytes()), setup.block as u64);
        let files = vec![blocks(size); setup.files];
        SimFs::new(&instants, whole, &files, setup.map_faults, seed)
    });
    let (cuts, over) = (Mutex::default(), AtomicBool::new(false));
    let alone = AtomicBool::new(program.threads.len() == 1);
    let world =
        World { setup: setup.clone(), books, device, clock: hand, start, fs, cuts, alone, over };
    let world = Arc::new(world);
    world.tell_of_failed_writes();
    let cache = Arc::new(world.cache(clock));
    let dev = cache.add_device(world.device.clone()).expect("a device");
    let ext4 = (setup.kind == Kind::Ext4).then(|| Arc::new(world.open_image(&cache, &dev)));
    let mappings = world.mappings(&cache, &dev, ext4.as_deref());
    let opens = |_| mappings.iter().map(|mapping| CachedFile::new(mapping.clone(), true)).collect();
    let time = world.let_time_pass(seed);
    let threads: Vec<_> = program
        .threads
        .iter()
        .map(|ops| {
            let mut client = Client::new(&world, &cache, &dev, ext4.clone(), opens(()));
            let ops = ops.clone();
            thread::spawn("client", move || ops.iter().for_each(|op| client.call(op)))
                .expect("a thread")
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a client"));
    world.heal();
    world.alone.store(true, Ordering::SeqCst);
    if !setup.closes {
        Client::new(&world, &cache, &dev, ext4.clone(), opens(())).finish();
    }
    drop((mappings, dev));
    if let Some(ext4) = ext4.and_then(Arc::into_inner) {
        drop(ext4.files);
        let closed = ext4.fs.close();
        assert!(closed.is_ok() || world.went_wrong(), "for no reason: {closed:?}");
    }
    if setup.closes {
        // A write on its way before may fail still.
        let synced = (0..TRIES).any(|_| cache.sync().is_ok());
        assert!(synced, "closed files cannot be synced, though nothing goes wrong any more");
    }
    drop(Arc::into_inner(cache).expect("the last one who holds the cache"));
    if setup.closes {
        world.flush();
    }
    world.over.store(true, Ordering::SeqCst);
    time.join().expect("the clock's thread");
    world.device.stop();
    match setup.kind {
        Kind::Ext4 => world.judge_image(program),
        _ => world.explore(program, seed),
    }
}

/// Whether `files` are what they may be after a crash at instant `crash`.
fn fit(files: &[Vec<u8>], pages: &Pages, crash: u64) -> Result<(), String> {
    let mut each = files.iter().zip(&pages.files).enumerate();
    each.try_for_each(|(number, (bytes, model))| {
        let right = model.after_crash(bytes, 1, crash);
        right.map_err(|wrong| format!("file {number}, opened again: {wrong}"))
    })
}

/// What the device holds at the start.
pub(crate) fn content(setup: &Setup) -> Vec<u8> {
    if setup.kind == Kind::Ext4 {
        let file = FIRST.bytes(0, setup.pages * PAGE);
        return image::make(setup, &file);
    }
    let mut bytes = JUNK.bytes(0, setup.device_bytes());
    let size = usize::try_from(setup.pages * PAGE).expect("a small file");
    for file in bytes.chunks_mut(size).take(setup.files) {
        FIRST.fill(0, file);
    }
    bytes
}

impl World {
    /// Moves the clock to when somebody wants to be woken, sooner or later.
    fn let_time_pass(self: &Arc<Self>, seed: u64) -> JoinHandle<()> {
        let world = Arc::clone(self);
        let pause = PAUSES[usize::try_from(seed % 3).expect("below three")];
        let pass = move || {
            while !world.over.load(Ordering::SeqCst) {
                (0..pause).for_each(|_| thread::yield_now());
                if let Some(alarm) = world.clock.next_alarm() {
                    world.clock.advance(alarm.saturating_sub(world.clock.now()));
                }
            }
        };
        thread::spawn("time", pass).expect("a thread")
    }

    /// Behind the cache, which nothing kept from writing what it still had: all of it is there.
    fn flush(&self) {
        let flushed = submit_and_wait(&*self.device, Bio::flush());
        flushed.expect("nothing goes wrong any more");
        let mut pages = self.books.lock();
        let now = self.books.instants.next();
        pages.files.iter_mut().for_each(|file| file.synced(0..u64::MAX, true, now, now));
        let promise = self.books.instants.next();
        pages.promises.push(promise);
    }

    /// Nothing goes wrong any more.
    pub(crate) fn heal(&self) {
        self.device.heal();
        self.fs.iter().for_each(|fs| fs.heal());
    }

    /// Whether the files can be synced once nothing goes wrong any more: not those of a file system
    /// that a failed flush has stopped.
    pub(crate) fn recovers(&self) -> bool {
        self.fs.is_none() || self.device.failed_flushes() == 0
    }

    /// Whether anything went wrong so far.
    pub(crate) fn went_wrong(&self) -> bool {
        self.device.went_wrong() > 0 || self.fs.as_ref().is_some_and(|fs| fs.went_wrong() > 0)
    }

    fn tell_of_failed_writes(&self) {
        let (books, fs, block) = (self.books.clone(), self.fs.clone(), self.setup.block as u64);
        let is_file = self.setup.kind != Kind::Ext4;
        self.device.on_failed_write(Box::new(move |at| {
            let place = match &fs {
                Some(fs) => fs.owner(at / block).map(|(file, number)| (file, number * block)),
                None => is_file.then_some((0, at)),
            };
            let place = place.filter(|(file, at)| !books.is_past_cache(*file, *at));
            let (books, since) = (books.clone(), books.instants.next());
            Box::new(move || place.into_iter().for_each(|place| books.write_failed(place.0, since)))
        }));
        let books = self.books.clone();
        self.device.on_failed_flush(Box::new(move |flushed| {
            books.lock().files.iter_mut().for_each(|file| file.flush_failed(flushed));
        }));
    }

    fn cache(&self, clock: Clock) -> PageCache {
        let options = Options {
            memory: self.setup.memory.max(Options::MEMORY_MIN),
            dirty_background_percent: self.setup.background_percent,
            dirty_percent: self.setup.dirty_percent,
            dirty_expire: Duration::from_millis(100),
            dirty_interval: Duration::from_millis(50),
            clock,
            ..Options::default()
        };
        PageCache::new(&options).expect("a cache")
    }

    fn open_image(&self, cache: &Arc<PageCache>, dev: &Arc<BackingDev>) -> Ext4 {
        let how = mpage_ext4::Options {
            commit_interval: Duration::ZERO,
            ..mpage_ext4::Options::default()
        };
        let fs = FileSystem::open(cache, dev, self.start.len() as u64, &how).expect("an image");
        let open = |number| {
            let inode = fs.lookup(InodeNumber::ROOT, image::name(number).as_bytes());
            fs.open_file(inode.expect("a file")).expect("a file that can be opened")
        };
        let files = (0..self.setup.files).map(open).collect();
        self.device.go_wrong(&self.setup.faults);
        Ext4 { fs, files }
    }

    /// Keeps what would be there of an image if the power went now, behind a sync, with no other
    /// thread in the midst of one.
    pub(crate) fn keep_cut(&self) {
        let now = self.books.instants.next();
        let mut cuts = self.cuts.lock();
        cuts.truncate(CUTS_MAX - 1);
        cuts.insert(0, (self.device.durable(), now));
    }

    /// Looks at what was there when the power could have gone.
    fn judge_cuts(&self) {
        for (image, cut) in self.cuts.lock().drain(..) {
            let files = image::mend(&image, self.setup.files);
            let pages = self.books.lock();
            let right = files.and_then(|files| fit(&files, &pages, cut));
            right.unwrap_or_else(|wrong| {
                panic!(
                    "behind a power cut at {cut}: {wrong}\n{}",
                    story(&pages.calls, &self.device.events())
                )
            });
        }
    }

    /// Looks at what is there in the end.
    fn judge_image(&self, program: &Program) -> Ran {
        self.judge_cuts();
        let pages = self.books.lock();
        let content = self.device.content();
        let files = image::check(&content, self.setup.files);
        let now = self.books.instants.next();
        let right = files.and_then(|files| fit(&files, &pages, now));
        right.unwrap_or_else(|wrong| panic!("{wrong}\n{}", story(&pages.calls, &[])));
        Ran { ops: program.ops() as u64, crash_states: 0, digest: pages.digest }
    }

    fn mappings(
        &self,
        cache: &PageCache,
        dev: &Arc<BackingDev>,
        ext4: Option<&Ext4>,
    ) -> Vec<Arc<AddressSpace>> {
        if let Some(ext4) = ext4 {
            return ext4.files.iter().map(|file| Arc::clone(file.cached().mapping())).collect();
        }
        let block = BlockSize::new(self.setup.block).expect("a block");
        let size = self.setup.pages * PAGE;
        let map = |file| -> Arc<dyn GetBlock> {
            match (&self.fs, self.setup.kind) {
                (Some(fs), _) => SimFile::new(fs, file, cache.device_flush(dev)),
                (None, Kind::Regular) => {
                    Arc::new(Identity::resizable(self.device.clone(), block, size))
                }
                (None, _) => Arc::new(Identity::new(self.device.clone(), block)),
            }
        };
        (0..self.setup.files)
            .map(|file| {
                let ops = Operations { get_block: Some(map(file)), ..Operations::default() };
                cache.add_mapping(dev, block, size, ops).expect("a mapping")
            })
            .collect()
    }

    /// Looks at what crashes at each instant would have left.
    fn explore(&self, program: &Program, seed: u64) -> Ran {
        let pages = self.books.lock();
        let commits = (0..self.setup.files)
            .map(|file| self.fs.as_ref().map_or(Vec::new(), |fs| fs.commits(file)));
        let judge = Images { setup: &self.setup, files: &pages.files, commits: commits.collect() };
        let (events, start) = (self.device.events(), self.start.clone());
        let explored = crash::explore(
            start,
            self.setup.limits.alignment,
            &events,
            &pages.promises,
            &judge,
            seed,
        );
        let crash_states =
            explored.unwrap_or_else(|wrong| panic!("{wrong}\n{}", story(&pages.calls, &events)));
        Ran { ops: program.ops() as u64, crash_states, digest: pages.digest }
    }
}

/// What happened, in lines.
fn story(calls: &[String], events: &[crash::Event]) -> String {
    let events = events.iter().map(|event| format!("{event}"));
    calls.iter().cloned().chain(events).collect::<Vec<_>>().join("\n")
}

/// Judges what a crash left of the files.
struct Images<'a> {
    setup: &'a Setup,
    files: &'a [FileModel],
    commits: Vec<Vec<Commit>>,
}

impl Judge for Images<'_> {
    fn judge(&self, image: &[u8], crash: u64) -> Result<(), String> {
        for (file, model) in self.files.iter().enumerate() {
            let read;
            let bytes = match self.setup.kind {
                Kind::Image | Kind::Regular | Kind::Ext4 => image,
                Kind::Files => {
                    let mut commits = self.commits[file].iter();
                    let last = commits.rfind(|commit| commit.at < crash);
                    read = mounted(image, last.expect("the first commit"), self.setup.block);
                    &read
                }
            };
            let rounded = match self.setup.kind {
                Kind::Regular => self.setup.block as u64,
                Kind::Image | Kind::Files | Kind::Ext4 => 1,
            };
            model
                .after_crash(bytes, rounded, crash)
                .map_err(|wrong| format!("file {file}: {wrong}"))?;
        }
        Ok(())
    }
}

/// A file of a file system as a crash left it.
fn mounted(image: &[u8], commit: &Commit, block: usize) -> Vec<u8> {
    let size = usize::try_from(commit.size).expect("a small file");
    let mut bytes = vec![0; size.next_multiple_of(block)];
    for (number, mapped) in commit.map.iter().filter(|(_, mapped)| mapped.written) {
        let at = usize::try_from(*number).expect("a small file") * block;
        let from = usize::try_from(mapped.to).expect("a small device") * block;
        if at < size {
            bytes[at..at + block].copy_from_slice(&image[from..from + block]);
        }
    }
    bytes.truncate(size);
    bytes
}
