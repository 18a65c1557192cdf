//! What `-o` can say, as with mount(8).

use rustix::mount::MountFlags;

use crate::failure::Failure;

/// What the words of `-o` ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// For mount(2).
    pub flags: MountFlags,
    /// The same, for fusermount3.
    pub words: Vec<String>,
    /// Other users may use the mount.
    pub allow_other: bool,
    /// What is mounted, if it is not the image.
    pub name: Option<String>,
    /// The kind of mount, behind `fuse.`.
    pub subtype: String,
}

impl Default for Words {
    /// Programs of the image get no privileges, and its device files are none, unless somebody says
    /// otherwise.
    fn default() -> Words {
        Words {
            flags: MountFlags::NODEV | MountFlags::NOSUID,
            words: Vec::new(),
            allow_other: false,
            name: None,
            subtype: "mpage".into(),
        }
    }
}

const KNOWN: &str = "ro, rw, allow_other, dev, nodev, suid, nosuid, exec, noexec, sync, async, \
                     dirsync, noatime, default_permissions, fsname=NAME, subtype=NAME";

impl Words {
    /// Reads `lists`, each with commas between its words.
    ///
    /// # Errors
    ///
    /// A word that is not known.
    pub fn read(lists: &[String]) -> Result<Words, Failure> {
        let mut words = Words::default();
        for word in lists.iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty()) {
            words.add(word)?;
        }
        Ok(words)
    }

    fn add(&mut self, word: &str) -> Result<(), Failure> {
        let (flag, is_set) = match word.split_once('=').unwrap_or((word, "")) {
            ("ro", "") => (MountFlags::RDONLY, true),
            ("rw", "") => (MountFlags::RDONLY, false),
            ("dev", "") => (MountFlags::NODEV, false),
            ("nodev", "") => (MountFlags::NODEV, true),
            ("suid", "") => (MountFlags::NOSUID, false),
            ("nosuid", "") => (MountFlags::NOSUID, true),
            ("exec", "") => (MountFlags::NOEXEC, false),
            ("noexec", "") => (MountFlags::NOEXEC, true),
            ("sync", "") => (MountFlags::SYNCHRONOUS, true),
            ("async", "") => (MountFlags::SYNCHRONOUS, false),
            ("dirsync", "") => (MountFlags::DIRSYNC, true),
            ("noatime", "") => (MountFlags::NOATIME, true),
            // It is so in any case.
            ("default_permissions" | "defaults", "") => return Ok(()),
            ("allow_other", "") => {
                self.allow_other = true;
                return Ok(());
            }
            ("fsname", name) if !name.is_empty() => {
                self.name = Some(name.into());
                return Ok(());
            }
            ("subtype", name) if !name.is_empty() => {
                self.subtype = name.into();
                return Ok(());
            }
            _ => return Err(Failure(format!("-o {word}: not known; there are: {KNOWN}"))),
        };
        self.flags.set(flag, is_set);
        self.words.push(word.into());
        Ok(())
    }

    /// Nothing is to be written.
    pub fn set_read_only(&mut self) {
        self.flags |= MountFlags::RDONLY;
        self.words.push("ro".into());
    }

    /// True when nothing is to be written.
    pub fn is_read_only(&self) -> bool {
        self.flags.contains(MountFlags::RDONLY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_mount_has_them() {
        let lists = ["ro,noexec".into(), "allow_other,fsname=x,dev,subtype=y".into()];
        let words = Words::read(&lists).unwrap();
        assert!(words.is_read_only() && words.allow_other);
        assert_eq!(words.flags, MountFlags::NOSUID | MountFlags::RDONLY | MountFlags::NOEXEC);
        assert_eq!(words.words, ["ro", "noexec", "dev"]);
        assert_eq!((words.name.as_deref(), &words.subtype[..]), (Some("x"), "y"));
        assert!(!Words::read(&["ro,rw".into()]).unwrap().is_read_only(), "the last one counts");
    }

    #[test]
    fn an_unknown_word_is_named_and_so_are_the_known() {
        for word in ["frobnicate", "ro=1", "fsname=", "data=journal"] {
            let failure = Words::read(&[format!("rw,{word}")]).unwrap_err().to_string();
            assert!(failure.contains(word) && failure.contains("noexec"), "{failure}");
        }
    }
}
