//! A copy of the committed tree, in which bugs are planted.

use std::path::Path;

use crate::command::{output, program};
use crate::failure::Failure;
use crate::workspace::{Site, root, target};

/// The copy; kept from run to run, so that little of it is built again.
pub(super) struct Copy(Site);

impl Copy {
    /// The copy as it is committed at the root of the workspace.
    ///
    /// # Errors
    ///
    /// Those of git.
    pub(super) fn of_what_is_committed() -> Result<Copy, Failure> {
        let target = target().join("mutants");
        let (root, tree) = (word(&root()), target.join("tree"));
        if !tree.join(".git").exists() {
            git(["clone", "--quiet", "--no-checkout", &root, &word(&tree)])?;
        }
        let copy = Copy(Site { tree, target, changes: true });
        copy.git(["fetch", "--quiet", &root, "HEAD"])?;
        copy.git(["reset", "--quiet", "--hard", "FETCH_HEAD"])?;
        copy.git(["clean", "--quiet", "--force", "-d"])?;
        Ok(copy)
    }

    /// Where it lies.
    pub(super) fn site(&self) -> &Site {
        &self.0
    }

    /// Applies `patch`.
    ///
    /// # Errors
    ///
    /// A patch that does not apply.
    pub(super) fn plant(&self, patch: &Path) -> Result<(), Failure> {
        self.git(["apply", &word(patch)])
    }

    /// Takes back what was planted.
    ///
    /// # Errors
    ///
    /// Those of git.
    pub(super) fn restore(&self) -> Result<(), Failure> {
        self.git(["reset", "--quiet", "--hard"])
    }

    fn git<const N: usize>(&self, words: [&str; N]) -> Result<(), Failure> {
        let tree = word(&self.0.tree);
        let words: Vec<&str> = ["-C", &tree].into_iter().chain(words).collect();
        output(&mut program("git", words)).map(drop)
    }
}

fn git<const N: usize>(words: [&str; N]) -> Result<(), Failure> {
    output(&mut program("git", words)).map(drop)
}

fn word(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
