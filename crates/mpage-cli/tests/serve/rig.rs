//! A server in this process, on a device that can be held, broken and cut off.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use mpage::units::BlockSize;
use mpage::{AddressSpace, Identity, OpenOptions, Operations, Options, PageCache};
use mpage_block::wrap::{Delay, Fault, PowerCut, Trace};
use mpage_block::{BlockDevice, MemoryDevice, MemoryOptions};
use mpage_cli::serve::export::{Export, Terms};
use mpage_cli::serve::server::Server;
use mpage_cli::serve::socket::Socket;

use crate::client::Client;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;

/// A server. The cache outlives what it serves.
pub(crate) struct Rig {
    pub(crate) server: Arc<Server>,
    pub(crate) cache: PageCache,
}

impl Rig {
    pub(crate) fn new(cache: PageCache, space: Arc<AddressSpace>, read_only: bool) -> Rig {
        let terms = Terms { name: "disk".into(), read_only, fast_zero: true };
        Rig { server: Server::new(Export::new(&space, terms)).unwrap(), cache }
    }

    /// Serves the image at `path`.
    pub(crate) fn on_file(path: &Path, memory: u64) -> Rig {
        let cache = cache(memory);
        let options = OpenOptions { image: true, create: false, ..OpenOptions::default() };
        let file = cache.open(path, &options).unwrap();
        let space = Arc::clone(file.mapping());
        Rig::new(cache, space, false)
    }

    /// Serves `bytes` of memory.
    pub(crate) fn in_memory(bytes: u64) -> Rig {
        let device = Arc::new(MemoryDevice::new(bytes, MemoryOptions::default()));
        Rig::on_device(device, bytes, 64 * MIB)
    }

    pub(crate) fn on_device(device: Arc<dyn BlockDevice>, bytes: u64, memory: u64) -> Rig {
        Rig::on_device_as(device, bytes, memory, false)
    }

    pub(crate) fn on_device_as(
        device: Arc<dyn BlockDevice>,
        bytes: u64,
        memory: u64,
        read_only: bool,
    ) -> Rig {
        let cache = cache(memory);
        let dev = cache.add_device(Arc::clone(&device)).unwrap();
        let block_size = BlockSize::new(512).unwrap();
        let map = Arc::new(Identity::image(device, block_size, bytes));
        let ops = Operations { get_block: Some(map), ..Operations::default() };
        let space = cache.add_mapping(&dev, block_size, bytes, ops).unwrap();
        Rig::new(cache, space, read_only)
    }

    /// Our end of a new connection.
    pub(crate) fn connect(&self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.server.connect(Socket::Unix(theirs));
        ours
    }

    pub(crate) fn simple(&self) -> Client {
        Client::simple(self.connect())
    }

    pub(crate) fn structured(&self) -> Client {
        Client::structured(self.connect())
    }
}

fn cache(memory: u64) -> PageCache {
    let memory = usize::try_from(memory).unwrap();
    PageCache::new(&Options { memory, ..Options::default() }).unwrap()
}

/// A trace of a delay of a fault of a power cut of a device in memory.
pub(crate) struct Stack {
    pub(crate) cut: Arc<PowerCut>,
    pub(crate) fault: Arc<Fault>,
    pub(crate) delay: Arc<Delay>,
    pub(crate) trace: Arc<Trace>,
}

impl Stack {
    pub(crate) fn new(bytes: u64) -> Stack {
        let memory = Arc::new(MemoryDevice::new(bytes, MemoryOptions::default()));
        let contents = memory.contents();
        let cut = Arc::new(PowerCut::new(memory, contents));
        let fault = Arc::new(Fault::new(cut.clone()));
        let delay = Arc::new(Delay::manual(fault.clone()));
        delay.hold_only(|_| false);
        let trace = Arc::new(Trace::new(delay.clone()));
        Stack { cut, fault, delay, trace }
    }

    pub(crate) fn serve(&self, bytes: u64, memory: u64) -> Rig {
        Rig::on_device(self.trace.clone(), bytes, memory)
    }

    pub(crate) fn let_go(&self) {
        self.delay.hold_only(|_| false);
        let _released: usize = self.delay.release_all();
    }
}
