//! The promises of the library, held through its public interface and devices around a device.

#![cfg(not(any(mpage_loom, mpage_shuttle)))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod answers;
mod cleaning;
mod device_flush;
mod direct;
mod errors;
mod faults;
mod files;
mod flusher;
mod founding;
mod get_block;
mod image;
mod invalidate;
mod memory;
mod pinned;
mod power_cut;
mod readahead;
mod regular;
mod removal;
mod rig;
mod sets;
mod shape;
mod smoke;
mod stack;
mod sync;
mod table;
mod truncate;
mod urgent;
mod walk;
