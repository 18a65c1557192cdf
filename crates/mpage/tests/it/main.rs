//! The promises of the library, held through its public interface and devices around a device.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rig;
mod smoke;
