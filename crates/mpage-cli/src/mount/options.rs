//! What `-o` can say, as with mount(8).

use fuser::MountOption;

use crate::failure::Failure;

/// What the words of `-o` ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) mount: Vec<MountOption>,
    pub(super) read_only: bool,
    pub(super) allow_other: bool,
}

const KNOWN: &str = "ro, rw, allow_other, dev, nodev, suid, nosuid, exec, noexec, sync, async, \
                     dirsync, noatime, default_permissions, fsname=NAME, subtype=NAME";

impl Words {
    /// Reads `lists`, each with commas between its words.
    ///
    /// # Errors
    ///
    /// A word that is not known.
    pub(super) fn read(lists: &[String]) -> Result<Words, Failure> {
        let mut words = Words::default();
        for word in lists.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty()) {
            words.add(word)?;
        }
        Ok(words)
    }

    fn add(&mut self, word: &str) -> Result<(), Failure> {
        let option = match word.split_once('=').unwrap_or((word, "")) {
            ("ro", "") => {
                self.read_only = true;
                return Ok(());
            }
            ("allow_other", "") => {
                self.allow_other = true;
                return Ok(());
            }
            // These are so in any case, or as the kernel has it for all of FUSE.
            ("rw" | "default_permissions" | "noatime" | "async" | "defaults", "") => return Ok(()),
            ("dev", "") => MountOption::Dev,
            ("nodev", "") => MountOption::NoDev,
            ("suid", "") => MountOption::Suid,
            ("nosuid", "") => MountOption::NoSuid,
            ("exec", "") => MountOption::Exec,
            ("noexec", "") => MountOption::NoExec,
            ("sync", "") => MountOption::Sync,
            ("dirsync", "") => MountOption::DirSync,
            ("fsname", name) if !name.is_empty() => MountOption::FSName(name.into()),
            ("subtype", name) if !name.is_empty() => MountOption::Subtype(name.into()),
            _ => return Err(Failure(format!("-o {word}: not known; there are: {KNOWN}"))),
        };
        self.mount.push(option);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_mount_has_them() {
        let words = Words::read(&["ro,noexec".into(), "allow_other,fsname=x".into()]).unwrap();
        assert!(words.read_only && words.allow_other);
        assert_eq!(words.mount, [MountOption::NoExec, MountOption::FSName("x".into())]);
    }

    #[test]
    fn an_unknown_word_is_named_and_so_are_the_known() {
        for word in ["frobnicate", "ro=1", "fsname=", "data=journal"] {
            let failure = Words::read(&[format!("rw,{word}")]).unwrap_err().to_string();
            assert!(failure.contains(word) && failure.contains("noexec"), "{failure}");
        }
    }
}
