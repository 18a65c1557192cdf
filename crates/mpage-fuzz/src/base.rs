//! Bases: the images that are damaged, made by e2fsprogs, the same each time but for the times in
//! the log of a journal.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::failure::{Failure, Result};
use crate::image::Image;
use crate::places::{FILLER, Place, Places};

/// Bytes of a block of an image with a journal.
const BLOCK: usize = 1024;

/// An image to damage.
#[derive(Debug)]
pub struct Base {
    /// What kind of image it is.
    pub name: String,
    /// What it holds.
    pub bytes: Arc<[u8]>,
    pub(crate) places: Places,
}

/// What a base is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    /// A tree of files of all kinds.
    Tree,
    /// A journal that has to be replayed.
    Journal,
}

/// A kind of base: its name, its size, and words for mke2fs.
struct Kind {
    name: &'static str,
    size: &'static str,
    words: &'static str,
    /// Names of the folder that gets an index, and how long each is.
    hashed: (usize, usize),
    /// Pieces of the file in pieces, how far one is from the next, and how long each is.
    pieces: (u64, u64, usize),
}

const TREES: [Kind; 18] = [
    kind("ext2", "2M", "-t ext2 -b 1024 -g 512"),
    Kind { hashed: (70, 120), ..kind("ext2-4k", "4M", "-t ext2 -b 4096") },
    kind("ext3", "3M", "-t ext3 -b 1024 -J size=1"),
    kind("ext4", "2M", "-t ext4 -b 1024 -g 512 -O ^has_journal"),
    Kind { hashed: (50, 100), ..kind("ext4-2k", "4M", "-t ext4 -b 2048 -g 512 -O ^has_journal") },
    Kind { hashed: (70, 120), ..kind("ext4-4k", "4M", "-t ext4 -b 4096 -O ^has_journal") },
    kind("ext4-journal", "3M", "-t ext4 -b 1024 -J size=1"),
    kind("short-inodes", "2M", "-t ext4 -b 1024 -I 128 -O ^has_journal"),
    kind("32-bits", "2M", "-t ext4 -b 1024 -g 512 -O ^64bit,^metadata_csum,^flex_bg,uninit_bg"),
    kind("no-checksums", "3M", "-t ext4 -b 1024 -O ^metadata_csum,^dir_index,^huge_file"),
    kind("orphan-file", "3M", "-t ext4 -b 1024 -O metadata_csum_seed,orphan_file -J size=1"),
    kind("orphans-in-file", "3M", "-t ext4 -b 1024 -O ^metadata_csum,orphan_file -J size=1"),
    kind("meta-bg", "4M", "-t ext4 -b 1024 -g 256 -O sparse_super2,meta_bg,^resize_inode"),
    // Extents in two levels of nodes, and more blocks of numbers than one change may write.
    Kind { pieces: (350, 2048, 1024), ..kind("deep", "3M", "-t ext4 -b 1024 -O ^has_journal") },
    Kind { pieces: (300, 256 << 10, 1024), ..kind("scattered", "3M", "-t ext2 -b 1024") },
    kind("one-hash", "2M", "-t ext4 -b 1024 -O ^has_journal"),
    Kind { hashed: (470, 240), ..kind("full-index", "3M", "-t ext4 -b 1024 -I 128") },
    Kind { hashed: (600, 230), ..kind("two-levels", "3M", "-t ext4 -b 1024 -I 128") },
];

const JOURNALS: [Kind; 5] = [
    kind("sums", "3M", "-t ext4 -b 1024 -J size=1 -O metadata_csum,64bit"),
    kind("short-sums", "3M", "-t ext4 -b 1024 -J size=1 -O metadata_csum,^64bit"),
    kind("no-sums", "3M", "-t ext4 -b 1024 -J size=1 -O ^metadata_csum,64bit"),
    kind("no-sums-32-bits", "3M", "-t ext4 -b 1024 -J size=1 -O ^metadata_csum,^64bit"),
    kind("ext3", "3M", "-t ext3 -b 1024 -J size=1"),
];

const fn kind(name: &'static str, size: &'static str, words: &'static str) -> Kind {
    Kind { name, size, words, hashed: (30, 70), pieces: (40, 8192, 4096) }
}

/// Ends of names that have one hash, of the oldest kind, and fill more than a block.
pub(crate) const ONE_HASH: [&str; 14] = [
    "amMJjP", "e7ZoQp", "fMtUOe", "kGQ4ao", "k2kf8z", "q6x1eD", "rhceGI", "tT5GZB", "uFIwLF",
    "v6SHKV", "yi5ORq", "ytLGSB", "DdBq2I", "GP9Euy",
];

/// The name that ends with `end`, one of [`ONE_HASH`].
pub(crate) fn name_of_one_hash(end: &str) -> String {
    format!("{end:n>231}")
}

/// What each base has, seen from the root; orphans have no names.
pub(crate) const NAMES: [&str; 16] = [
    "",
    "dir",
    "dir/inner",
    "hashed",
    "small",
    "empty",
    "dir/inner/leaf",
    "large",
    "pieces",
    "holes",
    "fast",
    "slow",
    "fifo",
    "unwritten",
    "lost+found",
    "two",
];

