//! What was promised, from when to when.

use std::collections::BTreeMap;
use std::fmt;

use crate::content::FileId;

/// What has to be at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A file with exactly this content.
    File(Vec<u8>),
    /// A file with one of these contents.
    OneOf(Vec<Vec<u8>>),
    /// A directory.
    Directory,
    /// Nothing.
    Absent,
    /// A file with this extended attribute.
    Attribute(&'static str, Vec<u8>),
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::File(content) => write!(f, "a file of {} bytes", content.len()),
            State::OneOf(contents) => write!(f, "one of {} files", contents.len()),
            State::Directory => f.write_str("a directory"),
            State::Absent => f.write_str("nothing"),
            State::Attribute(name, _) => write!(f, "a file with {name}"),
        }
    }
}

/// What facts about attribute `name` of the file at `path` are about.
pub fn of(path: &str, name: &str) -> String {
    format!("{path}\0{name}")
}

/// A promise.
#[derive(Clone, Debug)]
pub struct Fact {
    /// About what.
    pub path: String,
    /// What is to be there.
    pub state: State,
    /// The instant at which it was promised.
    pub from: u64,
    /// The instant at which somebody began to change it.
    pub until: Option<u64>,
}

/// All that was promised in a run, and all files that each path ever named.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    all: Vec<Fact>,
    files: BTreeMap<String, Vec<FileId>>,
}

impl Facts {
    /// From `now` on `path` is in `state`.
    pub fn begin(&mut self, path: &str, state: State, now: u64) {
        self.all.push(Fact { path: path.into(), state, from: now, until: None });
    }

    /// From `now` on nothing is known of `path`.
    pub fn end(&mut self, path: &str, now: u64) {
        let is_of = |fact: &&mut Fact| fact.path == path || fact.path.starts_with(&of(path, ""));
        let known = self.all.iter_mut().filter(is_of).filter(|fact| fact.until.is_none());
        known.for_each(|fact| fact.until = Some(now));
    }

    /// From `now` on what is known of `path` itself is known anew.
    pub fn renew(&mut self, path: &str, state: State, now: u64) {
        let is_known = |fact: &&mut Fact| fact.path == path && fact.until.is_none();
        self.all.iter_mut().filter(is_known).for_each(|fact| fact.until = Some(now));
        self.begin(path, state, now);
    }

    /// `path` names `file`.
    pub fn note_file(&mut self, path: &str, file: FileId) {
        let files = self.files.entry(path.into()).or_default();
        if !files.contains(&file) {
            files.push(file);
        }
    }

    /// The files that `path` ever named.
    pub fn files(&self, path: &str) -> &[FileId] {
        self.files.get(path).map_or(&[], Vec::as_slice)
    }

    /// What holds after a crash right behind instant `crash`.
    pub fn at(&self, crash: u64) -> impl Iterator<Item = &Fact> {
        let holds =
            move |fact: &&Fact| fact.from <= crash && fact.until.is_none_or(|until| crash < until);
        self.all.iter().filter(holds)
    }

    /// The instants at which something was promised, ascending.
    pub fn promises(&self) -> Vec<u64> {
        let mut promises: Vec<u64> = self.all.iter().map(|fact| fact.from).collect();
        promises.sort_unstable();
        promises.dedup();
        promises
    }
}
