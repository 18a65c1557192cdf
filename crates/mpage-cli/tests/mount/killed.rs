//! A mount that is killed in the midst of work: the next one recovers by itself.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mpage_locks::atomic::{AtomicBool, Ordering};
use mpage_locks::{Condvar, Mutex, thread};

use crate::process::{Mounted, Place, umount};

/// How often it is killed, unless `MPAGE_KILLS` says.
const KILLS: usize = 4;
/// Threads that work.
const WORKERS: usize = 3;

/// Files that were synced, by their paths below the mount, and their lengths and bytes.
#[derive(Default)]
struct Synced {
    files: Mutex<Vec<(PathBuf, usize, u8)>>,
    more: Condvar,
    stop: AtomicBool,
}

fn kills() -> usize {
    std::env::var("MPAGE_KILLS").map_or(KILLS, |kills| kills.parse().unwrap())
}

/// Makes files until the mount is gone; notes each one that was synced.
fn work(point: &Path, name: &str, synced: &Synced) {
    for number in 0.. {
        if synced.stop.load(Ordering::Relaxed) {
            return;
        }
        let folder = PathBuf::from(format!("{name}-{}", number / 8));
        let path = folder.join(format!("file{number}"));
        let (len, byte) = (1000 + number % 7 * 9000, u8::try_from(number % 251).unwrap() + 1);
        let made = || {
            fs::create_dir_all(point.join(&folder))?;
            let mut file = File::create(point.join(&path))?;
            file.write_all(&vec![byte; len])?;
            file.sync_all()
        };
        if made().is_err() {
            return;
        }
        synced.files.lock().push((path.clone(), len, byte));
        synced.more.notify_all();
        // Every other one goes again, and is known no more.
        if number % 2 == 1 {
            synced.files.lock().retain(|(other, _, _)| *other != path);
            if fs::remove_file(point.join(&path)).is_err() {
                return;
            }
        }
    }
}

#[test]
fn what_was_synced_before_a_kill_is_there_and_the_image_is_whole() {
    let place = Place::new();
    for kill in 0..kills() {
        let mut mounted = Mounted::start(&place, &[]);
        let synced = Arc::<Synced>::default();
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (point, synced) = (place.point(), Arc::clone(&synced));
                let name = format!("kill{kill}-worker{worker}");
                thread::spawn("worker", move || work(&point, &name, &synced)).unwrap()
            })
            .collect();
        let wanted = 3 + kill * 17 % 41;
        let mut files = synced.files.lock();
        while files.len() < wanted {
            files = synced.more.wait(files);
        }
        drop(files);
        mounted.signal("KILL");
        assert_eq!(mounted.end().0, None);
        synced.stop.store(true, Ordering::Relaxed);
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        let (code, told) = umount(&place.point());
        assert_eq!(code, Some(1), "{told}");
        let mounted = Mounted::start(&place, &[]);
        for (path, len, byte) in synced.files.lock().iter() {
            let found = fs::read(place.point().join(path));
            let found = found.unwrap_or_else(|error| panic!("kill {kill}: {path:?}: {error}"));
            assert!(found == vec![*byte; *len], "kill {kill}: {path:?}");
        }
        // Room for the next.
        for entry in fs::read_dir(place.point()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().is_some_and(|name| name != "lost+found") {
                fs::remove_dir_all(path).unwrap();
            }
        }
        assert_eq!(umount(&place.point()), (Some(0), String::new()));
        drop(mounted);
        place.check();
    }
}
