//! The passes behind the scan: what is revoked, and the writing.

use std::ops::Range;

use super::log::Log;
use super::record::{Kind, MAGIC};
use super::revoke::Revoked;
use super::scan;
use super::tags::Tags;
use crate::error::{Error, Result};

/// Gives the contents in the log to `write`, each with its block, in the order of the log.
/// `inside` are the blocks of the image. Returns the number behind that of the last transaction.
///
/// # Errors
///
/// Those of reading and writing; `Corrupt` when the log is damaged, before anything is written.
pub(super) fn replay(
    log: &Log<'_>,
    inside: &Range<u64>,
    write: impl FnMut(u64, &mut [u8]) -> Result<()>,
) -> Result<u32> {
    let end = scan::end(log)?;
    let revoked = revoked(log, end, inside)?;
    write_contents(log, end, &revoked, write)?;
    Ok(end)
}

/// What the transactions before `end` revoke; every one of their tags is checked.
fn revoked(log: &Log<'_>, end: u32, inside: &Range<u64>) -> Result<Revoked> {
    let journal = log.journal;
    let mut revoked = Revoked::default();
    log.walk().records(end, |walk, record| {
        if record.kind == Kind::Revoke {
            let is_inside = |block| inside.contains(&block);
            return revoked.take(journal, record.sequence, record.block, is_inside);
        }
        for tag in Tags::of(journal, record.block) {
            if !inside.contains(&tag.block) {
                return Err(Error::corrupt(format!(
                    "transaction {} of the journal has block {}, outside of the image",
                    record.sequence, tag.block
                )));
            }
            let _is_there = walk.skip();
        }
        Ok(())
    })?;
    Ok(revoked)
}

fn write_contents(
    log: &Log<'_>,
    end: u32,
    revoked: &Revoked,
    mut write: impl FnMut(u64, &mut [u8]) -> Result<()>,
) -> Result<()> {
    let mut content = log.buffer();
    log.walk().records(end, |walk, record| {
        if record.kind == Kind::Revoke {
            return Ok(());
        }
        for tag in Tags::of(log.journal, record.block) {
            if revoked.has(tag.block, record.sequence) {
                let _is_there = walk.skip();
                continue;
            }
            let is_there = walk.next(&mut content)?;
            if !is_there {
                let detail = format!("transaction {} of the journal went away", record.sequence);
                return Err(Error::corrupt(detail));
            }
            if tag.escaped {
                content[..4].copy_from_slice(&MAGIC.to_be_bytes());
            }
            write(tag.block, &mut content)?;
        }
        Ok(())
    })
}
