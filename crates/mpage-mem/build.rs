//! Chooses how frame memory is copied: by assembly or by words.

/// What is set when something follows the program that does not see into assembly.
const CHECKERS: [&str; 4] =
    ["CARGO_CFG_SANITIZE", "CARGO_CFG_MIRI", "CARGO_CFG_MPAGE_LOOM", "CARGO_CFG_MPAGE_SHUTTLE"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(word_copies)");
    let checked = CHECKERS.iter().any(|checker| std::env::var_os(checker).is_some());
    let has_assembly = std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    if checked || !has_assembly {
        println!("cargo::rustc-cfg=word_copies");
    }
}
