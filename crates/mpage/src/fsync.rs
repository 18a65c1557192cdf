//! Durability: fsync, fdatasync, sync_file_range, msync, sync.
//!
//! A sync takes a snapshot of what is dirty at the call, walks it, waits for every write of its
//! range that is in flight, and for every removal under way, since what that took from the snapshot
//! is durable only when its zeros are. Then it lets the block map write its metadata, and flushes
//! the device. Only then it looks at the error sequence. Whatever failed on the way, all that was
//! started is waited for.
//!
//! Linux: fs/sync.c; `file_write_and_wait_range()`, mm/filemap.c.

use std::ops::Range;
use std::sync::Arc;

use mpage_block::Errno;

use crate::address_space::{AddressSpace, SyncMode};
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::errseq::Cursor;
use crate::flush::flush_device;
use crate::get_block::SyncKind;
use crate::mpage::{mpage_writepages, write_dirty_range};
use crate::readahead::get_block_of;
use crate::truncate::{redo_removals, settle_size};
use crate::units::FILE_SIZE_MAX;
use crate::write_and_wait::{flush_mapping, start_integrity, write_and_wait};
use crate::writeback::WritebackControl;

/// The steps of `sync_file_range(2)`; each may be left out. All three make an integrity sync of the
/// range's data, without metadata and without a flush of the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RangeSteps {
    /// Wait for writes of the range that are in flight. `SYNC_FILE_RANGE_WAIT_BEFORE`
    pub wait_before: bool,
    /// Begin to write what is dirty; pages in flight are passed over unless both waits are asked
    /// for too. `SYNC_FILE_RANGE_WRITE`
    pub write: bool,
    /// Wait for writes of the range that are in flight then. `SYNC_FILE_RANGE_WAIT_AFTER`
    pub wait_after: bool,
}

/// Makes byte `range` durable: its data, the metadata `kind` asks for, and the device's cache.
/// Returns when every byte dirty at the call has had new I/O that completed, and is flushed.
///
/// # Errors
///
/// Errors `cursor` was not told of, and whatever keeps a byte of the range from being durable now:
/// with the byte ranges that failed, which stay dirty and are tried by the next sync.
pub(crate) fn sync_range(
    space: &AddressSpace,
    cursor: &Cursor,
    range: &Range<u64>,
    kind: SyncKind,
) -> Result<()> {
    until_quiet(space, || {
        let redone = redo_removals(space, range);
        let walked = write_and_wait(space, range).and(redone);
        space.wait_for_removals(range);
        let metadata = sync_metadata(space, kind);
        let flushed = flush_mapping(space);
        report(space, cursor, range, "sync", walked.and(metadata), flushed)
    })
}

/// Goes `round` again while it succeeds and an error was recorded meanwhile: that error may have
/// been told to a duplicate of the open, and the bytes it was about be on their way again, so that
/// nothing of it is left to see. One more round waits for them.
fn until_quiet(space: &AddressSpace, round: impl Fn() -> Result<()>) -> Result<()> {
    loop {
        let recorded = space.errors.recorded();
        let result = round();
        if result.is_err() || space.errors.recorded() == recorded {
            return result;
        }
    }
}

/// The error that keeps bytes of the mapping dirty.
fn failed_with(space: &AddressSpace) -> Errno {
    space.errors.last().unwrap_or(Errno::IO)
}

/// Lets the block map write its metadata; an error is recorded.
fn sync_metadata(space: &AddressSpace, kind: SyncKind) -> Result<()> {
    let Some(get_block) = &space.ops().get_block else { return Ok(()) };
    let sized = settle_size(space, &**get_block);
    let began = space.dev().failed_flushes();
    let synced = get_block.sync(kind, &|| space.size());
    if matches!(synced, Ok(true)) {
        let _number = space.note_direct_write(began);
    }
    sized.and(synced.map(drop)).inspect_err(|error| space.record_error(error.kind.errno()))
}

/// What a sync returns: success only if nothing of the range is left that is not durable.
fn report(
    space: &AddressSpace,
    cursor: &Cursor,
    range: &Range<u64>,
    op: &'static str,
    walked: Result<()>,
    flushed: std::result::Result<(), Errno>,
) -> Result<()> {
    let told = space.check_error(cursor);
    let failed = space.failed_ranges(range);
    let errno = told.or(flushed.err()).or(walked.as_ref().err().map(|e| e.kind.errno()));
    let errno = errno.or((!failed.is_empty()).then(|| failed_with(space)));
    let Some(errno) = errno else { return Ok(()) };
    let mut error = Error::new(ErrorKind::Device(errno), op);
    error.retained = !failed.is_empty();
    error.at = failed;
    if let Err(cause) = walked {
        error.detail = cause.detail;
    }
    Err(error)
}

