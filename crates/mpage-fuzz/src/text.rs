//! Cases as text: what is kept of one that failed. It needs neither its base nor e2fsprogs.
//!
//! | line | meaning |
//! |---|---|
//! | `# words` | nothing |
//! | `target NAME` | what is done with the image |
//! | `least memory` | the cache has the least memory that it works with |
//! | `step HEX` | the next step, a record |
//! | `bytes N` | the image has so many, zeros where nothing else is said |
//! | `HEX: HEX` | from that byte on it holds those |
//! | `HEX xN: HEX` | from that byte on it holds those, so many times |

use std::error::Error;
use std::fmt::{self, Display, Formatter};

use crate::case::{Case, Target};
use crate::failure::{Failure, Result};
use crate::image::{CHUNK, Image};
use crate::input::{RECORD, Record};

/// Bytes of an image that one line tells.
const LINE: usize = 32;
/// Bytes of an image at most.
const IMAGE_MAX: usize = 64 << 20;

impl Display for Case {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "target {}", self.target.name())?;
        if self.least_memory {
            writeln!(f, "least memory")?;
        }
        for step in &self.steps {
            writeln!(f, "step {}", hex(&step.to_bytes()))?;
        }
        writeln!(f, "bytes {}", self.image.len())?;
        let bytes = self.image.bytes();
        let mut at = 0;
        while at < bytes.len() {
            let line = &bytes[at..at + LINE];
            let count = bytes[at..].chunks(LINE).take_while(|other| *other == line).count();
            match count {
                _ if line == [0; LINE] => {}
                1 => writeln!(f, "{at:06x}: {}", hex(line))?,
                _ => writeln!(f, "{at:06x} x{count}: {}", hex(line))?,
            }
            at += count * LINE;
        }
        Ok(())
    }
}

impl Case {
    /// The case that `text` tells.
    ///
    /// # Errors
    ///
    /// The first line that has no meaning, and why.
    pub fn of_text(text: &str) -> Result<Case> {
        let none = Image::new(Vec::new().into());
        let mut case =
            Case { target: Target::Read, least_memory: false, image: none, steps: Vec::new() };
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            read(&mut case, line).map_err(|error| Failure::new(format!("{line}: {error}")))?;
        }
        match case.image.is_empty() {
            true => Err(Failure::new("there is no image")),
            false => Ok(case),
        }
    }
}

/// Adds what `line` tells to `case`.
fn read(case: &mut Case, line: &str) -> std::result::Result<(), Box<dyn Error>> {
    if let Some((place, bytes)) = line.split_once(": ") {
        let (at, count) = place.split_once(" x").unwrap_or((place, "1"));
        let (at, count) = (usize::from_str_radix(at, 16)?, count.parse::<usize>()?);
        let bytes = bytes_of(bytes)?;
        if count > IMAGE_MAX || at + count * bytes.len() > case.image.len() {
            return Err("behind the image".into());
        }
        case.image.write(at, &bytes.repeat(count));
        return Ok(());
    }
    match line.split_once(' ').unwrap_or((line, "")) {
        ("target", name) => case.target = Target::of_name(name)?,
        ("least", "memory") => case.least_memory = true,
        ("step", record) => {
            let record: [u8; RECORD] = bytes_of(record)?.as_slice().try_into()?;
            case.steps.push(Record::from_bytes(record));
        }
        ("bytes", count) => {
            let count: usize = count.parse()?;
            if count > IMAGE_MAX || !count.is_multiple_of(CHUNK) {
                return Err("no image is as long".into());
            }
            case.image = Image::new(vec![0; count].into());
        }
        _ => return Err("that has no meaning".into()),
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(hex: &str) -> std::result::Result<Vec<u8>, Box<dyn Error>> {
    let pairs = (0..hex.len()).step_by(2).map(|at| hex.get(at..at + 2).ok_or("half a byte"));
    pairs.map(|pair| Ok(u8::from_str_radix(pair?, 16)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_its_text() {
        let mut image = Image::new(vec![0; 8 * CHUNK].into());
        image.write(1000, &[7; 100]);
        image.write(4000, &[0xff; 2000]);
        let steps = vec![Record { kind: 0x83, one: 1, two: 0x203, three: 0xffff_0001 }; 2];
        let case = Case { target: Target::Journal, least_memory: true, image, steps };
        let text = case.to_string();
        assert!(text.lines().count() < 15, "{text}");
        let again = Case::of_text(&format!("# a remark\n{text}")).expect("it is a case");
        assert_eq!(again.to_string(), text);
        assert_eq!(again.image.bytes(), case.image.bytes());
        for wrong in
            ["", "bytes 1000", "bytes 1024\n3ff: 0102", "bytes 1024\n0: 1", "bytes 1024\nx 1"]
        {
            assert!(Case::of_text(wrong).is_err(), "{wrong}");
        }
    }
}
