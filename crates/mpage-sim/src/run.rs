//! Runs a program on the engine, and holds every result to the books.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use mpage::units::{BlockSize, PageIndex};
use mpage::{
    AddressSpace, CachedFile, Clock, ErrorKind, GetBlock, Identity, ManualClock, Operations,
    Options, PageCache, SyncKind,
};
use mpage_block::Errno;
use mpage_locks::atomic::{AtomicBool, Ordering};
use mpage_locks::thread::{self, JoinHandle};

use crate::books::Books;
use crate::crash::{self, Judge};
use crate::device::{SimDevice, SimOptions};
use crate::fs::{Commit, SimFile, SimFs};
use crate::instants::Instants;
use crate::model::{Content, FileModel, Resize};
use crate::program::{Kind, Op, PAGE, Program, Setup};

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
const JUNK: Content = Content::Stamp(2);

/// Turns of other threads before the clock moves to the next alarm.
const PAUSES: [u32; 3] = [2, 20, 200];

/// How often a sync is tried once nothing goes wrong any more: the first may tell of what was.
const TRIES: usize = 3;

struct World {
    setup: Setup,
    books: Arc<Books>,
    device: Arc<SimDevice>,
    clock: Arc<ManualClock>,
    start: Vec<u8>,
    fs: Option<Arc<SimFs>>,
    over: AtomicBool,
}

