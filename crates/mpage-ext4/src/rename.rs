//! Renaming: a name moves to another place, replaces another name, or changes places with it.
//!
//! A directory that moves has another `..` then. It must not move below itself: whether it would is
//! found by walking up from where it is to go, in the same attempt that moves it.
//!
//! Linux: `ext4_rename()`, `ext4_cross_rename()`, fs/ext4/namei.c; `do_renameat2()`,
//! `vfs_rename()`, fs/namei.c.

use std::ops::ControlFlow;

use mpage_block::Errno;

use crate::change::Change;
use crate::directory::{self, Name};
use crate::emptiness::Emptiness;
use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::inode::{APPEND_FLAG, FileKind, IMMUTABLE_FLAG, Inode, InodeNumber, Timestamp};
use crate::layers::Attempt;
use crate::names;
use crate::unlink::{lose_name, named};
use crate::view::View;

/// What happens when there is something of the new name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced.
    Replace,
    /// Nothing is done. Linux: `RENAME_NOREPLACE`.
    Keep,
    /// The two change places. Linux: `RENAME_EXCHANGE`.
    Exchange,
}

/// A name in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At<'a> {
    /// The directory.
    pub parent: InodeNumber,
    /// The name.
    pub name: &'a [u8],
}

/// A rename that is being made.
struct Rename<'a> {
    from: At<'a>,
    to: At<'a>,
    /// The directory of `from`, and that of `to` if it is another one.
    parents: Vec<Inode>,
    source: Inode,
    now: Timestamp,
}

impl FileSystem {
    /// Gives what has the name `from` the name `to` instead. If both are names of one file,
    /// nothing is done.
    ///
    /// # Errors
    ///
    /// `ENOENT`, of `to` only with [`Existing::Exchange`], and when a directory was removed;
    /// `EEXIST` with [`Existing::Keep`]; `EINVAL` of a directory that would get below itself, and
    /// of a name that cannot be; `ENOTEMPTY` when `to` is a directory that is not empty; `EISDIR`
    /// when it is a directory and `from` is none; `ENOTDIR` when it is the other way round; `EBUSY`
    /// of `.` and `..`; `EMLINK`; `ENAMETOOLONG`; `EPERM` when flags forbid it; `ENOSPC`; `EROFS`;
    /// `Corrupt` and the device's, also when it is renamed and what it replaced cannot be freed.
    pub fn rename(&self, from: At<'_>, to: At<'_>, existing: Existing) -> Result<()> {
        let _writer = self.metadata.begin_writing()?;
        for at in [from, to] {
            if matches!(at.name, b"." | b"..") {
                let detail = format!("'{}' is to be renamed", at.name.escape_ascii());
                return Err(Error::errno(Errno::BUSY, detail));
            }
            names::check_len(at.name)?;
            self.warm_up(at.parent, at.name)?;
        }
        names::check(to.name)?;
        if from.parent != to.parent {
            self.warm_up_above(from, to.parent)?;
            self.warm_up_above(to, from.parent)?;
        }
        let now = Timestamp::now();
        loop {
            let seen = match self.lookup(to.parent, to.name) {
                Ok(target) if existing == Existing::Replace => self.look_if_empty(target)?,
                _ => None,
            };
            let step = |change: &mut Change<'_>| {
                let rename = Rename::new(change, (from, to), now)?;
                rename.make(change, existing, seen.as_ref())
            };
            if let ControlFlow::Break(gone) = self.metadata.change(step)? {
                return self.release_if_gone(gone);
            }
        }
    }

    /// Brings what is above `directory` into memory, if `at` is a directory, which must not be
    /// there: a change that needs it begins again for each block that is not there. What is not as
    /// it should be the change will see.
    fn warm_up_above(&self, at: At<'_>, directory: InodeNumber) -> Result<()> {
        let Ok(moving) = self.lookup(at.parent, at.name) else { return Ok(()) };
        if self.attributes(moving)?.kind != FileKind::Directory {
            return Ok(());
        }
        let parent = |at| self.metadata.read(|view| parent_of(view, at));
        match is_above(moving, directory, parent) {
            Err(error) if matches!(error.kind.errno(), Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(error) => Err(self.metadata.note(error)),
            Ok(_) => Ok(()),
        }
    }
}

