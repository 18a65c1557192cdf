//! `qemu-storage-daemon`: makes files of block devices, by FUSE.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::program;
use crate::failure::Failure;
use crate::rig::daemon::Daemon;
use crate::rig::folder::{Folder, word};
use crate::tools;

/// A file that qemu-storage-daemon exports by FUSE.
///
/// Dropped, it unmounts the file: a daemon that is killed leaves its mount behind.
pub(crate) struct FuseFile {
    daemon: Option<Daemon>,
    path: PathBuf,
}

impl FuseFile {
    /// Exports node `node` of the nodes and other objects that `arguments` describe.
    pub(crate) fn start(
        folder: &Folder,
        arguments: &[String],
        node: &str,
    ) -> Result<FuseFile, Failure> {
        let path = folder.file("fuse.img", 0)?;
        let export = format!(
            "type=fuse,id=file,node-name={node},mountpoint={},writable=on,allow-other=off",
            word(&path)
        );
        let command = program(
            &tools::storage_daemon(),
            arguments.iter().map(String::as_str).chain(["--export", &export]),
        );
        let daemon = Daemon::start(command, &folder.path("storage-daemon.log"))?;
        let mut file = FuseFile { daemon: Some(daemon), path };
        let path = file.path.clone();
        let daemon = file.daemon.as_mut().expect("the daemon was just started");
        daemon.until_ready(|| fs::metadata(&path).is_ok_and(|found| found.len() > 0))?;
        Ok(file)
    }

    /// The NBD export at `socket` as a file.
    pub(crate) fn of_export(folder: &Folder, socket: &Path) -> Result<FuseFile, Failure> {
        let blockdev =
            format!("driver=nbd,node-name=nbd,server.type=unix,server.path={}", word(socket));
        FuseFile::start(folder, &["--blockdev".to_owned(), blockdev], "nbd")
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the daemon; it has to succeed.
    pub(crate) fn stop(mut self) -> Result<(), Failure> {
        self.daemon.take().map_or(Ok(()), Daemon::stop)
    }
}

impl Drop for FuseFile {
    fn drop(&mut self) {
        let Some(daemon) = self.daemon.take() else { return };
        if let Err(failure) = daemon.stop() {
            eprintln!("clients: {failure}");
        }
    }
}
