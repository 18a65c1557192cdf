//! A thread of a program: makes the calls, and holds each result to the books.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use mpage::units::PageIndex;
use mpage::{
    Advice, BackingDev, CachedFile, DeviceSync, ErrorKind, PageCache, RangeSteps, SyncKind,
};
use mpage_block::Errno;
use mpage_locks::atomic::Ordering;

use crate::model::{Content, Resize};
use crate::program::{Kind, Op, PAGE};
use crate::run::{Ext4, JUNK, World};

/// How often a sync is tried once nothing goes wrong any more: the first may tell of what was.
pub(crate) const TRIES: usize = 3;

const ADVICE: [Advice; 6] = [
    Advice::Normal,
    Advice::Random,
    Advice::Sequential,
    Advice::WillNeed,
    Advice::DontNeed,
    Advice::NoReuse,
];

/// A thread of a program, with an open of each file.
pub(crate) struct Client {
    world: Arc<World>,
    cache: Arc<PageCache>,
    device: DeviceSync,
    ext4: Option<Arc<Ext4>>,
    /// Each with its number in the books.
    files: Vec<(CachedFile, usize)>,
}

impl Client {
    pub(crate) fn new(
        world: &Arc<World>,
        cache: &Arc<PageCache>,
        dev: &Arc<BackingDev>,
        ext4: Option<Arc<Ext4>>,
        files: Vec<CachedFile>,
    ) -> Client {
        let files = files.into_iter().enumerate();
        let files = files.map(|(file, open)| (open, world.books.open(file))).collect();
        let device = cache.device_sync(dev);
        Client { world: Arc::clone(world), cache: Arc::clone(cache), device, ext4, files }
    }

    pub(crate) fn call(&mut self, op: &Op) {
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
            Op::WriteDirect { file, at, len } => self.write_direct(file, at, len),
            Op::TryWrite { file, at, len } => self.try_write(file, at, len),
            Op::StorePinned { file, at, len } => self.store(file, at, len),
            Op::Read { file, at, len } => {
                self.read(file, (at, len), true, |open, to| Some(open.read_at(to, at)));
            }
            Op::ReadDirect { file, at, len } => {
                self.read(file, (at, len), false, |open, to| Some(open.read_direct_at(to, at)));
            }
            Op::TryRead { file, at, len } => {
                self.read(file, (at, len), true, |open, to| open.try_read_at(to, at).map(Ok));
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
            Op::SyncFileRange { file, at, len, steps } => {
                self.sync_steps(file, at..at + len, steps)
            }
            Op::SyncDevice => {
                let began = self.world.books.instants.next();
                let result = self.device.sync();
                self.synced_all(began, result);
            }
            Op::SyncEverything => {
                let began = self.world.books.instants.next();
                let result = match &self.ext4 {
                    Some(ext4) => ext4.fs.sync().map_err(mpage::Error::from),
                    None => self.cache.sync(),
                };
                self.synced_all(began, result);
            }
            Op::SetLen { file, size } => self.set_len(file, size),
            Op::PunchHole { file, at, len } => {
                self.zero(file, at..at + len, |open| open.punch_hole(at..at + len));
            }
            Op::ZeroRange { file, at, len } => {
                self.zero(file, at..at + len, |open| open.zero_range(at..at + len));
            }
            Op::Discard { file, at, len } => self.discard(file, at..at + len),
            Op::Allocate { file, at, len, keep_size } => {
                self.allocate(file, at..at + len, keep_size)
            }
            _ => self.make_other(op),
        }
    }

