//! The contract's page, docs/contract.md, held against the tests that exist.
//!
//! A statement is a table row of four cells: its number, where it comes from, what it says, and its
//! state. The state is `not yet`, `struck: ` and a reason, or the names of tests in backticks with
//! commas between them.

use std::collections::BTreeSet;

use crate::failure::Failure;
use crate::function::functions;
use crate::workspace::{Workspace, root};

/// The page, from the root of the workspace.
const PAGE: &str = "docs/contract.md";

/// The number of the last statement; the first is 1.
const LAST: usize = 136;

/// Where a statement can come from.
const ORIGINS: &[&str] = &["founding", "linux", "beyond"];

/// What is known of a statement.
#[derive(Debug, PartialEq, Eq)]
enum State {
    NotYet,
    Struck,
    Held(Vec<String>),
}

/// One row of the page.
#[derive(Debug)]
struct Statement {
    line: usize,
    number: usize,
    state: State,
}

/// Checks the page against the sources and prints how many statements are in which state.
pub(crate) fn run() -> Result<(), Failure> {
    let text = std::fs::read_to_string(root().join(PAGE)).map_err(|e| Failure::at(PAGE, &e))?;
    let tests = tests(&Workspace::read()?);
    let (statements, mut problems) = read(&text);
    problems.extend(check(&statements, &tests));
    for problem in &problems {
        println!("{PAGE}:{problem}");
    }
    println!("contract: {}", counts(&statements));
    match problems.len() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{PAGE} is wrong in {count} places"))),
    }
}

/// The names of all tests.
fn tests(workspace: &Workspace) -> BTreeSet<String> {
    let all = workspace.sources.iter().flat_map(functions);
    all.filter(|function| function.is_test).map(|function| function.name).collect()
}

/// The rows of the page that are right, and what is wrong with the others.
fn read(text: &str) -> (Vec<Statement>, Vec<String>) {
    let mut statements = Vec::new();
    let mut problems = Vec::new();
    for (index, line) in text.lines().enumerate() {
        match row(index + 1, line) {
            Some(Ok(statement)) => statements.push(statement),
            Some(Err(problem)) => problems.push(format!("{}: {problem}", index + 1)),
            None => {}
        }
    }
    (statements, problems)
}

/// The statement in a line; nothing when the line is no row of a table, or its head.
fn row(line: usize, text: &str) -> Option<Result<Statement, String>> {
    let cells = text.trim().strip_prefix('|')?;
    let cells: Vec<&str> = cells.strip_suffix('|').unwrap_or(cells).split('|').collect();
    let cells: Vec<&str> = cells.into_iter().map(str::trim).collect();
    let is_head = cells[0] == "no." || cells.iter().all(|cell| cell.trim_matches('-').is_empty());
    (!is_head).then(|| statement(line, &cells))
}

fn statement(line: usize, cells: &[&str]) -> Result<Statement, String> {
    let [number, origin, meaning, state] = cells else {
        return Err(format!("a row has 4 cells, this one {}", cells.len()));
    };
    let number = match number.parse() {
        Ok(number) if (1..=LAST).contains(&number) => number,
        _ => return Err(format!("`{number}` is not a number from 1 to {LAST}")),
    };
    if !ORIGINS.contains(origin) {
        return Err(format!("`{origin}` is none of {}", ORIGINS.join(", ")));
    }
    if meaning.is_empty() {
        return Err(format!("statement {number} says nothing"));
    }
    Ok(Statement { line, number, state: state_of(state)? })
}

fn state_of(cell: &str) -> Result<State, String> {
    if cell == "not yet" {
        return Ok(State::NotYet);
    }
    if let Some(reason) = cell.strip_prefix("struck:") {
        let given = !reason.trim().is_empty();
        return given.then_some(State::Struck).ok_or("struck without a reason".to_owned());
    }
    let name = |part: &str| {
        let name = part.trim().strip_prefix('`')?.strip_suffix('`')?;
        let word = name.chars().all(|sign| sign.is_ascii_alphanumeric() || sign == '_');
        (word && !name.is_empty()).then(|| name.to_owned())
    };
    let names: Option<Vec<String>> = cell.split(',').map(name).collect();
    let wanted = "neither `not yet`, nor `struck: reason`, nor names of tests in backticks";
    names.map(State::Held).ok_or_else(|| format!("`{cell}` is {wanted}"))
}

