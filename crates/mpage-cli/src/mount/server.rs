//! FUSE's requests, each translated into what is done to the image.
//!
//! 1. A thread that takes requests does not wait for the device: it tries what it was asked for,
//!    and hands what would have waited to a lane of workers. It waits only while writes that wait
//!    hold all the memory that there is for them, for one of them to end.
//! 2. What a request has done already is not done again by the worker that goes on with it.
//! 3. Nothing here waits for something that only another request can bring.
//!
//! Linux: include/uapi/linux/fuse.h; fs/fuse/.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};
use mpage_ext4::{At, Attributes, FileSystem, Result, without_waiting};
use mpage_locks::Mutex;
use mpage_locks::atomic::AtomicBool;

use super::attributes;
use super::content::REQUEST_BYTES_MAX;
use super::convert::{attributes, errno, inode};
use super::handles::Handle;
use super::listing::{self, Entries, Position};
use super::names;
use super::pending_read::PendingRead;
use super::shared::{FOREVER, Shared};
use super::time::Time;
use crate::budget::Budget;
use crate::workers::{Lane, Workers};

/// What writes may hold while they wait for a worker, in bytes.
const WAITING_BYTES: usize = 64 << 20;

/// Requests that the kernel may send without waiting for their answers.
const BACKGROUND_MAX: u16 = 64;

/// What is asked of the kernel, as far as it can.
const WANTED: [InitFlags; 8] = [
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_ASYNC_DIO,
];

/// An image, to be served by FUSE.
pub struct Server {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
    budget: Arc<Budget>,
    /// Nobody stops waiting for the budget.
    never: AtomicBool,
}

/// What is left of a server when the kernel is done with it.
pub struct Ending {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
}

impl Ending {
    /// Ends what was begun, and closes what programs left open; false when something did not end
    /// within `limit`.
    pub fn finish(&self, limit: Duration) -> bool {
        self.shared.handles.close_all();
        self.workers.wait_until_idle(limit)
    }
}

impl Server {
    /// Serves `fs`.
    ///
    /// # Errors
    ///
    /// The system's, when it has no threads.
    pub fn new(fs: Arc<FileSystem>) -> io::Result<(Server, Ending)> {
        let shared = Arc::new(Shared::new(fs));
        let workers = Arc::new(Workers::start()?);
        let ending = Ending { shared: Arc::clone(&shared), workers: Arc::clone(&workers) };
        let budget = Arc::new(Budget::new(WAITING_BYTES));
        Ok((Server { shared, workers, budget, never: AtomicBool::new(false) }, ending))
    }

    /// Has `operation` done by a worker of `lane`.
    fn run(&self, lane: Lane, operation: impl FnOnce(&Shared) + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        self.workers.run(lane, Box::new(move || operation(&shared)));
    }

    /// Does `operation` at once, or else has it done by a worker of `lane`, and gives `reply` what
    /// came of it. `operation` may be begun twice.
    fn answer<T: Send + 'static>(
        &self,
        lane: Lane,
        mut operation: impl FnMut(&Shared) -> Result<T> + Send + 'static,
        reply: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        match without_waiting(|| operation(&self.shared)) {
            Some(result) => reply(result),
            None => self.run(lane, move |shared| reply(operation(shared))),
        }
    }

    /// As [`answer`](Self::answer), by a worker in any case.
    fn answer_later<T: Send + 'static>(
        &self,
        lane: Lane,
        operation: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
        reply: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        self.run(lane, move |shared| reply(operation(shared)));
    }

    /// Reads entries into `reply`, which `send` sends.
    fn list<R: Entries + Send + 'static>(
        &self,
        (node, handle, offset): (INodeNo, FileHandle, u64),
        mut reply: R,
        send: impl FnOnce(R, Result<()>) + Send + 'static,
    ) {
        let mut at = offset;
        let mut read = move |shared: &Shared, reply: &mut R| {
            let handle = shared.handles.get(handle)?;
            let mut position = handle.directory()?.lock();
            let result = listing::read(shared, &mut position, (inode(node), at), reply);
            // Who goes on with it does not begin again.
            at = position.at();
            // An error behind entries is met by who asks for those.
            if at == offset { result } else { Ok(()) }
        };
        match without_waiting(|| read(&self.shared, &mut reply)) {
            Some(result) => send(reply, result),
            None => self.run(Lane::Metadata, move |shared| {
                let result = read(shared, &mut reply);
                send(reply, result);
            }),
        }
    }

    /// Stores what can be stored at once of a write; returns how much.
    fn try_write(
        &self,
        handle: FileHandle,
        (data, offset): (&[u8], u64),
        takes_bits: bool,
    ) -> Result<usize> {
        let shared = &self.shared;
        let handle = shared.handles.get(handle)?;
        let open = handle.file()?;
        let take = || shared.privileges.take(&shared.fs, open, takes_bits);
        if open.is_direct || without_waiting(take).transpose()?.is_none() {
            return Ok(0);
        }
        open.file.try_write_at(data, offset)
    }
}

