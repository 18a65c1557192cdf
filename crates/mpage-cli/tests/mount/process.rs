//! The commands as processes.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use mpage_locks::thread::{self, JoinHandle};

/// Runs the command to its end, which it is expected to find by itself.
pub(crate) fn run(args: &[&str]) -> (ExitStatus, String, String) {
    let output = command(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status, text(output.stdout), text(output.stderr))
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mpage"));
    let _command = command.args(args).env_remove("MPAGE_LOG").stdin(Stdio::null());
    command
}

/// A folder with an image and a directory to mount it on.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// Without an image.
    pub(crate) fn empty() -> Place {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(place.point()).unwrap();
        place
    }

    /// With an ext4 image of 32 MiB.
    pub(crate) fn new() -> Place {
        let place = Place::empty();
        let image = place.image();
        let mut mke2fs = Command::new("mke2fs");
        let status = mke2fs.args(["-q", "-F", "-t", "ext4"]).arg(image).arg("32M").status();
        assert!(status.expect("mke2fs is in Debian's package e2fsprogs").success());
        place
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.folder.path().join("disk.img")
    }

    pub(crate) fn point(&self) -> PathBuf {
        self.folder.path().join("dir")
    }

    /// Sees to it that e2fsck finds nothing in the image.
    pub(crate) fn check(&self) {
        let output = Command::new("e2fsck").arg("-fn").arg(self.image()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && !text.contains("Fix?"), "{text}");
    }
}

impl Drop for Place {
    /// A mount of a test that failed goes.
    fn drop(&mut self) {
        let _unmounted = rustix::mount::unmount(self.point(), rustix::mount::UnmountFlags::DETACH);
    }
}

/// A mount that is ready. It is killed when this is dropped.
pub(crate) struct Mounted {
    child: Child,
    /// The line that said so.
    pub(crate) ready: String,
    told: Option<JoinHandle<String>>,
}

impl Mounted {
    pub(crate) fn start(place: &Place, args: &[&str]) -> Mounted {
        let (image, point) = (place.image(), place.point());
        let mut all = vec!["mount"];
        all.extend(args);
        all.extend([&image, &point].map(|path: &PathBuf| path.to_str().unwrap()));
        let child = command(&all).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let told = thread::spawn("stderr", move || {
            let mut text = String::new();
            let _bytes: usize = stderr.read_to_string(&mut text).unwrap();
            text
        });
        let mut ready = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let _bytes: usize = stdout.read_line(&mut ready).unwrap();
        let mut mounted = Mounted { child, ready, told: Some(told.unwrap()) };
        if mounted.ready.is_empty() {
            panic!("it did not start: {:?}", mounted.end());
        }
        mounted
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end: the exit status, if no signal ended it, and what it told.
    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        let told = self.told.take().expect("it ends once").join().unwrap();
        (status.code(), told)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.told.is_some() {
            self.child.kill().unwrap();
            let _status = self.child.wait().unwrap();
        }
    }
}

/// Ends the mount at `point` as a person would.
pub(crate) fn umount(point: &Path) -> (Option<i32>, String) {
    let (status, _, told) = run(&["umount", point.to_str().unwrap()]);
    (status.code(), told)
}
