//! Every rule catches its planted violation, and leaves its lawful neighbour alone.

use super::*;

/// The findings in one file, as `line: rule`.
fn found(path: &str, text: &str) -> Vec<String> {
    let files = vec![(path.to_owned(), text.to_owned())];
    let findings = check(&Workspace::from_files(files));
    findings.iter().map(|finding| format!("{}: {}", finding.line, finding.rule)).collect()
}

fn finds(path: &str, text: &str, expected: &[&str]) {
    assert_eq!(found(path, text), expected, "{path}\n{text}");
}

const PAGE: &str = "crates/mpage/src/page.rs";
const MPAGE: &str = "crates/mpage/src/mpage.rs";
const TESTS: &str = "crates/mpage/tests/it/fsync.rs";

#[test]
fn a_module_names_no_module_above_it() {
    finds(PAGE, "use crate::{units::PageIndex, filemap::read};", &["1: layer"]);
    finds(PAGE, "fn a() {\n    crate::cache::b();\n}\n", &["2: layer"]);
    finds(PAGE, "use super::cache::PageCache;", &["1: layer"]);
    finds("crates/mpage/src/page/state.rs", "use super::super::file::A;", &["1: layer"]);
    finds("crates/mpage/src/page/state.rs", "use super::file::A;", &[]);
    finds("crates/mpage/src/cache.rs", "use crate::{page::Page, file::CachedFile};", &[]);
    finds("crates/mpage/src/lib.rs", "#![forbid(unsafe_code)]\npub use crate::cache::A;", &[]);
    finds(PAGE, "#[cfg(test)]\nmod tests {\n    use crate::cache::PageCache;\n}\n", &[]);
}

#[test]
fn a_module_without_a_layer_is_found() {
    finds("crates/mpage/src/manager.rs", "", &["1: layer"]);
    finds("crates/mpage/src/manager/part.rs", "", &["1: layer"]);
}

#[test]
fn an_item_is_named_through_its_module() {
    finds(PAGE, "use crate::PageCache;", &["1: layer"]);
    finds(PAGE, "fn a() { crate::trace!(b); }", &[]);
}

#[test]
fn a_crate_depends_on_no_crate_above_it() {
    let mem = "crates/mpage-mem/Cargo.toml";
    finds(mem, "[dependencies]\nmpage-block.workspace = true\n", &["2: layer"]);
    finds(mem, "[target.'cfg(a)'.dependencies]\nmpage = { path = \"b\" }\n", &["2: layer"]);
    finds(mem, "[build-dependencies.mpage-sim]\nworkspace = true\n", &["1: layer"]);
    finds(mem, "[dependencies]\nmpage-locks.workspace = true\nmpage-mem = \"1\"\n", &["3: layer"]);
    finds(mem, "[package]\nname = \"mpage-mem\"\n[dev-dependencies]\nmpage = \"1\"\n", &[]);
    finds("crates/mpage-cli/Cargo.toml", "[dependencies]\nmpage-ext4 = \"1\"\n", &[]);
}

#[test]
fn only_the_mpage_module_builds_bios() {
    let code = "fn a() {\n    mpage_block::Bio::write(b);\n}\n";
    finds(PAGE, code, &["2: bio"]);
    finds("crates/mpage-ext4/src/journal.rs", "fn a() { Bio::read(b); }", &["1: bio"]);
    finds("crates/mpage/src/fsync.rs", "fn a() { Bio::flush(); }", &["1: bio"]);
    finds("crates/mpage/src/backing_dev.rs", "fn a() { Bio::write(); }", &["1: bio"]);
    finds("crates/mpage/src/backing_dev.rs", "fn a() { Bio::flush(); }", &[]);
    finds(PAGE, "use mpage_block::{Bio, BioFlags};", &[]);
    for free in [MPAGE, "crates/mpage/src/mpage/slow.rs", "crates/mpage-block/src/a.rs", TESTS] {
        finds(free, code, &[]);
    }
}

#[test]
fn unsafe_has_its_rooms() {
    finds(PAGE, "fn a() {\n    unsafe { b() }\n}\n", &["2: unsafe"]);
    finds(TESTS, "unsafe fn a() {}", &["1: unsafe"]);
    finds("crates/mpage/src/lib.rs", "//! A crate.\n", &["1: unsafe"]);
    finds("crates/mpage-cli/src/main.rs", "fn main() {}", &["1: unsafe"]);
    finds("crates/mpage-mem/src/lib.rs", "fn a() { unsafe { b() } }", &[]);
}

