//! Which way dependencies point: only downward.

use super::Finding;
use crate::path::{Path, paths};
use crate::source::Source;
use crate::workspace::Manifest;

/// The modules of crate `mpage`, lowest layer first. A module names its own layer and those below.
const MODULES: &[&[&str]] = &[
    &["units", "error", "stats", "may_wait", "completion"],
    &[
        "clock",
        "depth",
        "errseq",
        "event",
        "get_block",
        "page",
        "page_pool",
        "page_tree",
        "turn",
        "writepage",
        "zeroed",
    ],
    &["address_space", "backing_dev", "core"],
    &["writeback", "throttle"],
    &["mpage"],
    &["reclaim", "flush", "identity"],
    &["readahead"],
    &["filemap"],
    &["write_and_wait"],
    &["truncate"],
    &["fsync", "flusher"],
    &["device_flush", "device_sync"],
    &["file", "pinned_page"],
    &["cache"],
];

/// The crates, lowest first. A crate depends on those below it; one not listed is above all others.
const CRATES: &[&str] = &["mpage-locks", "mpage-mem", "mpage-block", "mpage", "mpage-ext4"];

const FOLDER: &str = "crates/mpage/src/";

/// Checks that a module of crate `mpage` names no module above it. Tests may.
pub(super) fn modules(source: &Source, findings: &mut Vec<Finding>) {
    let Some(module) = module(source) else { return };
    let Some(own) = layer(module) else {
        let remedy = format!("give {module} a place in MODULES in xtask/src/tidy/layers.rs");
        if !source.is_test(0) {
            findings.push(Finding::new(source, 0, "layer", remedy));
        }
        return;
    };
    for path in paths(source).iter().filter(|path| !source.is_test(path.offset)) {
        let Some(used) = used(source, path) else { continue };
        let remedy = match layer(used) {
            Some(layer) if layer > own => {
                format!("{module} lies below {used}: move the code, or pass in what it needs")
            }
            None => format!("crate::{used} is no module of MODULES: name the item's own module"),
            Some(_) => continue,
        };
        findings.push(Finding::new(source, path.offset, "layer", remedy));
    }
}

/// The top-level module of crate `mpage` that `source` belongs to.
fn module(source: &Source) -> Option<&str> {
    let path = source.path.strip_prefix(FOLDER)?.strip_suffix(".rs")?;
    let module = path.split('/').next()?;
    (module != "lib").then_some(module)
}

fn layer(module: &str) -> Option<usize> {
    MODULES.iter().position(|layer| layer.contains(&module))
}

/// The top-level module that `path` goes through.
fn used<'a>(source: &Source, path: &'a Path) -> Option<&'a str> {
    let file = source.path.strip_prefix(FOLDER)?.trim_end_matches("/mod.rs");
    let depth = 1 + file.matches('/').count();
    let supers = path.names.iter().take_while(|name| *name == "super").count();
    if path.names[0] == "crate" {
        let is_macro = path.is_macro && path.names.len() == 2;
        return (!is_macro).then(|| path.names[1].as_str());
    }
    path.names.get(supers).filter(|_| supers == depth).map(String::as_str)
}

/// Checks that a crate depends on no crate above it. Its tests may.
pub(super) fn crates(manifest: &Manifest, findings: &mut Vec<Finding>) {
    let folder = manifest.path.trim_end_matches("/Cargo.toml");
    let name = folder.rsplit('/').next().unwrap_or(folder);
    let Some(own) = CRATES.iter().position(|listed| *listed == name) else { return };
    let mut section = "";
    for (index, line) in manifest.text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line;
        }
        let table = section.trim_matches(['[', ']']);
        let (kind, named) = match table.rsplit_once("dependencies.") {
            Some((before, named)) if line == section => (before, named),
            _ => (
                table.strip_suffix("dependencies").unwrap_or("dev-"),
                line.split(['.', '=', ' ']).next().unwrap_or(""),
            ),
        };
        let named = named.trim_matches('"');
        let known = named.starts_with("mpage");
        let below = CRATES.iter().position(|listed| *listed == named);
        if known && !kind.ends_with("dev-") && below.is_none_or(|below| below >= own) {
            let path = manifest.path.clone();
            let remedy = format!("{name} lies below {named} and does not depend on it");
            findings.push(Finding { path, line: index + 1, rule: "layer", remedy });
        }
    }
}
