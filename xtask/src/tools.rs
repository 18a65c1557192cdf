//! The Debian packages that checks with other people's programs need.

use std::process::{Command, Stdio};

use crate::command::run;
use crate::failure::Failure;

const PACKAGES: &[&str] = &[
    "btrfs-progs",
    "e2fsprogs",
    "fio",
    "fuse2fs",
    "fuse3",
    "g++",
    "libnbd-bin",
    "nbdkit",
    "qemu-system-common",
    "qemu-utils",
    "sqlite3",
    "util-linux",
    "valgrind",
    "xfsprogs",
];

/// Installs the packages that are missing, and says which. Removes none.
pub(crate) fn install() -> Result<(), Failure> {
    let missing = missing(&installed()?);
    if missing.is_empty() {
        println!("tools: all {} packages are there", PACKAGES.len());
        return Ok(());
    }
    println!("tools: installing {}", missing.join(" "));
    run(apt_get().arg("update"))?;
    let install = ["install", "--yes", "--no-install-recommends", "--no-remove"];
    run(apt_get().args(install).args(&missing))?;
    println!("tools: installed {}", missing.join(" "));
    Ok(())
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    let _command = command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command
}

/// What dpkg says of the packages: a line with the name and the state of each one it knows.
fn installed() -> Result<String, Failure> {
    let mut query = Command::new("dpkg-query");
    let query = query.args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"]);
    let output = query.args(PACKAGES).stderr(Stdio::null()).output();
    let output = output.map_err(|error| Failure::at("dpkg-query", &error))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn missing(installed: &str) -> Vec<&'static str> {
    let there = |package: &str| {
        installed.lines().any(|line| line.strip_suffix(" installed") == Some(package))
    };
    PACKAGES.iter().copied().filter(|package| !there(package)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_are_there() {
        let others =
            PACKAGES.iter().filter(|package| !["fio", "fuse3", "nbdkit"].contains(package));
        let others: String = others.map(|package| format!("{package} installed\n")).collect();
        let known = format!("{others}fio config-files\nnbdkit installed\n");
        assert_eq!(missing(&known), ["fio", "fuse3"]);
    }
}
