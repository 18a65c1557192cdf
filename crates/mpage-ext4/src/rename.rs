//! Renaming: a name moves to another place, replaces another name, or changes places with it.
//!
//! A directory that moves has another `..` then. It must not move below itself: whether it would is
//! found by walking up from where it is to go, in the same attempt that moves it.
//!
//! Linux: `ext4_rename()`, `ext4_cross_rename()`, fs/ext4/namei.c; `do_renameat2()`,
//! `vfs_rename()`, fs/namei.c.

use mpage_block::Errno;

use crate::change::Change;
use crate::directory::{self, Name};
use crate::error::{Error, Result};
use crate::file_system::FileSystem;
use crate::inode::{APPEND_FLAG, FileKind, IMMUTABLE_FLAG, Inode, InodeNumber, Timestamp};
use crate::layers::Attempt;
use crate::names;
use crate::unlink::{lose_name, named};
use crate::view::View;

/// Directories one below the other at most: more are a damaged image.
const DEPTH_MAX: usize = 1 << 16;

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
        for at in [from, to] {
            if matches!(at.name, b"." | b"..") {
                let detail = format!("'{}' is to be renamed", at.name.escape_ascii());
                return Err(Error::errno(Errno::BUSY, detail));
            }
            names::check_len(at.name)?;
            self.warm_up(at.parent, at.name)?;
        }
        names::check(to.name)?;
        if let Ok(target) = self.lookup(to.parent, to.name) {
            self.warm_up_all(target)?;
        }
        let now = Timestamp::now();
        let gone = self.metadata.change(|change| {
            let mut parents = vec![names::directory(change, from.parent, true)?];
            if from.parent != to.parent {
                parents.push(names::directory(change, to.parent, false)?);
            }
            let source = named(change, &parents[0], from.name)?;
            let to_parent = &parents[parents.len() - 1];
            let target = match directory::find(change, to_parent, to.name)? {
                Some(found) => Some(change.inode(found.inode)?),
                None => None,
            };
            let rename = Rename { from, to, parents, source, now };
            rename.check(change, target.as_ref(), existing)?;
            match target {
                Some(target) if target.number == rename.source.number => Ok(None),
                Some(target) if existing == Existing::Exchange => rename.exchange(change, target),
                Some(target) => rename.replace(change, target),
                None => rename.move_away(change),
            }
        })?;
        self.release_if_gone(gone)
    }
}

/// True when `directory` is `below` or above it.
fn is_above(view: &View<'_>, directory: InodeNumber, below: InodeNumber) -> Attempt<bool> {
    let mut at = below;
    for _ in 0..DEPTH_MAX {
        if at == directory {
            return Ok(true);
        }
        if at == InodeNumber::ROOT {
            return Ok(false);
        }
        at = directory::parent(view, &directory::inode(view, at)?)?;
    }
    let detail = format!("more than {DEPTH_MAX} directories are above directory {below}");
    Err(Error::corrupt(detail).into())
}

impl Rename<'_> {
    fn new_parent(&mut self) -> &mut Inode {
        self.parents.last_mut().expect("there is one")
    }

    /// Checks that it may be done.
    fn check(&self, view: &View<'_>, target: Option<&Inode>, existing: Existing) -> Attempt<()> {
        let fails = |errno| {
            let detail =
                format!("{} to {}", self.from.name.escape_ascii(), self.to.name.escape_ascii());
            Err(Error::errno(errno, detail).into())
        };
        match (existing, target) {
            (Existing::Keep, Some(_)) => return fails(Errno::EXIST),
            (Existing::Exchange, None) => return fails(Errno::NOENT),
            _ => {}
        }
        let is_directory = |inode: &Inode| inode.kind == FileKind::Directory;
        let is_moving = |inode: &Inode| self.parents.len() > 1 && is_directory(inode);
        if is_moving(&self.source) && is_above(view, self.source.number, self.to.parent)? {
            return fails(Errno::INVAL);
        }
        let exchanges = existing == Existing::Exchange;
        let above = match target.filter(|target| is_moving(target)) {
            Some(target) => is_above(view, target.number, self.from.parent)?,
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
            (true, true) => {
                let target = directory::inode(view, target.number)?;
                if directory::is_empty(view, &target)? { Ok(()) } else { fails(Errno::NOTEMPTY) }
            }
            (false, false) => Ok(()),
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
