//! An image that somebody has mounted: the kernel, or mpage.

use std::path::Path;

use super::served::Served;
use crate::failure::Failure;
use crate::rig::folder::Folder;
use crate::rig::mount::Mount;

/// Who mounts images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mounter {
    /// The kernel, through a loop device. What is asked of mpage has to hold here too.
    Kernel,
    /// `mpage mount`.
    Mpage,
}

impl Mounter {
    const ALL: [Mounter; 2] = [Mounter::Kernel, Mounter::Mpage];

    /// Its name in arguments and reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Mounter::Kernel => "kernel",
            Mounter::Mpage => "mpage",
        }
    }

    /// The mounter of that name.
    pub(super) fn named(name: &str) -> Result<Mounter, Failure> {
        let found = Mounter::ALL.into_iter().find(|mounter| mounter.name() == name);
        found.ok_or_else(|| {
            let names = Mounter::ALL.map(Mounter::name).join(", ");
            Failure::new(format!("nobody called {name} mounts: there are {names}"))
        })
    }

    /// Mounts the image or device at `image` at `name` in `folder`; `arguments` are for mpage.
    pub(super) fn mount(
        self,
        folder: &Folder,
        image: &Path,
        name: &str,
        arguments: &[&str],
    ) -> Result<Mounted, Failure> {
        let place = folder.path(name);
        Ok(match self {
            Mounter::Kernel => {
                let options = if image.starts_with("/dev") { "rw" } else { "loop" };
                Mounted::Kernel(Mount::new(image, place, options)?)
            }
            Mounter::Mpage => Mounted::Mpage(Served::start(folder, image, place, arguments)?),
        })
    }
}

/// A mounted image. Dropped, it is unmounted by force.
pub(super) enum Mounted {
    /// By the kernel.
    Kernel(Mount),
    /// By a process of mpage's.
    Mpage(Served),
}

impl Mounted {
    /// Where its files are.
    pub(super) fn path(&self) -> &Path {
        match self {
            Mounted::Kernel(mount) => mount.path(),
            Mounted::Mpage(served) => served.path(),
        }
    }

    /// Unmounts it as its mounter has it, which has to leave everything on the image.
    pub(super) fn unmount(self) -> Result<(), Failure> {
        match self {
            Mounted::Kernel(mount) => mount.unmount(),
            Mounted::Mpage(served) => served.unmount(),
        }
    }

    /// The process that serves it, if one does.
    pub(super) fn served(&self) -> Option<&Served> {
        match self {
            Mounted::Kernel(_) => None,
            Mounted::Mpage(served) => Some(served),
        }
    }
}