/// What a program asks for when it makes something.
fn wanted(request: &Request, mode: u32, umask: u32, device: u32) -> names::Wanted {
    names::Wanted { mode, umask, owner: (request.uid(), request.gid()), device }
}

fn entry(reply: ReplyEntry) -> impl FnOnce(Result<Attributes>) + Send {
    move |result| match result {
        Ok(known) => reply.entry(&FOREVER, &attributes(&known), Generation(0)),
        Err(error) => reply.error(errno(&error)),
    }
}

fn attribute(reply: ReplyAttr) -> impl FnOnce(Result<Attributes>) + Send {
    move |result| match result {
        Ok(known) => reply.attr(&FOREVER, &attributes(&known)),
        Err(error) => reply.error(errno(&error)),
    }
}

fn empty(reply: ReplyEmpty) -> impl FnOnce(Result<()>) + Send {
    move |result| match result {
        Ok(()) => ReplyEmpty::ok(reply),
        Err(error) => reply.error(errno(&error)),
    }
}

/// Answers with a value that may be too long for the caller, who gives room for `size` bytes, or
/// asks by none how many there are.
fn value(reply: ReplyXattr, size: u32) -> impl FnOnce(Result<Vec<u8>>) + Send {
    move |result| match result {
        Ok(bytes) if size == 0 => {
            reply.size(u32::try_from(bytes.len()).expect("at most 64 KiB, and some names"));
        }
        Ok(bytes) if bytes.len() <= size as usize => reply.data(&bytes),
        Ok(_) => reply.error(fuser::Errno::ERANGE),
        Err(error) => reply.error(errno(&error)),
    }
}

fn count(count: usize) -> u32 {
    u32::try_from(count).expect("no longer than a request")
}

/// True when what somebody writes takes setuid and setgid from a file. Linux: `CAP_FSETID`.
fn takes_bits(request: &Request) -> bool {
    request.uid() != 0
}

/// How the kernel is to treat an open file: it keeps what it read, and need not tell of each close.
const FILE_FLAGS: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE
    .union(FopenFlags::FOPEN_NOFLUSH)
    .union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

/// How the kernel is to treat an open directory.
const DIRECTORY_FLAGS: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_CACHE_DIR);

