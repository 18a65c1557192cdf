//! The image, and who has it mounted.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A format of an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) name: &'static str,
    /// Arguments of mke2fs.
    pub(crate) make: &'static [&'static str],
    /// Whether files have extents.
    pub(crate) has_extents: bool,
    /// Whether inodes have room for parts of seconds.
    pub(crate) fine_times: bool,
}

/// Megabytes of an image, which is sparse.
const SIZE: &str = "256M";

/// How the kernel mounts: with what FUSE does not allow either.
const KERNEL_OPTIONS: &str = "loop,noatime,nosuid,nodev";

/// Who mounts the copy that is compared with the kernel's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Mpage,
    Fuse2fs,
    Kernel,
    /// The kernel, with groups as BSD gives them to new files: the folder's.
    OtherGroups,
}

/// A new image in `folder`.
pub(crate) fn image(layout: &Layout, folder: &Path) -> PathBuf {
    let image = folder.join("image");
    let (words, image_word) = (layout.make, image.to_str().unwrap());
    let arguments = [&["-q", "-F"], words, &[image_word, SIZE]].concat();
    let _printed = run("e2fsprogs", "mke2fs", &arguments);
    image
}

/// A mounted image. Dropped, it is unmounted, also when a test fails.
pub(crate) struct Mount {
    point: PathBuf,
    server: Option<Child>,
    folder: TempDir,
}

impl Mount {
    /// Mounts a copy of `image`.
    pub(crate) fn new(server: Server, image: &Path) -> Mount {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("image");
        let words = ["--sparse=always", image.to_str().unwrap(), copy.to_str().unwrap()];
        let _printed = run("coreutils", "cp", &words);
        // Other users pass through it.
        let _printed = run("coreutils", "chmod", &["755", folder.path().to_str().unwrap()]);
        let point = folder.path().join("mount");
        std::fs::create_dir(&point).unwrap();
        let (copy, place) = (copy.to_str().unwrap(), point.to_str().unwrap());
        let server = match server {
            Server::Kernel => by_kernel(KERNEL_OPTIONS, copy, place),
            Server::OtherGroups => by_kernel(&format!("{KERNEL_OPTIONS},grpid"), copy, place),
            Server::Fuse2fs => {
                let options = "allow_other,default_permissions";
                let _printed = run("fuse2fs", "fuse2fs", &[copy, place, "-o", options]);
                None
            }
            Server::Mpage => Some(mpage(copy, place)),
        };
        Mount { point, server, folder }
    }

    /// Where its files are.
    pub(crate) fn path(&self) -> &Path {
        &self.point
    }

    /// Unmounts it, and has e2fsck look at what is left.
    pub(crate) fn end(mut self) {
        let place = self.point.to_str().unwrap().to_owned();
        match self.server.take() {
            Some(mut server) => {
                let ended = Command::new(env!("CARGO_BIN_EXE_mpage"))
                    .args(["umount", &place])
                    .status()
                    .unwrap();
                assert!(ended.success(), "mpage umount: {ended}");
                let ended = server.wait().unwrap();
                assert!(ended.success(), "mpage mount: {ended}");
            }
            None => drop(run("mount", "umount", &[&place])),
        }
        let image = self.folder.path().join("image");
        let _printed = run("e2fsprogs", "e2fsck", &["-f", "-n", image.to_str().unwrap()]);
        self.point = PathBuf::new();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.point.as_os_str().is_empty() {
            return;
        }
        // A file of a program that failed may be open there: the mount goes with it.
        ended("umount", Command::new("umount").arg("--lazy").arg(&self.point));
        if let Some(server) = &mut self.server
            && let Err(error) = server.kill().and_then(|()| server.wait())
        {
            eprintln!("process {} is left: {error}", server.id());
        }
    }
}

fn by_kernel(options: &str, image: &str, place: &str) -> Option<Child> {
    let _printed = run("mount", "mount", &["-t", "ext4", "-o", options, image, place]);
    None
}

/// The command, once it says that it is ready.
fn mpage(image: &str, place: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mpage"));
    let command = command.args(["mount", "--allow-other", image, place]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    let stdout = child.stdout.take().expect("it was asked for as a pipe");
    let _bytes: usize = BufReader::new(stdout).read_line(&mut ready).unwrap();
    if !ready.starts_with("mounted ") {
        panic!("mpage mount: {:?}", child.wait());
    }
    child
}

/// Says when a program does not end well: what is dropped cannot fail a test that failed already.
fn ended(name: &str, command: &mut Command) {
    let status = command.status();
    if !status.as_ref().is_ok_and(|status| status.success()) {
        eprintln!("{name}: {status:?}");
    }
}

/// Runs a program of the Debian package `package`, and gives back what it printed.
fn run(package: &str, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program}: {error}: install package {package}"));
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {printed}{errors}");
    printed
}
