//! Words that code and comments do without.

use super::Finding;
use crate::source::{Source, words};

/// A piece of code that is not written: what it looks like without blanks, and what to do instead.
struct Piece {
    rule: &'static str,
    code: &'static str,
    /// Whether tests may hold it.
    tests: bool,
    remedy: &'static str,
}

const PIECES: &[Piece] = &[
    Piece {
        rule: "lost result",
        code: "let _ =",
        tests: true,
        remedy: "handle the result, or name the value that is dropped: let _woken = ...",
    },
    Piece {
        rule: "lost result",
        code: "let _:",
        tests: true,
        remedy: "handle the result, or name the value that is dropped: let _woken: bool = ...",
    },
    Piece {
        rule: "lost result",
        code: ".ok()",
        tests: true,
        remedy: "return the error, or match on it and say why it does not count",
    },
    Piece {
        rule: "unwrap",
        code: ".unwrap()",
        tests: true,
        remedy: "return the error, or expect(\"the reason it holds\")",
    },
    Piece {
        rule: "allow",
        code: "#[allow",
        tests: false,
        remedy: "use #[expect(.., reason = \"..\")]",
    },
    Piece {
        rule: "allow",
        code: "#![allow",
        tests: false,
        remedy: "use #![expect(.., reason = \"..\")]",
    },
    Piece {
        rule: "ignore",
        code: "#[ignore",
        tests: false,
        remedy: "a test runs or does not exist: fix it or remove it",
    },
];

/// Words of plans, in lower case. A comment says what is, not what will be.
const PLANS: &[&str] = &["todo", "fixme", "for now", "phase 2"];

/// Checks the words of `source`.
pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    for piece in PIECES {
        for (offset, _) in source.code.match_indices(piece.code) {
            if !(piece.tests && source.is_test(offset)) {
                findings.push(Finding::new(source, offset, piece.rule, piece.remedy));
            }
        }
    }
    for text in [&source.code, &source.comments].map(|text| text.to_ascii_lowercase()) {
        for (plan, offset) in
            PLANS.iter().flat_map(|plan| words(&text, plan).into_iter().map(move |at| (plan, at)))
        {
            let remedy = format!("say what is, or do what is left, instead of: {plan}");
            findings.push(Finding::new(source, offset, "plan", remedy));
        }
    }
    if let Some(offset) = source.text.find(|sign: char| !sign.is_ascii()) {
        let remedy = "write ASCII, with \\u{..} in literals";
        findings.push(Finding::new(source, offset, "ascii", remedy));
    }
}
