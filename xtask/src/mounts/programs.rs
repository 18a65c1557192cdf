//! Programs from Rust's registry, installed once into the target folder.

use std::fs;
use std::path::PathBuf;

use crate::command::{self, cargo};
use crate::failure::Failure;
use crate::rig::folder::word;
use crate::workspace::target;

/// A program of the registry, in one version.
pub(super) struct Program {
    /// Its name, and its crate's.
    pub(super) name: &'static str,
    /// The version that is installed.
    pub(super) version: &'static str,
}

impl Program {
    /// Installs it unless it is there, and returns where it lies.
    pub(super) fn install(&self) -> Result<PathBuf, Failure> {
        let tools = target().join("tools");
        let path = tools.join("bin").join(self.name);
        let list = tools.join(".crates.toml");
        let entry = format!("\"{} {} (", self.name, self.version);
        let listed = fs::read_to_string(list).is_ok_and(|text| text.contains(&entry));
        if !listed || !path.exists() {
            let (root, build) = (word(&tools), word(&tools.join("build")));
            let words = ["install", self.name, "--version", self.version, "--locked", "--root"];
            command::run(cargo(words).args([&root, "--target-dir", &build]))?;
        }
        Ok(path)
    }
}
