//! Trees of everything that there is: what the library writes Linux reads, and the other way round,
//! and each goes on with what the other left.

use std::collections::BTreeMap;
use std::ops::Range;

use mpage_ext4::{FileKind, Timestamp};
use rustix::fs::makedev;

use crate::image::{KINDS, make, open};
use crate::mounted::Mounted;
use crate::stores::{
    CHUNK, Content, Library, Linux, Meta, Places, Seen, Store, Tree, note_content,
};
use crate::written::{Written, check};

const SIZE: &str = "48M";

/// What a regular file is made of.
#[derive(Clone, Debug, Default)]
struct Shape {
    /// Where bytes are written, in this order.
    pieces: Vec<(u64, usize)>,
    size: u64,
    /// What gets room before, and whether the size stays.
    allocated: Option<(Range<u64>, bool)>,
}

/// What a node of a tree is.
#[derive(Clone, Debug)]
enum What {
    Folder,
    File(Shape),
    /// Two files, the other with `~` behind its name, written by turns with syncs between.
    Twins(Shape),
    Link(String),
    /// Another name of a file.
    Name(String),
    Special(FileKind, (u32, u32)),
}

#[derive(Clone, Debug)]
struct Node {
    path: String,
    what: What,
    meta: Meta,
    attributes: Vec<(String, Vec<u8>)>,
}

/// Makes nodes.
struct Grower {
    random: fastrand::Rng,
    nodes: Vec<Node>,
    /// The image has inodes for all times.
    long_times: bool,
}

impl Grower {
    fn time(&mut self) -> Timestamp {
        if self.long_times {
            let seconds = self.random.i64(-2_000_000_000..10_000_000_000);
            return Timestamp { seconds, nanoseconds: self.random.u32(..1_000_000_000) };
        }
        Timestamp { seconds: self.random.i64(-2_000_000_000..2_000_000_000), nanoseconds: 0 }
    }

    fn add(&mut self, path: impl Into<String>, what: What) {
        let is_link = matches!(what, What::Link(_));
        let is_special = matches!(what, What::Special(..));
        let meta = Meta {
            permissions: if is_link { 0o777 } else { self.random.u16(..0o10000) },
            uid: self.random.u32(..) >> self.random.u8(1..32),
            gid: self.random.u32(..) >> self.random.u8(1..32),
            accessed: self.time(),
            modified: self.time(),
        };
        let mut attributes = Vec::new();
        for number in 0..self.random.u8(..20).saturating_sub(15) {
            let is_plain = !is_link && !is_special && self.random.bool();
            let kind = if is_plain { "user" } else { "trusted" };
            let name = format!("{kind}.{number}{}", "n".repeat(self.random.usize(..20)));
            let value = (0..self.random.usize(..100)).map(|_| self.random.u8(..)).collect();
            attributes.push((name, value));
        }
        self.nodes.push(Node { path: path.into(), what, meta, attributes });
    }

    fn folders(&mut self, top: &str) {
        let mut path = format!("{top}/deep");
        for number in 0..40 {
            self.add(&path, What::Folder);
            path += &format!("/{number}");
        }
        self.add(format!("{top}/wide"), What::Folder);
        for number in 0..300usize {
            let fill = if number.is_multiple_of(20) { 250 } else { number % 70 };
            let name = format!("{top}/wide/{number:04}{}", "\u{e4}".repeat(fill / 2));
            let len = if number.is_multiple_of(10) { number * 13 } else { 0 };
            let pieces = if len > 0 { vec![(0, len)] } else { Vec::new() };
            let size = len as u64;
            self.add(name, What::File(Shape { pieces, size, allocated: None }));
        }
    }

