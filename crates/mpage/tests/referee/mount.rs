//! An ext4 file system in a file of its own, mounted for as long as it is needed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use mpage_locks::Mutex;
use tempfile::TempDir;

/// Held while a program is started, and while a file is opened that must not be in use: until a
/// program runs, it has the files that were open in this process, and their locks.
pub(crate) static STARTING: Mutex<()> = Mutex::new(());

/// Bytes of the image, which is sparse.
const IMAGE_BYTES: u64 = 256 << 20;

/// How the file system and the device below it are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Bytes of a block of ext4.
    pub(crate) block: u64,
    /// Bytes of a sector of the device: what direct I/O is aligned to.
    pub(crate) sector: u64,
}

impl Layout {
    /// The largest file of ext4 with extents, in bytes.
    pub(crate) fn file_max(&self) -> u64 {
        u64::from(u32::MAX) * self.block
    }
}

/// A mounted file system, which is taken down when this goes, also when a test fails.
pub(crate) struct Mount {
    pub(crate) layout: Layout,
    point: PathBuf,
    device: Option<String>,
    mounted: bool,
    folder: TempDir,
}

impl Mount {
    pub(crate) fn new(layout: Layout) -> Mount {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
        let point = folder.path().join("mount");
        std::fs::create_dir(&point).unwrap();
        let mut mount = Mount { layout, point, device: None, mounted: false, folder };
        mount.make(&image);
        mount
    }

    fn make(&mut self, image: &Path) {
        let (block, sector) = (self.layout.block.to_string(), self.layout.sector.to_string());
        let image = image.to_str().unwrap();
        let losetup = ["--find", "--show", "--sector-size", &sector, image];
        let device = run("mount", "losetup", &losetup).trim().to_owned();
        self.device = Some(device.clone());
        let lazily = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
        let mkfs = ["-q", "-F", "-b", &block, "-E", lazily, &device];
        let _printed = run("e2fsprogs", "mkfs.ext4", &mkfs);
        let _printed = run("mount", "mount", &[&device, self.point.to_str().unwrap()]);
        self.mounted = true;
    }

    /// Where its files are.
    pub(crate) fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _starting = STARTING.lock();
        if self.mounted && !ended("umount", Command::new("umount").arg(&self.point)) {
            // A test that failed has a file there: the mount goes with it.
            let _gone = ended("umount", Command::new("umount").arg("--lazy").arg(&self.point));
        }
        if let Some(device) = &self.device {
            let _gone = ended("losetup", Command::new("losetup").args(["--detach", device]));
        }
        tracing::debug!(folder = %self.folder.path().display(), "the file system is gone");
    }
}

/// True when a program ends well, and says so when not: what is dropped cannot fail a test that has
/// failed already.
fn ended(name: &str, command: &mut Command) -> bool {
    match command.status() {
        Ok(status) if status.success() => true,
        other => {
            eprintln!("{name}: {other:?}");
            false
        }
    }
}

/// Runs a program of the Debian package `package`, and gives back what it printed.
fn run(package: &str, program: &str, arguments: &[&str]) -> String {
    let starting = STARTING.lock();
    let output = Command::new(program).args(arguments).output();
    drop(starting);
    let output =
        output.unwrap_or_else(|error| panic!("{program}: {error}: install package {package}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} needs root: {errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
