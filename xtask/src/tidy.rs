//! The style rules that a program can check.
//!
//! Each rule is a function from the workspace to findings. `tidy/tests.rs` plants a violation of
//! every rule and sees that it is found.

mod layers;
mod rooms;
mod sizes;
#[cfg(test)]
mod tests;
mod words;

use std::fmt::{self, Display, Formatter};

use crate::failure::Failure;
use crate::source::Source;
use crate::workspace::Workspace;

/// A place where a rule is broken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    line: usize,
    rule: &'static str,
    remedy: String,
}

impl Finding {
    /// A finding at the byte at `offset` of `source`.
    fn new(
        source: &Source,
        offset: usize,
        rule: &'static str,
        remedy: impl Into<String>,
    ) -> Finding {
        let line = source.line_at(offset);
        Finding { path: source.path.clone(), line, rule, remedy: remedy.into() }
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.path, self.line, self.rule, self.remedy)
    }
}

/// Checks the workspace and prints what it finds.
pub(crate) fn run() -> Result<(), Failure> {
    let workspace = Workspace::read()?;
    let findings = check(&workspace);
    for finding in &findings {
        println!("{finding}");
    }
    println!("tidy: {} files, {} findings", workspace.sources.len(), findings.len());
    match findings.len() {
        0 => Ok(()),
        1 => Err(Failure::new("a style rule is broken")),
        count => Err(Failure::new(format!("style rules are broken in {count} places"))),
    }
}

fn check(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &workspace.sources {
        layers::modules(source, &mut findings);
        rooms::check(source, &mut findings);
        sizes::check(source, &mut findings);
        words::check(source, &mut findings);
    }
    for manifest in &workspace.manifests {
        layers::crates(manifest, &mut findings);
    }
    findings.sort();
    findings
}
