//! What is done to images before they crash.

use mpage_ext4::Result;

use crate::world::World;

/// A workload.
pub struct Workload {
    /// What it is called.
    pub name: &'static str,
    /// What it does.
    pub work: fn(&mut World) -> Result<()>,
    /// The cache has as little memory as it can.
    pub little_memory: bool,
}

const KIB: usize = 1 << 10;

/// All workloads.
pub const WORKLOADS: &[Workload] = &[
    Workload { name: "create", work: create, little_memory: false },
    Workload { name: "append", work: append, little_memory: false },
    Workload { name: "overwrite", work: overwrite, little_memory: false },
    Workload { name: "rename-over", work: rename_over, little_memory: false },
    Workload { name: "link", work: link, little_memory: false },
    Workload { name: "unlink-open", work: unlink_open, little_memory: false },
    Workload { name: "truncate", work: truncate, little_memory: false },
    Workload { name: "punch", work: punch, little_memory: false },
    Workload { name: "directories", work: directories, little_memory: false },
    Workload { name: "many-names", work: many_names, little_memory: false },
    Workload { name: "attributes", work: attributes, little_memory: false },
    Workload { name: "small-syncs", work: small_syncs, little_memory: false },
    Workload { name: "wrap", work: wrap, little_memory: true },
    Workload { name: "reuse", work: reuse, little_memory: false },
    Workload { name: "reuse-of-directories", work: reuse_of_directories, little_memory: false },
    Workload { name: "full", work: full, little_memory: false },
    Workload { name: "allocate", work: allocate, little_memory: false },
    Workload { name: "magic", work: magic, little_memory: false },
    Workload { name: "large", work: large, little_memory: true },
];

fn create(world: &mut World) -> Result<()> {
    for number in 0..6 {
        let path = format!("file{number}");
        world.create(&path)?;
        world.write(&path, 0, (number + 1) * KIB)?;
        if number % 2 == 0 {
            world.sync(&path)?;
        }
    }
    world.sync_all()
}

fn append(world: &mut World) -> Result<()> {
    world.create("log")?;
    for number in 1..8 {
        world.append("log", number * 520)?;
        world.sync("log")?;
    }
    world.append("log", 3000)
}

fn overwrite(world: &mut World) -> Result<()> {
    world.create("file")?;
    world.write("file", 0, 24 * KIB)?;
    world.sync("file")?;
    for number in 0..4 {
        world.write("file", number * 4096 + 512, 1024)?;
        world.sync("file")?;
    }
    world.write("file", 8192, 8192)
}

fn rename_over(world: &mut World) -> Result<()> {
    world.create("settings")?;
    world.write("settings", 0, 2 * KIB)?;
    world.sync("settings")?;
    for number in 1..5 {
        world.create("settings.new")?;
        world.write("settings.new", 0, (number + 2) * KIB)?;
        world.sync("settings.new")?;
        world.rename("settings.new", "settings")?;
        if number % 2 == 0 {
            world.sync_all()?;
        }
    }
    Ok(())
}

fn link(world: &mut World) -> Result<()> {
    world.mkdir("folder")?;
    world.create("file")?;
    world.write("file", 0, 4 * KIB)?;
    world.link("file", "folder/other")?;
    world.sync_all()?;
    world.remove("file")?;
    world.link("folder/other", "third")?;
    world.sync_all()?;
    world.remove("folder/other")
}

fn unlink_open(world: &mut World) -> Result<()> {
    let mut open = Vec::new();
    for number in 0..3 {
        let path = format!("file{number}");
        world.create(&path)?;
        world.write(&path, 0, 8 * KIB)?;
        world.sync(&path)?;
        open.push(world.open(&path)?);
        world.remove(&path)?;
    }
    open[1].write_all_at(&[0; 4096], 8192)?;
    open[1].fsync()?;
    drop(open);
    world.sync_names()?;
    world.create("after")?;
    world.write("after", 0, 16 * KIB)?;
    world.sync("after")
}

fn truncate(world: &mut World) -> Result<()> {
    world.create("file")?;
    world.write("file", 0, 60 * KIB)?;
    world.sync("file")?;
    for size in [50_000, 9_000, 8_192, 1_000, 30_000, 0] {
        world.truncate("file", size)?;
        world.sync("file")?;
        world.create("between")?;
        world.write("between", 0, 20 * KIB)?;
        world.sync("between")?;
        world.remove("between")?;
    }
    world.write("file", 4096, 5 * KIB)?;
    world.sync("file")
}

fn punch(world: &mut World) -> Result<()> {
    world.create("file")?;
    world.write("file", 0, 48 * KIB)?;
    world.sync("file")?;
    for (start, end) in [(4096, 12_288), (20_000, 30_000), (0, 1024), (40_960, 60_000)] {
        world.punch("file", start, end)?;
        world.sync("file")?;
        world.create("between")?;
        world.write("between", 0, 12 * KIB)?;
        world.sync("between")?;
        world.remove("between")?;
    }
    Ok(())
}

fn directories(world: &mut World) -> Result<()> {
    for number in 0..5 {
        let path = format!("folder{number}");
        world.mkdir(&path)?;
        world.mkdir(&format!("{path}/inner"))?;
        world.create(&format!("{path}/inner/file"))?;
        world.write(&format!("{path}/inner/file"), 0, 2 * KIB)?;
        if number % 2 == 1 {
            world.sync_all()?;
        }
    }
    for number in 0..3 {
        let path = format!("folder{number}");
        world.remove(&format!("{path}/inner/file"))?;
        world.rmdir(&format!("{path}/inner"))?;
        world.rmdir(&path)?;
    }
    Ok(())
}