    fn others(&mut self, top: &str) {
        for len in [1, 58, 59, 60, 61, 500, 1020] {
            let target = "target/".repeat(200)[..len].to_owned();
            self.add(format!("{top}/link{len}"), What::Link(target));
        }
        let kinds =
            [FileKind::Fifo, FileKind::Socket, FileKind::CharacterDevice, FileKind::BlockDevice];
        for (number, kind) in kinds.into_iter().enumerate() {
            let is_device = number > 1;
            for (major, minor) in [(1, 3), (255, 255), (259, 70_000), (4095, 0xf_ffff)] {
                let device = if is_device { (major, minor) } else { (0, 0) };
                let name = format!("{top}/special{number}-{major}");
                self.add(name, What::Special(kind, device));
            }
        }
        for number in 0..5 {
            let name = format!("{top}/deep/0/another{number}");
            self.add(name, What::Name(format!("{top}/wide/0001")));
        }
        self.add(format!("{top}/deep/linked"), What::Name(format!("{top}/link500")));
    }

    fn files(&mut self, top: &str) {
        let gib = 1u64 << 30;
        let sparse = [0, 100_000, 50 << 20, gib - 1000, 3 * gib + 7, 5 * gib];
        let pieces = sparse.map(|offset| (offset, 3000)).to_vec();
        let size = 6 * gib + 1;
        self.add(format!("{top}/sparse"), What::File(Shape { pieces, size, allocated: None }));
        self.add(format!("{top}/hole"), What::File(Shape { size: gib, ..Shape::default() }));
        for number in 0..4 {
            let pieces: Vec<_> = (0..40).map(|_| self.piece(1 << 20, 12_000)).collect();
            let size = end_of(&pieces) + self.random.u64(..10_000);
            let name = format!("{top}/random{number}");
            self.add(name, What::File(Shape { pieces, size, allocated: None }));
        }
        let step = 8192;
        let pieces: Vec<_> = (0..60).map(|number| (number * step, 8192)).collect();
        let size = end_of(&pieces);
        let shape = Shape { pieces, size, allocated: None };
        self.add(format!("{top}/twins"), What::Twins(shape));
        // Backwards, with holes.
        let pieces: Vec<_> = (0..30).rev().map(|number| (number * 3 * step, 4096)).collect();
        let size = end_of(&pieces);
        let shape = Shape { pieces, size, allocated: None };
        self.add(format!("{top}/backwards"), What::Twins(shape));
        for (number, keep) in [(0, true), (1, false)] {
            let start = number * 5000;
            let pieces = vec![(200_000, 10_000), (500_000, 100)];
            let allocated = Some((start..start + 700_000, keep));
            let size = if keep { 500_100 } else { start + 700_000 };
            let shape = Shape { pieces, size, allocated };
            self.add(format!("{top}/allocated{number}"), What::File(shape));
        }
    }

    fn piece(&mut self, end: u64, len: usize) -> (u64, usize) {
        (self.random.u64(..end), self.random.usize(1..len))
    }
}

/// The end of the last of `pieces`.
fn end_of(pieces: &[(u64, usize)]) -> u64 {
    pieces.iter().map(|(start, len)| start + *len as u64).max().unwrap_or(0)
}

/// A tree below `top`.
fn grow(top: &str, seed: u64, long_times: bool) -> Vec<Node> {
    let random = fastrand::Rng::with_seed(seed);
    let mut grower = Grower { random, nodes: Vec::new(), long_times };
    grower.add(top, What::Folder);
    grower.folders(top);
    grower.files(top);
    grower.others(top);
    grower.nodes
}

