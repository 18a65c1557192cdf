//! Making a case that fails smaller: with fewer steps, less damage, and less of an image.

use std::fs;
use std::path::Path;
use std::process::Command;

use mpage_locks::clock;

use crate::case::{Case, Target};
use crate::e2fsck::WRONG;
use crate::failure::{Failure, Result};
use crate::image::{CHUNK, Image};

/// Seconds after which a case counts as one that does not end.
const CASE_SECONDS: &str = "10";
/// How long to go on.
const NANOSECONDS_MAX: u64 = 120_000_000_000;
/// Bytes of the front of an image that stay as they are in the base: the superblock is there.
const FRONT: usize = 2048;
/// Bytes that are taken from an image at once.
const PIECES: [usize; 2] = [CHUNK, 64];

/// How a case ends in a process of its own; `None` if it ends well.
fn failure_of(case: &Case) -> Result<Option<String>> {
    let file = tempfile::NamedTempFile::new().map_err(Failure::at("a scratch file"))?;
    fs::write(file.path(), case.to_string()).map_err(Failure::at(file.path()))?;
    let program = std::env::current_exe().map_err(Failure::at("this program"))?;
    let mut command = Command::new("timeout");
    let _command = command.args(["--kill-after=1", CASE_SECONDS]).arg(program);
    let _command = command.arg("replay").arg(file.path()).env("RUST_BACKTRACE", "0");
    let output = command.output().map_err(Failure::at("timeout"))?;
    if output.status.success() {
        return Ok(None);
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let complaint = errors.lines().find(|line| WRONG.iter().any(|word| line.contains(word)));
    let place = errors.lines().find_map(|line| line.split_once("panicked at "));
    let first = errors.lines().find(|line| !line.is_empty());
    Ok(Some(match (place, first) {
        _ if output.status.code() == Some(124) => "it does not end".to_owned(),
        // Whatever the numbers are.
        _ if complaint.is_some() => {
            complaint.unwrap_or_default().replace(|letter: char| letter.is_ascii_digit(), "")
        }
        (Some((_, place)), _) => place.to_owned(),
        (None, Some(line)) => line.to_owned(),
        (None, None) => output.status.to_string(),
    }))
}

/// Makes `case`, whose image is a damaged `base`, smaller, as long as it fails in the same way, and
/// tells which.
fn reduce(case: &Case, base: &[u8]) -> Result<(Case, String)> {
    let failure = failure_of(case)?.ok_or_else(|| Failure::new("the case does not fail"))?;
    let search = Search { failure, start_ns: clock::now_ns() };
    let with_steps = |steps: &[_]| Case { steps: steps.to_vec(), ..case.clone() };
    let case = search.fewest(&case.steps, with_steps)?;
    if case.target == Target::Check {
        // What e2fsck looks at stays whole.
        return Ok((case, search.failure));
    }

    let damaged = case.image.bytes();
    let words: Vec<usize> = (0..damaged.len()).step_by(4).collect();
    let words = words.into_iter().filter(|at| damaged[*at..at + 4] != base[*at..at + 4]);
    let words: Vec<usize> = words.collect();
    let with = |words: &[usize]| {
        let mut bytes = base.to_vec();
        words.iter().for_each(|at| bytes[*at..at + 4].copy_from_slice(&damaged[*at..at + 4]));
        Case { image: Image::new(bytes.into()), ..case.clone() }
    };
    let mut case = search.fewest(&words, with)?;

    for len in PIECES {
        let bytes = case.image.bytes();
        let pieces = (FRONT..bytes.len()).step_by(len);
        let pieces = pieces.filter(|at| bytes[*at..at + len].iter().any(|byte| *byte != 0));
        let pieces: Vec<usize> = pieces.collect();
        let with = |pieces: &[usize]| {
            let mut some = vec![0; bytes.len()];
            some[..FRONT].copy_from_slice(&bytes[..FRONT]);
            for at in pieces {
                some[*at..at + len].copy_from_slice(&bytes[*at..at + len]);
            }
            Case { image: Image::new(some.into()), ..case.clone() }
        };
        case = search.fewest(&pieces, with)?;
    }
    Ok((case, search.failure))
}

/// A search for what makes a case fail.
struct Search {
    failure: String,
    start_ns: u64,
}

impl Search {
    /// The case that `with` makes of few of `items`, and that fails in the same way as with all.
    fn fewest<T: Clone>(&self, items: &[T], with: impl Fn(&[T]) -> Case) -> Result<Case> {
        let mut items = items.to_vec();
        let mut len = items.len().next_power_of_two();
        while len > 0 {
            let mut at = 0;
            while at < items.len() && clock::now_ns() - self.start_ns < NANOSECONDS_MAX {
                let mut fewer = items.clone();
                drop(fewer.drain(at..(at + len).min(items.len())));
                match failure_of(&with(&fewer))?.as_ref() == Some(&self.failure) {
                    true => items = fewer,
                    false => at += len,
                }
            }
            len /= 2;
        }
        Ok(with(&items))
    }
}

/// Makes `case`, whose image is a damaged `base`, smaller, writes it as text to file `to`, and
/// returns how it fails.
///
/// # Errors
///
/// It does not fail; those of starting processes, and of writing.
pub fn reduce_file(case: &Case, base: &[u8], to: &Path) -> Result<String> {
    let (small, failure) = reduce(case, base)?;
    fs::write(to, format!("# {failure}\n{small}")).map_err(Failure::at(to))?;
    Ok(failure)
}