impl Base {
    fn new(name: &str, bytes: Vec<u8>, of: Of) -> Base {
        let places = match of {
            Of::Tree => Places::of_file_system(&bytes),
            Of::Journal => Places::of_journal(&bytes),
        };
        Base { name: name.to_owned(), bytes: bytes.into(), places }
    }

    /// The image, as it is before it is damaged.
    pub(crate) fn image(&self) -> Image {
        Image::new(Arc::clone(&self.bytes))
    }

    /// The file system's block that `place` is in.
    pub(crate) fn block_of(&self, place: &Place) -> u32 {
        let log = u32::from_le_bytes(self.bytes[0x418..0x41c].try_into().expect("four bytes"));
        u32::try_from(place.bytes.start >> 10 >> log).expect("a small image")
    }
}

/// Makes the bases for `of`, each as a file in `folder`.
///
/// # Errors
///
/// Those of e2fsprogs, which has to be there.
pub(crate) fn make(of: Of, folder: &Path) -> Result<()> {
    empty(folder).map_err(Failure::at(folder))?;
    let kinds: &[Kind] = if of == Of::Tree { &TREES } else { &JOURNALS };
    for (number, kind) in kinds.iter().enumerate() {
        let path = folder.join(format!("{number:02}-{}.image", kind.name));
        make_one(of, kind, &path)?;
    }
    Ok(())
}

/// Reads the bases for `of` from `folder`, in their order.
///
/// # Errors
///
/// Those of the operating system; none is there.
pub(crate) fn read(of: Of, folder: &Path) -> Result<Vec<Base>> {
    let mut bases = Vec::new();
    for path in paths_in(folder).map_err(Failure::at(folder))? {
        let bytes = fs::read(&path).map_err(Failure::at(&path))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        bases.push(Base::new(&name, bytes, of));
    }
    match bases.is_empty() {
        true => Err(Failure::new(format!("{}: there is no base", folder.display()))),
        false => Ok(bases),
    }
}

/// Makes `folder`, or takes the files out of it: what other kinds left would be used too.
pub(crate) fn empty(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    paths_in(folder)?.iter().try_for_each(fs::remove_file)
}

/// The files in `folder`, in their order.
fn paths_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut paths = entries.collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn make_one(of: Of, kind: &Kind, path: &Path) -> Result<()> {
    let scratch = tempfile::tempdir().map_err(Failure::at("a scratch folder"))?;
    let scratch = scratch.path();
    let id = "00000000-1111-2222-3333-444444444444";
    let inodes = (kind.hashed.0 + 200).to_string();
    let mut mke2fs = tool("mke2fs");
    let _mke2fs = mke2fs.args(["-q", "-F", "-m", "0", "-U", id, "-N", &inodes]);
    let _mke2fs = mke2fs.args(["-E", &format!("hash_seed={id}")]).args(kind.words.split(' '));
    run(mke2fs.arg(path).arg(kind.size), &[0])?;
    plant(scratch, kind.pieces).map_err(Failure::at(scratch))?;
    debugfs(scratch, path, &tree(kind))?;
    run(tool("e2fsck").arg("-fyD").arg(path), &[0, 1])?;
    debugfs(scratch, path, &unusual(kind))?;
    match of {
        Of::Tree => Ok(()),
        Of::Journal => log(kind, scratch, path),
    }
}

/// Writes into `folder` what the files of a tree hold, one of them in as many pieces as told.
fn plant(folder: &Path, (count, step, len): (u64, u64, usize)) -> std::io::Result<()> {
    let _empty = File::create(folder.join("empty"))?;
    fs::write(folder.join("small"), [FILLER; 3000])?;
    fs::write(folder.join("large"), [FILLER; 60_000])?;
    let piece = [FILLER; 4096];
    let pieces = File::create(folder.join("pieces"))?;
    for number in 0..count {
        pieces.write_all_at(&piece[..len], number * step)?;
    }
    // A block of each level of an indirect map.
    let holes = File::create(folder.join("holes"))?;
    for at in [0, 1 << 16, 1 << 20, 1 << 27] {
        holes.write_all_at(&piece, at)?;
    }
    fs::write(folder.join("list"), ACCESS_LIST)
}

/// What debugfs does to an empty image, told from the folder that was planted.
fn tree(kind: &Kind) -> String {
    let mut commands = String::new();
    for (from, to) in [("small", "one"), ("small", "two"), ("small", "small"), ("empty", "empty")] {
        commands += &format!("write {from} {to}\n");
    }
    for name in ["large", "pieces", "holes"] {
        commands += &format!("write {name} {name}\n");
    }
    commands += "write empty unwritten\nmknod fifo p\nsymlink fast small\n";
    commands += &format!("symlink slow {}\n", "-/".repeat(60));
    commands += "mkdir dir\nmkdir dir/inner\nmkdir hashed\ncd /dir/inner\nmknod leaf p\n";
    commands += "cd /hashed\n";
    let (count, len) = kind.hashed;
    for number in 0..count {
        commands += &format!("mknod {number:0len$} p\n");
    }
    if kind.name == "one-hash" {
        commands += "ssv def_hash_version legacy\n";
        for name in ONE_HASH.iter().take(9).map(|end| name_of_one_hash(end)) {
            commands += &format!("mknod {name} p\n");
        }
    }
    commands
}