    /// Calls that neither change bytes nor promise anything.
    fn make_other(&mut self, op: &Op) {
        match *op {
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
            Op::Advise { file, at, len, advice } => {
                let advised = self.files[file].0.advise(at..at + len, ADVICE[usize::from(advice)]);
                let _well = self.accept(advised, &[]);
            }
            Op::StartFetch { file, at, len } => {
                let _started: bool = self.files[file].0.start_fetch(at..at + len, || ());
            }
            Op::Reopen { file } => {
                let mapping = Arc::clone(self.files[file].0.mapping());
                self.files[file] = (CachedFile::new(mapping, true), self.world.books.open(file));
            }
            Op::LetTimePass { ms } => self.world.clock.advance(Duration::from_millis(ms)),
            _ => unreachable!("a call that changes or promises something"),
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
                let no_space = matches!(self.world.setup.kind, Kind::Files | Kind::Ext4)
                    && error.kind == ErrorKind::Device(Errno::NOSPC);
                let known = no_space || expected.contains(&error.kind.errno());
                assert!(known || self.world.went_wrong(), "for no reason: {error}");
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

    /// As [`write`](Self::write), past the cache.
    fn write_direct(&mut self, file: usize, at: u64, len: u64) {
        let now = self.world.books.instants.next();
        let content = Content::Stamp(now);
        let (range, resize) = (at..at + len, Resize::AtLeast(at + len));
        let (inside, behind) = {
            let mut pages = self.world.books.lock();
            pages.begin_past_cache(file, range.clone());
            let model = &mut pages.files[file];
            let middle = model.size().start.clamp(range.start, range.end);
            model.begin_resize(resize, now);
            let inside = model.begin_direct(range.start..middle, content, now);
            (inside, model.begin_direct(middle..range.end, content, now))
        };
        let result = self.files[file].0.write_direct_at(&content.bytes(at, len), at);
        let well = self.accept(result, &[Errno::BUSY]).is_some();
        self.world.books.lock().end_past_cache(file, &range);
        self.end_change(file, inside, well);
        // What one that failed left behind the end is in the file if it grows.
        if well {
            self.end_change(file, behind, well);
        }
        self.end_resize(file, resize, well);
    }

    fn end_change(&self, file: usize, change: usize, well: bool) {
        let mut pages = self.world.books.lock();
        let now = self.world.books.instants.next();
        pages.files[file].end(change, well, now);
    }

    /// As [`end_change`](Self::end_change), of a change that removes pages.
    fn end_removal(&self, file: usize, change: usize, well: bool) {
        if well {
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
        (at, len): (u64, u64),
        cached: bool,
        read: impl FnOnce(&CachedFile, &mut [u8]) -> Option<mpage::Result<usize>>,
    ) {
        let began = self.world.books.instants.next();
        let mut bytes = JUNK.bytes(at, len);
        let Some(result) = read(&self.files[file].0, &mut bytes) else { return };
        let Some(count) = self.accept(result, &[]) else { return };
        let stopped = self.world.went_wrong();
        let mut pages = self.world.books.lock();
        let now = self.world.books.instants.next();
        pages.note(count as u64);
        let read = (&bytes[..count], stopped, cached);
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
            drop(pages);
            // Without a journal, a commit that failed may have left half of its blocks.
            let alone = self.world.alone.load(Ordering::SeqCst);
            let is_whole = alone && !self.world.went_wrong();
            if self.ext4.is_some() && is_whole {
                self.world.keep_cut();
            }
        }
    }

    fn sync_steps(&mut self, file: usize, range: Range<u64>, steps: u8) {
        let has = |bit: u8| steps >> bit & 1 == 1;
        let steps = RangeSteps { wait_before: has(0), write: has(1), wait_after: has(2) };
        let began = self.world.books.instants.next();
        let (open, number) = &self.files[file];
        let result = open.sync_file_range(range, steps);
        if steps.wait_before || steps.wait_after {
            self.world.books.told(*number, began, result.is_ok());
        }
        let _well = self.accept(result, &[]);
    }

    /// A sync of all files ended.
    fn synced_all(&mut self, began: u64, result: mpage::Result<()>) {
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
            pages.files[file].begin_removal(size..u64::MAX, now)
        };
        let result = match &self.ext4 {
            Some(ext4) => ext4.files[file].set_len(size).map_err(mpage::Error::from),
            None => self.files[file].0.set_len(size),
        };
        let well = self.accept(result, &[]).is_some();
        self.end_removal(file, change, well);
        self.end_resize(file, resize, well);
    }

    /// Room for a range of an image's file.
    fn allocate(&mut self, file: usize, range: Range<u64>, keep_size: bool) {
        let Some(ext4) = &self.ext4 else { return };
        let resize = Resize::AtLeast(if keep_size { 0 } else { range.end });
        let now = self.world.books.instants.next();
        self.world.books.lock().files[file].begin_resize(resize, now);
        let result = ext4.files[file].allocate(range, keep_size).map_err(mpage::Error::from);
        let well = self.accept(result, &[Errno::OPNOTSUPP]).is_some();
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
            pages.files[file].begin_removal(range, now)
        };
        let result = zero(&self.files[file].0);
        // Not every image has blocks that were not written.
        let cannot: &[Errno] = if self.ext4.is_some() { &[Errno::OPNOTSUPP] } else { &[] };
        let well = self.accept(result, cannot).is_some();
        self.end_removal(file, change, well);
    }

    /// What is there afterwards is anything that was, or zeros.
    fn discard(&mut self, file: usize, range: Range<u64>) {
        let inside = range.start.next_multiple_of(PAGE)..range.end / PAGE * PAGE;
        let change = {
            let mut pages = self.world.books.lock();
            let now = self.world.books.instants.next();
            let inside = inside.start..inside.end.max(inside.start);
            pages.files[file].begin_removal(inside, now)
        };
        let result = self.files[file].0.discard(range);
        let _well = self.accept(result, &[]);
        self.end_removal(file, change, false);
    }

    /// Behind all others, with nothing going wrong any more: all is synced, read and counted.
    pub(crate) fn finish(&mut self) {
        self.look_at_each();
        if self.ext4.is_some() {
            self.world.keep_cut();
        }
    }

    fn look_at_each(&mut self) {
        for file in 0..self.files.len() {
            let synced = (0..TRIES).any(|_| self.sync(file, 0..u64::MAX, CachedFile::fsync));
            let recovers = self.world.recovers();
            assert_eq!(synced, recovers, "file {file} behind the last thing that goes wrong");
            let longest = self.world.books.lock().files[file].size().end + PAGE;
            self.read(file, (0, longest), true, |open, to| Some(open.read_at(to, 0)));
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
