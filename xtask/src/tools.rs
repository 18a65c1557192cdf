//! The Debian packages that checks with other people's programs need.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::command::run;
use crate::failure::Failure;
use crate::workspace::Site;

const PACKAGES: &[&str] = &[
    "acl",
    "btrfs-progs",
    "e2fsprogs",
    "fio",
    "fuse2fs",
    "fuse3",
    "g++",
    "git",
    "libnbd-bin",
    "nbdkit",
    "qemu-utils",
    "rsync",
    "sqlite3",
    "util-linux",
    "valgrind",
    "xfsprogs",
];

/// A program, and the package that has it. The package cannot be installed beside a qemu-utils of
/// another version: then the program is taken out of it.
const STORAGE_DAEMON: (&str, &str) = ("qemu-storage-daemon", "qemu-system-common");

/// Installs the packages that are missing, and says which. Removes none.
pub(crate) fn install() -> Result<(), Failure> {
    let missing = missing(&installed()?);
    let has_daemon = is_there(&storage_daemon());
    if missing.is_empty() && has_daemon {
        println!("tools: all {} packages are there", PACKAGES.len());
        return Ok(());
    }
    println!("tools: installing {}", missing.join(" "));
    run(apt_get().arg("update"))?;
    let install = ["install", "--yes", "--no-install-recommends", "--no-remove"];
    if !missing.is_empty() {
        run(apt_get().args(install).args(&missing))?;
    }
    let (name, package) = STORAGE_DAEMON;
    if !has_daemon && run(apt_get().args(install).arg(package)).is_err() {
        take_out(package)?;
    }
    if !is_there(&storage_daemon()) {
        return Err(Failure::new(format!("{name} of Debian's package {package} does not run")));
    }
    println!("tools: installed {}", missing.join(" "));
    Ok(())
}

/// Takes the files out of `package`, into the folder of what is built, and installs nothing.
fn take_out(package: &str) -> Result<(), Failure> {
    let folder = folder();
    println!("tools: {package} cannot be installed: its files go to {}", folder.display());
    std::fs::create_dir_all(&folder).map_err(|error| Failure::at("the tools", &error))?;
    run(apt_get().args(["download", package]).current_dir(&folder))?;
    let found = std::fs::read_dir(&folder).map_err(|error| Failure::at("the tools", &error))?;
    for entry in found {
        let path = entry.map_err(|error| Failure::at("the tools", &error))?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("--extract").arg(path).arg(&folder))?;
        }
    }
    Ok(())
}

fn folder() -> PathBuf {
    Site::own().target.join("tools")
}

/// How qemu-storage-daemon is called: by its name if it is installed.
pub(crate) fn storage_daemon() -> String {
    let (name, _) = STORAGE_DAEMON;
    let taken_out = folder().join("usr/bin").join(name);
    let is_installed = is_there(name);
    if is_installed { name.into() } else { taken_out.to_string_lossy().into_owned() }
}

fn is_there(program: &str) -> bool {
    let mut command = Command::new(program);
    let status = command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
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