/// An access list with a user of its own, as `setxattr(2)` takes it.
pub(crate) const ACCESS_LIST: [u8; 44] = [
    2, 0, 0, 0, // the version
    1, 0, 6, 0, 255, 255, 255, 255, // the owner
    2, 0, 4, 0, 1, 0, 0, 0, // user 1
    4, 0, 4, 0, 255, 255, 255, 255, // the group
    16, 0, 4, 0, 255, 255, 255, 255, // the mask
    32, 0, 4, 0, 255, 255, 255, 255, // others
];

/// What debugfs does to a tree that was checked: attributes, room without content, and orphans, one
/// of them with a name.
fn unusual(kind: &Kind) -> String {
    let long = "v".repeat(400);
    let mut commands = format!(
        "ea_set /small user.name value\n\
         ea_set /dir user.long {long}\n\
         ea_set /large user.one 1\n\
         ea_set /large user.long {long}\n\
         ea_set -f list /large system.posix_acl_access\n\
         ea_set -f list /dir system.posix_acl_default\n\
         ssv lastcheck @1000000000\n\
         sif /two size 1000\n\
         sif /one links_count 0\n"
    );
    if !kind.words.contains("ext2") && !kind.words.contains("ext3") {
        commands += "fallocate /unwritten 0 9\nsif /unwritten size 5000\n";
    }
    commands += match kind.name {
        // The orphan file is the first inode.
        "orphans-in-file" => {
            "feature orphan_present\n\
             zap_block -f <12> -o 0 -l 1 -p 13 0\n\
             zap_block -f <12> -o 4 -l 1 -p 14 0\n"
        }
        "orphan-file" => "sif /one dtime 14\nssv last_orphan 13\n",
        _ => "sif /one dtime 13\nssv last_orphan 12\n",
    };
    commands + "unlink /one\n"
}

/// Writes a log of two transactions that make some names, with blocks that the second one revokes.
fn log(kind: &Kind, scratch: &Path, path: &Path) -> Result<()> {
    let read = |path: &Path| fs::read(path).map_err(Failure::at(path));
    let (before, later) = (read(path)?, scratch.join("later"));
    fs::write(&later, &before).map_err(Failure::at(&later))?;
    let mut open = String::from("journal_open\n");
    if !kind.words.contains("^metadata_csum") && kind.words.contains("ext4") {
        let version = if kind.words.contains("^64bit") { 2 } else { 3 };
        open = format!("journal_open -c -v {version}\n");
    }
    let mut commands = open;
    for round in 0..2 {
        let names: String = (0..20).map(|n| format!("mknod {round}-{n:050} p\n")).collect();
        debugfs(scratch, &later, &format!("cd /hashed\n{names}mkdir /{round}\n"))?;
        let after = read(&later)?;
        let blocks = before.chunks(BLOCK).zip(after.chunks(BLOCK)).enumerate();
        let blocks = blocks.filter(|(_, (before, after))| before != after);
        let (numbers, contents): (Vec<_>, Vec<_>) =
            blocks.map(|(number, (_, after))| (number.to_string(), after)).unzip();
        let content = scratch.join(format!("content{round}"));
        fs::write(&content, contents.concat()).map_err(Failure::at(&content))?;
        commands += &format!("journal_write -b {} content{round}\n", numbers.join(","));
        commands += &format!("journal_write -r {}\n", numbers[numbers.len() / 2..].join(","));
    }
    debugfs(scratch, path, &format!("{commands}journal_close\n"))
}

/// Lets debugfs do `commands` to the image at `path`, with files of `folder`.
fn debugfs(folder: &Path, path: &Path, commands: &str) -> Result<()> {
    let script = folder.join("script");
    fs::write(&script, commands).map_err(Failure::at(&script))?;
    let path = path.canonicalize().map_err(Failure::at(path))?;
    let mut debugfs = tool("debugfs");
    run(debugfs.current_dir(folder).args(["-w", "-f", "script"]).arg(path), &[0])
}

/// A call of a program of e2fsprogs, at a time that is always the same.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let _command = command.env("E2FSPROGS_FAKE_TIME", "1000000000").env("TZ", "UTC");
    command
}

/// Runs `command`, which has to end with one of `codes`.
fn run(command: &mut Command, codes: &[i32]) -> Result<()> {
    let told = format!("{command:?}");
    let output = command.output().map_err(Failure::at(&told))?;
    if output.status.code().is_some_and(|code| codes.contains(&code)) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("{told}: {}: {text}{errors}", output.status)))
}
