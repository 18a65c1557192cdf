//! Cases of the fuzzer that failed once: see docs/testing.md.

use std::fs;
use std::path::Path;

use mpage_fuzz::Case;

/// A panic of any thread but this one ends the test too: who waits for it finds it gone.
#[test]
fn what_the_fuzzer_found_stays_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    let entries = fs::read_dir(&folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "there are none in {}", folder.display());
    for path in paths {
        println!("{}", path.display());
        Case::of_text(&fs::read_to_string(&path).unwrap()).unwrap().run();
    }
}
