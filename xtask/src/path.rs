//! The paths that code names, such as `crate::page::Page`, with the groups of `use` written out.

use crate::source::{Source, is_word};

/// One path of two names or more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Where its last name stands in the code.
    pub(crate) offset: usize,
    /// Its names, `*` for a glob.
    pub(crate) names: Vec<String>,
    /// Whether it names a macro that is called.
    pub(crate) is_macro: bool,
}

impl Path {
    /// Whether the path starts with `std` or `core` and goes on with `names`.
    pub(crate) fn is_std(&self, names: &[&str]) -> bool {
        let std = self.names.first().is_some_and(|name| name == "std" || name == "core");
        std && self.names.iter().skip(1).zip(names).filter(|(a, b)| a == b).count() == names.len()
    }
}

/// All paths of `source`, in the order they stand.
pub(crate) fn paths(source: &Source) -> Vec<Path> {
    let tokens = tokens(&source.code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let word = tokens[at].1.as_bytes().first().is_some_and(|byte| is_word(*byte));
        at = if word { tree(&tokens, at, &[], &mut found) } else { at + 1 };
    }
    found
}

/// An offset and the word, the `::` or the single sign that stands there.
type Token<'a> = (usize, &'a str);

fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < code.len() {
        let rest = &code[at..];
        let length = match rest.as_bytes()[0] {
            byte if is_word(byte) => {
                rest.bytes().position(|byte| !is_word(byte)).unwrap_or(rest.len())
            }
            b':' if rest.starts_with("::") => 2,
            _ => 1,
        };
        if !rest.as_bytes()[0].is_ascii_whitespace() {
            tokens.push((at, &rest[..length]));
        }
        at += length;
    }
    tokens
}

/// Reads one path or one tree of a `use` at `at`; returns the index behind it.
fn tree(tokens: &[Token<'_>], at: usize, prefix: &[String], found: &mut Vec<Path>) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.1);
    if text(at) == "{" {
        return group(tokens, at + 1, prefix, found);
    }
    let names = [prefix, &[text(at).to_owned()]].concat();
    let next = text(at + 2);
    let goes_on = next == "{" || next == "*" || next.bytes().next().is_some_and(is_word);
    if text(at + 1) == "::" && goes_on {
        return tree(tokens, at + 2, &names, found);
    }
    if names.len() > 1 {
        let is_macro = text(at + 1) == "!" && text(at + 2) != "=";
        found.push(Path { offset: tokens[at].0, names, is_macro });
    }
    at + 1
}

fn group(tokens: &[Token<'_>], from: usize, prefix: &[String], found: &mut Vec<Path>) -> usize {
    let mut at = from;
    while let Some((_, text)) = tokens.get(at) {
        at = match *text {
            "}" => return at + 1,
            "as" => at + 2,
            "," => at + 1,
            _ => tree(tokens, at, prefix, found),
        };
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(code: &str) -> Vec<String> {
        let source = Source::new("crates/mpage/src/a.rs", code);
        paths(&source).into_iter().map(|path| path.names.join("::")).collect()
    }

    #[test]
    fn groups_are_written_out() {
        let code = "use std::{sync::{Arc, Mutex as M}, time::Duration};\nuse crate::page::*;";
        let expected = ["std::sync::Arc", "std::sync::Mutex", "std::time::Duration"];
        assert_eq!(names(code), [&expected[..], &["crate::page::*"]].concat());
    }

    #[test]
    fn paths_in_expressions_are_found() {
        let code = "let a = crate::page::Page::new(b); $crate::c!(d); e as u8; Vec::<u8>::new()";
        assert_eq!(names(code), ["crate::page::Page::new", "crate::c"]);
    }
}
