//! A thread that writes files and syncs each, and knows which of them have to be there after.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mpage_locks::thread::{self, JoinHandle};
use mpage_locks::{Condvar, Mutex, clock};

use crate::failure::Failure;
use crate::rig::folder::word;
use crate::rig::image::Random;

/// How long a number of syncs may take.
const LIMIT: Duration = Duration::from_secs(120);

/// How many files were synced, and whether the thread goes on.
#[derive(Default)]
struct State {
    synced: u64,
    ended: bool,
    stopping: bool,
}

/// A thread that writes.
pub(super) struct Writer {
    state: Arc<(Mutex<State>, Condvar)>,
    thread: JoinHandle<io::Result<()>>,
}

impl Writer {
    /// Starts to write to `folder`, which is made, until something fails or [`Writer::stop`].
    pub(super) fn start(folder: PathBuf) -> Result<Writer, Failure> {
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let shared = Arc::clone(&state);
        let body = move || {
            let result = write(&folder, &shared);
            shared.0.lock().ended = true;
            shared.1.notify_all();
            result
        };
        let thread = thread::spawn("writer", body);
        let thread = thread.map_err(|error| Failure::at("a thread", &error))?;
        Ok(Writer { state, thread })
    }

    /// Waits until so many files are synced.
    pub(super) fn until_synced(&self, count: u64) -> Result<(), Failure> {
        let start_ns = clock::now_ns();
        let mut state = self.state.0.lock();
        while state.synced < count {
            let passed = Duration::from_nanos(clock::now_ns() - start_ns);
            let left = LIMIT.checked_sub(passed).filter(|_| !state.ended);
            let Some(left) = left else {
                let synced = state.synced;
                return Err(Failure::new(format!("{synced} of {count} files were synced")));
            };
            (state, _) = self.state.1.wait_for(&self.state.0, state, left);
        }
        Ok(())
    }

    /// Waits for what ends it, and returns how many files were synced, and the error.
    pub(super) fn ended(self) -> (u64, Option<io::Error>) {
        let result = self.thread.join().expect("a thread that writes does not panic");
        (self.state.0.lock().synced, result.err())
    }

    /// Has it end behind the file it is at.
    pub(super) fn stop(self) -> (u64, Option<io::Error>) {
        self.state.0.lock().stopping = true;
        self.ended()
    }
}

fn write(folder: &Path, state: &(Mutex<State>, Condvar)) -> io::Result<()> {
    fs::create_dir(folder)?;
    let directory = File::open(folder)?;
    for number in 0.. {
        let mut file = File::create(folder.join(number.to_string()))?;
        for part in content(number).chunks(10_000) {
            file.write_all(part)?;
        }
        file.sync_all()?;
        directory.sync_all()?;
        let mut state_now = state.0.lock();
        state_now.synced = number + 1;
        state.1.notify_all();
        if state_now.stopping {
            return Ok(());
        }
    }
    Ok(())
}

/// What is in file `number`.
fn content(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let length = random.below(150_000);
    let mut data = vec![0; usize::try_from(length).expect("a file fits into memory")];
    random.fill(&mut data);
    data
}

/// Finds the first `count` files in `folder` as they were synced.
pub(super) fn verify(folder: &Path, count: u64) -> Result<(), Failure> {
    for number in 0..count {
        let path = folder.join(number.to_string());
        let found = fs::read(&path).map_err(|error| Failure::at(&word(&path), &error))?;
        let expected = content(number);
        if found != expected {
            let differs =
                found.iter().zip(&expected).position(|(found, expected)| found != expected);
            return Err(Failure::new(format!(
                "{}: {} bytes, not {}; the first other one at {differs:?}",
                word(&path),
                found.len(),
                expected.len()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rig::folder::Folder;

    #[test]
    fn a_lost_file_and_a_changed_byte_are_found() {
        let folder = Folder::new("writer").expect("a folder is made");
        let place = folder.path("written");
        let writer = Writer::start(place.clone()).expect("a thread starts");
        writer.until_synced(3).expect("files are synced");
        let (synced, error) = writer.stop();
        assert!(synced >= 3 && error.is_none());
        verify(&place, synced).expect("all is as written");
        assert!(verify(&place, synced + 1).is_err());
        let mut data = content(1);
        data[0] ^= 1;
        fs::write(place.join("1"), data).unwrap();
        assert!(verify(&place, synced).is_err());
    }

    #[test]
    fn a_writer_that_fails_does_not_let_others_wait() {
        let writer = Writer::start("/nowhere/at/all".into()).expect("a thread starts");
        assert!(writer.until_synced(1).is_err());
        assert!(writer.ended().1.is_some());
    }
}