impl Filesystem for Server {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in WANTED {
            if config.add_capabilities(wanted).is_err() {
                tracing::info!("this kernel does not know {wanted:?}");
            }
        }
        let wrong = |_| io::Error::other("the kernel's FUSE refuses our limits");
        let _before = config.set_max_write(REQUEST_BYTES_MAX).map_err(wrong)?;
        let wrong = |_| io::Error::other("the kernel's FUSE refuses our limits");
        let _before = config.set_max_background(BACKGROUND_MAX).map_err(wrong)?;
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.as_bytes().to_vec();
        let look_up = move |shared: &Shared| shared.look_up(inode(parent), &name);
        self.answer(Lane::Metadata, look_up, move |result| match result.transpose() {
            Some(known) => entry(reply)(known),
            // The kernel may remember that there is none.
            None => reply.entry(&FOREVER, &super::convert::nothing(), Generation(0)),
        });
    }

    fn forget(&self, _request: &Request, node: INodeNo, count: u64) {
        if self.shared.fs.unhold(inode(node), count) {
            self.run(Lane::Metadata, move |shared| shared.fs.release(inode(node)));
        }
    }

    fn getattr(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let look = move |shared: &Shared| shared.fs.attributes(inode(node));
        self.answer(Lane::Metadata, look, attribute(reply));
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<TimeOrNow>,
        modified: Option<TimeOrNow>,
        changed: Option<Time>,
        _handle: Option<FileHandle>,
        _made: Option<Time>,
        _touched: Option<Time>,
        _saved: Option<Time>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let wanted = attributes::Wanted { mode, uid, gid, accessed, modified, changed };
        let by = request.uid();
        let set = move |shared: &Shared| shared.set_attributes(inode(node), by, &wanted);
        let Some(size) = size else {
            return self.answer(Lane::Metadata, set, attribute(reply));
        };
        let takes_bits = takes_bits(request);
        let cut = move |shared: &Shared| {
            shared.set_size(inode(node), size, takes_bits)?;
            if wanted.is_nothing() { shared.fs.attributes(inode(node)) } else { set(shared) }
        };
        self.answer_later(Lane::Write, cut, attribute(reply));
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        let read = move |shared: &Shared| shared.fs.read_link(inode(node));
        self.answer(Lane::Metadata, read, move |result| match result {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let name = name.as_bytes().to_vec();
        let wanted = wanted(request, mode, umask, device);
        let mut made = None;
        let make = move |shared: &Shared| shared.create(&mut made, inode(parent), &name, wanted);
        self.answer(Lane::Metadata, make, entry(reply));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let name = name.as_bytes().to_vec();
        let wanted = wanted(request, mode, umask, 0);
        let mut made = None;
        let make =
            move |shared: &Shared| shared.make_directory(&mut made, inode(parent), &name, wanted);
        self.answer(Lane::Metadata, make, entry(reply));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        let remove = move |shared: &Shared| shared.fs.unlink(inode(parent), &name);
        self.answer(Lane::Metadata, remove, empty(reply));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        let remove = move |shared: &Shared| shared.fs.rmdir(inode(parent), &name);
        self.answer(Lane::Metadata, remove, empty(reply));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let name = name.as_bytes().to_vec();
        let target = target.as_os_str().as_bytes().to_vec();
        let owner = (request.uid(), request.gid());
        let mut made = None;
        let make = move |shared: &Shared| {
            shared.make(&mut made, |fs| fs.symlink(inode(parent), &name, &target, owner))
        };
        self.answer(Lane::Metadata, make, entry(reply));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let [name, new_name] = [name, new_name].map(|name| name.as_bytes().to_vec());
        let rename = move |shared: &Shared| {
            let from = At { parent: inode(parent), name: &name };
            let to = At { parent: inode(new_parent), name: &new_name };
            shared.rename(from, to, flags)
        };
        self.answer(Lane::Metadata, rename, empty(reply));
    }

    fn link(
        &self,
        _request: &Request,
        node: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let name = name.as_bytes().to_vec();
        let mut made = None;
        let make = move |shared: &Shared| {
            shared.make(&mut made, |fs| {
                fs.link(inode(node), inode(parent), &name)?;
                Ok(inode(node))
            })
        };
        self.answer(Lane::Metadata, make, entry(reply));
    }

    fn open(&self, _request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let open = move |shared: &Shared| shared.open(inode(node), flags.0);
        self.answer(Lane::Metadata, open, move |result| match result {
            Ok(handle) => reply.opened(handle, FILE_FLAGS),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let name = name.as_bytes().to_vec();
        let wanted = wanted(request, mode, umask, 0);
        let (mut made, mut known) = (None, None);
        let make = move |shared: &Shared| {
            let known = match &known {
                Some(known) => known,
                None => known.insert(shared.create(&mut made, inode(parent), &name, wanted)?),
            };
            Ok((shared.open(known.inode, flags)?, attributes(known)))
        };
        self.answer(Lane::Metadata, make, move |result| match result {
            Ok((handle, known)) => {
                reply.created(&FOREVER, &known, Generation(0), handle, FILE_FLAGS);
            }
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn read(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let handle = match self.shared.handles.get(handle) {
            Ok(handle) => handle,
            Err(error) => return reply.error(errno(&error)),
        };
        let read = PendingRead::new(handle, (offset, size as usize), reply);
        if !read.try_answer() {
            read.answer_later(&self.workers);
        }
    }

    fn write(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let takes_bits = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let stored = match self.try_write(handle, (data, offset), takes_bits) {
            Ok(stored) if stored == data.len() => return reply.written(count(stored)),
            Ok(stored) => stored,
            Err(error) => return reply.error(errno(&error)),
        };
        let rest = data[stored..].len();
        let _taken = self.budget.take(rest, &self.never);
        let budget = Arc::clone(&self.budget);
        let rest = data[stored..].to_vec();
        self.run(Lane::Write, move |shared| {
            let write = || {
                let handle = shared.handles.get(handle)?;
                let open = handle.file()?;
                shared.privileges.take(&shared.fs, open, takes_bits)?;
                open.write(&rest, offset + stored as u64)
            };
            match write() {
                Ok(written) => reply.written(count(stored + written)),
                Err(_) if stored > 0 => reply.written(count(stored)),
                Err(error) => reply.error(errno(&error)),
            }
            budget.give(rest.len());
        });
    }

    fn release(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let open = self.shared.handles.remove(handle);
        ReplyEmpty::ok(reply);
        // The last one to close a file without names frees it.
        if self.shared.fs.is_removed(inode(node)) {
            return self.run(Lane::Metadata, move |_| drop(open));
        }
        // What closing would wait for is left to a later one.
        let _closed = without_waiting(|| {
            drop(open);
            Ok(())
        });
    }

    fn fsync(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        only_data: bool,
        reply: ReplyEmpty,
    ) {
        let sync = move |shared: &Shared| shared.sync(handle, only_data);
        self.answer_later(Lane::Durable, sync, empty(reply));
    }

    fn opendir(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let position = Mutex::new(Position::default());
        reply.opened(self.shared.handles.add(Handle::Directory(position)), DIRECTORY_FLAGS);
    }

    fn readdir(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        self.list((node, handle, offset), reply, |reply, result| match result {
            Ok(()) => ReplyDirectory::ok(reply),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        self.list((node, handle, offset), reply, |reply, result| match result {
            Ok(()) => ReplyDirectoryPlus::ok(reply),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        drop(self.shared.handles.remove(handle));
        ReplyEmpty::ok(reply);
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _only_data: bool,
        reply: ReplyEmpty,
    ) {
        let sync = |shared: &Shared| shared.fs.sync_names();
        self.answer_later(Lane::Durable, sync, empty(reply));
    }

    fn statfs(&self, _request: &Request, _node: INodeNo, reply: ReplyStatfs) {
        let look = |shared: &Shared| shared.fs.statfs();
        self.answer(Lane::Metadata, look, move |result| match result {
            Ok(room) => reply.statfs(
                room.blocks,
                room.free,
                room.available,
                room.files,
                room.free_files,
                count_of_block(room.block_bytes),
                count(room.name_bytes_max),
                count_of_block(room.block_bytes),
            ),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn setxattr(
        &self,
        _request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (name, value) = (name.as_bytes().to_vec(), value.to_vec());
        let set = move |shared: &Shared| shared.set_xattr(inode(node), &name, &value, flags);
        self.answer(Lane::Metadata, set, empty(reply));
    }

    fn getxattr(
        &self,
        _request: &Request,
        node: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let name = name.as_bytes().to_vec();
        let get = move |shared: &Shared| shared.xattr(inode(node), &name);
        self.answer(Lane::Metadata, get, value(reply, size));
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let uid = request.uid();
        let list = move |shared: &Shared| shared.xattr_names(inode(node), uid);
        self.answer(Lane::Metadata, list, value(reply, size));
    }

    fn removexattr(&self, _request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.as_bytes().to_vec();
        let remove = move |shared: &Shared| shared.remove_xattr(inode(node), &name);
        self.answer(Lane::Metadata, remove, empty(reply));
    }

    fn fallocate(
        &self,
        request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let range = offset..offset.saturating_add(length);
        let takes_bits = takes_bits(request);
        let allocate = move |shared: &Shared| shared.allocate(handle, range, mode, takes_bits);
        self.answer_later(Lane::Write, allocate, empty(reply));
    }

    fn lseek(
        &self,
        _request: &Request,
        _node: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let (Ok(from), Some(hole)) = (u64::try_from(offset), seeks_hole(whence)) else {
            return reply.error(fuser::Errno::EINVAL);
        };
        let seek = move |shared: &Shared| shared.seek(handle, from, hole);
        self.answer(Lane::Read, seek, move |result| match result {
            Ok(found) => reply.offset(i64::try_from(found).expect("inside of a file")),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _from: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _to: INodeNo,
        to: FileHandle,
        to_offset: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let takes_bits = takes_bits(request);
        let copy = move |shared: &Shared| {
            shared.copy((from, from_offset), (to, to_offset), len, takes_bits)
        };
        self.answer_later(Lane::Write, copy, move |result| match result {
            Ok(copied) => reply.written(u32::try_from(copied).expect("at most 64 MiB")),
            Err(error) => reply.error(errno(&error)),
        });
    }

    fn ioctl(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(fuser::Errno::ENOTTY);
    }

    fn poll(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        // The kernel answers for all files then: they are always ready.
        reply.error(fuser::Errno::ENOSYS);
    }
}

fn count_of_block(bytes: u64) -> u32 {
    u32::try_from(bytes).expect("at most a page")
}

/// Whether `whence` asks for a hole, or for data; `None` when for neither.
fn seeks_hole(whence: i32) -> Option<bool> {
    const SEEK_DATA: i32 = 3;
    const SEEK_HOLE: i32 = 4;
    match whence {
        SEEK_DATA => Some(false),
        SEEK_HOLE => Some(true),
        _ => None,
    }
}