fn parent_of(view: &View<'_>, directory: InodeNumber) -> Attempt<InodeNumber> {
    directory::parent(view, &directory::inode(view, directory)?)
}

/// True when `directory` is `below` or above it, by what `parent` says of each. That they are a
/// ring is found as by Brent, "An improved Monte Carlo factorization algorithm", 1980.
fn is_above<E: From<Error>>(
    directory: InodeNumber,
    below: InodeNumber,
    mut parent: impl FnMut(InodeNumber) -> std::result::Result<InodeNumber, E>,
) -> std::result::Result<bool, E> {
    let (mut at, mut seen) = (below, below);
    let (mut steps, mut steps_max) = (0_u64, 1);
    while at != directory && at != InodeNumber::ROOT {
        at = parent(at)?;
        steps += 1;
        if at == seen {
            return Err(Error::corrupt(format!("directory {at} is above itself")).into());
        }
        if steps == steps_max {
            (seen, steps, steps_max) = (at, 0, 2 * steps_max);
        }
    }
    Ok(at == directory)
}

impl<'a> Rename<'a> {
    /// Of `from` to `to`.
    fn new(view: &View<'_>, (from, to): (At<'a>, At<'a>), now: Timestamp) -> Attempt<Rename<'a>> {
        let mut parents = vec![names::directory(view, from.parent, true)?];
        if from.parent != to.parent {
            parents.push(names::directory(view, to.parent, false)?);
        }
        let source = named(view, &parents[0], from.name)?;
        Ok(Rename { from, to, parents, source, now })
    }

    /// Makes it; returns what is to be freed. Not when one has to look again whether what it
    /// replaces is empty, which was `seen`.
    fn make(
        self,
        change: &mut Change<'_>,
        existing: Existing,
        seen: Option<&Emptiness<'_>>,
    ) -> Attempt<ControlFlow<Option<InodeNumber>>> {
        let to_parent = &self.parents[self.parents.len() - 1];
        let target = match directory::find(change, to_parent, self.to.name)? {
            Some(found) => Some(change.inode(found.inode)?),
            None => None,
        };
        self.check(change, target.as_ref(), existing)?;
        let gone = match target {
            Some(target) if target.number == self.source.number => None,
            Some(target) if existing == Existing::Exchange => self.exchange(change, target)?,
            Some(target) => {
                if target.kind == FileKind::Directory {
                    let Some(seen) = seen else { return Ok(ControlFlow::Continue(())) };
                    match seen.of(change, &directory::inode(change, target.number)?)? {
                        None => return Ok(ControlFlow::Continue(())),
                        Some(false) => return Err(self.error(Errno::NOTEMPTY).into()),
                        Some(true) => {}
                    }
                }
                self.replace(change, target)?
            }
            None => self.move_away(change)?,
        };
        Ok(ControlFlow::Break(gone))
    }

    fn error(&self, errno: Errno) -> Error {
        let [from, to] = [self.from.name, self.to.name].map(<[u8]>::escape_ascii);
        Error::errno(errno, format!("{from} to {to}"))
    }

    fn new_parent(&mut self) -> &mut Inode {
        self.parents.last_mut().expect("there is one")
    }

    /// Checks that it may be done.
    fn check(&self, view: &View<'_>, target: Option<&Inode>, existing: Existing) -> Attempt<()> {
        let fails = |errno| Err(self.error(errno).into());
        let parent = |at| parent_of(view, at);
        match (existing, target) {
            (Existing::Keep, Some(_)) => return fails(Errno::EXIST),
            (Existing::Exchange, None) => return fails(Errno::NOENT),
            _ => {}
        }
        let is_directory = |inode: &Inode| inode.kind == FileKind::Directory;
        let is_moving = |inode: &Inode| self.parents.len() > 1 && is_directory(inode);
        if is_moving(&self.source) && is_above(self.source.number, self.to.parent, parent)? {
            return fails(Errno::INVAL);
        }
        let exchanges = existing == Existing::Exchange;
        let above = match target.filter(|target| is_moving(target)) {
            Some(target) => is_above(target.number, self.from.parent, parent)?,
            None => false,
        };
        if above {
            return fails(if exchanges { Errno::INVAL } else { Errno::NOTEMPTY });
        }
        names::check_flags(&self.source, IMMUTABLE_FLAG | APPEND_FLAG)?;
        let Some(target) = target.filter(|target| target.number != self.source.number) else {
            return Ok(());
        };
        for inode in [target, &self.parents[self.parents.len() - 1]] {
            names::check_flags(inode, IMMUTABLE_FLAG | APPEND_FLAG)?;
        }
        if exchanges {
            return Ok(());
        }
        match (is_directory(&self.source), is_directory(target)) {
            (true, false) => fails(Errno::NOTDIR),
            (false, true) => fails(Errno::ISDIR),
            _ => Ok(()),
        }
    }

    /// There is nothing where it goes.
    fn move_away(mut self, change: &mut Change<'_>) -> Attempt<Option<InodeNumber>> {
        let name = Name::new(self.to.name, &self.source);
        directory::insert(change, self.parents.last_mut().expect("there is one"), &name)?;
        directory::remove(change, &self.parents[0], self.from.name)?;
        if self.moves_directory() {
            self.parents[0].lose_directory();
            self.new_parent().gain_directory(change.sb)?;
        }
        self.finish(change)?;
        Ok(None)
    }

    /// It replaces `target`.
    fn replace(
        mut self,
        change: &mut Change<'_>,
        mut target: Inode,
    ) -> Attempt<Option<InodeNumber>> {
        let name = Name::new(self.to.name, &self.source);
        directory::set(change, self.new_parent(), &name)?;
        directory::remove(change, &self.parents[0], self.from.name)?;
        if target.kind == FileKind::Directory {
            // The new parent has one more and one less.
            self.parents[0].lose_directory();
        }
        self.finish(change)?;
        let is_gone = lose_name(change, &mut target, self.now)?;
        Ok(is_gone.then_some(target.number))
    }

    /// It and `target` change places.
    fn exchange(
        mut self,
        change: &mut Change<'_>,
        mut target: Inode,
    ) -> Attempt<Option<InodeNumber>> {
        let name = Name::new(self.to.name, &self.source);
        directory::set(change, self.new_parent(), &name)?;
        let name = Name::new(self.from.name, &target);
        directory::set(change, &self.parents[0], &name)?;
        let is_directory = |inode: &Inode| inode.kind == FileKind::Directory;
        if self.parents.len() > 1 {
            match (is_directory(&self.source), is_directory(&target)) {
                (true, false) => {
                    self.parents[0].lose_directory();
                    self.new_parent().gain_directory(change.sb)?;
                }
                (false, true) => {
                    self.parents[0].gain_directory(change.sb)?;
                    self.new_parent().lose_directory();
                }
                _ => {}
            }
            if is_directory(&target) {
                directory::set_parent(change, &target, self.from.parent)?;
            }
        }
        target.changed = self.now;
        change.put_inode(&target)?;
        self.finish(change)?;
        Ok(None)
    }

    fn moves_directory(&self) -> bool {
        self.parents.len() > 1 && self.source.kind == FileKind::Directory
    }

    /// What is the same for all.
    fn finish(&mut self, change: &mut Change<'_>) -> Attempt<()> {
        if self.moves_directory() {
            directory::set_parent(change, &self.source, self.to.parent)?;
        }
        self.source.changed = self.now;
        change.put_inode(&self.source)?;
        for parent in &mut self.parents {
            (parent.modified, parent.changed) = (self.now, self.now);
            change.put_inode(parent)?;
        }
        Ok(())
    }
}
