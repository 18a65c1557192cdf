//! Images that a command makes before it uses them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::size::Size;

/// An image that was just made; it goes again unless it is kept.
pub struct Created {
    path: PathBuf,
    kept: bool,
}

impl Created {
    /// Makes an image without any data, to `serve` it, or whatever word is right.
    ///
    /// # Errors
    ///
    /// No bytes, an existing file, and the system's.
    pub fn new(path: &Path, Size(bytes): Size, serve: &str) -> Result<Created, Failure> {
        if bytes == 0 {
            return Err(Failure("an image of no bytes: give --create a size, like 1G".into()));
        }
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure(format!(
                "{}: exists already: leave out --create to {serve} it, or choose another name",
                path.display()
            )),
            _ => Failure(format!("{}: cannot be made: {error}", path.display())),
        };
        let made = fs::OpenOptions::new().write(true).create_new(true).open(path);
        let file = made.map_err(failed)?;
        let created = Created { path: path.into(), kept: false };
        file.set_len(bytes).map_err(failed)?;
        Ok(created)
    }

    /// Lets it stay.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the new image stays");
        }
    }
}
