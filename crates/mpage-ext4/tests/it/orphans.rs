//! Files without names are freed when nobody has them open, or when the image is opened next.

use std::fs::{self, File};
use std::io::Write;
use std::sync::Arc;

use mpage_block::Errno;
use mpage_ext4::{At, Existing, FileSystem, InodeNumber};

use crate::damage::with_repeated_blocks;
use crate::image::{inode_of, make, run, set};
use crate::mounted::Mounted;
use crate::written::{FILE, OWNER, ROOT, Written, check, names};

/// Kinds of images: with a list of orphans, and with a file of them.
const KINDS: [(&str, &[&str]); 4] = [
    ("ext4", &["-t", "ext4", "-b", "1024"]),
    ("orphan file", &["-t", "ext4", "-b", "1024", "-O", "orphan_file"]),
    ("orphan file, no checksums", &["-t", "ext4", "-O", "orphan_file,^metadata_csum"]),
    ("ext3", &["-t", "ext3", "-b", "1024"]),
];

#[test]
fn what_linux_left_open_is_freed() {
    for (kind, options) in KINDS {
        println!("{kind}");
        let mounted = Mounted::new("24M", options, &[]);
        let mut open = Vec::new();
        for number in 0..20 {
            let path = mounted.path().join(format!("file{number}"));
            let mut file = File::create(&path).unwrap();
            file.write_all(&vec![7; number * 5000]).unwrap();
            file.sync_all().unwrap();
            if number % 4 != 0 {
                fs::remove_file(&path).unwrap();
            }
            open.push(file);
        }
        let written = Written::open(&mounted.image());
        let left: Vec<_> = (0..20).step_by(4).map(|number| format!("file{number}")).collect();
        let mut left: Vec<_> = left.into_iter().map(String::into_bytes).collect();
        left.sort();
        assert_eq!(names(&written.fs, ROOT), left, "{kind}");
        let _image = written.close();
    }
}

#[test]
fn a_file_that_is_open_is_freed_when_the_image_is_opened_next() {
    for (kind, options) in KINDS {
        let written = Written::new("24M", options);
        let fs = std::sync::Arc::clone(&written.fs);
        let before = fs.statfs().unwrap();
        let mut open = Vec::new();
        for number in 0..10 {
            let name = format!("file{number}");
            let inode = fs.create(ROOT, name.as_bytes(), &FILE).unwrap();
            if number % 2 == 0 {
                open.push((inode, fs.open_file(inode).unwrap()));
            }
            fs.unlink(ROOT, name.as_bytes()).unwrap();
        }
        for (inode, _) in &open {
            assert_eq!(fs.attributes(*inode).unwrap().links, 0, "{kind}");
        }
        let now = fs.statfs().unwrap();
        assert_eq!(now.free_files + open.len() as u64, before.free_files, "{kind}");
        let image = written.abandon();
        let written = Written::open(&image);
        assert_eq!(written.fs.statfs().unwrap(), before, "{kind}");
        let _image = written.close();
        // Linux does the same with it.
        let mounted = Mounted::of(&image);
        assert_eq!(fs::read_dir(mounted.path()).unwrap().count(), 1, "{kind}");
        check(&mounted.image());
    }
}

#[test]
fn what_is_behind_the_size_of_an_orphan_is_freed() {
    for (kind, options) in KINDS {
        let folder = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            fs::write(folder.path().join(name), vec![7; 700_000]).unwrap();
        }
        let image = make(folder.path(), "24M", options);
        let [one, two] = ["/one", "/two"].map(|path| inode_of(&image, path));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), image).unwrap();
        let commands = [
            format!("ssv last_orphan {one}"),
            format!("sif one dtime {two}"),
            "sif one size 3000".into(),
            "sif two size 0".into(),
        ];
        set(file.path(), &commands.each_ref().map(String::as_str));
        let written = Written::open(&fs::read(file.path()).unwrap());
        let sectors = |inode| written.fs.attributes(inode).unwrap().sectors;
        let block = written.fs.statfs().unwrap().block_bytes;
        assert_eq!(sectors(one), 3000u64.next_multiple_of(block) / 512, "{kind}");
        assert_eq!(sectors(two), 0, "{kind}");
        let _image = written.close();
    }
}

