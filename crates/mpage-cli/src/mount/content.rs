//! Content: read, written, cut, moved and made durable.

use std::cell::RefCell;
use std::ops::Range;

use fuser::FileHandle;
use mpage_block::Errno;
use mpage_ext4::{Error, ErrorKind, File, InodeNumber, Result};
use rustix::fs::FallocateFlags;

use super::handles::{Handle, OpenFile};
use super::privileges;
use super::shared::Shared;

/// The most that one request reads or writes.
pub(super) const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// The most that one request copies: what it has done by then it tells.
const COPY_BYTES_MAX: u64 = 64 << 20;

thread_local! {
    /// Where this thread's requests read to.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives `work` `len` bytes of this thread's buffer.
pub(super) fn with_buffer<T>(len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < len {
            buffer.resize(len, 0);
        }
        work(&mut buffer[..len])
    })
}

fn error(errno: Errno, what: &str) -> Error {
    Error { kind: ErrorKind::Errno(errno), detail: what.into() }
}

impl OpenFile {
    /// Reads from `offset` on as much as `to` takes; less only at the end of the file.
    ///
    /// # Errors
    ///
    /// Those of the file, if nothing could be read before.
    pub(super) fn read(&self, to: &mut [u8], offset: u64) -> Result<usize> {
        if self.is_direct && self.is_aligned(offset, to.len()) {
            return Ok(self.file.cached().read_direct_at(to, offset)?);
        }
        let mut done = 0;
        while done < to.len() {
            match self.file.read_at(&mut to[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Writes `from`; returns how much: less than all only when an error ended it.
    ///
    /// # Errors
    ///
    /// Those of the file, if nothing could be written before.
    pub(super) fn write(&self, from: &[u8], offset: u64) -> Result<usize> {
        if self.is_direct && self.is_aligned(offset, from.len()) {
            self.file.write_direct_at(from, offset)?;
            return Ok(from.len());
        }
        let mut done = 0;
        while done < from.len() {
            match self.file.write_at(&from[done..], offset + done as u64) {
                Ok(written) => done += written,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// True when bytes can go between the device and the program without the cache. What cannot
    /// goes through it, as if it were not asked to be direct.
    fn is_aligned(&self, offset: u64, len: usize) -> bool {
        let block = self.file.cached().mapping().block_size().bytes();
        offset.is_multiple_of(block) && (len as u64).is_multiple_of(block)
    }
}

impl Shared {
    /// Opens `inode`. Linux: `open(2)`, of whose flags only one matters here.
    ///
    /// # Errors
    ///
    /// Those of the image.
    pub(super) fn open(&self, inode: InodeNumber, flags: i32) -> Result<FileHandle> {
        let file = self.fs.open_file(inode)?;
        let direct = rustix::fs::OFlags::from_bits_retain(flags.cast_unsigned());
        let is_direct = direct.contains(rustix::fs::OFlags::DIRECT);
        Ok(self.handles.add(Handle::File(OpenFile::new(file, is_direct))))
    }

    /// Sets the size of `inode`, for a user who keeps its privileges or not.
    ///
    /// # Errors
    ///
    /// Those of the file.
    pub(super) fn set_size(&self, inode: InodeNumber, size: u64, takes_bits: bool) -> Result<()> {
        let file = self.fs.open_file(inode)?;
        file.set_len(size)?;
        // What cannot be so long keeps them.
        privileges::take_from(&self.fs, inode, takes_bits).map(drop)
    }

    /// Where data, or a hole if `hole`, is next from `offset` on. Linux: `lseek(2)`.
    ///
    /// # Errors
    ///
    /// `ENXIO` behind the end, and when there is no more data; those of the file.
    pub(super) fn seek(&self, handle: FileHandle, offset: u64, hole: bool) -> Result<u64> {
        let handle = self.handles.get(handle)?;
        let file = &handle.file()?.file;
        let mut at = offset;
        loop {
            if at >= file.size() {
                return match hole && offset < file.size() {
                    true => Ok(file.size()),
                    false => Err(error(Errno::NXIO, "behind the end")),
                };
            }
            let span = file.span_at(at)?;
            if span.hole == hole {
                return Ok(at);
            }
            at = span.bytes.end;
        }
    }

    /// Gets room for a part of a file, or gives some back. Linux: `fallocate(2)`.
    ///
    /// # Errors
    ///
    /// Those of the file; `EOPNOTSUPP` of modes that it does not know.
    pub(super) fn allocate(
        &self,
        handle: FileHandle,
        range: Range<u64>,
        mode: i32,
        takes_bits: bool,
    ) -> Result<()> {
        let handle = self.handles.get(handle)?;
        let open = handle.file()?;
        self.privileges.take(&self.fs, open, takes_bits)?;
        let flags = FallocateFlags::from_bits_retain(mode.cast_unsigned());
        let keeps_size = flags.contains(FallocateFlags::KEEP_SIZE);
        match flags - FallocateFlags::KEEP_SIZE {
            what if what.is_empty() => open.file.allocate(range, keeps_size),
            FallocateFlags::PUNCH_HOLE if keeps_size => open.file.punch_hole(range),
            FallocateFlags::ZERO_RANGE => open.file.zero_range(range, keeps_size),
            _ => Err(error(Errno::OPNOTSUPP, "a mode of fallocate")),
        }
    }

    /// Copies `count` bytes of one file into another; returns how many.
    /// Linux: `copy_file_range(2)`.
    ///
    /// # Errors
    ///
    /// Those of the files, if nothing could be copied before.
    pub(super) fn copy(
        &self,
        (from, from_offset): (FileHandle, u64),
        (to, to_offset): (FileHandle, u64),
        count: u64,
        takes_bits: bool,
    ) -> Result<u64> {
        let (from, to) = (self.handles.get(from)?, self.handles.get(to)?);
        let (from, to) = (from.file()?, to.file()?);
        self.privileges.take(&self.fs, to, takes_bits)?;
        let mut done = 0;
        while done < count.min(COPY_BYTES_MAX) {
            let piece = (count - done).min(REQUEST_BYTES_MAX.into());
            let piece = usize::try_from(piece).expect("a piece of a copy");
            let copied = with_buffer(piece, |buffer| {
                let read = from.read(buffer, from_offset + done)?;
                let written = to.write(&buffer[..read], to_offset + done)?;
                Ok((read, written))
            });
            match copied {
                Ok((read, written)) => {
                    done += written as u64;
                    if read < piece || written < read {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    /// Makes an open file durable, its times too unless `only_data`.
    ///
    /// # Errors
    ///
    /// Those of the file.
    pub(super) fn sync(&self, handle: FileHandle, only_data: bool) -> Result<()> {
        let handle = self.handles.get(handle)?;
        let file: &File = &handle.file()?.file;
        if only_data { file.fdatasync() } else { file.fsync() }
    }
}
