//! One Rust source file, split into its code and its comments.
//!
//! Both views have the length and the lines of the text, with blanks where the other things are, so
//! that an offset or a line found in one is right in all. String and character literals are blank
//! in both: a rule's pattern written as a string is not a violation of the rule.

use std::ops::Range;

/// What a byte of the text belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Code,
    Comment,
    Literal,
}

/// A source file of the workspace.
pub(crate) struct Source {
    /// Where it lies, from the root of the workspace, with `/` between names.
    pub(crate) path: String,
    /// The file as it is.
    pub(crate) text: String,
    /// The text without comments and literals.
    pub(crate) code: String,
    /// The text of the comments alone.
    pub(crate) comments: String,
    /// The parts of it that are compiled for tests only.
    tests: Vec<Range<usize>>,
    starts: Vec<usize>,
}

impl Source {
    /// Splits `text`, the content of the file at `path`.
    pub(crate) fn new(path: &str, text: &str) -> Source {
        let classes = classify(text.as_bytes());
        let code = view(text.as_bytes(), &classes, Class::Code);
        let comments = view(text.as_bytes(), &classes, Class::Comment);
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1));
        let starts = starts.collect();
        let tests = if is_test_path(path) { vec![whole(text)] } else { test_spans(&code) };
        Source { path: path.to_owned(), text: text.to_owned(), code, comments, tests, starts }
    }

    /// The number, from 1, of the line that holds the byte at `offset`.
    pub(crate) fn line_at(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset)
    }

    /// Whether the byte at `offset` is compiled for tests only.
    pub(crate) fn is_test(&self, offset: usize) -> bool {
        self.tests.iter().any(|span| span.contains(&offset))
    }

    /// Says that the whole file is compiled for tests only.
    pub(crate) fn mark_test(&mut self) {
        self.tests = vec![whole(&self.text)];
    }

    /// Where the test module that ends the file begins; the file's length without one.
    pub(crate) fn tests_start(&self) -> usize {
        let end = self.code.trim_end().len();
        let last = self.tests.iter().find(|span| span.start > 0 && span.end >= end);
        last.map_or(self.text.len(), |span| span.start)
    }

    /// The paths of the files that `#[cfg(test)] mod name;` declares, without `.rs`.
    pub(crate) fn test_modules(&self) -> Vec<String> {
        let stem = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let (parent, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let folder = if matches!(name, "lib" | "main" | "mod") { parent } else { stem };
        let declared = self.tests.iter().filter_map(|span| {
            let item = self.code.get(span.clone())?.strip_suffix(';')?;
            let (before, name) = item.rsplit_once(char::is_whitespace)?;
            before.ends_with("mod").then(|| format!("{folder}/{name}"))
        });
        declared.collect()
    }

    /// The name of the crate's folder, `mpage` for `crates/mpage/src/page.rs`.
    pub(crate) fn crate_name(&self) -> &str {
        let path = self.path.strip_prefix("crates/").unwrap_or(&self.path);
        path.split('/').next().unwrap_or(path)
    }
}

/// The offset behind the bracket that closes the one at `open`, or the end of the code.
pub(crate) fn close(code: &str, open: usize) -> usize {
    let bytes = code.as_bytes();
    let mut depth = 0_usize;
    for (at, byte) in bytes.iter().enumerate().skip(open) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return at + 1;
        }
    }
    bytes.len()
}