/// Piece `number` of the file at `path`.
fn bytes(path: &str, number: usize, len: usize) -> Vec<u8> {
    let seed =
        path.bytes().fold(number as u64, |seed, byte| seed * 31 % 0xffff_fffb + u64::from(byte));
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

fn twin(path: &str) -> String {
    format!("{path}~")
}

/// Writes `nodes`.
fn plant(store: &dyn Store, nodes: &[Node]) {
    for node in nodes {
        let path = &node.path;
        match &node.what {
            What::Folder => store.mkdir(path),
            What::File(shape) => {
                let file = store.create(path);
                write(&[(path, &*file)], shape);
            }
            What::Twins(shape) => {
                let other = twin(path);
                let (first, second) = (store.create(path), store.create(&other));
                write(&[(path, &*first), (&other, &*second)], shape);
            }
            What::Link(target) => store.symlink(path, target),
            What::Name(of) => store.link(path, of),
            What::Special(kind, device) => store.special(path, *kind, *device),
        }
    }
    // What is in a folder changes its times.
    for node in nodes.iter().rev().filter(|node| !matches!(node.what, What::Name(_))) {
        let other = twin(&node.path);
        let is_two = matches!(node.what, What::Twins(_));
        for path in [&node.path, &other].into_iter().take(1 + usize::from(is_two)) {
            for (name, value) in &node.attributes {
                store.set_attribute(path, name, value);
            }
            store.set(path, &node.meta);
        }
    }
}

/// Writes the same into all of `files`, by turns.
fn write(files: &[(&String, &dyn Content)], shape: &Shape) {
    if let Some((range, keep)) = &shape.allocated {
        for (_, file) in files {
            let _where_it_can = file.allocate(range.clone(), *keep);
        }
    }
    for (number, (start, len)) in shape.pieces.iter().enumerate() {
        for (path, file) in files {
            file.write(&bytes(path, number, *len), *start);
            if files.len() > 1 {
                file.sync();
            }
        }
    }
    for (_, file) in files {
        file.set_len(shape.size);
    }
}

/// What has to be found of `nodes`.
fn expected(nodes: &[Node]) -> Tree {
    let mut tree = Tree::new();
    for node in nodes {
        let path = &node.path;
        let kind = match &node.what {
            What::Folder => 0o40_000,
            What::File(_) | What::Twins(_) | What::Name(_) => 0o100_000,
            What::Link(_) => 0o120_000,
            What::Special(FileKind::Fifo, _) => 0o10_000,
            What::Special(FileKind::Socket, _) => 0o140_000,
            What::Special(FileKind::BlockDevice, _) => 0o60_000,
            What::Special(..) => 0o20_000,
        };
        let attributes = node.attributes.iter();
        let mut seen = Seen {
            mode: kind | u32::from(node.meta.permissions),
            meta: node.meta.clone(),
            size: 0,
            links: 1,
            device: 0,
            target: None,
            attributes: attributes
                .map(|(name, value)| (name.clone().into(), value.clone()))
                .collect(),
            content: BTreeMap::new(),
            places: Places::default(),
        };
        match &node.what {
            What::Folder => {
                seen.links = 2;
                let above = path.rsplit_once('/').and_then(|(above, _)| tree.get_mut(above));
                above.into_iter().for_each(|above| above.links += 1);
            }
            What::File(shape) => (seen.size, seen.content) = (shape.size, content(path, shape)),
            What::Twins(shape) => {
                let other = twin(path);
                (seen.size, seen.content) = (shape.size, content(&other, shape));
                let _none = tree.insert(other, seen.clone());
                seen.content = content(path, shape);
            }
            What::Link(target) => {
                seen.size = target.len() as u64;
                seen.target = Some(target.clone().into_bytes());
            }
            What::Name(of) => {
                tree.get_mut(of).unwrap().links += 1;
                seen = tree[of].clone();
                for each in
                    tree.values_mut().filter(|each| each.links > 1 && each.meta == seen.meta)
                {
                    each.links = seen.links;
                }
            }
            What::Special(_, (major, minor)) => seen.device = makedev(*major, *minor),
        }
        let _none = tree.insert(path.clone(), seen);
    }
    tree
}

/// What is in the file at `path`.
fn content(path: &str, shape: &Shape) -> BTreeMap<u64, u64> {
    let mut chunks: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (number, (start, len)) in shape.pieces.iter().enumerate() {
        for (at, byte) in (*start..).zip(bytes(path, number, *len)) {
            let chunk = chunks.entry(at / CHUNK as u64).or_insert_with(|| vec![0; CHUNK]);
            chunk[usize::try_from(at).unwrap() % CHUNK] = byte;
        }
    }
    let mut content = BTreeMap::new();
    for (number, chunk) in chunks {
        note_content(&mut content, number * CHUNK as u64, &chunk);
    }
    content
}

/// Sees to it that two trees are the same.
#[track_caller]
fn assert_same(is: &Tree, right: &Tree, what: &str) {
    for (path, right) in right {
        let is = is.get(path).unwrap_or_else(|| panic!("{what}: {path} is not there"));
        assert!(is == right, "{what}: {path}\n   is {is:?}\nright {right:?}");
    }
    let more = is.keys().find(|path| !right.contains_key(*path));
    assert_eq!(more, None, "{what}");
}

/// Sees to it that `tree` is as expected wherever its blocks are.
#[track_caller]
fn assert_is(tree: &Tree, right: &Tree, what: &str) {
    assert_same(&without_places(tree), right, what);
}

/// What of `tree` does not depend on who wrote it.
fn without_places(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    for seen in tree.values_mut() {
        seen.places = Places::default();
        if seen.mode & 0o170_000 == 0o40_000 {
            seen.size = 0;
        }
    }
    tree
}

/// Removes every other file of `tree`.
fn thin(store: &dyn Store, tree: &Tree) {
    let files = tree.iter().filter(|(_, seen)| seen.mode & 0o170_000 != 0o40_000);
    for (path, _) in files.step_by(2) {
        store.unlink(path);
    }
}

/// The image has inodes that hold all times.
fn has_long_times(image: &[u8]) -> bool {
    u16::from_le_bytes([image[1024 + 88], image[1024 + 89]]) > 128
}

/// Sees to it that files have no more data than was written to them, in whole blocks.
fn assert_sparse(tree: &Tree, nodes: &[Node], what: &str) {
    for node in nodes {
        let What::File(shape) = &node.what else { continue };
        let block = 4096;
        let whole = |(start, len): &(u64, usize)| {
            (start + *len as u64).next_multiple_of(block) - start / block * block
        };
        let data: u64 = tree[&node.path].places.data.iter().map(|run| run.end - run.start).sum();
        let written: u64 = shape.pieces.iter().map(whole).sum();
        assert!(data <= written, "{what}: {}, {data} bytes of {written}", node.path);
    }
}

#[test]
fn what_the_library_writes_linux_finds() {
    for (seed, (kind, options)) in (0..).zip(KINDS) {
        let written = Written::new(SIZE, options);
        let long_times = has_long_times(&make(tempfile::tempdir().unwrap().path(), SIZE, options));
        let nodes = grow("tree", seed, long_times);
        let right = expected(&nodes);
        let library = Library(written.fs.clone());
        plant(&library, &nodes);
        let now = library.see();
        assert_is(&now, &right, kind);
        let image = written.close();
        let again = Library(open(&image).unwrap().fs);
        let mounted = Mounted::of(&image);
        let linux = Linux(mounted.path());
        let found = linux.see();
        assert_is(&found, &right, kind);
        assert_same(&again.see(), &found, kind);
        assert_sparse(&found, &nodes, kind);
        // Linux goes on.
        thin(&linux, &found);
        plant(&linux, &grow("more", seed + 100, long_times));
        let found = linux.see();
        let image = mounted.image();
        check(&image);
        assert_same(&Library(open(&image).unwrap().fs).see(), &found, kind);
    }
}

#[test]
fn what_linux_writes_the_library_finds() {
    for (seed, (kind, options)) in (200..).zip(KINDS) {
        let mounted = Mounted::new(SIZE, options, &[]);
        let long_times = has_long_times(&mounted.image());
        let nodes = grow("tree", seed, long_times);
        let right = expected(&nodes);
        let linux = Linux(mounted.path());
        plant(&linux, &nodes);
        let found = linux.see();
        assert_is(&found, &right, kind);
        let image = mounted.image();
        let written = Written::open(&image);
        let library = Library(written.fs.clone());
        assert_same(&library.see(), &found, kind);
        // The library goes on.
        thin(&library, &found);
        plant(&library, &grow("more", seed + 100, long_times));
        let found = library.see();
        let image = written.close();
        let again = Library(open(&image).unwrap().fs).see();
        assert_is(&again, &without_places(&found), kind);
        let mounted = Mounted::of(&image);
        assert_same(&Linux(mounted.path()).see(), &again, kind);
    }
}