#[test]
fn what_the_last_block_of_an_orphan_had_behind_its_size_does_not_come_back() {
    for (kind, options) in KINDS {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), vec![7; 700_000]).unwrap();
        let image = make(folder.path(), "24M", options);
        let inode = inode_of(&image, "/file");
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), image).unwrap();
        let commands = [format!("ssv last_orphan {inode}"), "sif file size 3000".into()];
        set(file.path(), &commands.each_ref().map(String::as_str));
        let image = Written::open(&fs::read(file.path()).unwrap()).close();
        let written = Written::open(&image);
        let longer = written.fs.open_file(inode).unwrap();
        longer.set_len(5000).unwrap();
        let mut bytes = vec![9; 5000];
        assert_eq!(longer.read_at(&mut bytes, 0).unwrap(), 5000);
        assert_eq!(bytes, [vec![7; 3000], vec![0; 2000]].concat(), "{kind}");
        drop(longer);
        let _image = written.close();
    }
}

#[test]
fn a_file_that_was_just_written_goes_with_all_its_room() {
    for (kind, options) in KINDS {
        let written = Written::new("24M", options);
        let fs = &written.fs;
        let before = fs.statfs().unwrap();
        for (number, is_open) in [(0, false), (1, true), (2, false), (3, true)] {
            let inode = fs.create(ROOT, b"file", &FILE).unwrap();
            let file = fs.open_file(inode).unwrap();
            file.write_all_at(&[7; 3_000_000], 0).unwrap();
            if number > 1 {
                file.fsync().unwrap();
                file.write_all_at(&[8; 500_000], 2_900_000).unwrap();
            }
            let file = Some(file).filter(|_| is_open);
            fs.unlink(ROOT, b"file").unwrap();
            if let Some(file) = file {
                let mut bytes = [0; 10];
                assert_eq!(file.read_at(&mut bytes, 1_000_000).unwrap(), 10);
                assert_eq!(bytes, [7; 10], "{kind}");
            }
            assert_eq!(fs.statfs().unwrap(), before, "{kind}, {number}");
        }
        let _image = written.close();
    }
}

/// Threads that make, write, link, move and remove files in the same folders.
#[test]
fn many_threads_leave_a_right_image() {
    for (kind, options) in KINDS {
        println!("{kind}");
        let written = Written::new("24M", options);
        let folders = [b"one", b"two"];
        let folders = folders.map(|name| written.fs.mkdir(ROOT, name, 0o755, OWNER).unwrap());
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let fs = &written.fs;
                let _thread = scope.spawn(move || disturb(fs, folders, seed));
            }
        });
        let image = written.close();
        let written = Written::open(&image);
        for folder in folders {
            for name in names(&written.fs, folder) {
                written.fs.unlink(folder, &name).unwrap();
            }
        }
        let _image = written.close();
    }
}

fn disturb(fs: &Arc<FileSystem>, folders: [InodeNumber; 2], seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let name = |random: &mut fastrand::Rng| random.u8(..20).to_string().repeat(40).into_bytes();
    for _ in 0..1500 {
        let (parent, to) = (folders[random.usize(..2)], folders[random.usize(..2)]);
        let (first, second) = (name(&mut random), name(&mut random));
        let result = match random.u8(..6) {
            0 | 1 => fs.create(parent, &first, &FILE).map(drop),
            2 => fs.unlink(parent, &first),
            3 => {
                let (from, to) = (At { parent, name: &first }, At { parent: to, name: &second });
                fs.rename(from, to, Existing::Replace)
            }
            4 => fs.lookup(parent, &first).and_then(|inode| fs.link(inode, to, &second)),
            _ => fs.lookup(parent, &first).and_then(|inode| {
                let file = fs.open_file(inode)?;
                file.write_all_at(&[7; 20_000], random.u64(..50_000))
            }),
        };
        let may = [Errno::NOENT, Errno::EXIST];
        if let Err(error) = result {
            assert!(may.contains(&error.kind.errno()), "{error}");
        }
    }
}

#[test]
fn an_orphan_file_longer_than_the_image_is_damage() {
    let empty = tempfile::tempdir().unwrap();
    let options = ["-t", "ext4", "-b", "1024", "-O", "orphan_file,^metadata_csum"];
    let image = make(empty.path(), "4M", &options);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &image).unwrap();
    let at = file.path().to_str().unwrap();
    let told = run("dumpe2fs", &["-h", at]);
    let inode = told.lines().find_map(|line| line.strip_prefix("Orphan file inode:")).unwrap();
    let inode = format!("<{}>", inode.trim());
    let first = run("debugfs", &["-R", &format!("bmap {inode} 0"), at]);
    set(file.path(), &["feature orphan_present"]);
    let image = fs::read(file.path()).unwrap();
    let image = with_repeated_blocks(&image, &inode, first.trim().parse().unwrap());
    let written = Written::try_open(&image).unwrap();
    let why = written.fs.read_only().unwrap_or_default();
    assert!(why.contains("the orphan file has 4294966272 bytes"), "{why}");
}
