//! Sizes as people write them: `64M`, `1G`, `4096`.

use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    /// Takes digits and a unit: none or `B`; `K`, `M`, `G`, `T` for powers of 1024, also as `KiB`.
    fn from_str(text: &str) -> Result<Size, String> {
        let wrong = || format!("{text:?} is no size: write a number and a unit, like 64M or 1G");
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kib" => 10,
            "m" | "mib" => 20,
            "g" | "gib" => 30,
            "t" | "tib" => 40,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let bytes = number.checked_mul(1 << shift).ok_or_else(wrong)?;
        Ok(Size(bytes))
    }
}

/// A count of bytes for people: in the largest unit of which there is at least one.
pub fn words(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    while unit + 1 < UNITS.len() && bytes >> (10 * (unit + 1)) > 0 {
        unit += 1;
    }
    let scale = 1_u64 << (10 * unit);
    if bytes.is_multiple_of(scale) {
        return format!("{} {}", bytes / scale, UNITS[unit]);
    }
    let tenths = u128::from(bytes) * 10 / u128::from(scale);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let sizes = [("0", 0), ("4096", 4096), ("512B", 512), ("64M", 64 << 20), ("1g", 1 << 30)];
        for (text, bytes) in sizes.into_iter().chain([("2KiB", 2048), ("3T", 3 << 40)]) {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "M", "64X", "-1", "1.5G", "1 G", "99999999999999999999", "18000000T"] {
            let error = text.parse::<Size>().expect_err(text);
            assert!(error.contains("64M"), "{error}");
        }
    }

    #[test]
    fn counts_are_told_in_the_largest_unit() {
        let counts = [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (1536, "1.5 KiB")];
        for (bytes, text) in counts.into_iter().chain([(64 << 20, "64 MiB"), (1 << 40, "1 TiB")]) {
            assert_eq!(words(bytes), text);
        }
    }
}
