//! Whether a directory is empty: found out before the change that removes it, step by step, since a
//! directory can be longer than all of memory, and a change has what it looks at in memory at once.
//!
//! 1. Who looks watches the directory first. A change that puts a name into it tells the watch
//!    before anybody sees that change.
//! 2. A directory without names in each step is empty for a change before which the watch was told
//!    nothing. Otherwise one has to look again.
//! 3. One with names is not empty while the step that met one still does.

use std::sync::Arc;

use mpage_block::Errno;
use mpage_locks::Mutex;
use mpage_locks::atomic::{AtomicBool, Ordering};

use crate::error::Result;
use crate::file_system::FileSystem;
use crate::inode::{Inode, InodeNumber};
use crate::layers::Attempt;
use crate::listing::{self, Cookie, Listing};
use crate::view::View;

/// The directories that are being looked at.
#[derive(Default)]
pub(crate) struct Watches(Mutex<Vec<Arc<Watch>>>);

struct Watch {
    directory: InodeNumber,
    got_name: AtomicBool,
}

impl Watches {
    /// `directory` gets a name.
    pub(crate) fn tell(&self, directory: InodeNumber) {
        for watch in self.0.lock().iter().filter(|watch| watch.directory == directory) {
            watch.got_name.store(true, Ordering::SeqCst);
        }
    }
}

/// What was seen of a directory.
pub(crate) struct Emptiness<'a> {
    watches: &'a Watches,
    watch: Arc<Watch>,
    /// Where a name was met, if one was.
    name_at: Option<Cookie>,
}

impl Drop for Emptiness<'_> {
    fn drop(&mut self) {
        self.watches.0.lock().retain(|watch| !Arc::ptr_eq(watch, &self.watch));
    }
}

impl Emptiness<'_> {
    /// Whether `directory` is empty as `view`, that of a change, has it; `None` when one has to
    /// look again.
    pub(crate) fn of(&self, view: &View<'_>, directory: &Inode) -> Attempt<Option<bool>> {
        if directory.number != self.watch.directory {
            return Ok(None);
        }
        match self.name_at {
            Some(at) => Ok(has_names(&listing::read(view, directory, at)?).then_some(false)),
            None => Ok((!self.watch.got_name.load(Ordering::SeqCst)).then_some(true)),
        }
    }
}

impl FileSystem {
    /// Looks whether `directory` is empty; `None` if it is no directory, or was removed.
    ///
    /// # Errors
    ///
    /// `Corrupt`; the device's.
    pub(crate) fn look_if_empty(&self, directory: InodeNumber) -> Result<Option<Emptiness<'_>>> {
        let watch = Arc::new(Watch { directory, got_name: AtomicBool::new(false) });
        let watches = &self.metadata.watches;
        watches.0.lock().push(Arc::clone(&watch));
        let mut seen = Emptiness { watches, watch, name_at: None };
        let mut from = Some(Cookie::START);
        while let Some(cookie) = from {
            let some = match self.read_directory(directory, cookie) {
                Err(error) if matches!(error.kind.errno(), Errno::NOENT | Errno::NOTDIR) => {
                    return Ok(None);
                }
                some => some?,
            };
            if has_names(&some) {
                seen.name_at = Some(cookie);
                break;
            }
            from = some.next;
        }
        Ok(Some(seen))
    }
}

fn has_names(listing: &Listing) -> bool {
    listing.entries.iter().any(|entry| !matches!(&entry.name[..], b"." | b".."))
}
