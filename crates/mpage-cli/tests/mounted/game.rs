//! One program, played on both mounts, and everything compared.

use std::collections::HashMap;
use std::fmt::Debug;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, SeekFrom, fsync, ftruncate, openat, seek, syncfs,
};
use rustix::io::Errno;

use crate::call::{Call, SLOTS, Slot, Step};
use crate::content;
use crate::differences::{Case, DIFFERENCES, What, explained, refused};
use crate::outcome::Outcome;
use crate::player::Player;
use crate::seen::{Instant, Seen, Tree, look};
use crate::user::as_user;

/// Steps between two looks at all contents.
const LOOK: usize = 20;

/// One of so many programs has its blocks counted.
const COUNTED: u64 = 3;

/// What statx(2) calls `AT_STATX_FORCE_SYNC`.
const FORCE_SYNC: u32 = 0x2000;

/// Seconds from the start of a program that a time is taken for its own.
const NEAR: i64 = 3600;

/// How often each of the expected differences was met.
pub(crate) type Met = [usize; DIFFERENCES.len()];

/// Where a program's results differ.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    /// The step behind which it was seen.
    pub(crate) step: usize,
    /// What kind of difference it is.
    pub(crate) kind: String,
    /// What differs, in words.
    pub(crate) words: String,
}

/// Two mounts of one image: the kernel's, and that of the program that is tested.
pub(crate) struct Pair<'a> {
    pub(crate) kernel: &'a Path,
    pub(crate) other: &'a Path,
    /// Whether the other one is the kernel's too, and has every call the first has.
    pub(crate) equal: bool,
    /// Whether files have extents.
    pub(crate) has_extents: bool,
    /// Whether times are as fine as the clock is.
    pub(crate) fine_times: bool,
}

/// What was seen of both at one moment.
struct Sight {
    trees: [Tree; 2],
    open: [[Option<Seen>; 2]; SLOTS],
}

struct Game<'a> {
    pair: &'a Pair<'a>,
    kernel: Player,
    other: Player,
    now: i64,
    /// Whether blocks are counted at the end, which takes a sync of each file.
    counts_blocks: bool,
    /// Whether the step was undone on the kernel's mount.
    was_undone: bool,
    /// Whether a user without privileges was refused a change of content.
    was_refused: bool,
    /// Of each of the kernel's inodes the other's.
    inodes: HashMap<u64, u64>,
    met: Met,
}

/// Plays the `steps` of the program of `seed` in folders called `name`.
pub(crate) fn play(pair: &Pair<'_>, name: &str, seed: u64, steps: &[Step]) -> Result<Met, Trouble> {
    let counts_blocks = seed.is_multiple_of(COUNTED);
    let (kernel, other) = (Player::new(pair.kernel, name), Player::new(pair.other, name));
    let now = kernel.tree().unwrap()["."].changed.0;
    let (inodes, met) = (HashMap::new(), [0; DIFFERENCES.len()]);
    let mut game = Game {
        pair,
        kernel,
        other,
        now,
        counts_blocks,
        was_undone: false,
        was_refused: false,
        inodes,
        met,
    };
    let played = game.play(steps);
    let _mask = rustix::process::umask(Mode::empty());
    played.map(|()| game.met)
}

