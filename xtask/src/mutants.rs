//! Planted bugs: each patch of `mutants/` breaks the engine, or the files of images over it, in
//! one way, and a checker has to see it.
//!
//! A patch begins with the words that say what it breaks. It is planted in a copy of the committed
//! tree, in the target folder; nobody's own tree is touched.

mod checkers;
mod copy;

use std::fs;
use std::path::PathBuf;

use mpage_locks::clock;

use crate::failure::Failure;
use crate::sim::{On, fresh_seed};
use crate::workspace::root;
use checkers::{Caught, Checkers};
use copy::Copy;

/// Programs that the simulator runs on a mutant at most.
const PROGRAMS: u64 = 40_000;

/// A planted bug.
struct Mutant {
    name: String,
    patch: PathBuf,
    /// What it breaks.
    of: On,
}

/// What was found out of a mutant.
struct Verdict {
    name: String,
    caught: Option<Caught>,
    seconds: f64,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (by, how) = match &self.caught {
            Some(caught) => (caught.by, caught.how.as_str()),
            None => ("NOT CAUGHT", ""),
        };
        write!(f, "{:<50} {by:<10} {:>4.0} s  {how}", self.name, self.seconds)
    }
}

/// Runs the checkers on the mutants that are named, or on all; with `--check` only sees that each
/// patch applies and compiles. The simulator runs `--programs N` programs on each at most.
///
/// # Errors
///
/// A mutant that nothing caught, or that does not apply or compile; a program of the simulator that
/// fails without a bug too.
pub(crate) fn run(arguments: &[String]) -> Result<(), Failure> {
    let (mut only_check, mut programs, mut names) = (false, PROGRAMS, Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--check" => only_check = true,
            "--programs" => {
                let count = arguments.next().map(|count| count.parse());
                let Some(Ok(count)) = count else { return Err(Failure::new("--programs N")) };
                programs = count;
            }
            _ => names.push(argument.as_str()),
        }
    }
    let mutants = mutants(&names)?;
    if only_check { check(&mutants, |_| true) } else { catch(&mutants, programs) }
}

/// What the names of bugs of the journal begin with.
const JOURNAL: &str = "journal-";

/// Of so many patches a change has one compiled, drawn by chance; all have to apply.
const COMPILED_EACH: u64 = 4;

/// Sees that each patch applies, and that some of them compile.
///
/// # Errors
///
/// The first that does not.
pub(crate) fn check_some() -> Result<(), Failure> {
    let drawn = fresh_seed()? % COMPILED_EACH;
    check(&mutants(&[])?, |number| number % COMPILED_EACH == drawn)
}

/// The mutants of `mutants/` with one of `names`, or all if there are none; by name.
fn mutants(names: &[&str]) -> Result<Vec<Mutant>, Failure> {
    let folder = root().join("mutants");
    let failed = |error: std::io::Error| Failure::at("mutants", &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let patch = entry.map_err(failed)?.path();
        let file = patch.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(name) = file.strip_suffix(".patch") else {
            return Err(Failure::new(format!("mutants/{file} is no patch")));
        };
        let text = fs::read_to_string(&patch).map_err(|error| Failure::at(&file, &error))?;
        if !says_what_it_breaks(&text) {
            return Err(Failure::new(format!("mutants/{file} does not say what it breaks")));
        }
        found.push(Mutant { name: name.to_owned(), patch, of: what_it_breaks(&text) });
    }
    if let Some(unknown) = names.iter().find(|name| found.iter().all(|one| one.name != **name)) {
        return Err(Failure::new(format!("no mutant is called {unknown}")));
    }
    found.retain(|one| names.is_empty() || names.contains(&one.name.as_str()));
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// True when there are words before the first file of a patch.
fn says_what_it_breaks(text: &str) -> bool {
    text.split("diff --git").next().is_some_and(|words| words.trim().len() > 20)
}

/// What the files of a patch belong to.
fn what_it_breaks(text: &str) -> On {
    match text.contains("\n+++ b/crates/mpage-ext4/") {
        true => On::Ext4,
        false => On::Engine,
    }
}

/// Sees that all of `mutants` apply, and that those compile whose numbers `compiles` wants.
fn check(mutants: &[Mutant], compiles: impl Fn(u64) -> bool) -> Result<(), Failure> {
    let copy = Copy::of_what_is_committed()?;
    let checkers = Checkers::new(copy.site(), 0);
    let mut count = 0;
    for (number, mutant) in (0..).zip(mutants) {
        copy.plant(&mutant.patch)?;
        let is_compiled = compiles(number);
        let compiled = if is_compiled { checkers.compile(mutant.of) } else { Ok(()) };
        copy.restore()?;
        compiled.map_err(|failure| Failure::new(format!("{}: {failure}", mutant.name)))?;
        count += u64::from(is_compiled);
    }
    println!("{} mutants apply, {count} of them were compiled", mutants.len());
    Ok(())
}

fn catch(mutants: &[Mutant], programs: u64) -> Result<(), Failure> {
    let copy = Copy::of_what_is_committed()?;
    let mut checkers = Checkers::new(copy.site(), programs);
    checkers.keep_sound()?;
    let mut verdicts = Vec::new();
    for mutant in mutants {
        let start_ns = clock::now_ns();
        copy.plant(&mutant.patch)?;
        let caught = checkers.catch(mutant.of, mutant.name.starts_with(JOURNAL));
        copy.restore()?;
        let caught =
            caught.map_err(|failure| Failure::new(format!("{}: {failure}", mutant.name)))?;
        let seconds = (clock::now_ns() - start_ns) as f64 / 1e9;
        let verdict = Verdict { name: mutant.name.clone(), caught, seconds };
        println!("{verdict}");
        verdicts.push(verdict);
    }
    println!("== all mutants");
    verdicts.iter().for_each(|verdict| println!("{verdict}"));
    let caught = verdicts.iter().filter(|verdict| verdict.caught.is_some()).count();
    println!("{} mutants, {caught} caught", verdicts.len());
    if let Some(first) = checkers.unsound().first() {
        return Err(Failure::new(first));
    }
    match caught == verdicts.len() {
        true => Ok(()),
        false => Err(Failure::new("a planted bug was not caught")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_without_words_is_noticed() {
        assert!(says_what_it_breaks("Writes are lost when they end.\ndiff --git a/b b/b\n"));
        assert!(!says_what_it_breaks("\ndiff --git a/b b/b\n--- a/b, which is a file\n"));
    }

    #[test]
    fn a_name_that_no_mutant_has_is_a_failure() {
        assert!(mutants(&["no-such-mutant"]).is_err());
        assert!(mutants(&[]).is_ok_and(|all| !all.is_empty()));
    }
}
