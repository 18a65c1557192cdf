//! A file system that keeps names and sizes, and of what is written to its files nothing: what no
//! server of FUSE passes. Mounted until `umount`:
//!
//! ```text
//! cargo run --release -p mpage-bench --example discard DIR
//! ```

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};
use mpage_locks::Mutex;

/// How long the kernel may believe what it is told.
const FOREVER: Duration = Duration::from_secs(1 << 30);

/// Bytes of a request at most.
const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// Threads that take requests.
const THREADS: usize = 2;

const FILE_FLAGS: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE
    .union(FopenFlags::FOPEN_NOFLUSH)
    .union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

/// What is kept: inode `n` is entry `n - 1`.
#[derive(Default)]
struct Kept {
    inodes: Vec<Inode>,
    names: HashMap<(u64, OsString), u64>,
}

#[derive(Default)]
struct Inode {
    size: u64,
    /// What is in a directory; nothing is one for a file.
    entries: Option<Vec<(OsString, u64)>>,
}

impl Kept {
    fn add(&mut self, parent: INodeNo, name: &OsStr, inode: Inode) -> FileAttr {
        self.inodes.push(inode);
        let number = self.inodes.len() as u64;
        let _before = self.names.insert((parent.0, name.to_owned()), number);
        if let Some(Inode { entries: Some(entries), .. }) = self.inode(parent) {
            entries.push((name.to_owned(), number));
        }
        attributes(number, &self.inodes[self.inodes.len() - 1])
    }

    fn inode(&mut self, number: INodeNo) -> Option<&mut Inode> {
        let index = usize::try_from(number.0).expect("inodes are counted in memory") - 1;
        self.inodes.get_mut(index)
    }

    fn attributes(&mut self, number: INodeNo) -> Option<FileAttr> {
        self.inode(number).map(|inode| attributes(number.0, inode))
    }
}

fn attributes(number: u64, inode: &Inode) -> FileAttr {
    let (kind, perm, nlink) = match inode.entries {
        Some(_) => (FileType::Directory, 0o755, 2),
        None => (FileType::RegularFile, 0o644, 1),
    };
    FileAttr {
        ino: INodeNo(number),
        size: inode.size,
        blocks: inode.size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// The server.
struct Discard(Mutex<Kept>);

impl Discard {
    fn new() -> Discard {
        let root = Inode { entries: Some(Vec::new()), ..Inode::default() };
        Discard(Mutex::new(Kept { inodes: vec![root], ..Kept::default() }))
    }
}

impl Filesystem for Discard {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS | InitFlags::FUSE_HANDLE_KILLPRIV_V2;
        let refused = |_| std::io::Error::other("the kernel's FUSE refuses what is asked for");
        config.add_capabilities(wanted).map_err(refused)?;
        let refused = |_| std::io::Error::other("the kernel's FUSE refuses our limits");
        config.set_max_write(REQUEST_BYTES_MAX).map(drop).map_err(refused)
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut kept = self.0.lock();
        let number = kept.names.get(&(parent.0, name.to_owned())).copied();
        match number.and_then(|number| kept.attributes(INodeNo(number))) {
            Some(found) => reply.entry(&FOREVER, &found, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let found = self.0.lock().attributes(node);
        match found {
            Some(found) => reply.attr(&FOREVER, &found),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let folder = Inode { entries: Some(Vec::new()), ..Inode::default() };
        let made = self.0.lock().add(parent, name, folder);
        reply.entry(&FOREVER, &made, Generation(0));
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.0.lock().add(parent, name, Inode::default());
        reply.created(&FOREVER, &made, Generation(0), FileHandle(0), FILE_FLAGS);
    }

    fn open(&self, _request: &Request, _node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FILE_FLAGS);
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        static ZEROS: [u8; REQUEST_BYTES_MAX as usize] = [0; REQUEST_BYTES_MAX as usize];
        let len = self.0.lock().inode(node).map_or(0, |inode| inode.size.saturating_sub(offset));
        let len = len.min(size.into()).min(REQUEST_BYTES_MAX.into());
        reply.data(&ZEROS[..usize::try_from(len).expect("no longer than a request")]);
    }

    fn write(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if let Some(inode) = self.0.lock().inode(node) {
            inode.size = inode.size.max(offset + data.len() as u64);
        }
        reply.written(u32::try_from(data.len()).expect("no longer than a request"));
    }

    fn fsync(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        ReplyEmpty::ok(reply);
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        ReplyEmpty::ok(reply);
    }

    fn readdir(
        &self,
        _request: &Request,
        node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut kept = self.0.lock();
        if let Some(Inode { entries: Some(entries), .. }) = kept.inode(node) {
            let from = usize::try_from(offset).expect("an offset that was told");
            for (index, (name, number)) in entries.iter().enumerate().skip(from) {
                let kind = FileType::RegularFile;
                if reply.add(INodeNo(*number), index as u64 + 1, kind, name) {
                    break;
                }
            }
        }
        ReplyDirectory::ok(reply);
    }
}

fn main() -> ExitCode {
    let Some(place) = std::env::args_os().nth(1) else {
        eprintln!("usage: discard DIR");
        return ExitCode::FAILURE;
    };
    let mut config = Config::default();
    let name = MountOption::FSName("discard".to_owned());
    config.mount_options = vec![name, MountOption::DefaultPermissions];
    (config.n_threads, config.clone_fd) = (Some(THREADS), true);
    match fuser::mount(Discard::new(), &place, &config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("discard: {}: {error}", place.display());
            ExitCode::FAILURE
        }
    }
}