impl Game<'_> {
    fn play(&mut self, steps: &[Step]) -> Result<(), Trouble> {
        let mut before = self.look(0)?;
        for (index, step) in steps.iter().enumerate() {
            before = self
                .step(step, &before, index % LOOK == LOOK - 1)
                .map_err(|trouble| Trouble { step: index, ..trouble })?;
        }
        let last = steps.len().saturating_sub(1);
        self.end(&steps[last].call).map_err(|trouble| Trouble { step: last, ..trouble })
    }

    fn look(&self, step: usize) -> Result<Sight, Trouble> {
        let tree = |who: &str, player: &Player| {
            player.tree().map_err(|errno| Trouble {
                step,
                kind: format!("{who} cannot be looked at: {errno}"),
                words: String::new(),
            })
        };
        let trees = [tree("the kernel's tree", &self.kernel)?, tree("the tree", &self.other)?];
        let open =
            std::array::from_fn(|slot| [self.kernel.look_at(slot), self.other.look_at(slot)]);
        Ok(Sight { trees, open })
    }

    fn step(&mut self, step: &Step, before: &Sight, whole: bool) -> Result<Sight, Trouble> {
        let call = &step.call;
        self.was_undone = false;
        if !self.is_comparable(step) {
            return self.look(0);
        }
        let other = as_user(step.user, || self.other.play(call));
        let known =
            if self.pair.equal { None } else { refused(call, &other, self.pair.has_extents) };
        let kernel = match known {
            Some(known) => {
                self.met[known] += 1;
                Outcome::NotAsked
            }
            None => as_user(step.user, || self.kernel.play(call)),
        };
        let changes = matches!(
            call,
            Call::Write { .. } | Call::Truncate { .. } | Call::Copy { .. } | Call::Allocate { .. }
        );
        self.was_refused |= changes && step.user != 0 && matches!(other, Outcome::Failed(_));
        self.compare_results(call, &kernel, &other)?;
        let after = self.look(0)?;
        self.compare_sights(call, before, &after)?;
        self.compare_written(call)?;
        if whole {
            self.compare_contents(&after)?;
        }
        Ok(after)
    }

    /// Whether a step can be compared: room for a file without extents is refused, and privileges
    /// that others take from the file on the way there are gone on one mount alone.
    fn is_comparable(&self, step: &Step) -> bool {
        let asked = matches!(step.call, Call::Allocate { .. });
        !asked || self.pair.has_extents || self.pair.equal || step.user == 0
    }

    fn trouble(&self, kind: String, kernel: &dyn Debug, other: &dyn Debug) -> Trouble {
        Trouble { step: 0, kind, words: format!("the kernel {kernel:?}, mpage {other:?}") }
    }

    fn judge(&mut self, call: &Call, what: What<'_>, trouble: Trouble) -> Result<(), Trouble> {
        let case = Case {
            call,
            what,
            has_extents: self.pair.has_extents,
            was_undone: self.was_undone,
            was_refused: self.was_refused,
        };
        let known = explained(&case).ok_or(trouble)?;
        self.met[known] += 1;
        Ok(())
    }

    fn compare_results(
        &mut self,
        call: &Call,
        kernel: &Outcome,
        other: &Outcome,
    ) -> Result<(), Trouble> {
        if *kernel == Outcome::NotAsked || kernel == other {
            return Ok(());
        }
        if let (Outcome::Saw(kernel), Outcome::Saw(other)) = (kernel, other) {
            return self.compare_seen(call, "stat", [kernel, other]);
        }
        if let Call::Seek { slot, to } = call
            && self.same_place(*slot, *to, kernel, other)
        {
            return Ok(());
        }
        if let Call::Open { slot, .. } = call {
            // One has it open, and one has not.
            self.kernel.close(*slot);
            self.other.close(*slot);
        }
        let kind = format!("{}: {} and {}", call.name(), short(kernel), short(other));
        let trouble = self.trouble(kind, kernel, other);
        self.judge(call, What::Result(kernel, other), trouble)?;
        match call {
            Call::Seek { slot, .. } => self.go_to(*slot, 0),
            Call::Write { slot, .. } | Call::Copy { to: (slot, _), .. } => {
                let size = self.other.look_at(*slot).map_or(0, |seen| seen.size);
                let file = self.kernel.file(*slot).expect("it was written to");
                ftruncate(file, size).unwrap();
                self.go_to(*slot, 0);
                // That frees room that others have kept behind the end.
                (self.was_undone, self.counts_blocks) = (true, false);
            }
            _ => {}
        }
        Ok(())
    }

    /// Leaves an open file at one place, where one was elsewhere than the other.
    fn go_to(&self, slot: Slot, place: u64) {
        for player in [&self.kernel, &self.other] {
            let _moved = player.file(slot).map(|file| seek(file, SeekFrom::Start(place)));
        }
    }

    /// How far a span goes is each one's own; that what lies between reads as zeros is not. Nor are
    /// places in directories comparable.
    fn same_place(&self, slot: Slot, to: SeekFrom, kernel: &Outcome, other: &Outcome) -> bool {
        let Some(Seen { kind, size, .. }) = self.kernel.look_at(slot) else { return false };
        if kind == FileType::Directory {
            self.go_to(slot, 0);
            return true;
        }
        let place = |outcome: &Outcome| match outcome {
            Outcome::Number(place) => Some(*place),
            Outcome::Failed(Errno::NXIO) => Some(size),
            _ => None,
        };
        let spans = matches!(to, SeekFrom::Data(_) | SeekFrom::Hole(_));
        let (Some(kernel), Some(other)) = (place(kernel), place(other)) else { return false };
        if !spans || kind != FileType::RegularFile {
            return false;
        }
        let (start, end) = (kernel.min(other), kernel.max(other).min(kernel.min(other) + 512));
        let zeros = |player: &Player| {
            let file = player.file(slot).expect("it is there, as it was looked at");
            let file = content::again(file).unwrap();
            content::bytes(&file, &(start..end)).unwrap().iter().all(|byte| *byte == 0)
        };
        self.go_to(slot, start);
        zeros(&self.kernel) && zeros(&self.other)
    }

    fn compare_sights(
        &mut self,
        call: &Call,
        before: &Sight,
        after: &Sight,
    ) -> Result<(), Trouble> {
        let [kernel, other] = &after.trees;
        if !kernel.keys().eq(other.keys()) {
            let only = |these: &Tree, those: &Tree| {
                these.keys().filter(|path| !those.contains_key(*path)).cloned().collect::<Vec<_>>()
            };
            let kind = format!("names after {}", call.name());
            return Err(self.trouble(kind, &only(kernel, other), &only(other, kernel)));
        }
        for (path, seen) in kernel {
            let both = [seen, &other[path]];
            self.compare_seen(call, path, both)?;
            let old = [before.trees[0].get(path), before.trees[1].get(path)];
            self.compare_moves(call, path, old, both)?;
        }
        for (slot, (open, old)) in after.open.iter().zip(&before.open).enumerate() {
            let path = format!("open file {slot}");
            match open {
                [Some(kernel), Some(other)] => {
                    self.compare_seen(call, &path, [kernel, other])?;
                    let old = [old[0].as_ref(), old[1].as_ref()];
                    self.compare_moves(call, &path, old, [kernel, other])?;
                }
                [None, None] => {}
                [kernel, other] => {
                    return Err(self.trouble(format!("{path} is there"), kernel, other));
                }
            }
        }
        Ok(())
    }

    /// Compares what is seen of a file.
    fn compare_seen(&mut self, call: &Call, path: &str, both: [&Seen; 2]) -> Result<(), Trouble> {
        let [kernel, other] = both;
        let time = |time: fn(&Seen) -> Instant| {
            let [kernel, other] = [time(kernel), time(other)];
            let near = |time: Instant| (time.0 - self.now).abs() < NEAR;
            let coarse = self.pair.fine_times || (kernel.1 == 0) == (other.1 == 0);
            near(kernel) && near(other) && coarse || kernel == other
        };
        let same_inode = *self.inodes.entry(kernel.inode).or_insert(other.inode) == other.inode;
        if kernel.links == 0 {
            // The number is given to another file once this one is closed.
            let _gone = self.inodes.remove(&kernel.inode);
        }
        let attributes = [
            ("kind", kernel.kind == other.kind),
            ("mode", kernel.mode == other.mode),
            ("uid", kernel.uid == other.uid),
            ("gid", kernel.gid == other.gid),
            ("links", kernel.links == other.links),
            ("size", kernel.size == other.size),
            ("device", kernel.device == other.device),
            ("access time", time(|seen| seen.accessed)),
            ("modification time", time(|seen| seen.modified)),
            ("change time", time(|seen| seen.changed)),
            ("inode", same_inode || self.reused(kernel, other)),
        ];
        for (attribute, same) in attributes {
            if !same {
                let kind = format!("{attribute} after {}", call.name());
                let mut trouble = self.trouble(kind, kernel, other);
                trouble.words = format!("{path}: {}", trouble.words);
                self.judge(call, What::Seen { attribute, kernel, other }, trouble)?;
            }
        }
        Ok(())
    }

    /// Whether an inode's number has become another file's; the numbers are each mount's own.
    fn reused(&mut self, kernel: &Seen, other: &Seen) -> bool {
        let old = self.inodes.insert(kernel.inode, other.inode);
        old != Some(other.inode) && kernel.links == other.links
    }

    /// Compares which times a call has moved.
    fn compare_moves(
        &mut self,
        call: &Call,
        path: &str,
        before: [Option<&Seen>; 2],
        after: [&Seen; 2],
    ) -> Result<(), Trouble> {
        let [Some(kernel), Some(other)] = before else { return Ok(()) };
        let same = kernel.inode == after[0].inode && other.inode == after[1].inode;
        if !same || !self.pair.fine_times {
            return Ok(());
        }
        let modified = [kernel.modified != after[0].modified, other.modified != after[1].modified];
        let changed = [kernel.changed != after[0].changed, other.changed != after[1].changed];
        let moves = [("moved modification time", modified), ("moved change time", changed)];
        for (attribute, moved) in moves {
            if moved[0] != moved[1] {
                let kind = format!("{attribute} after {}: {moved:?}", call.name());
                let mut trouble = self.trouble(kind, after[0], after[1]);
                trouble.words = format!("{path}: {}", trouble.words);
                let [kernel, other] = after;
                self.judge(call, What::Seen { attribute, kernel, other }, trouble)?;
            }
        }
        Ok(())
    }

    /// Compares the content of the file that a call has written to.
    fn compare_written(&mut self, call: &Call) -> Result<(), Trouble> {
        let slot = match call {
            Call::Write { slot, .. }
            | Call::Truncate { slot, .. }
            | Call::Allocate { slot, .. }
            | Call::Copy { to: (slot, _), .. } => *slot,
            _ => return Ok(()),
        };
        let Some(seen) = self.kernel.look_at(slot) else { return Ok(()) };
        if !is_file(&seen) {
            return Ok(());
        }
        let [kernel, other] = [&self.kernel, &self.other].map(|player| {
            content::again(player.file(slot).expect("it is there, as it was looked at")).unwrap()
        });
        self.same_content(&format!("open file {slot}"), [&kernel, &other], seen.size)
    }

    fn same_content(&self, path: &str, files: [&OwnedFd; 2], size: u64) -> Result<(), Trouble> {
        match content::difference(files, size) {
            Ok(None) => Ok(()),
            Ok(Some(words)) => {
                Err(Trouble { step: 0, kind: "content".into(), words: format!("{path}: {words}") })
            }
            Err(errno) => {
                let kind = format!("content cannot be read: {errno}");
                Err(Trouble { step: 0, kind, words: path.into() })
            }
        }
    }

    /// Compares the content and the extended attributes of all files.
    fn compare_contents(&self, sight: &Sight) -> Result<(), Trouble> {
        for (path, seen) in &sight.trees[0] {
            let found = [&self.kernel, &self.other]
                .map(|player| content::attributes(&player.whole_path(path)));
            if found[0] != found[1] {
                let trouble = self.trouble("extended attributes".into(), &found[0], &found[1]);
                return Err(Trouble { words: format!("{path}: {}", trouble.words), ..trouble });
            }
            if is_file(seen) {
                let files = [&self.kernel, &self.other].map(|player| {
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    openat(player.root(), path, flags, Mode::empty())
                });
                let [Ok(kernel), Ok(other)] = files else {
                    return Err(self.trouble("open".into(), &files[0], &files[1]));
                };
                self.same_content(path, [&kernel, &other], seen.size)?;
            }
        }
        Ok(())
    }

    /// Compares what is left, and what it takes on the device.
    fn end(&mut self, call: &Call) -> Result<(), Trouble> {
        for player in [&self.kernel, &self.other] {
            if let Err(errno) = syncfs(player.root()) {
                let kind = format!("the last sync: {errno}");
                return Err(Trouble { step: 0, kind, words: String::new() });
            }
        }
        let sight = self.look(0)?;
        self.compare_contents(&sight)?;
        if !self.counts_blocks {
            return Ok(());
        }
        // FUSE hands on no syncfs: only a sync of each file gives its content a place.
        for (path, _) in sight.trees[1].iter().filter(|(_, seen)| is_file(seen)) {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(self.other.root(), path, flags, Mode::empty()).unwrap();
            fsync(&file).unwrap();
        }
        let sight = self.look(0)?;
        for (path, kernel) in &sight.trees[0] {
            // Past what the kernel remembers from before the sync.
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::from_bits_retain(FORCE_SYNC);
            let other = &look(self.other.root(), path, flags).unwrap();
            if kernel.blocks != other.blocks {
                let kind = format!("blocks of a {:?}", kernel.kind);
                let mut trouble = self.trouble(kind, kernel, other);
                trouble.words = format!("{path}: {}", trouble.words);
                let what = What::Seen { attribute: "blocks", kernel, other };
                self.judge(call, what, trouble)?;
            }
        }
        Ok(())
    }
}

fn is_file(seen: &Seen) -> bool {
    seen.kind == FileType::RegularFile
}

/// An outcome without what it holds.
fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed(errno) => format!("{errno}"),
        Outcome::Number(_) => "a number".into(),
        Outcome::Bytes(_) => "bytes".into(),
        Outcome::Names(_) => "names".into(),
        other => format!("{other:?}"),
    }
}