#[test]
fn std_locks_are_named_in_one_crate() {
    let uses =
        ["use std::sync::Mutex;", "use std::{sync::{Arc, atomic::AtomicU8}};", "use std::sync;"];
    for code in uses {
        finds(PAGE, code, &["1: lock"]);
    }
    finds(TESTS, "fn a() { std::sync::mpsc::channel(); }", &["1: lock"]);
    finds(PAGE, "use parking_lot::Mutex;", &["1: lock"]);
    finds(PAGE, "use std::sync::Arc;", &[]);
    let raw = "crates/mpage-mem/src/copy/words.rs";
    finds(raw, "use std::sync::{Mutex, atomic::AtomicU64};", &["1: lock"]);
    finds(raw, "use std::sync::atomic::{AtomicU64, Ordering};", &[]);
    finds("crates/mpage-locks/src/locks.rs", "use std::sync::{Mutex, Condvar};", &[]);
}

#[test]
fn std_clocks_are_named_in_one_crate() {
    finds(PAGE, "use std::time::{Duration, Instant};", &["1: clock"]);
    finds(TESTS, "fn a() { std::time::SystemTime::now(); }", &["1: clock"]);
    finds(PAGE, "use std::time::Duration;", &[]);
    finds("crates/mpage-locks/src/clock.rs", "use std::time::Instant;", &[]);
}

#[test]
fn nothing_sleeps() {
    finds(TESTS, "fn a() { std::thread::sleep(b); }", &["1: sleep"]);
    finds("crates/mpage-block/src/a.rs", "use std::thread::{self, sleep};", &["1: sleep"]);
}

#[test]
fn only_the_block_crate_names_io_uring() {
    finds(PAGE, "use io_uring::IoUring;", &["1: io_uring"]);
    finds("crates/mpage-block/src/uring.rs", "use io_uring::IoUring;", &[]);
}

#[test]
fn a_long_function_is_found() {
    let lines = |count| format!("// a\nfn a() {{\n{}}}\n", "    b();\n".repeat(count));
    finds(PAGE, &lines(69), &["2: function length"]);
    finds(PAGE, &lines(68), &[]);
}

#[test]
fn a_long_file_is_found_whatever_its_tests() {
    let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "use a;\n".repeat(900));
    finds(PAGE, &format!("{}{tests}", "use a;\n".repeat(801)), &["1: file length"]);
    finds(PAGE, &format!("{}{tests}", "use a;\n".repeat(800)), &[]);
    finds(PAGE, &format!("{tests}{}", "use a;\n".repeat(10)), &["1: file length"]);
}

#[test]
fn a_long_line_is_found() {
    finds(PAGE, &format!("\n// {}\n", "a".repeat(98)), &["2: line length"]);
    finds(PAGE, &format!("\n// {}\n", "a".repeat(97)), &[]);
}

#[test]
fn lost_results_are_found() {
    for code in ["let _ = b();", "let _: Result<(), E> = b();", "b().ok();"] {
        finds(PAGE, &format!("fn a() {{\n    {code}\n}}\n"), &["2: lost result"]);
        finds(TESTS, &format!("fn a() {{\n    {code}\n}}\n"), &[]);
    }
    finds(PAGE, "fn a() { let _woken: bool = b(); }", &[]);
}

#[test]
fn unwrap_is_found_outside_tests() {
    finds(PAGE, "fn a() { b().unwrap(); }", &["1: unwrap"]);
    finds(PAGE, "#[cfg(test)]\nmod tests {\n    fn a() { b().unwrap(); }\n}\n", &[]);
    finds(PAGE, "/// `a.unwrap()` ends the program.\nfn a() { b(\".unwrap()\"); }", &[]);
}

#[test]
fn allow_and_ignore_are_found_in_tests_too() {
    finds(TESTS, "#[allow(dead_code)]\nfn a() {}", &["1: allow"]);
    finds(TESTS, "#![allow(dead_code)]\nfn a() {}", &["1: allow"]);
    finds(TESTS, "#[test]\n#[ignore]\nfn a() {}", &["2: ignore"]);
    finds(TESTS, "#[test]\n#[ignore = \"slow\"]\nfn a() {}", &["2: ignore"]);
    finds(TESTS, "#[expect(dead_code, reason = \"b\")]\nfn a() {}", &[]);
}

#[test]
fn plans_are_found() {
    for plan in ["TODO: more", "FIXME", "good enough for now.", "left to phase 2"] {
        finds(PAGE, &format!("/// a\n// {plan}\nfn a() {{}}"), &["2: plan"]);
        finds(PAGE, &format!("/* a\n {plan} */\nfn a() {{}}"), &["2: plan"]);
    }
    finds(PAGE, "fn a() { todo!() }", &["1: plan"]);
    finds(PAGE, "// ready for nowait, phase 20\n", &[]);
}

#[test]
fn signs_outside_ascii_are_found() {
    finds(PAGE, "// a\n// caf\u{e9}\n", &["2: ascii"]);
}

#[test]
fn a_finding_says_place_rule_and_remedy() {
    let files = vec![(PAGE.to_owned(), "use std::time::Instant;".to_owned())];
    let findings = check(&Workspace::from_files(files));
    let expected = format!("{PAGE}:1: clock: ask mpage_locks::clock for the time");
    assert_eq!(findings.first().map(ToString::to_string), Some(expected));
}