/// Runs `program`; chance, but not the order of threads, is `seed`'s.
///
/// # Panics
///
/// When anything is not as it has to be.
pub(crate) fn run(program: &Program, seed: u64) -> Ran {
    let setup = &program.setup;
    let start = content(setup);
    let instants = Arc::<Instants>::default();
    let (clock, hand) = Clock::manual(Duration::from_secs(1));
    let hand = Arc::new(hand);
    let options = SimOptions { limits: setup.limits, faults: setup.faults.clone(), seed };
    let device = SimDevice::new(start.clone(), &options, &instants, Some(hand.clone()));
    let size = setup.pages * PAGE;
    let files = (0..setup.files).map(|_| FileModel::new(size, FIRST)).collect();
    let books = Arc::new(Books::new(Arc::clone(&instants), files));
    let blocks = |bytes: u64| bytes / setup.block as u64;
    let fs = (setup.kind == Kind::Files).then(|| {
        let whole = (blocks(setup.device_bytes()), setup.block as u64);
        let files = vec![blocks(size); setup.files];
        SimFs::new(device.clone(), &instants, whole, &files, seed)
    });
    let over = AtomicBool::new(false);
    let world =
        Arc::new(World { setup: setup.clone(), books, device, clock: hand, start, fs, over });
    world.tell_of_failed_writes();
    let cache = Arc::new(world.cache(clock));
    let mappings = world.mappings(&cache);
    let opens = |_| mappings.iter().map(|mapping| CachedFile::new(mapping.clone(), true)).collect();
    let time = world.let_time_pass(seed);
    let threads: Vec<_> = program
        .threads
        .iter()
        .map(|ops| {
            let mut client = Client::new(&world, &cache, opens(()));
            let ops = ops.clone();
            thread::spawn("client", move || ops.iter().for_each(|op| client.call(op)))
                .expect("a thread")
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a client"));
    let mut last = Client::new(&world, &cache, opens(()));
    last.finish();
    drop((last, mappings));
    drop(Arc::into_inner(cache).expect("the last one who holds the cache"));
    world.over.store(true, Ordering::SeqCst);
    time.join().expect("the clock's thread");
    world.device.stop();
    world.explore(program, seed)
}

/// What the device holds at the start.
fn content(setup: &Setup) -> Vec<u8> {
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

    fn tell_of_failed_writes(&self) {
        let (books, fs, block) = (self.books.clone(), self.fs.clone(), self.setup.block as u64);
        self.device.on_failed_write(Box::new(move |at| {
            let file = fs.as_ref().map_or(Some(0), |fs| fs.owner(at / block));
            let (books, since) = (books.clone(), books.instants.next());
            Box::new(move || file.into_iter().for_each(|file| books.write_failed(file, since)))
        }));
    }

    fn cache(&self, clock: Clock) -> PageCache {
        let options = Options {
            memory: self.setup.memory,
            dirty_background_percent: self.setup.background_percent,
            dirty_percent: self.setup.dirty_percent,
            dirty_expire: Duration::from_millis(100),
            dirty_interval: Duration::from_millis(50),
            clock,
            ..Options::default()
        };
        PageCache::new(&options).expect("a cache")
    }

    fn mappings(&self, cache: &PageCache) -> Vec<Arc<AddressSpace>> {
        let dev = cache.add_device(self.device.clone()).expect("a device");
        let block = BlockSize::new(self.setup.block).expect("a block");
        let size = self.setup.pages * PAGE;
        let map = |file| -> Arc<dyn GetBlock> {
            match (&self.fs, self.setup.kind) {
                (Some(fs), _) => SimFile::new(fs, file),
                (None, Kind::Regular) => {
                    Arc::new(Identity::resizable(self.device.clone(), block, size))
                }
                (None, _) => Arc::new(Identity::new(self.device.clone(), block)),
            }
        };
        (0..self.setup.files)
            .map(|file| {
                let ops = Operations { get_block: Some(map(file)), ..Operations::default() };
                cache.add_mapping(&dev, block, size, ops).expect("a mapping")
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
                Kind::Image | Kind::Regular => image,
                Kind::Files => {
                    let mut commits = self.commits[file].iter();
                    let last = commits.rfind(|commit| commit.at < crash);
                    read = mounted(image, last.expect("the first commit"), self.setup.block);
                    &read
                }
            };
            let rounded = match self.setup.kind {
                Kind::Regular => self.setup.block as u64,
                Kind::Image | Kind::Files => 1,
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

/// A thread of a program, with an open of each file.
struct Client {
    world: Arc<World>,
    cache: Arc<PageCache>,
    /// Each with its number in the books.
    files: Vec<(CachedFile, usize)>,
}

impl Client {
    fn new(world: &Arc<World>, cache: &Arc<PageCache>, files: Vec<CachedFile>) -> Client {
        let files = files.into_iter().enumerate();
        let files = files.map(|(file, open)| (open, world.books.open(file))).collect();
        Client { world: Arc::clone(world), cache: Arc::clone(cache), files }
    }

    fn call(&mut self, op: &Op) {
        let began = self.world.books.instants.next();
        self.make(op);
        let ended = self.world.books.instants.next();
        self.world.books.lock().calls.push(format!("{began}..{ended} {op:?}"));
    }

    fn make(&mut self, op: &Op) {
        match *op {
            Op::Write { file, at, len } => {
                let _well = self.write(file, at, len, |open, bytes| open.write_all_at(bytes, at));
            }
            Op::WriteThrough { file, at, len, durable } => {
                let began = self.world.books.instants.next();
                let through =
                    |open: &CachedFile, bytes: &[u8]| open.write_through_at(bytes, at, durable);
                if self.write(file, at, len, through) && durable {
                    self.promised(file, (at..at + len, false), began, Some(()));
                }
            }
            Op::WriteDirect { file, at, len } => {
                let direct = |open: &CachedFile, bytes: &[u8]| open.write_direct_at(bytes, at);
                let _well = self.write(file, at, len, direct);
            }
            Op::TryWrite { file, at, len } => self.try_write(file, at, len),
            Op::StorePinned { file, at, len } => self.store(file, at, len),
            Op::Read { file, at, len } => {
                self.read(file, at, len, |open, to| Some(open.read_at(to, at)));
            }
            Op::ReadDirect { file, at, len } => {
                self.read(file, at, len, |open, to| Some(open.read_direct_at(to, at)));
            }
            Op::TryRead { file, at, len } => {
                self.read(file, at, len, |open, to| open.try_read_at(to, at).map(Ok));
            }
            Op::Fsync { file } => {
                let _well = self.sync(file, 0..u64::MAX, CachedFile::fsync);
            }
            Op::Fdatasync { file } => {
                let _well = self.sync(file, 0..u64::MAX, CachedFile::fdatasync);
            }
            Op::SyncRange { file, at, len } => {
                let range = at..at + len;
                let _well =
                    self.sync(file, range.clone(), |open| open.sync_range(range, SyncKind::Data));
            }
            Op::SyncEverything => self.sync_everything(),
            Op::SetLen { file, size } => self.set_len(file, size),
            Op::PunchHole { file, at, len } => {
                self.zero(file, at..at + len, |open| open.punch_hole(at..at + len));
            }
            Op::ZeroRange { file, at, len } => {
                self.zero(file, at..at + len, |open| open.zero_range(at..at + len));
            }
            Op::StartWriting { file } => {
                let started = self.files[file].0.start_writing(0..u64::MAX >> 1);
                let _well = self.accept(started, &[]);
            }
            Op::StartWritingEverything => self.cache.start_writing(),
            Op::Invalidate { file } => self.files[file].0.invalidate(0..u64::MAX >> 1),
            Op::InvalidateStrict { file } => {
                let dropped = self.files[file].0.invalidate_strict(0..u64::MAX >> 1);
                let _well = self.accept(dropped, &[Errno::BUSY]);
            }
            Op::Reopen { file } => {
                let mapping = Arc::clone(self.files[file].0.mapping());
                self.files[file] = (CachedFile::new(mapping, true), self.world.books.open(file));
            }
            Op::LetTimePass { ms } => self.world.clock.advance(Duration::from_millis(ms)),
        }
    }

    /// Holds an error to what may be: `expected` always, others only when something went wrong.
    fn accept<T>(&self, result: mpage::Result<T>, expected: &[Errno]) -> Option<T> {
        let code = match &result {
            Ok(_) => 0,
            Err(error) => u64::from(error.kind.errno().raw_os_error().unsigned_abs()),
        };
        self.world.books.lock().note(code);
        match result {
            Ok(result) => Some(result),
            Err(error) => {
                let no_space = self.world.setup.kind == Kind::Files
                    && error.kind == ErrorKind::Device(Errno::NOSPC);
                let known = no_space || expected.contains(&error.kind.errno());
                assert!(known || self.world.device.went_wrong() > 0, "for no reason: {error}");
                None
            }
        }
    }

    /// Writes a stamp of its own with `write`; true when all of it was written.
    fn write(
        &mut self,
        file: usize,
        at: u64,
        len: u64,
        write: impl FnOnce(&CachedFile, &[u8]) -> mpage::Result<()>,
    ) -> bool {
        let now = self.world.books.instants.next();
        let content = Content::Stamp(now);
        let resize = Resize::AtLeast(at + len);
        let change = {
            let mut pages = self.world.books.lock();
            pages.files[file].begin_resize(resize, now);
            pages.files[file].begin(at..at + len, content, now)
        };
        let result = write(&self.files[file].0, &content.bytes(at, len));
        let well = self.accept(result, &[Errno::BUSY]).is_some();
        self.end_change(file, change, well);
        self.end_resize(file, resize, well);
        well
    }

    fn end_change(&self, file: usize, change: usize, well: bool) {
        let mut pages = self.world.books.lock();
        let now = self.world.books.instants.next();
        pages.files[file].end(change, well, now);
    }

    /// As [`end_change`](Self::end_change), of a change that removes pages.
    fn end_removal(&self, file: usize, change: usize, well: bool, refused: bool) {
        if well || refused {
            return self.end_change(file, change, well);
        }
        let mut pages = self.world.books.lock();
        let now = self.world.books.instants.next();
        pages.files[file].uncover(change, now);
    }

    fn end_resize(&self, file: usize, resize: Resize, well: bool) {
        let mut pages = self.world.books.lock();
        let now = self.world.books.instants.next();
        let look = || self.files[file].0.size();
        let fits = pages.files[file].end_resize(resize, well, now, look);
        fits.unwrap_or_else(|wrong| panic!("{resize:?}: {wrong}"));
    }

    fn try_write(&mut self, file: usize, at: u64, len: u64) {
        let now = self.world.books.instants.next();
        let content = Content::Stamp(now);
        let change = {
            let mut pages = self.world.books.lock();
            pages.files[file].begin_resize(Resize::AtLeast(at + len), now);
            pages.files[file].begin(at..at + len, content, now)
        };
        let result = self.files[file].0.try_write_at(&content.bytes(at, len), at);
        let written = self.accept(result, &[]);
        let stored = written.unwrap_or(0) as u64;
        let resize = Resize::AtLeast(if stored > 0 { at + stored } else { 0 });
        let now = self.world.books.instants.next();
        self.world.books.lock().files[file].cut(change, stored, PAGE, now);
        self.end_change(file, change, written.is_some());
        self.end_resize(file, resize, written.is_some());
    }

    /// Stores through a pinned page: bytes of one page, inside the file as far as is known.
    fn store(&mut self, file: usize, at: u64, len: u64) {
        let index = at / PAGE;
        let end = (at + len).min((index + 1) * PAGE);
        let pinned = self.files[file].0.pin_page(PageIndex(index));
        let Some(page) = self.accept(pinned, &[Errno::INVAL]) else { return };
        let now = self.world.books.instants.next();
        let content = Content::Stamp(now);
        // What is stored behind the end is not in the file, unless it grows meanwhile.
        let (inside, behind) = {
            let mut pages = self.world.books.lock();
            let model = &mut pages.files[file];
            let middle = model.size().start.clamp(at, end);
            (model.begin(at..middle, content, now), model.begin(middle..end, content, now))
        };
        let offset = usize::try_from(at % PAGE).expect("inside a page");
        let stored = page.write(offset, &content.bytes(at, end - at));
        let well = self.accept(stored, &[Errno::INVAL]) == Some(true);
        drop(page);
        self.end_change(file, inside, well);
        self.end_change(file, behind, false);
    }

    fn read(
        &mut self,
        file: usize,
        at: u64,
        len: u64,
        read: impl FnOnce(&CachedFile, &mut [u8]) -> Option<mpage::Result<usize>>,
    ) {
        let began = self.world.books.instants.next();
        let mut bytes = JUNK.bytes(at, len);
        let Some(result) = read(&self.files[file].0, &mut bytes) else { return };
        let Some(count) = self.accept(result, &[]) else { return };
        let mut pages = self.world.books.lock();
        let now = self.world.books.instants.next();
        pages.note(count as u64);
        let stopped = self.world.device.went_wrong() > 0;
        let read = (&bytes[..count], stopped);
        let right = pages.files[file].read(at, len, read, began, now);
        right.unwrap_or_else(|wrong| panic!("read of file {file}: {wrong}"));
    }

    fn sync(
        &mut self,
        file: usize,
        range: Range<u64>,
        sync: impl FnOnce(&CachedFile) -> mpage::Result<()>,
    ) -> bool {
        let began = self.world.books.instants.next();
        let (open, number) = &self.files[file];
        let result = sync(open);
        self.world.books.told(*number, began, result.is_ok());
        let done = self.accept(result, &[]);
        let sized = range.end == u64::MAX;
        self.promised(file, (range, sized), began, done);
        done.is_some()
    }

    /// A sync of a range, and maybe of the size, ended, `done` or not.
    fn promised(
        &self,
        file: usize,
        (range, sized): (Range<u64>, bool),
        began: u64,
        done: Option<()>,
    ) {
        if done.is_some() {
            let mut pages = self.world.books.lock();
            let now = self.world.books.instants.next();
            pages.files[file].synced(range, sized, began, now);
            let promise = self.world.books.instants.next();
            pages.promises.push(promise);
        }
    }

    fn sync_everything(&mut self) {
        let began = self.world.books.instants.next();
        let result = self.cache.sync();
        let done = self.accept(result, &[]);
        for file in 0..self.files.len() {
            self.promised(file, (0..u64::MAX, true), began, done);
        }
    }

    fn set_len(&mut self, file: usize, size: u64) {
        let now = self.world.books.instants.next();
        let resize = Resize::To(size);
        let change = {
            let mut pages = self.world.books.lock();
            pages.files[file].begin_resize(resize, now);
            pages.files[file].begin(size..u64::MAX, Content::Zeros, now)
        };
        let result = self.files[file].0.set_len(size);
        let well = self.accept(result, &[]).is_some();
        self.end_removal(file, change, well, false);
        self.end_resize(file, resize, well);
    }

    fn zero(
        &mut self,
        file: usize,
        range: Range<u64>,
        zero: impl FnOnce(&CachedFile) -> mpage::Result<()>,
    ) {
        let change = {
            let mut pages = self.world.books.lock();
            let now = self.world.books.instants.next();
            pages.files[file].begin(range, Content::Zeros, now)
        };
        let result = zero(&self.files[file].0);
        // A device that writes no zeros says so, before anything is done.
        let is_refusal = |error: &mpage::Error| error.kind.errno() == Errno::OPNOTSUPP;
        let refused = result.as_ref().is_err_and(is_refusal);
        let well = self.accept(result, &[Errno::OPNOTSUPP]).is_some();
        self.end_removal(file, change, well, refused);
    }

    /// Behind all others, with nothing going wrong any more: all is synced, read and counted.
    fn finish(&mut self) {
        self.world.device.heal();
        for file in 0..self.files.len() {
            let synced = (0..TRIES).any(|_| self.sync(file, 0..u64::MAX, CachedFile::fsync));
            assert!(synced, "file {file} cannot be synced, though nothing goes wrong any more");
            let longest = self.world.books.lock().files[file].size().end + PAGE;
            self.read(file, 0, longest, |open, to| Some(open.read_at(to, 0)));
            let counts = self.files[file].0.mapping().set_counts();
            assert!(
                (counts.dirty, counts.io, counts.locked) == (0, 0, 0),
                "behind a sync of all that there is: {counts:?}"
            );
            if self.world.setup.kind == Kind::Regular {
                let size = self.files[file].0.size();
                assert_eq!(self.world.device.content().len() as u64, size, "the device's size");
            }
        }
    }
}
