//! How large things may be. The limits may shrink; they do not grow.

use super::Finding;
use crate::function::functions;
use crate::source::Source;

/// The most lines of a function, from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// The most lines of a file, without the tests module that ends it.
const FILE_LINES_MAX: usize = 800;

/// The most columns of a line.
const COLUMNS_MAX: usize = 100;

/// Checks the sizes in `source`.
pub(super) fn check(source: &Source, findings: &mut Vec<Finding>) {
    for function in functions(source) {
        let lines = source.line_at(function.end - 1) - source.line_at(function.start) + 1;
        if lines > FUNCTION_LINES_MAX {
            let name = function.name;
            let remedy = format!("{name} has {lines} of {FUNCTION_LINES_MAX} lines: split it");
            findings.push(Finding::new(source, function.start, "function length", remedy));
        }
    }
    let body = &source.text[..source.tests_start()];
    let lines = body.lines().count();
    if lines > FILE_LINES_MAX {
        let remedy = format!("{lines} of {FILE_LINES_MAX} lines without tests: split the noun");
        findings.push(Finding::new(source, 0, "file length", remedy));
    }
    for (index, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            let remedy = format!("{columns} of {COLUMNS_MAX} columns: break the line");
            let path = source.path.clone();
            findings.push(Finding { path, line: index + 1, rule: "line length", remedy });
        }
    }
}