fn many_names(world: &mut World) -> Result<()> {
    world.mkdir("folder")?;
    for number in 0..90 {
        world.create(&format!("folder/a-rather-long-name-of-a-file-number-{number:04}"))?;
        if number % 15 == 14 {
            world.sync_names()?;
        }
    }
    world.sync_all()?;
    for number in (0..90).step_by(3) {
        world.unlink(&format!("folder/a-rather-long-name-of-a-file-number-{number:04}"))?;
    }
    world.sync_all()
}

fn attributes(world: &mut World) -> Result<()> {
    for number in 0..3 {
        let path = format!("file{number}");
        world.create(&path)?;
        world.sync(&path)?;
        world.attribute(&path, "user.short", 20)?;
        world.attribute(&path, "user.long", 700)?;
        world.attribute(&path, "user.short", 60)?;
    }
    world.remove("file1")?;
    world.create("after")?;
    world.write("after", 0, 8 * KIB)?;
    world.sync("after")
}

fn small_syncs(world: &mut World) -> Result<()> {
    for number in 0..12 {
        let path = format!("file{}", number % 4);
        if number < 4 {
            world.create(&path)?;
        }
        world.append(&path, 64)?;
        world.sync(&path)?;
    }
    Ok(())
}

/// More transactions than the log has room for.
fn wrap(world: &mut World) -> Result<()> {
    for number in 0..300 {
        let path = format!("file{}", number % 7);
        if number < 7 {
            world.create(&path)?;
        }
        world.append(&path, 512)?;
        world.sync(&path)?;
    }
    Ok(())
}

/// Blocks go from file to file.
fn reuse(world: &mut World) -> Result<()> {
    for round in 0..6 {
        for number in 0..3 {
            let path = format!("file{number}");
            if round > 0 {
                world.unlink(&path)?;
            }
            world.create(&path)?;
            world.write(&path, 0, (8 + number * 3) * KIB)?;
            if (round + number) % 2 == 0 {
                world.sync(&path)?;
            }
        }
    }
    world.sync_all()
}

/// Blocks of directories, and of the maps of large files, become those of files.
fn reuse_of_directories(world: &mut World) -> Result<()> {
    for round in 0..5 {
        let folder = format!("folder{round}");
        world.mkdir(&folder)?;
        for number in 0..25 {
            world.create(&format!("{folder}/a-name-that-takes-some-room-in-blocks-{number}"))?;
        }
        world.create("sparse")?;
        for number in 0..8 {
            world.write("sparse", number * 40_960, KIB)?;
        }
        world.sync_all()?;
        for number in 0..25 {
            world.unlink(&format!("{folder}/a-name-that-takes-some-room-in-blocks-{number}"))?;
        }
        world.remove("sparse")?;
        world.rmdir(&folder)?;
        let path = format!("file{round}");
        world.create(&path)?;
        world.write(&path, 0, 60 * KIB)?;
        world.sync(&path)?;
    }
    Ok(())
}

fn full(world: &mut World) -> Result<()> {
    world.create("kept")?;
    world.write("kept", 0, 4 * KIB)?;
    world.sync("kept")?;
    for round in 0..2 {
        let mut made = Vec::new();
        for number in 0.. {
            let path = format!("file{round}-{number}");
            let filled = world.create(&path).and_then(|()| world.write(&path, 0, 400 * KIB));
            match filled {
                Ok(()) => made.push(path),
                Err(error) if World::is_full(&error) => break,
                Err(error) => return Err(error),
            }
        }
        // What was written in part is known to nobody.
        world.fs.sync()?;
        for path in made {
            world.unlink(&path)?;
        }
        world.create("after")?;
        world.write("after", 0, 100 * KIB)?;
        world.sync("after")?;
        world.remove("after")?;
    }
    Ok(())
}

fn allocate(world: &mut World) -> Result<()> {
    world.create("file")?;
    match world.allocate("file", 0, 40 * KIB) {
        // A file without extents cannot.
        Err(error) if error.kind.errno() == mpage_block::Errno::OPNOTSUPP => {
            world.truncate("file", 40 * KIB)?;
        }
        other => other?,
    }
    world.sync("file")?;
    for number in 0..6 {
        world.write("file", number * 6144, KIB)?;
        world.sync("file")?;
    }
    world.write("file", 1024, 30 * KIB)
}

/// A block of metadata that begins as those of the log do: the target of a symbolic link.
fn magic(world: &mut World) -> Result<()> {
    let mut target = vec![0xc0, 0x3b, 0x39, 0x98, 1, 1, 1, 2];
    target.resize(300, b'x');
    for number in 0..4 {
        let name = format!("link{number}");
        let root = mpage_ext4::InodeNumber::ROOT;
        let _inode = world.fs.symlink(root, name.as_bytes(), &target, (0, 0))?;
        world.sync_names()?;
    }
    world.create("file")?;
    world.write("file", 0, KIB)?;
    world.sync("file")
}

/// More than the cache holds.
fn large(world: &mut World) -> Result<()> {
    for number in 0..4 {
        let path = format!("file{number}");
        world.create(&path)?;
        world.write(&path, 0, 300 * KIB)?;
        if number > 1 {
            world.truncate(&format!("file{}", number - 2), 4096)?;
        }
        world.sync(&path)?;
    }
    world.sync_all()
}