/// The offset behind the item that starts at `from`: its closing brace, or its semicolon.
pub(crate) fn item_end(code: &str, from: usize) -> usize {
    let bytes = code.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'{' => return close(code, at),
            b';' => return at + 1,
            b'(' | b'[' => at = close(code, at),
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Whether `byte` can be part of an identifier.
pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where `word` stands in `text` as a word of its own.
pub(crate) fn words(text: &str, word: &str) -> Vec<usize> {
    let bytes = text.as_bytes();
    let alone = |at: usize| {
        let before = at.checked_sub(1).and_then(|at| bytes.get(at));
        let after = bytes.get(at + word.len());
        !before.is_some_and(|byte| is_word(*byte)) && !after.is_some_and(|byte| is_word(*byte))
    };
    text.match_indices(word).map(|(at, _)| at).filter(|at| alone(*at)).collect()
}

/// Every offset of `text`, and of an empty one too.
fn whole(text: &str) -> Range<usize> {
    0..text.len() + 1
}

fn is_test_path(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.split('/').any(|name| name == "tests")
}

fn test_spans(code: &str) -> Vec<Range<usize>> {
    let mut spans: Vec<Range<usize>> = Vec::new();
    for (at, mark) in code.match_indices('#') {
        if spans.last().is_some_and(|span| span.contains(&at)) {
            continue;
        }
        let inner = code[at + mark.len()..].starts_with("![");
        let open = at + mark.len() + usize::from(inner);
        if !code[open..].starts_with('[') {
            continue;
        }
        let end = close(code, open);
        let content = code.get(open + 1..end.saturating_sub(1)).unwrap_or("");
        if is_test_attribute(content) {
            let span = if inner { whole(code) } else { at..item_end(code, skip(code, end)) };
            spans.push(span);
        }
    }
    spans
}

fn is_test_attribute(content: &str) -> bool {
    let content = content.trim();
    let condition = content.strip_prefix("cfg(").is_some_and(|condition| {
        words(condition, "test").iter().any(|at| !condition[..*at].ends_with("not("))
    });
    content == "test" || condition
}

/// The offset behind the attributes and blanks that start at `from`.
fn skip(code: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(byte) = code.as_bytes().get(at) {
        match byte {
            b'#' => at = close(code, at + 1),
            _ if byte.is_ascii_whitespace() => at += 1,
            _ => break,
        }
    }
    at
}

fn view(bytes: &[u8], classes: &[Class], wanted: Class) -> String {
    let keep = |(byte, class): (&u8, &Class)| match byte {
        b'\n' => '\n',
        _ if *class == wanted && byte.is_ascii() => char::from(*byte),
        _ => ' ',
    };
    bytes.iter().zip(classes).map(keep).collect()
}

fn classify(bytes: &[u8]) -> Vec<Class> {
    let mut classes = Vec::with_capacity(bytes.len());
    while classes.len() < bytes.len() {
        let (class, length) = token(&bytes[classes.len()..]);
        let end = (classes.len() + length).min(bytes.len());
        classes.resize(end, class);
    }
    classes
}

/// The class and the length, at least 1, of the token that `rest` starts with.
fn token(rest: &[u8]) -> (Class, usize) {
    if rest.starts_with(b"//") {
        return (Class::Comment, find(rest, 0, b"\n").unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return (Class::Comment, block_comment(rest));
    }
    if let Some(length) = raw_string(rest) {
        return (Class::Literal, length);
    }
    match rest[0] {
        b'"' => (Class::Literal, string(rest)),
        b'\'' => character(rest).map_or((Class::Code, 1), |length| (Class::Literal, length)),
        byte if is_word(byte) => {
            (Class::Code, rest.iter().position(|byte| !is_word(*byte)).unwrap_or(rest.len()))
        }
        _ => (Class::Code, 1),
    }
}

fn find(bytes: &[u8], from: usize, pattern: &[u8]) -> Option<usize> {
    let rest = bytes.get(from..)?;
    rest.windows(pattern.len()).position(|window| window == pattern).map(|at| from + at)
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let prefix = [&b"r"[..], b"br", b"cr"].into_iter().find(|prefix| rest.starts_with(prefix))?;
    let hashes = rest[prefix.len()..].iter().take_while(|byte| **byte == b'#').count();
    let open = prefix.len() + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let end = [&b"\""[..], &b"#".repeat(hashes)].concat();
    Some(find(rest, open + 1, &end).map_or(rest.len(), |at| at + end.len()))
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != b'"' {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// The length of a character literal; nothing when the quote starts a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    let first = *rest.get(1)?;
    if first == b'\\' {
        return find(rest, 3, b"'").map(|at| at + 1);
    }
    let width = match first {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    };
    (rest.get(1 + width) == Some(&b'\'')).then_some(width + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> String {
        Source::new("crates/mpage/src/a.rs", text).code
    }

    #[test]
    fn literals_and_comments_are_not_code() {
        let text = "a /* x /* y */ z */ b // c\nlet d = \"e\\\"f\"; r#\"g\"h\"# 'i' '\\'' '\\\\' j";
        let words: Vec<String> = code(text).split_whitespace().map(str::to_owned).collect();
        assert_eq!(words, ["a", "b", "let", "d", "=", ";", "j"]);
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(code("fn f<'a>(r#type: &'a str)"), "fn f<'a>(r#type: &'a str)");
    }

    #[test]
    fn views_keep_offsets_and_lines() {
        let source =
            Source::new("crates/mpage/src/a.rs", "// one \u{e9}\nlet two = \"\n\";\nthree");
        assert_eq!(source.code.len(), source.text.len());
        assert_eq!(source.comments.len(), source.text.len());
        let at = source.code.find("three").expect("the word is code");
        assert_eq!(source.line_at(at), 4);
        assert!(source.comments.contains("one"));
    }

    #[test]
    fn test_code_is_known() {
        let text = "fn a() {}\n#[cfg(not(test))]\nfn b() {}\n#[cfg(all(test, mpage_loom))]\n\
                    mod c { fn d() {} }\nfn e() {}\n#[test]\nfn f() {}\n";
        let source = Source::new("crates/mpage/src/a.rs", text);
        let test = |name: &str| source.is_test(source.code.find(name).expect("the name is there"));
        assert_eq!(
            ["fn a", "fn b", "fn d", "fn e", "fn f"].map(test),
            [false, false, true, false, true]
        );
        assert!(Source::new("crates/mpage/tests/it/a.rs", "fn a() {}").is_test(0));
        assert!(Source::new("crates/mpage/src/page/tests.rs", "fn a() {}").is_test(0));
        assert!(Source::new("crates/mpage/src/a.rs", "#![cfg(test)]\nfn a() {}").is_test(0));
    }

    #[test]
    fn declared_test_modules_are_known() {
        let text =
            "#[cfg(test)]\nmod tests;\n#[cfg(all(test, mpage_loom))]\npub mod loom;\nmod a;\n";
        let page = Source::new("crates/mpage/src/page.rs", text);
        assert_eq!(
            page.test_modules(),
            ["crates/mpage/src/page/tests", "crates/mpage/src/page/loom"]
        );
        let root = Source::new("crates/mpage/src/lib.rs", text);
        assert_eq!(root.test_modules(), ["crates/mpage/src/tests", "crates/mpage/src/loom"]);
    }

    #[test]
    fn the_trailing_tests_module_is_found() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
        let source = Source::new("crates/mpage/src/a.rs", text);
        assert_eq!(source.tests_start(), 10);
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n}\nfn c() {}\n";
        let source = Source::new("crates/mpage/src/a.rs", text);
        assert_eq!(source.tests_start(), source.text.len());
    }
}
