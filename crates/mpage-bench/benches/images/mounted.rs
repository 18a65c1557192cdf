//! Whoever has the image mounted.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Contender, FILE_BYTES, FILES, Failed, LARGE_BYTES, NAMES, PIECE_BYTES};

/// An image that is mounted.
pub(crate) struct Mounted {
    point: PathBuf,
    /// The loop device under it.
    device: Option<String>,
}

impl Mounted {
    /// By Linux, on a loop device with direct I/O.
    pub(crate) fn by_kernel(image: &Path) -> Result<Mounted, Failed> {
        let words = ["--direct-io=on", "--find", "--show"];
        let output = Command::new("losetup").args(words).arg(image).output()?;
        let device = String::from_utf8(output.stdout)?.trim().to_owned();
        let point = point(image)?;
        let mounted = Mounted { point, device: Some(device.clone()) };
        let status = Command::new("mount").arg(device).arg(&mounted.point).status()?;
        if !status.success() {
            return Err("mount: it has to be run as root".into());
        }
        Ok(mounted)
    }

    /// By fuse2fs.
    pub(crate) fn by_fuse2fs(image: &Path) -> Result<Mounted, Failed> {
        let point = point(image)?;
        // It goes to the background when it is mounted.
        let status = Command::new("fuse2fs").arg(image).arg(&point).status()?;
        if !status.success() {
            return Err(format!("fuse2fs: {status}").into());
        }
        Ok(Mounted { point, device: None })
    }

    fn sync(&self) -> Result<(), Failed> {
        let status = Command::new("sync").arg("-f").arg(&self.point).status()?;
        if status.success() { Ok(()) } else { Err("sync".into()) }
    }
}

/// A folder to mount `image` on.
fn point(image: &Path) -> Result<PathBuf, Failed> {
    let point = image.with_file_name("mounted");
    fs::create_dir(&point)?;
    Ok(point)
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.point).status();
        if !status.as_ref().is_ok_and(|status| status.success()) {
            eprintln!("umount {}: {status:?}", self.point.display());
        }
        if let Some(device) = &self.device {
            let status = Command::new("losetup").arg("--detach").arg(device).status();
            if status.is_err() {
                eprintln!("losetup --detach {device}: {status:?}");
            }
        }
    }
}

impl Contender for Mounted {
    fn create(&mut self) -> Result<(), Failed> {
        let names = self.point.join("names");
        fs::create_dir(&names)?;
        for number in 0..NAMES {
            let _file = File::create_new(names.join(format!("name-{number}")))?;
        }
        self.sync()
    }

    fn look_up(&mut self) -> Result<(), Failed> {
        let names = self.point.join("names");
        for number in 0..NAMES {
            let _attributes = fs::metadata(names.join(format!("name-{number}")))?;
        }
        Ok(())
    }

    fn write_small(&mut self) -> Result<(), Failed> {
        let small = self.point.join("small");
        fs::create_dir(&small)?;
        for number in 0..FILES {
            fs::write(small.join(format!("file-{number}")), [7; FILE_BYTES])?;
        }
        self.sync()
    }

    fn write_large(&mut self) -> Result<(), Failed> {
        let mut file = File::create_new(self.point.join("large"))?;
        let piece = vec![7; PIECE_BYTES];
        for _ in 0..LARGE_BYTES / PIECE_BYTES {
            file.write_all(&piece)?;
        }
        file.sync_all()?;
        self.sync()
    }
}
