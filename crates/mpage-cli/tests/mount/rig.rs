//! A mount in this process, of an image on a device that can be held and broken.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mpage::{Options, PageCache};
use mpage_block::wrap::{Delay, Fault};
use mpage_block::{BioOp, MemoryDevice, MemoryOptions};
use mpage_cli::mount;
use mpage_cli::mount::options::Words;
use mpage_cli::mount::server::Ending;
use mpage_cli::umount::detach;
use mpage_ext4::FileSystem;
use mpage_locks::thread::{self, JoinHandle};

/// How long requests that were begun may take in the end.
const FINISH_LIMIT: Duration = Duration::from_secs(60);

/// A mount. The image is in memory.
pub(crate) struct Rig {
    pub(crate) fault: Arc<Fault>,
    pub(crate) delay: Arc<Delay>,
    pub(crate) fs: Arc<FileSystem>,
    folder: tempfile::TempDir,
    memory: Arc<MemoryDevice>,
    ending: Option<Ending>,
    serving: Option<JoinHandle<std::io::Result<()>>>,
    _cache: Arc<PageCache>,
}

impl Rig {
    /// Of an ext4 image of 32 MiB, with a cache of `memory` bytes.
    pub(crate) fn new(memory: usize) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let status =
            Command::new("mke2fs").args(["-q", "-F", "-t", "ext4"]).arg(&image).arg("32M").status();
        assert!(status.expect("mke2fs is in Debian's package e2fsprogs").success());
        let contents = std::fs::read(&image).unwrap();
        let device = Arc::new(MemoryDevice::from_contents(&contents, MemoryOptions::default()));
        let fault = Arc::new(Fault::new(Arc::clone(&device) as _));
        let delay = Arc::new(Delay::manual(Arc::clone(&fault) as _));
        delay.hold_only(|_| false);
        let cache = Arc::new(PageCache::new(&Options { memory, ..Options::default() }).unwrap());
        let dev = cache.add_device(Arc::clone(&delay) as _).unwrap();
        let how = mpage_ext4::Options { commit_interval: Duration::ZERO, writable: true };
        let fs = FileSystem::open(&cache, &dev, contents.len() as u64, &how).unwrap();
        let point = folder.path().join("dir");
        std::fs::create_dir(&point).unwrap();
        let (session, ending) = mount::start(&fs, &point, "rig", &Words::default()).unwrap();
        let serving = thread::spawn("serving", move || session.run()).unwrap();
        let (ending, serving) = (Some(ending), Some(serving));
        Rig { fault, delay, fs, folder, memory: device, ending, serving, _cache: cache }
    }

    pub(crate) fn point(&self) -> PathBuf {
        self.folder.path().join("dir")
    }

    /// Holds all writes from now on.
    pub(crate) fn hold_writes(&self) {
        self.delay.hold_only(|bio| bio.op() == BioOp::Write);
    }

    /// Holds nothing any more.
    pub(crate) fn let_go(&self) {
        self.delay.hold_only(|_| false);
        let _released: usize = self.delay.release_all();
    }

    fn unmount(&mut self) {
        let Some(serving) = self.serving.take() else { return };
        self.let_go();
        detach(&self.point()).unwrap();
        serving.join().unwrap().unwrap();
        assert!(self.ending.take().unwrap().finish(FINISH_LIMIT), "all requests end");
    }

    /// Unmounts it, and sees to it that e2fsck finds nothing in the image.
    pub(crate) fn close(mut self) {
        self.unmount();
        // What failed and was written after all is told once.
        let _told = self.fs.sync();
        self.fs.close().unwrap();
        let image = self.folder.path().join("image");
        std::fs::write(&image, self.memory.contents()).unwrap();
        let output = Command::new("e2fsck").arg("-fn").arg(&image).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !text.contains("Fix?"), "{text}");
    }
}

impl Drop for Rig {
    /// The mount of a test that failed goes.
    fn drop(&mut self) {
        if self.serving.is_some() {
            self.let_go();
            let _unmounted =
                rustix::mount::unmount(self.point(), rustix::mount::UnmountFlags::DETACH);
        }
    }
}