/// What is wrong with the statements together.
fn check(statements: &[Statement], tests: &BTreeSet<String>) -> Vec<String> {
    let mut problems = Vec::new();
    for number in 1..=LAST {
        let rows: Vec<_> = statements.iter().filter(|row| row.number == number).collect();
        match rows.as_slice() {
            [] => problems.push(format!(" statement {number} is missing")),
            [_] => {}
            [.., row] => problems.push(format!("{}: a second statement {number}", row.line)),
        }
    }
    for row in statements {
        let State::Held(names) = &row.state else { continue };
        for name in names.iter().filter(|name| !tests.contains(*name)) {
            let number = row.number;
            problems.push(format!("{}: statement {number}: no test is called {name}", row.line));
        }
    }
    problems
}

fn counts(statements: &[Statement]) -> String {
    let count = |wanted: fn(&State) -> bool| {
        statements.iter().filter(|statement| wanted(&statement.state)).count()
    };
    let held = count(|state| matches!(state, State::Held(_)));
    let not_yet = count(|state| *state == State::NotYet);
    let struck = count(|state| *state == State::Struck);
    format!("{held} held, {not_yet} not yet, {struck} struck")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# Page\n\n| no. | from | statement | state |\n|---|---|---|---|\n";

    /// A page with all statements, where `rows` stand for those of the numbers they start with.
    fn page(rows: &[&str]) -> String {
        let numbers: Vec<usize> =
            rows.iter().filter_map(|row| row.split(' ').nth(1)?.parse().ok()).collect();
        let others = (1..=LAST).filter(|number| !numbers.contains(number));
        let others = others.map(|number| format!("| {number} | linux | a | not yet |\n"));
        format!("{HEAD}{}{}\n", others.collect::<String>(), rows.join("\n"))
    }

    fn problems(text: &str) -> Vec<String> {
        let known = BTreeSet::from(["fsync_waits".to_owned(), "walk_ends".to_owned()]);
        let (statements, mut problems) = read(text);
        problems.extend(check(&statements, &known));
        problems
    }

    fn finds(rows: &[&str], expected: &str) {
        let found = problems(&page(rows));
        assert!(found.iter().any(|problem| problem.contains(expected)), "{expected}: {found:?}");
    }

    #[test]
    fn a_right_page_has_no_problems() {
        let rows = [
            "| 7 | founding | a | `fsync_waits`, `walk_ends` |",
            "| 25 | linux | a | struck: no device can |",
        ];
        assert_eq!(problems(&page(&rows)), Vec::<String>::new());
        assert_eq!(counts(&read(&page(&rows)).0), "1 held, 134 not yet, 1 struck");
    }

    #[test]
    fn a_test_that_does_not_exist_is_found() {
        finds(
            &["| 7 | linux | a | `fsync_waits`, `fsync_sleeps` |"],
            "no test is called fsync_sleeps",
        );
    }

    #[test]
    fn missing_and_doubled_statements_are_found() {
        let text = page(&[]).replace("| 53 | linux | a | not yet |\n", "");
        assert_eq!(problems(&text), [" statement 53 is missing"]);
        let text = page(&["| 53 | linux | a | not yet |", "| 53 | linux | b | not yet |"]);
        assert_eq!(problems(&text), ["141: a second statement 53"]);
    }

    #[test]
    fn malformed_rows_are_found() {
        finds(&["| 7 | linux | a |"], "a row has 4 cells, this one 3");
        finds(&["| 137 | linux | a | not yet |"], "`137` is not a number from 1 to 136");
        finds(&["| x | linux | a | not yet |"], "`x` is not a number");
        finds(&["| 7 | rumour | a | not yet |"], "`rumour` is none of");
        finds(&["| 7 | linux |  | not yet |"], "statement 7 says nothing");
        finds(&["| 7 | linux | a | soon |"], "`soon` is neither");
        finds(&["| 7 | linux | a |  |"], "`` is neither");
        finds(&["| 7 | linux | a | `fsync_waits` and more |"], "is neither");
        finds(&["| 7 | linux | a | struck: |"], "struck without a reason");
    }

    #[test]
    fn only_tests_count_as_tests() {
        let files = vec![
            ("crates/mpage/src/a.rs".to_owned(), "fn fsync_waits() {}\n".to_owned()),
            ("crates/mpage/tests/it/b.rs".to_owned(), "#[test]\nfn walk_ends() {}\n".to_owned()),
        ];
        let found = tests(&Workspace::from_files(files));
        assert_eq!(found, BTreeSet::from(["walk_ends".to_owned()]));
    }
}