/// The steps of `sync_file_range(2)` over byte `range`: no metadata, no flush of the device.
///
/// # Errors
///
/// As [`sync_range`], if a waiting step was asked for.
pub(crate) fn sync_file_range(
    space: &AddressSpace,
    cursor: &Cursor,
    range: &Range<u64>,
    steps: RangeSteps,
) -> Result<()> {
    if !steps.wait_before && !steps.wait_after {
        return if steps.write { clean_range(space, range) } else { Ok(()) };
    }
    until_quiet(space, || {
        if steps.wait_before {
            space.wait_for_writes(range);
        }
        let walked = match steps.write {
            true if steps.wait_before && steps.wait_after => start_integrity(space, range),
            true => clean_range(space, range),
            false => Ok(()),
        };
        if steps.wait_after {
            space.wait_for_writes(range);
        }
        report(space, cursor, range, "sync_file_range", walked, Ok(()))
    })
}

/// Begins to write what is dirty in byte `range`, passing over pages in use: advice, and no
/// promise. Linux: `filemap_flush()`.
pub(crate) fn clean_range(space: &AddressSpace, range: &Range<u64>) -> Result<()> {
    let Some(_cleaning) = space.try_begin_cleaning() else { return Ok(()) };
    let get_block = space.ops().get_block.clone();
    let mut wbc = WritebackControl::cleaning(i64::MAX);
    if space.has_leftovers() {
        mpage_writepages(space, &mut wbc, get_block.as_deref())?;
    }
    wbc.range = range.clone();
    wbc.pages_expected = space.splice(range, SyncMode::Cleaning) as u64;
    mpage_writepages(space, &mut wbc, get_block.as_deref())
}

/// Writes byte `range`, which the caller has just stored, to the device and waits for that. With
/// `durable` also past the device's volatile cache, with what is needed to read it back: size and
/// allocation. Walks nobody else's pages. `removals` were over before the bytes were stored, `None`
/// if one was not: what a later one took is durable when its zeros are. Linux:
/// `generic_write_sync()`, include/linux/fs.h.
///
/// # Errors
///
/// The write's own; the page stays dirty then.
pub(crate) fn write_through(
    space: &AddressSpace,
    range: &Range<u64>,
    durable: bool,
    removals: Option<u64>,
) -> Result<()> {
    let get_block = get_block_of(space)?;
    let fua = durable && space.dev().limits().fua;
    until_quiet(space, || {
        // Zeros in the range that a failed flush lost are what a crash would show.
        let redone = if durable { redo_removals(space, range) } else { Ok(()) };
        let walked = write_dirty_range(space, range, &*get_block, fua).and(redone);
        space.wait_for_writes(range);
        space.wait_for_removals(range);
        let metadata = if durable { sync_metadata(space, SyncKind::Data) } else { Ok(()) };
        // A page of the range may have been on its way already, in somebody else's ordinary write.
        let upto = match removals.is_some() && space.removals_over() == removals {
            true => space.last_unflushed_write(range),
            false => space.last_write(),
        };
        let flushed = match durable {
            true => flush_device(space.core(), space.dev(), upto),
            false => Ok(()),
        };
        let failed = space.failed_ranges(range);
        walked.and(metadata)?;
        match flushed.err().or((!failed.is_empty()).then(|| failed_with(space))) {
            None => Ok(()),
            Some(errno) => {
                let mut error = Error::new(ErrorKind::Device(errno), "write through").at(failed);
                error.retained = true;
                Err(error)
            }
        }
    })
}

/// Makes everything dirty in `spaces` at the call durable: starts all first, waits afterwards, and
/// flushes each device once. No handle's errors are used up.
///
/// # Errors
///
/// The first failure met; the others were tried.
pub(crate) fn sync_all(core: &Core, spaces: &[Arc<AddressSpace>]) -> Result<()> {
    let whole = 0..FILE_SIZE_MAX;
    let recorded: Vec<u64> = spaces.iter().map(|space| space.errors.recorded()).collect();
    let mut result = Ok(());
    let mut note = |outcome: Result<()>| {
        if result.is_ok() {
            result = outcome;
        }
    };
    // Writing a file's metadata dirties the device's own mapping, which therefore comes last.
    let is_device = |space: &AddressSpace| {
        let holds = |other: &Arc<AddressSpace>| {
            other.ops().alias.as_ref().is_some_and(|alias| alias.id() == space.id())
        };
        spaces.iter().any(holds)
    };
    let (devices, files): (Vec<_>, Vec<_>) = spaces.iter().partition(|space| is_device(space));
    for group in [files, devices] {
        for space in &group {
            note(redo_removals(space, &whole));
            note(start_integrity(space, &whole));
        }
        for space in group {
            space.wait_for_writes(&whole);
            space.wait_for_removals(&whole);
            note(sync_metadata(space, SyncKind::All));
        }
    }
    for (space, recorded) in spaces.iter().zip(recorded) {
        let flushed = flush_device(core, space.dev(), space.last_write());
        note(flushed.map_err(|errno| Error::new(ErrorKind::Device(errno), "sync")));
        // What failed meanwhile may be on its way again, and then is in no failed range.
        let failed = space.failed_ranges(&whole);
        if !failed.is_empty() || space.errors.recorded() != recorded {
            let kind = ErrorKind::Device(failed_with(space));
            let mut error = Error::new(kind, "sync");
            error.retained = !failed.is_empty();
            note(Err(error.at(failed)));
        }
    }
    result
}
