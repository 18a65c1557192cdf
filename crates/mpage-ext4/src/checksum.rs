//! The checksums of metadata.
//!
//! With `metadata_csum` they are crc32c, without the inversions at both ends that others make, and
//! begin with the image's seed; with `uninit_bg` alone group descriptors have a crc16.
//!
//! Linux: Documentation/filesystems/ext4/checksums.rst.

use crc::{CRC_16_MODBUS, Crc};

/// The crc16 of group descriptors: polynomial 0x8005, begun with all ones.
const CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_MODBUS);

/// A crc32c that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checksum(pub(crate) u32);

impl Checksum {
    /// Nothing yet.
    pub(crate) const START: Checksum = Checksum(!0);

    /// With `bytes` behind what there is.
    #[must_use]
    pub(crate) fn of(self, bytes: &[u8]) -> Checksum {
        Checksum(!crc32c::crc32c_append(!self.0, bytes))
    }

    /// The lower half, where there is room for no more.
    pub(crate) fn low(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

/// The crc16 of all of `parts`, one behind the other.
pub(crate) fn crc16(parts: &[&[u8]]) -> u16 {
    let mut digest = CRC16.digest();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_goes_on_where_it_was() {
        let whole = Checksum::START.of(b"123456789");
        assert_eq!(whole, Checksum::START.of(b"1234").of(b"56789"));
        // The value of the catalogue of crcs is inverted at the end.
        assert_eq!(whole.0, !0xe306_9283);
        assert_eq!(crc16(&[b"1234", b"56789"]), 0x4b37);
    }
}
