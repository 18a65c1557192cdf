//! The files of the workspace: its sources, read once, and its crates.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::cargo;
use crate::failure::Failure;
use crate::source::Source;

/// A crate's manifest.
pub(crate) struct Manifest {
    /// Where it lies, from the root of the workspace.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) text: String,
}

/// What the checks look at.
pub(crate) struct Workspace {
    /// Every Rust file of every crate.
    pub(crate) sources: Vec<Source>,
    /// Every crate's manifest.
    pub(crate) manifests: Vec<Manifest>,
}

/// The folder that holds the workspace.
///
/// Cargo says where the manifest lies when it runs the program; where it lay when the program was
/// built is another place when two clones share a target folder.
pub(crate) fn root() -> PathBuf {
    let running = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let folder = running.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    let root = folder.parent().expect("the manifest of xtask lies one folder below the root");
    root.to_owned()
}

/// The folder that holds what cargo builds.
pub(crate) fn target() -> PathBuf {
    let chosen = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    root().join(chosen.unwrap_or_else(|| PathBuf::from("target")))
}

/// A tree, and the folder that holds what cargo builds of it.
pub(crate) struct Site {
    pub(crate) tree: PathBuf,
    pub(crate) target: PathBuf,
    /// It is built again and again with small changes: that is to be quick.
    pub(crate) changes: bool,
}

impl Site {
    /// The workspace's own.
    pub(crate) fn own() -> Site {
        Site { tree: root(), target: target(), changes: false }
    }

    /// A call of cargo in the tree, which builds in `folder` of the target folder.
    pub(crate) fn cargo(&self, words: &[&str], folder: &str) -> Command {
        let mut command = cargo(words);
        let _command = command.arg("--target-dir").arg(self.target.join(folder));
        let _command = command.current_dir(&self.tree);
        if self.changes {
            let _command = command.env("CARGO_INCREMENTAL", "1");
            let _command = command.env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        }
        command
    }
}

impl Workspace {
    /// Reads the workspace that this program was built in.
    pub(crate) fn read() -> Result<Workspace, Failure> {
        let mut files = Vec::new();
        for folder in ["crates", "xtask"] {
            list(&root(), folder, &mut files)?;
        }
        files.sort();
        Ok(Workspace::from_files(files))
    }

    /// Makes a workspace of files, each a path from the root and a text.
    pub(crate) fn from_files(files: Vec<(String, String)>) -> Workspace {
        let (rust, other): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|(path, _)| path.ends_with(".rs"));
        let mut sources: Vec<Source> =
            rust.iter().map(|(path, text)| Source::new(path, text)).collect();
        let modules: Vec<String> = sources.iter().flat_map(Source::test_modules).collect();
        for source in &mut sources {
            let stem = source.path.strip_suffix(".rs").unwrap_or(&source.path);
            let inside = |module: &String| {
                stem.strip_prefix(module.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            if modules.iter().any(inside) {
                source.mark_test();
            }
        }
        let manifests = other.into_iter().map(|(path, text)| Manifest { path, text }).collect();
        Workspace { sources, manifests }
    }
}

fn list(root: &Path, folder: &str, files: &mut Vec<(String, String)>) -> Result<(), Failure> {
    let entries = fs::read_dir(root.join(folder)).map_err(|e| Failure::at(folder, &e))?;
    for entry in entries {
        let entry = entry.map_err(|e| Failure::at(folder, &e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{folder}/{name}");
        let kind = entry.file_type().map_err(|e| Failure::at(&path, &e))?;
        if kind.is_dir() && name != "target" && !name.starts_with('.') {
            list(root, &path, files)?;
        } else if kind.is_file() && (name.ends_with(".rs") || name == "Cargo.toml") {
            let text = fs::read_to_string(entry.path()).map_err(|e| Failure::at(&path, &e))?;
            files.push((path, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_declared_test_modules_are_tests() {
        let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        let workspace = Workspace::from_files(vec![
            file(
                "crates/mpage/src/page.rs",
                "fn a() {}\n#[cfg(all(test, mpage_loom))]\nmod loom;\n",
            ),
            file("crates/mpage/src/page/loom.rs", "fn a() {}"),
            file("crates/mpage/src/page/loom/more.rs", "fn a() {}"),
            file("crates/mpage/src/page/pool.rs", "fn a() {}"),
        ]);
        let tests: Vec<bool> = workspace.sources.iter().map(|source| source.is_test(0)).collect();
        assert_eq!(tests, [false, true, true, false]);
    }
}
