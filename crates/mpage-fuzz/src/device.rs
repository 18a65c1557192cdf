//! The device of an image: it sees what goes where it must not.

use std::collections::BTreeSet;

use mpage_block::{Bio, BioOp, BlockDevice, Errno, Limits, SubmitError};
use mpage_locks::Mutex;

use crate::edit;
use crate::image::{CHUNK, Image};
use crate::layout::Layout;
use crate::program::CONTENT;

/// Bytes of the device behind the image, that belong to somebody else.
const BEHIND: u64 = 64 << 10;

/// What may be done to a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// It is read.
    Read,
    /// It is read and written.
    Write,
}

/// A device that begins with an image, and is longer. Does each bio inside of its submission.
pub(crate) struct ImageDevice {
    access: Access,
    image: Mutex<Image>,
    len: u64,
    /// Chunks that have no content of files.
    zone: BTreeSet<usize>,
    wrong: Mutex<Option<String>>,
}

impl ImageDevice {
    /// A device that begins with `image`.
    pub(crate) fn new(image: Image, access: Access) -> ImageDevice {
        let len = image.len() as u64;
        // What is in a log says it anew.
        let layout = Layout::of(&image).filter(|_| !edit::needs_recovery(&image));
        let zone = layout.map(|layout| layout.zone()).unwrap_or_default();
        ImageDevice { access, image: Mutex::new(image), len, zone, wrong: Mutex::default() }
    }

    /// What it holds now, as far as it is the image.
    pub(crate) fn image(&self) -> Image {
        self.image.lock().clone()
    }

    /// # Panics
    ///
    /// When something was done that may not be.
    pub(crate) fn check(&self) {
        let wrong = self.wrong.lock();
        assert!(wrong.is_none(), "{}", wrong.as_deref().unwrap_or_default());
    }

    /// Whether `bio` may be done; notes it if not.
    fn may_be(&self, bio: &Bio) -> bool {
        let changes = !matches!(bio.op(), BioOp::Read | BioOp::Flush);
        let end = bio.sector().offset_bytes().map_or(u64::MAX, |at| at + bio.bytes());
        let why = match () {
            () if end > self.len => "behind the image",
            () if changes && self.access == Access::Read => "of an image that is only read",
            () => return true,
        };
        let (op, sector, bytes) = (bio.op(), bio.sector(), bio.bytes());
        let told = format!("{op:?} of {bytes} bytes at {sector:?}, {why}");
        self.note(told);
        false
    }

    /// Looks where a change of chunk `number` goes that is none of a table.
    fn look(&self, number: usize, is_none: bool) {
        if is_none && self.zone.contains(&number) {
            self.note(format!(
                "content of files, or none, at KiB {number}, which is of the tables"
            ));
        }
    }

    fn note(&self, wrong: String) {
        let _first = self.wrong.lock().get_or_insert(wrong);
    }

    fn run(&self, bio: &Bio) {
        let start = bio.sector().offset_bytes().expect("it was looked at");
        let start = usize::try_from(start).expect("inside the image");
        let len = usize::try_from(bio.bytes()).expect("inside the image");
        let mut image = self.image.lock();
        let mut chunk = [0; CHUNK];
        let mut done = 0;
        while done < len {
            let count = CHUNK.min(len - done);
            let chunk = &mut chunk[..count];
            let number = (start + done) / CHUNK;
            match bio.op() {
                BioOp::Read => {
                    image.read(start + done, chunk);
                    bio.copy_in(done, chunk);
                }
                BioOp::Write => {
                    bio.copy_out(done, chunk);
                    self.look(number, chunk.iter().all(|byte| *byte == CONTENT));
                    image.write(start + done, chunk);
                }
                BioOp::Discard | BioOp::WriteZeroes => {
                    self.look(number, true);
                    image.zero(start + done..start + done + count);
                }
                BioOp::Flush => return,
            }
            done += count;
        }
    }
}

impl BlockDevice for ImageDevice {
    fn limits(&self) -> Limits {
        Limits {
            parallel: true,
            volatile_cache: true,
            discard: true,
            write_zeroes: true,
            capacity: Some(self.len + BEHIND),
            ..Limits::default()
        }
    }

    fn submit(&self, bio: Bio) -> Result<(), SubmitError> {
        let bio = SubmitError::unless_allowed(bio, &self.limits())?;
        if self.may_be(&bio) {
            self.run(&bio);
            bio.complete(Ok(()));
        } else {
            bio.complete(Err(Errno::IO));
        }
        Ok(())
    }
}
