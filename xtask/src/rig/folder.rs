//! A folder for one step's files, removed when it is over.

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A folder of its own in the temporary folder. Dropped, it goes with all that is in it.
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder for `name`.
    pub(crate) fn new(name: &str) -> Result<Folder, Failure> {
        let path = std::env::temp_dir().join(format!("mpage-{name}-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| Failure::at(&path.to_string_lossy(), &error))?;
        Ok(Folder(path))
    }

    /// Where `name` lies in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Makes a sparse file of `size` bytes in it.
    pub(crate) fn file(&self, name: &str, size: u64) -> Result<PathBuf, Failure> {
        let path = self.path(name);
        let file = fs::File::create(&path).and_then(|file| file.set_len(size));
        file.map_err(|error| Failure::at(&path.to_string_lossy(), &error))?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("xtask: {} is left: {error}", self.0.display());
        }
    }
}

/// `path` as an argument of a program.
pub(crate) fn word(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
