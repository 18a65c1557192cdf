//! A SQLite database: many small transactions of two processes, in both kinds of journal.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use super::Run;
use super::image::{self, EXT4};
use crate::command::{output, program};
use crate::failure::Failure;
use crate::rig::daemon::Daemon;
use crate::rig::folder::{Folder, word};

/// How many processes write at once.
const WRITERS: u64 = 2;

/// Writes, and finds the database sound and whole, after mounting anew too.
pub(super) fn data_base(run: &Run) -> Result<String, Failure> {
    let folder = Folder::new("mounts-sqlite")?;
    let image = EXT4.image(&folder, "disk.img", 256 << 20)?;
    let transactions = if run.short { 60 } else { 2000 };
    let mounted = run.mounter.mount(&folder, &image, "mount", &[])?;
    let base = |journal: &str| mounted.path().join(format!("{journal}.db"));
    let bases = ["delete", "wal"].map(base);
    for (path, journal) in bases.iter().zip(["delete", "wal"]) {
        written(&folder, path, journal, transactions)?;
        sound(path, transactions * WRITERS)?;
    }
    mounted.unmount()?;
    image::check(&image)?;
    let mounted = run.mounter.mount(&folder, &image, "mount", &[])?;
    for path in &bases {
        sound(path, transactions * WRITERS)?;
    }
    mounted.unmount()?;
    Ok(format!(
        "{WRITERS} x {transactions} transactions with journals deleted and ahead: integrity ok, \
         after mounting anew too"
    ))
}

/// Makes the database, and has processes write to it.
fn written(folder: &Folder, path: &Path, journal: &str, transactions: u64) -> Result<(), Failure> {
    let made = sqlite(
        path,
        &format!("PRAGMA journal_mode={journal}; CREATE TABLE t(k INTEGER PRIMARY KEY, v TEXT);"),
    )?;
    if made.trim() != journal {
        return Err(Failure::new(format!("the journal's mode is {made}, not {journal}")));
    }
    let script = folder.path("transactions.sql");
    let insert = "INSERT INTO t(v) VALUES (hex(randomblob(abs(random()) % 900)));\n";
    let mut text = ".timeout 60000\n".to_owned();
    for transaction in 0..transactions {
        text.push_str(insert);
        if transaction % 10 == 0 {
            text.push_str(
                "BEGIN; DELETE FROM t; ROLLBACK;\nUPDATE t SET v = v || 'x' WHERE k % 7 = 0;\n",
            );
        }
    }
    std::fs::write(&script, text).map_err(|error| Failure::at(&word(&script), &error))?;
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let input = File::open(&script).map_err(|error| Failure::at(&word(&script), &error))?;
        let mut command = program("sqlite3", ["-bail"]);
        let _command = command.arg(path).stdin(Stdio::from(input));
        writers.push(Daemon::start(command, &folder.path(&format!("writer-{writer}.log")))?);
    }
    writers.into_iter().try_for_each(Daemon::succeed)
}

/// Has SQLite find nothing wrong in the database at `path`, which has so many `rows`.
fn sound(path: &Path, rows: u64) -> Result<(), Failure> {
    let printed = sqlite(path, "PRAGMA integrity_check; SELECT count(*) FROM t;")?;
    if printed != format!("ok\n{rows}\n") {
        return Err(Failure::new(format!("{}: {printed}", word(path))));
    }
    Ok(())
}

fn sqlite(path: &Path, statements: &str) -> Result<String, Failure> {
    output(program("sqlite3", ["-bail"]).arg(path).arg(statements))
}
