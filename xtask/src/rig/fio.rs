//! fio, on exports of NBD and on files, and what it reports.

use crate::command::{output, program};
use crate::failure::Failure;

/// The most seconds that fio may take: one that waits for an answer waits for ever.
const SECONDS_MAX: &str = "300";

/// What fio counted in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    /// Bytes moved, in KiB.
    pub(crate) kib: u64,
    /// KiB a second, over the run and the flush that ends it.
    pub(crate) kib_per_s: u64,
    /// Requests a second.
    pub(crate) iops: u64,
}

/// What fio counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Reads.
    pub(crate) read: Count,
    /// Writes.
    pub(crate) write: Count,
}

impl Report {
    /// Reads the line of `--output-format=terse --terse-version=3` among what fio printed.
    fn parse(text: &str) -> Result<Report, Failure> {
        let line = text.lines().rfind(|line| line.starts_with("3;"));
        let fields: Vec<&str> = line.unwrap_or_default().split(';').collect();
        let number = |index: usize| {
            let number = fields.get(index).copied().unwrap_or_default().parse();
            number.map_err(|_| Failure::new(format!("fio reports no field {index}: {text}")))
        };
        let count = |at: usize| {
            let (kib, kib_per_s, iops) = (number(at)?, number(at + 1)?, number(at + 2)?);
            Ok(Count { kib, kib_per_s, iops })
        };
        Ok(Report { read: count(5)?, write: count(46)? })
    }
}

/// The words that have fio work on the NBD export at `uri`.
pub(crate) fn nbd(uri: &str) -> Vec<String> {
    vec!["--ioengine=nbd".to_owned(), format!("--uri={uri}"), "--thread".to_owned()]
}

/// Runs fio with `arguments` at the `place` that other words tell, such as those of [`nbd`].
pub(crate) fn fio<S: AsRef<str>>(place: &[String], arguments: &[S]) -> Result<Report, Failure> {
    let limit = ["--signal=KILL", SECONDS_MAX, "fio", "--name=job", "--group_reporting"];
    let form = ["--output-format=terse", "--terse-version=3"];
    let place = place.iter().map(String::as_str);
    let arguments = arguments.iter().map(AsRef::as_ref);
    let words = limit.into_iter().chain(form).chain(place).chain(arguments);
    Report::parse(&output(&mut program("timeout", words))?)
}

/// Requests at random places that leave blocks which say whether they are the ones written last.
#[derive(Clone)]
pub(crate) struct Verified {
    /// Jobs, each with a connection and a part of the export, or with a file.
    pub(crate) jobs: u64,
    /// What each job writes, in MiB, all of it once.
    pub(crate) mib: u64,
    /// How far apart the jobs begin, in MiB.
    pub(crate) apart_mib: u64,
    /// The sizes of requests, as `bssplit` or `bs` has them.
    pub(crate) sizes: &'static str,
    /// The checksum in the blocks. Blocks of another one are not taken for these.
    pub(crate) checksum: &'static str,
    /// The seed of places and data.
    pub(crate) seed: u64,
}

impl Verified {
    /// Writes, and reads all of it back.
    pub(crate) fn write(&self, place: &[String]) -> Result<Report, Failure> {
        fio(place, &self.arguments())
    }

    /// Reads back what an earlier call wrote.
    pub(crate) fn verify(&self, place: &[String]) -> Result<Report, Failure> {
        let mut arguments = self.arguments();
        arguments.push("--verify_only=1".to_owned());
        fio(place, &arguments)
    }

    fn arguments(&self) -> Vec<String> {
        vec![
            "--rw=randwrite".to_owned(),
            self.sizes.to_owned(),
            format!("--size={}M", self.mib),
            format!("--offset_increment={}M", self.apart_mib),
            format!("--numjobs={}", self.jobs),
            "--iodepth=16".to_owned(),
            format!("--verify={}", self.checksum),
            "--verify_interval=512".to_owned(),
            "--verify_fatal=1".to_owned(),
            "--verify_state_save=0".to_owned(),
            "--end_fsync=1".to_owned(),
            format!("--randseed={}", self.seed),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_are_read_from_the_line_among_others() {
        let zeros = "0;".repeat(37);
        let line = format!("3;fio-3.33;job;0;0;64;32;8;2000;{zeros}128;256;512;500;0");
        let report = Report::parse(&format!("fio: connected\n{line}\n")).expect("a report");
        assert_eq!(report.read, Count { kib: 64, kib_per_s: 32, iops: 8 });
        assert_eq!(report.write, Count { kib: 128, kib_per_s: 256, iops: 512 });
        assert!(Report::parse("fio: no such engine\n").is_err());
    }
}
