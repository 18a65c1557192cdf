//! The functions of a source file: where they begin and end, and which are tests.

use crate::source::{Source, close, is_word, item_end, words};

/// A function with a body.
pub(crate) struct Function {
    /// Its name.
    pub(crate) name: String,
    /// The offset of the word `fn`.
    pub(crate) start: usize,
    /// The offset behind its closing brace.
    pub(crate) end: usize,
    /// Whether it is marked `#[test]`, or stands in the call of a macro that can mark it.
    pub(crate) is_test: bool,
}

/// The functions of `source`, in the order they stand.
pub(crate) fn functions(source: &Source) -> Vec<Function> {
    let code = source.code.as_str();
    let mut found = Vec::new();
    for start in words(code, "fn") {
        let rest = code[start + 2..].trim_start();
        let length = rest.bytes().position(|byte| !is_word(byte)).unwrap_or(rest.len());
        let end = item_end(code, start);
        if length > 0 && code[..end].ends_with('}') {
            let name = rest[..length].to_owned();
            let is_test = has_test_attribute(code, start) || is_in_macro(code, start);
            found.push(Function { name, start, end, is_test });
        }
    }
    found
}

fn has_test_attribute(code: &str, start: usize) -> bool {
    let from = code[..start].rfind([';', '}', '{']).map_or(0, |at| at + 1);
    code[from..start].contains("#[test]")
}

/// Whether a bracket around `start` is the argument of a macro.
fn is_in_macro(code: &str, start: usize) -> bool {
    let calls = code[..start].match_indices('!').filter_map(|(at, _)| {
        let rest = code[at + 1..].trim_start();
        let rest = rest.trim_start_matches(|c: char| c.is_ascii() && is_word(c as u8)).trim_start();
        rest.starts_with(['{', '(']).then(|| code.len() - rest.len())
    });
    calls.filter(|open| *open < start).any(|open| close(code, open) > start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tests(code: &str) -> Vec<(String, bool)> {
        let source = Source::new("crates/mpage/src/a.rs", code);
        functions(&source).into_iter().map(|found| (found.name, found.is_test)).collect()
    }

    #[test]
    fn bodies_are_measured_and_declarations_are_not() {
        let code = "trait T { fn a(&self); }\nfn b(c: [u8; 4], d: fn(u8)) {\n    { 1 }\n}\n";
        let source = Source::new("crates/mpage/src/a.rs", code);
        let found = functions(&source);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "b");
        assert_eq!((source.line_at(found[0].start), source.line_at(found[0].end - 1)), (2, 4));
    }

    #[test]
    fn only_marked_functions_and_those_in_macros_are_tests() {
        let code = "#[test]\nfn a() {}\nfn b() {}\nproptest! {\n #[test]\n fn c(x in 0..1) {}\n}\n\
                    promises!(fn d() { if !e { } });\nfn f() { if !(g) { } }\n";
        let expected = [("a", true), ("b", false), ("c", true), ("d", true), ("f", false)];
        assert_eq!(tests(code), expected.map(|(name, test)| (name.to_owned(), test)));
    }
}
